"""Whatever can change a stage's result changes its key, and nothing else does: every field, every input, every file of code."""

from __future__ import annotations

import ast
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from dynconf_core.data.images import Normalisation
from dynconf_core.experiment.equal_code import declared, equal_code
from dynconf_core.experiment.equal_code import read as read_table
from dynconf_core.experiment.job import Handle, Job, RunContext
from dynconf_core.experiment.plan import Plan
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.stages import ROOT, STAGES, WITHOUT_INFLUENCE, Stage, stage, stage_names, stages_of
from dynconf_core.schemes.qffs import QFFSScheme
from dynconf_core.store.fingerprint import fingerprint, reached
from dynconf_core.store.source import digest_and_imports

PLAN = resolve("cifar10-resnet18-qcfs", "quick")
HANDLE = Handle("x", "0" * 64, "1" * 64, "ran")

# Fields and inputs

NETWORK = {"train", "convert", "collect_calibration", "collect_test"}
COLLECT = {"collect_calibration", "collect_test"}
CHANGES: dict[str, tuple[Any, set[str]]] = {
    "setting": ("other", COLLECT | {"evaluate"}),
    "profile": ("other", COLLECT | {"evaluate"}),
    "data.name": ("imagenette", NETWORK | {"evaluate"}),
    "data.stands_in_for": ("other", COLLECT | {"evaluate"}),
    "data.resolution": (16, NETWORK),
    "data.train": (7, NETWORK),
    "data.calibration": (7, NETWORK),
    "data.classes": (7, NETWORK),
    "data.stem": ("imagenet", NETWORK),
    "data.normalisation": ("imagenette", NETWORK),
    "data.path": ("own.npz", NETWORK),  # other code reads it; where it lies is in no key
    "data.sample": ((1, 8, 8), NETWORK),
    "data.expects": (Normalisation((0.5,), (0.5,)), NETWORK),
    "architecture": ("vgg16", NETWORK),
    "width": (0.125, NETWORK | {"evaluate"}),
    "scheme.levels": (8, NETWORK),
    "scheme.initial_potential": (0.25, {"convert"}),
    "time_steps": (5, {"convert"} | COLLECT),
    "recipe.epochs": (7, {"train"}),
    "recipe.batch_size": (7, {"train"}),
    "recipe.learning_rate": (0.7, {"train"}),
    "recipe.augmentation": (("flip",), {"train"}),
    "recipe.initial_threshold": (7.0, {"train"}),
    "recipe.momentum": (0.7, {"train"}),
    "recipe.weight_decay": (0.7, {"train"}),
    "recipe.warm_up": (0.7, {"train"}),
    "recipe.nesterov": (True, {"train"}),
    "recipe.label_smoothing": (0.1, {"train"}),
    "recipe.averaging": (0.9, {"train"}),
    "recipe.zero_gamma": (True, {"train"}),
    "recipe.decay_thresholds": (False, {"train"}),
    "recipe.decay_norms": (False, {"train"}),
    "recipe.initial_weights": (__file__, {"train"}),
    "recipe.threshold_percentile": (90.0, {"train"}),
    "recipe.finer_start": (2, {"train"}),
    "recipe.noise": (0.5, {"train"}),
    "recipe.rcs": (0.1, {"train"}),
    "search.rule": ("entropy", {"search"}),
    "search.smoothing": ("mean", {"search"}),
    "search.alpha": (7.0, {"search"}),
    "search.max_drop": (0.07, {"search"}),
    "search.trials": (7, {"search"}),
    "search.readout": ("decoded", {"search", "evaluate"}),
    "seed": (7, {"train", "search", "evaluate"} | COLLECT),
    "fixed_point": (False, {"convert"} | COLLECT),
    "fine_tuning.epochs": (2, {"evaluate"} | COLLECT),
    "fine_tuning.steps": (3, set()),
    "fine_tuning.learning_rate": (0.02, set()),
    "fine_tuning.settled": (0.25, set()),
    "fine_tuning.distilled": (0.25, set()),
    "fine_tuning.potentials": (True, set()),
    "given_tuned.epochs": (2, {"evaluate"} | COLLECT),
    "given_tuned.steps": (3, set()),
    "given_tuned.learning_rate": (0.02, set()),
    "given_tuned.settled": (0.25, set()),
    "given_tuned.distilled": (0.25, set()),
    "given_tuned.potentials": (True, set()),
    "published": (None, set()),
    "paper_time_steps": (7, {"evaluate"}),
}


