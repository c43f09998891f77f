"""A measure from outside the package can be used everywhere, and no file can make its code run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Command, command_on_traces, strictly
from measures_from_outside import ShareOfVotes
from processes import script
from study_cases import made
from torch import Tensor, nn

from dynconf_core.activations.lsq import LSQ
from dynconf_core.choosing.candidates import candidates
from dynconf_core.choosing.comparison import compare
from dynconf_core.confidence.gap import Gap
from dynconf_core.confidence.max_softmax import MaxSoftmax
from dynconf_core.confidence.measure import (
    MEASURES,
    ConfidenceMeasure,
    State,
    StepOutputs,
    measure_of,
    measures_of,
    own_measures,
    scores_of,
)
from dynconf_core.confidence.smoothing import PLAIN, Smoothing
from dynconf_core.conversion.convert import convert
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.errors import InputError
from dynconf_core.evaluation.analysis import analyse
from dynconf_core.exit.agent import ExitAgent
from dynconf_core.exit.rule import Rule
from dynconf_core.experiment.overrides import applied, typed
from dynconf_core.experiment.profiles import resolve
from dynconf_core.experiment.stages import stage
from dynconf_core.results.records import plain
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.live import run_until_confident
from dynconf_core.traces.schema import Traces

NAMES = ("max_softmax", "entropy", "gap", "patience", "learned")
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "own_measure.py"
CALIBRATION, TEST = made(80, 1, 6), made(70, 2, 6)
RULE = Rule(ShareOfVotes(0.5), Smoothing("sum", 2.0), 0.75)


def plain_shares(traces: Traces, prior: float) -> np.ndarray:
    """(N, T), by loops."""
    found = np.empty((traces.samples, traces.time_steps))
    for sample, logits in enumerate(traces.logits.astype(float).cumsum(axis=1)):
        votes = np.full(traces.classes, prior)
        for step, z in enumerate(logits):
            votes[z.argmax()] += 1
            found[sample, step] = votes[z.argmax()] / votes.sum()
    return found


def test_scores_of_whole_traces_come_from_its_steps() -> None:
    for traces in (CALIBRATION, made(9, 3, 5, 40)):  # so many samples and classes that they are taken in several pieces
        np.testing.assert_array_equal(RULE.scores(traces), plain_shares(traces, 0.5))
    many = made(3000, 4, 3, 12)
    np.testing.assert_array_equal(RULE.scores(many), plain_shares(many, 0.5))


def test_it_takes_part_in_the_choice_the_comparison_and_the_guarantee() -> None:
    found = candidates(CALIBRATION, 0, [*MEASURES.names(), ShareOfVotes], readout="plain")
    own = [candidate for candidate in found if candidate.measure == ShareOfVotes()]
    assert [one.smoothing for one in own] == [Smoothing("sum", 2.0), Smoothing("mean", 0.5)] and found[-2:] == own
    rows = compare(CALIBRATION, TEST, measures=[*own_measures(), ShareOfVotes]).rows
    assert [row.measure for row in rows if row.max_drop == 0] == [*NAMES, "share_of_votes"]

    analysis = analyse(CALIBRATION, TEST, measure=ShareOfVotes, epsilon=0.3, delta=0.3, max_drop=0.05)
    assert analysis.rule.measure == ShareOfVotes() and analysis.record.rule.measure == "share_of_votes"
    assert [entry.measure for entry in analysis.record.rules] == [*NAMES, "share_of_votes"]
    assert set(analysis.test_fronts) == {*NAMES, "share_of_votes"} and analysis.guarantee is not None
    assert analysis.record.rule.threshold_shown == 100 * analysis.uncertified.threshold
    assert analysis.record.rule.source == "measures_from_outside:ShareOfVotes"
    without = analyse(CALIBRATION, TEST, epsilon=0.3, delta=0.3, max_drop=0.05)
    others = tuple(row for row in analysis.record.comparison if row.measure != "share_of_votes")
    assert others == without.record.comparison, "it changes nothing for the others"


def test_a_fixed_smoothing_is_its_only_one() -> None:
    analysis = analyse(CALIBRATION, TEST, measure=ShareOfVotes, smoothing=Smoothing("mean", 3.0))
    assert analysis.rule.smoothing == Smoothing("mean", 3.0)
    with pytest.raises(InputError, match=r"the measure 'patience' uses no smoothing"):
        analyse(CALIBRATION, TEST, measure="patience", smoothing=PLAIN)
    with pytest.raises(InputError, match="no measure is given"):
        analyse(CALIBRATION, TEST, smoothing=PLAIN)


def test_its_rule_as_a_file(tmp_path: Path) -> None:
    file = RULE.save(tmp_path / "rule.json")
    entry = json.loads(file.read_text())
    assert (entry["measure"], entry["source"]) == ("share_of_votes", "measures_from_outside:ShareOfVotes")
    assert entry["parameters"] == {"prior": 0.5}
    for given in (ShareOfVotes, ShareOfVotes(0.1), "measures_from_outside:ShareOfVotes"):
        assert Rule.load(file, given) == RULE == ExitAgent.from_json(file, given).rule
    with pytest.raises(InputError, match=r"rule\.json.*measures_from_outside:ShareOfVotes.*measure=.*--rule"):
        Rule.load(file)
    with pytest.raises(InputError, match="'share_of_votes', not 'gap'"):
        Rule.load(file, "gap")
    with pytest.raises(InputError, match="does not take the parameters"):
        Rule.from_json({**entry, "parameters": {"posterior": 1}}, ShareOfVotes)
    assert "source" not in Rule("gap", PLAIN, 1.0).to_json()


@pytest.mark.parametrize("name", ["trap", "trap:Trap", "os:system"])
@pytest.mark.parametrize("source", [None, "trap:Trap"])
def test_loading_a_rule_imports_nothing(name: str, source: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('the trap has run')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    entry = {**Rule("gap", PLAIN, 1.0).to_json(), "measure": name} | ({} if source is None else {"source": source})
    (tmp_path / "rule.json").write_text(json.dumps(entry))
    before = set(sys.modules)
    for load in (Rule.load, ExitAgent.from_json):
        with pytest.raises(InputError, match="trap" if source else "unknown"):
            load(tmp_path / "rule.json")
    assert "trap" not in sys.modules and set(sys.modules) == before


class Faulty(ConfidenceMeasure):
    """Returns what the test specifies."""

    name = "faulty"

    def __init__(self, given: Tensor) -> None:
        self.given = given

    def step(self, outputs: StepOutputs, state: State) -> tuple[Tensor, State]:
        return self.given, state


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(3, 4), r"'faulty' gives scores of the shape \(3, 4\) for 3 samples"),
        (torch.zeros(()), "one score a sample"),
        (torch.tensor([0.0, float("nan"), 1.0]), "'faulty' gives nan for sample 1 at step 1"),
    ],
)
def test_unusable_scores_are_named(given: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        scores_of(Faulty(given), made(3, 0, 2), PLAIN)


class WrongType(Faulty):
    name = "wrong_type"

    def scores(self, traces: Traces, smoothing: Smoothing = PLAIN) -> Any:
        return np.zeros((traces.samples, traces.time_steps), np.float32)


def test_scores_of_another_type_are_named() -> None:
    with pytest.raises(InputError, match=r"float32 of the shape \(3, 2\); its scores must be float64"):
        scores_of(WrongType(torch.zeros(3)), made(3, 0, 2), PLAIN)


class Taken(ShareOfVotes):
    name = "gap"


class Spaced(ShareOfVotes):
    name = "two words"


class AlsoShares(ShareOfVotes):
    pass


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("softmax", "choose one of max_softmax, entropy, gap, patience, learned"),
        ("gaps", "did you mean 'gap'"),
        (None, "subclass of ConfidenceMeasure"),
        (int, "subclass of ConfidenceMeasure"),
        (Faulty, "cannot be made without arguments"),
        (ConfidenceMeasure, "cannot be made"),
        (Taken, "the name 'gap' belongs to another measure"),
        (Spaced, "'two words' is no identifier"),
        ("measures_from_outside:Nothing", "no 'Nothing'"),
        ("no_such_module:X", "no module no_such_module"),
    ],
)
def test_anything_but_a_measure_is_refused(given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        measure_of(given)


def test_names_classes_and_objects_are_the_same_measure() -> None:
    assert measures_of(["gap", Gap, Gap(), "max_softmax", MaxSoftmax]) == [Gap(), MaxSoftmax()]
    assert measures_of()[:5] == [measure_of(name) for name in NAMES]
    assert Gap() != MaxSoftmax() and ShareOfVotes(0.1) != ShareOfVotes(0.2)
    with pytest.raises(InputError, match="two measures are called 'share_of_votes'"):
        measures_of([ShareOfVotes, AlsoShares])


def python(code: str, folder: Path) -> str:
    """The output of a new process that finds modules in `folder` and beside this file."""
    (folder / "program.py").write_text(code)
    done = script(folder / "program.py", cwd=folder, path=[Path(__file__).parent])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_packages_measure_is_known_by_its_name(tmp_path: Path) -> None:
    distribution = tmp_path / "votes-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: votes\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[dynconf.measures]\nshare_of_votes = measures_from_outside:ShareOfVotes\n")
    entry = {name: value for name, value in RULE.to_json().items() if name != "source"}
    code = f"""
