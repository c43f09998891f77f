"""The documents: links lead somewhere, code runs, the glossary and the reference are complete."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import script

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "results").rglob("*.md"), *DOCS.rglob("*.md"))
    if not page.is_symlink() and not {"_build", "generated"} & set(page.relative_to(ROOT).parts)
)
REPOSITORY = re.compile(r"https://(?:github\.com|raw\.githubusercontent\.com)/dynconf/dynconf/(?:(?:blob|tree)/)?main/")
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
NO_METRICS = {
    *("name", "status", "error", "data", "train", "calibration", "test", "stands_in_for", "network", "architecture"),
    *("parameters", "method", "levels", "bits", "time_steps", "fixed_point", "initial_potential", "paper", "conversion"),
    *("artefacts", "stages", "source", "convert", "collect_calibration", "collect_test", "search", "evaluate"),
    *("at_paper_time_steps", "comparison", "oracles", "rule", "measure", "readout", "smoothing", "form", "alpha"),
    *("exponent", "calibrated", "samples", "scores", "folds", "seed", "full", "ann", "once", "every_step", "kind", "formula"),
    *("picojoules_per_ac", "picojoules_per_mac", "tolerance", "within", "useful", "alpha_with_its_threshold"),
    *("lowest", "highest", "rows", "exit_accuracy", "label", "net_named", "weights", "intercept"),
}
"""Names in results.json that are no metrics, or whose meaning stands in the entry of the metric that they belong to."""
NOTEBOOKS = sorted((DOCS / "tutorial").glob("*.ipynb"))
HOW_TO = sorted((DOCS / "howto").glob("*.md"))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings as GitHub and MyST write them, and its own labels."""
    text = prose(page)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings} | set(
        re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        own = REPOSITORY.match(link)
        if link.startswith(("http:", "https:", "mailto:")) and own is None:
            continue
        path, _, anchor = link.removeprefix(own[0] if own else "").partition("#")
        target = (ROOT if own else page.parent).joinpath(path) if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}: no such heading"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_bare_and_link_to_pages(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and not any(cell["outputs"] or cell["execution_count"] for cell in code)
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = [link.partition("#")[0] for link in LINK.findall(text) if not link.startswith("http")]
    assert links and all((notebook.parent / link).exists() for link in links)


def test_every_page_is_in_the_contents() -> None:
    listed = set()
    for page in (DOCS / "index.md", DOCS / "development" / "index.md"):
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            lines = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {str((page.parent / line).relative_to(DOCS)) for line in lines}
    every = (*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb"))
    pages = {page for page in every if not {"_build", "generated"} & set(page.relative_to(DOCS).parts)}
    assert {str(page.relative_to(DOCS).with_suffix("")) for page in pages} - listed == {"index"}


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


README_BEFORE = """
import numpy as np
import torch

random = np.random.default_rng(0)
time_steps, labels, test_labels = 8, random.integers(0, 10, 60), random.integers(0, 10, 60)
logits, test_logits = (random.normal(0.5 * np.eye(10)[truth][:, None], 1.0, (60, 8, 10)) for truth in (labels, test_labels))
image, one_step = None, lambda image: torch.rand(1, 10)
"""
README_AFTER = """
assert (len(prediction), len(confidence), len(exits)) == (1, 1, 1)
"""


@pytest.mark.parametrize("page", [ROOT / "README.md", *HOW_TO], ids=lambda page: page.stem)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    """Blocks that begin with a file's name become that file; the others are one program, in their order."""
    files, program = [], []
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        name = re.match(r"# (\w+)\.py\n", code)
        if language == "python" and name:
            (tmp_path / f"{name[1]}.py").write_text(code)
            files.append(name[1])
        elif language == "python":
            program.append(code)
    if not files and not program:
        pytest.skip("no Python on this page")
    around = (README_BEFORE, README_AFTER) if page.name == "README.md" else ("", "")
    (tmp_path / "program.py").write_text("\n".join([*(f"import {name}" for name in files), around[0], *program, around[1]]))
    done = script(tmp_path / "program.py", cwd=tmp_path, path=[ROOT])
    assert done.returncode == 0, done.stderr


def test_the_worked_example_is_the_file_in_examples() -> None:
    code = next(
        code for _, code in FENCE.findall((DOCS / "howto" / "rule.md").read_text()) if code.startswith("# own_measure.py\n")
    )
    assert code.removeprefix("# own_measure.py\n") in (ROOT / "examples" / "own_measure.py").read_text()


def names_in(content: object) -> Iterator[str]:
    """Every field's name in a JSON document."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield name
            yield from names_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from names_in(value)


def test_the_glossary_has_every_metric() -> None:
    """Every figure that a published run gives of a setting."""
    glossary = re.search(r"^```\{glossary\}\n(.*?)^```$", (DOCS / "concepts.md").read_text(), re.MULTILINE | re.DOTALL)
    assert glossary is not None
    terms = {name for line in glossary[1].splitlines() if line[:1].strip() for name in line.split(", ")}
    settings = json.loads((ROOT / "results/2026-11-26-h100/results.json").read_text())["settings"]
    figures = set(names_in(settings)) - NO_METRICS
    assert "mean_steps" in figures and figures <= terms, f"not in the glossary: {sorted(figures - terms)}"


def test_the_reference_has_every_public_name() -> None:
    stub = ast.parse((ROOT / "dynconf_core" / "__init__.pyi").read_text())
    names = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    reference = set(re.findall(r"^\.\. auto\w+:: dynconf_core\.(\w+)$", (DOCS / "reference.md").read_text(), re.MULTILINE))
    assert names <= reference, f"not in the reference: {sorted(names - reference)}"