def leaves(value: Any, prefix: str = "") -> Iterator[str]:
    """The names of all fields, those of the dataclasses within with dots."""
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner) and field.name != "published":
            yield from leaves(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def changed(plan: Any, name: str, value: Any) -> Any:
    first, _, rest = name.partition(".")
    return replace(plan, **{first: changed(getattr(plan, first), rest, value) if rest else value})


def keys(plan: Plan, digest: str = "d", **inputs: Handle) -> dict[str, str]:
    """The key of each stage."""
    job = Job(plan, RunContext(Path("home"), Path("data"), "cpu"), digest)
    return {one.name: one.key(job, {**dict.fromkeys(one.inputs, HANDLE), **inputs}).key for one in STAGES}


def stale(plan: Plan, digest: str = "d", **inputs: Handle) -> set[str]:
    """The stages whose keys differ from those of ``PLAN``."""
    before, after = keys(PLAN), keys(plan, digest, **inputs)
    return {name for name in before if before[name] != after[name]}


def test_every_field_makes_exactly_the_stages_stale_that_read_it() -> None:
    assert set(leaves(PLAN)) - set(CHANGES) == {"method"}, "a new field belongs in the table"
    assert not set(CHANGES) - set(leaves(PLAN))
    for name, (value, expected) in CHANGES.items():
        assert stale(changed(PLAN, name, value)) == expected, name
    assert stale(replace(PLAN, method="qffs", scheme=QFFSScheme(2))) == NETWORK


def test_a_network_that_is_fine_tuned_has_one_more_stage_that_conversion_reads() -> None:
    tuned = changed(PLAN, "fine_tuning.epochs", 2)
    assert [one.name for one in stages_of(PLAN)] == [one.name for one in STAGES]
    assert [one.name for one in stages_of(tuned)] == list(stage_names()) == ["train", "fine_tune", *list(keys(PLAN))[1:]]
    assert {one.name: dict(one.inputs)["train"] for one in stages_of(tuned) if "train" in one.inputs} == {
        "fine_tune": "train",
        "convert": "fine_tune",
        **dict.fromkeys(COLLECT, "train"),
    }

    def key(plan: Plan) -> str:
        return stage("fine_tune").key(Job(plan, RunContext(Path("home"), Path("data"), "cpu"), "d"), {"train": HANDLE}).key

    read = (*(name for name in CHANGES if name.startswith("fine_tuning.") and name != "fine_tuning.epochs"), "seed", "width")
    others = ("search.alpha", "recipe.epochs", "recipe.learning_rate", "fixed_point")
    assert all(key(changed(tuned, name, CHANGES[name][0])) != key(tuned) for name in (*read, "recipe.batch_size"))
    assert all(key(changed(tuned, name, CHANGES[name][0])) == key(tuned) for name in others)
    assert key(changed(tuned, "fine_tuning.epochs", 3)) != key(tuned)
    assert "potentials" not in tuned.fine_tuning.as_dict(tuned.recipe)


def test_every_input_makes_exactly_the_stages_stale_that_read_it() -> None:
    assert stale(PLAN, "e") == NETWORK
    other = replace(HANDLE, digest="2" * 64)
    for role in {role for one in STAGES for role in one.inputs}:
        assert stale(PLAN, **{role: other}) == {one.name for one in STAGES if role in one.inputs}
    elsewhere = replace(HANDLE, key="3" * 64, outcome="cached")
    assert not stale(PLAN, **{role: elsewhere for one in STAGES for role in one.inputs})


# Code


@cache
def files_of_stages() -> dict[Path, tuple[Stage, ...]]:
    """Every file that a key covers, with the stages whose keys do."""
    found: dict[Path, tuple[Stage, ...]] = {}
    for one in STAGES:
        for file in one.code(PLAN):
            found[file] = (*found.get(file, ()), one)
    return found


def counted(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those in texts for people, annotations of functions and registries."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        text = isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr)
        note = isinstance(tree, ast.arg) or (isinstance(tree, ast.FunctionDef) and child is tree.returns)
        registry = isinstance(child, ast.Call) and getattr(child.func, "id", "") == "Registry"
        checking = isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING"
        if not (text or note or registry or checking):
            yield from counted(child)


def other_number(tree: ast.Module, draw: random.Random) -> bool:
    found = [node for node in counted(tree) if isinstance(node, ast.Constant) and type(node.value) in (int, float)]
    if found:
        node = draw.choice(found)
        node.value = node.value * 2 + 1  # type: ignore[operator]
    return bool(found)


def other_operator(tree: ast.Module, draw: random.Random) -> bool:
    found = [node for node in counted(tree) if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.BitOr)]
    if found:
        node = draw.choice(found)
        node.op = ast.Sub() if not isinstance(node.op, ast.Sub) else ast.Add()
    return bool(found)


def other_comparison(tree: ast.Module, draw: random.Random) -> bool:
    found = [node for node in counted(tree) if isinstance(node, ast.Compare)]
    if found:
        node = draw.choice(found)
        node.ops[0] = ast.Lt() if not isinstance(node.ops[0], ast.Lt) else ast.LtE()
    return bool(found)


def without_a_statement(tree: ast.Module, draw: random.Random) -> bool:
    bodies = [node.body for node in counted(tree) if isinstance(getattr(node, "body", None), list)]
    found = [(body, place) for body in bodies for place, one in enumerate(body) if len(body) > 1 and not bare(one)]
    if found:
        body, place = draw.choice(found)
        del body[place]
    return bool(found)


def bare(node: ast.stmt) -> bool:
    return (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) or isinstance(node, ast.Assert)


def other_docstrings(tree: ast.Module, draw: random.Random) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("Another one."))
    return True