from dynconf_core.confidence.measure import MEASURES
from dynconf_core.exit.rule import Rule
rule = Rule.from_json({entry!r})
print(MEASURES.names()[-1], rule.measure, "source" in rule.to_json())
"""
    assert python(code, tmp_path).strip() == "share_of_votes ShareOfVotes(prior=0.5) False"


def test_a_registered_measure_is_known_by_its_name_in_this_process(tmp_path: Path) -> None:
    code = f"""
from measures_from_outside import ShareOfVotes
from dynconf_core.confidence.measure import MEASURES
from dynconf_core.exit.rule import Rule
MEASURES.register("share_of_votes", ShareOfVotes)
rule = Rule.from_json({RULE.to_json()!r})
print(rule.measure, rule.to_json()["source"])
"""
    assert python(code, tmp_path).strip() == "ShareOfVotes(prior=0.5) measures_from_outside:ShareOfVotes"


def test_a_setting_with_it_depends_on_its_code() -> None:
    plan = resolve("cifar10-resnet18-qcfs", "smoke")
    own = applied(plan, {"rule": typed("rule", "measures_from_outside:ShareOfVotes")})
    file = Path(sys.modules[ShareOfVotes.__module__].__file__ or "").resolve()
    for name in ("search", "evaluate"):
        assert file in stage(name).modules(own).values() and file not in stage(name).modules(plan).values()
    for given, words in (("luck", "best"), ("no_such_module:X", "no module"), ("dynconf_core.errors:X", "'X'")):
        with pytest.raises(InputError, match=words):
            typed("rule", given)


# The worked example, in a folder of the user's own.


@pytest.fixture
def dynconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    call = command_on_traces(tmp_path / "here", monkeypatch, capsys)
    shutil.copy(EXAMPLE, Path.cwd())
    monkeypatch.delitem(sys.modules, "own_measure", raising=False)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    return call


def test_the_worked_example(dynconf: Command) -> None:
    calibration = CALIBRATION.save("net-calibration.npz")
    test = TEST.save("net-test.npz")
    asked = ("--rule", "own_measure:EmaGap", "--epsilon", 0.3, "--delta", 0.3)
    answer = dynconf("analyse", calibration, "--test", test, "--out", "out", "--no-track", *asked)
    assert (answer.code, answer.error) == (0, ""), answer
    marked = next(line for line in answer.out.splitlines() if line.startswith("> ema_gap"))
    record = strictly(Path("out/analysis.json").read_text())
    entry = record["rules"][record["chosen"]]
    assert f"{entry['test']['mean_steps']:.2f}" in marked and entry["source"] == "own_measure:EmaGap"
    assert {row["measure"] for row in record["comparison"]} == {*NAMES, "ema_gap"}
    for picture in ("rules", "guarantee", "reliability", "accuracy_against_latency", "robustness", "exit_histogram"):
        assert Path("out", f"{picture}.png").stat().st_size > 1000

    with pytest.raises(InputError, match="own_measure:EmaGap"):
        Rule.load("out/rule-uncertified.json")
    rule = Rule.load("out/rule-uncertified.json", "own_measure:EmaGap")
    average, expected = np.zeros(TEST.samples), []
    for z in TEST.logits.astype(np.float64).cumsum(axis=1).transpose(1, 0, 2):
        low, high = np.sort(z, axis=1)[:, -2:].T
        average = 0.5 * average + 0.5 * (high - low)
        expected.append(average)
    np.testing.assert_array_equal(rule.scores(TEST), np.stack(expected, axis=1))
    assert rule.exit_steps(TEST).mean() == entry["test"]["mean_steps"]

    rows = strictly(dynconf("compare", calibration, "--test", test, "--json", "--rule", "own_measure:EmaGap").out)
    rows = [row for row in rows["comparisons"]["net"] if not row["rival"]]
    assert rows == plain(analyse(CALIBRATION, TEST, measure="own_measure:EmaGap").record.comparison)


class Small(nn.Module):
    """Enough of a network to run."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.flatten = nn.Conv2d(3, 6, 3, padding=1), LSQ(2), nn.Flatten()
        self.last = nn.Linear(6 * 16, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in (self.one, self.last):
                layer.weight.normal_(generator=generator)
            self(torch.randn(8, 3, 4, 4, generator=generator))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.flatten(self.two(self.one(x))))
        return result


