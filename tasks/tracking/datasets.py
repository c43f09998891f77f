"""The data of a run as MLflow's data sets: the images of each split, or the traces of an analysis."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dynconf_core.data.dataset import DATASETS
from dynconf_core.data.images import SPLIT_SEED
from dynconf_core.errors import InputError
from dynconf_core.evaluation.record import AnalysisRecord
from dynconf_core.experiment.plan import Plan
from dynconf_core.results.trace_pairs import Pair

CONTEXT = "mlflow.data.context"
"""MLflow's tag for what a run uses the data for."""
LONGEST = 36
"""Characters of a digest that MLflow keeps."""


@dataclass(frozen=True)
class Dataset:
    """A data set of a run.

    Attributes:
        name: with the split.
        digest: identifies the content; cut to ``LONGEST`` characters.
        context: what the run uses it for.
        source_type, source: where it comes from, in MLflow's terms: the kind, and JSON.
        profile: numbers that MLflow shows beside it, such as ``num_rows``.
    """

    name: str
    digest: str
    context: Literal["training", "calibration", "test"]
    source_type: str
    source: str
    profile: dict[str, int]


def images_of(plan: Plan, digest: str, test: int | None) -> tuple[Dataset, ...]:
    """The splits of the images of a setting.

    Args:
        plan: the setting's plan.
        digest: of the content of the data set, as in the keys of the stages.
        test: the number of test images.
    """
    data = plan.data
    sizes = {"training": data.train, "calibration": data.calibration, "test": test}
    return tuple(
        Dataset(
            name=f"{data.name}-{context}",
            # the same data set may be split in other ways
            digest=hashlib.sha256(f"{digest} {SPLIT_SEED} {data.train} {data.calibration} {context}".encode()).hexdigest(),
            context=context,  # type: ignore[arg-type]  # the keys of ``sizes``
            source_type="dynconf",
            source=json.dumps(
                {
                    "data_set": data.name,
                    "title": _title(data.name),
                    "content_digest": digest,
                    "split": context,
                    **({"split_seed": SPLIT_SEED} if context != "test" else {}),
                    **({"stands_in_for": data.stands_in_for} if data.stands_in_for else {}),
                }
            ),
            profile={"num_rows": size, "classes": data.classes, "resolution": data.resolution},
        )
        for context, size in sizes.items()
        if size
    )


def traces_of(pair: Pair, record: AnalysisRecord) -> tuple[Dataset, ...]:
    """The traces of an analysis; one set that was split into halves is two data sets with the same source."""
    found: list[Dataset] = []
    sizes: Sequence[tuple[Literal["calibration", "test"], Path, int]] = (
        ("calibration", pair.calibration, record.calibration),
        ("test", pair.test or pair.calibration, record.test),
    )
    digests = {path: content_digest(path) for _, path, _ in sizes}
    for context, path, size in sizes:
        found.append(
            Dataset(
                name=f"{pair.name}-{context}",
                digest=digests[path],
                context=context,
                source_type="local",
                source=json.dumps({"uri": str(path.resolve())}),
                profile={"num_rows": size, "time_steps": record.time_steps, "classes": record.classes},
            )
        )
    return tuple(found)


def content_digest(path: Path) -> str:
    """The sha256 over a file, or over the names and contents of a folder's files."""
    whole = hashlib.sha256()
    for name, file in _files(path):
        whole.update(name.encode())
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_dir():
        yield from ((file.name, file) for file in sorted(path.iterdir()) if file.is_file())
    else:
        yield "", path


def _title(name: str) -> str:
    try:
        return DATASETS.get(name).title
    except InputError:  # of a package that is not installed here
        return name


def inputs(found: Sequence[Dataset]) -> list[Any]:
    """The data sets as MLflow's ``log_inputs`` takes them."""
    from mlflow.entities import Dataset as MlflowDataset
    from mlflow.entities import DatasetInput, InputTag

    return [
        DatasetInput(
            MlflowDataset(one.name, one.digest[:LONGEST], one.source_type, one.source, profile=json.dumps(one.profile)),
            [InputTag(CONTEXT, one.context)],
        )
        for one in found
    ]