def other_errors(tree: ast.Module, draw: random.Random) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            texts = [isinstance(one, ast.JoinedStr) or isinstance(getattr(one, "value", 0), str) for one in node.exc.args]
            node.exc.args = [ast.Constant("x") if text else one for text, one in zip(texts, node.exc.args, strict=True)]
    return True


Mutation = Callable[[ast.Module, random.Random], bool]
RELEVANT: tuple[Mutation, ...] = (other_number, other_operator, other_comparison, without_a_statement)
IRRELEVANT: tuple[Mutation, ...] = (other_docstrings, other_errors)


def test_a_line_of_any_file_that_counts_changes_its_digest_and_words_do_not() -> None:
    """Each file is changed in three of these ways, drawn at random."""
    draw, tried = random.Random(0), dict.fromkeys((*RELEVANT, *IRRELEVANT), 0)
    for file in files_of_stages():
        source = file.read_text()
        before, _ = digest_and_imports(source.encode())
        for mutation in draw.sample((*RELEVANT, *IRRELEVANT), 3):
            tree = ast.parse(source)
            if mutation(tree, draw):
                tried[mutation] += 1
                after = "# a comment\n" + ast.unparse(tree)
                same = digest_and_imports(after.encode())[0] == before
                assert same is (mutation in IRRELEVANT), f"{mutation.__name__} in {file}"
    assert all(count > 40 for count in tried.values()), tried


def test_a_changed_file_makes_exactly_the_stages_stale_that_reach_it(tmp_path: Path) -> None:
    """In a copy of the project, whose fingerprints are those of the original."""
    for folder in ("dynconf_core", "tasks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))

    def prints() -> dict[str, str]:
        found = {}
        for one in STAGES:
            names = {tmp_path / file.relative_to(ROOT): name for name, file in one.modules(PLAN).items()}
            found[one.name] = fingerprint(list(names), tmp_path, names=names, without=WITHOUT_INFLUENCE, equal=equal_code())
        return found

    before = prints()
    for one in STAGES:
        names = {file: name for name, file in one.modules(PLAN).items()}
        assert before[one.name] == fingerprint(list(names), ROOT, names=names, without=WITHOUT_INFLUENCE, equal=equal_code())
    reaching = {file.relative_to(ROOT): {one.name for one in stages} for file, stages in files_of_stages().items()}
    every = sorted(tmp_path.rglob("*.py"))
    counting = [file for file in every if file.relative_to(tmp_path) in reaching]
    for file in (*random.Random(1).sample(counting, 9), *random.Random(1).sample(every, 4)):
        source = file.read_text()
        file.write_text(source + "\nMORE = 1\n")
        after = prints()
        file.write_text(source)
        found = {name for name in before if before[name] != after[name]}
        assert found == reaching.get(file.relative_to(tmp_path), set()), file


def test_what_has_no_influence_is_reached_and_hides_nothing_else() -> None:
    """Every exception is needed, has a reason, and leads to no other file, but for those of training in the plan."""
    hidden = set()
    for one in STAGES:
        hidden |= set(reached(list(one.modules(PLAN).values()), ROOT)) - set(one.code(PLAN))
    recipe, tuning = (ROOT / "dynconf_core/experiment" / name for name in ("recipe.py", "fine_tuning.py"))
    names = ("data/__init__.py", "data/digests.py", "data/images.py", "schemes/__init__.py", "schemes/field.py")
    of_recipe = {ROOT / "dynconf_core" / name for name in names}  # the digest of its weights, and what its fields may be
    assert {file.relative_to(ROOT).as_posix() for file in hidden - {recipe, tuning} - of_recipe} == set(WITHOUT_INFLUENCE)
    assert of_recipe <= set(stage("train").code(PLAN))
    assert recipe in stage("train").code(PLAN)
    assert {recipe, tuning} <= set(stage("fine_tune").code(PLAN))
    assert all(WITHOUT_INFLUENCE.values())


# Source that stands for older source


def test_declared_source_keeps_the_fingerprint(tmp_path: Path) -> None:
    old, new = b"x = 1 + 1\n", b"x = 2\n"
    file = tmp_path / "a.py"
    file.write_bytes(old)
    before = fingerprint([file], tmp_path)
    file.write_bytes(new)
    (entry,) = declared("a.py", old, new, [])
    assert fingerprint([file], tmp_path) != before
    assert fingerprint([file], tmp_path, equal={entry["now"]: entry["was"]}) == before
    newer = b"x = 3 - 1\n"
    (later,) = declared("a.py", new, newer, [entry])
    assert later["was"] == entry["was"] and later["now"] == digest_and_imports(newer)[0], "what it stood for stays"
    assert declared("a.py", newer, old, [later]) == [], "the old source needs no entry"
    assert declared("b.py", b"y = 1\n", b"y = 1 # same\n", [later]) == [later]


def test_declared_files_are_as_they_were_declared() -> None:
    """An entry of a file that has changed since is of no use: remove it, or declare the file again."""
    for entry in read_table():
        assert entry["now"] == digest_and_imports((ROOT / entry["file"]).read_bytes())[0], entry["file"]