@pytest.mark.parametrize("name", ["own_measure:EmaGap", "measures_from_outside:ShareOfVotes"])
@pytest.mark.usefixtures("dynconf")
def test_a_live_run_with_it_exits_where_the_traces_say(name: str) -> None:
    normalisation = Normalisation((0.5,) * 3, (0.25,) * 3)
    pixels = torch.randint(0, 256, (60, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images = TensorImages(pixels, torch.zeros(60, dtype=torch.int64), 4, normalisation)
    snn = convert(Small(), normalisation(pixels[:8]), time_steps=8, image_limit=normalisation.limit())
    Path("traces").mkdir()
    collect(snn, None, images, 8, Path("traces"))
    traces = Traces.load("traces")
    scores = Rule(name, PLAIN, 0.0).scores(traces)
    rule = Rule(name, PLAIN, float(np.quantile(scores, 0.6)))
    wanted = rule.exit_steps(traces)
    assert len(set(wanted.tolist())) >= 2, "exits at several steps, or the test shows little"
    for batch in (1, 7, 60):
        found = run_until_confident(snn, ExitAgent(rule), images, 8, batch=batch)
        np.testing.assert_array_equal(found.steps, wanted)
        np.testing.assert_array_equal(found.scores, rule.scores(traces)[np.arange(60), wanted - 1])
