"""Traces as they are collected: those of a plain loop, whatever the batch, the products and the memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spiking_cases import lively
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from training_cases import activation

from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import save_snn
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.errors import InputError
from dynconf_core.networks.architecture import build
from dynconf_core.simulation import integer, products
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.counts import Counter
from dynconf_core.simulation.footprint import BATCH, FIXED, batch_size, bytes_a_sample, bytes_without_samples
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_logits
from dynconf_core.traces.schema import Traces

METHODS = ("qcfs", "qffs")

NORMALISATION = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))


def pictures(count: int) -> TensorImages:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return TensorImages(pixels, torch.randint(0, 10, (count,), generator=generator), 10, NORMALISATION)


def small_resnet(method: str) -> nn.Module:
    make = activation(method, levels=4, bits=2, initial_threshold=1.0)
    network = build("resnet18", "cifar", classes=10, resolution=16, width=1 / 16, activation=make, seed=0)
    return lively(network, 16)


def resnet(method: str, time_steps: int, fixed_point: bool = True) -> SpikingNetwork:
    example = NORMALISATION(pictures(1).pixels)
    return convert(
        small_resnet(method), example, time_steps=time_steps, fixed_point=fixed_point, image_limit=NORMALISATION.limit()
    )


def run(snn: SpikingNetwork, images: Tensor, time_steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, T, C), spikes and synaptic operations (N, T)."""
    logits, counts, counter, state = [], [], Counter(snn), None
    input_current = snn.input_current(images)
    for time_step in range(1, time_steps + 1):
        step = snn.step(input_current, state, time_step, counter)
        state = step.state
        logits.append(step.logits)
        counts.append(torch.stack(counter.totals(counter.taken())))
    spikes, operations = torch.stack(counts, 2)
    return torch.stack(logits, 1), spikes, operations


def collected(folder: Path, method: str, count: int = 11, **options: Any) -> Traces:
    """Traces of six steps."""
    folder.mkdir(exist_ok=True)
    collect(resnet(method, 6), small_resnet(method), pictures(count), 6, folder, **options)
    return Traces.load(folder)


@pytest.mark.parametrize("product", ["integer where it pays", "integer everywhere", "float"])
@pytest.mark.parametrize("method", METHODS)
def test_traces_are_a_plain_loops_for_any_batch(
    method: str, product: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, the last batch short or not, whoever multiplies."""
    if product == "integer everywhere":
        if not integer.available():
            pytest.skip("this CPU does not multiply bytes without saturating")
        monkeypatch.setattr(products, "prepare", partial(integer.prepare, must_pay=False))
        assert len(resnet(method, 6).accelerate(5)) == 20, "all layers but the first, which reads the image"
    elif product == "float":
        monkeypatch.setattr(products, "prepare", lambda *given, **options: None)
    snn, batch = resnet(method, 6), NORMALISATION(pictures(11).pixels)
    logits, spikes, operations = run(snn, batch, 6)
    for size in (1, 4, 5, 11, 64):
        traces = collected(tmp_path / str(size), method, batch=size)
        assert traces.logits.dtype == np.float32 and traces.logits.shape == (11, 6, 10)
        assert traces.spikes is not None and traces.synaptic_operations is not None
        np.testing.assert_array_equal(traces.logits, logits.numpy())
        np.testing.assert_array_equal(traces.spikes, spikes.numpy())
        np.testing.assert_array_equal(traces.synaptic_operations, operations.numpy())
        assert traces.reference_logits is not None
        np.testing.assert_array_equal(traces.reference_logits, reference_logits(snn, batch).numpy())
        np.testing.assert_array_equal(traces.labels, pictures(11).labels.numpy())
    assert int(spikes.sum()) > 0 and len(spikes.unique()) > 10


@pytest.mark.parametrize("method", METHODS)
def test_what_else_the_traces_hold(method: str, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    facts = {"network": "toy", "split": "test", "trained_on_calibration": False}
    traces = collected(tmp_path, method, batch=4, facts=facts, progress=lambda *given: told.append(given))
    ann, batch = small_resnet(method), NORMALISATION(pictures(11).pixels)
    assert traces.ann_logits is not None and traces.spikes is not None and traces.synaptic_operations is not None
    with torch.inference_mode():
        np.testing.assert_allclose(traces.ann_logits, ann(batch).numpy(), rtol=0, atol=1e-5)
    meta = traces.meta
    # ResNet-18 at 4, 8, 16, 32 channels on 16 px: 5 layers of 4 x 256, then 4 each of 8 x 64, 16 x 16, 32 x 4.
    assert meta["neurons"] == sum(meta["layers"].values()) == 5 * 1024 + 4 * (512 + 256 + 128)
    assert len(meta["layers"]) == 17 and meta["exact"] is True
    assert (meta["network"], meta["trained_on_calibration"]) == ("toy", False)
    by_layer = meta["mean_by_layer"]
    for name, array in (("spikes", traces.spikes), ("synaptic_operations", traces.synaptic_operations)):
        np.testing.assert_allclose(np.sum([layer[name] for layer in by_layer.values()], axis=0), array.mean(axis=0))
    assert set(meta["multiply_accumulates"]) == {"once", "every_step", "ann"}
    assert told == [(1, 3, "4 of 11 images"), (2, 3, "8 of 11 images"), (3, 3, "11 of 11 images")]
    json.dumps(meta, allow_nan=False)


def test_traces_without_an_ann(tmp_path: Path) -> None:
    collect(resnet("qcfs", 2), None, pictures(3), 2, tmp_path)
    assert Traces.load(tmp_path).ann_logits is None


def test_half_precision_on_disk(tmp_path: Path) -> None:
    """float16 holds the logits, rounded once; nothing else of the traces changes."""
    wide, narrow = collected(tmp_path / "a", "qffs"), collected(tmp_path / "b", "qffs", dtype="float16")
    assert narrow.logits.dtype == np.float16
    np.testing.assert_array_equal(narrow.logits, wide.logits.astype(np.float16))
    assert wide.spikes is not None and narrow.spikes is not None
    np.testing.assert_array_equal(narrow.spikes, wide.spikes)


def test_a_settled_snns_traces_sum_to_the_reference(tmp_path: Path) -> None:
    """QFFS: n = 3 times the reference logits, bit for bit, once no spike is sent any more."""
    snn = resnet("qffs", 60)
    collect(snn, None, pictures(4), 60, tmp_path)
    traces = Traces.load(tmp_path)
    assert traces.spikes is not None and traces.reference_logits is not None
    assert int(np.abs(traces.spikes[:, -1]).sum()) == 0, "settled"
    summed = traces.logits.sum(axis=1, dtype=np.float64)
    assert np.array_equal(summed, summed.astype(np.float32)), "exact in float32"
    np.testing.assert_array_equal(summed.astype(np.float32) / np.float32(3), traces.reference_logits)


def test_collection_stops_where_progress_raises(tmp_path: Path) -> None:
    def cancel(*given: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collected(tmp_path, "qcfs", 4, batch=2, progress=cancel)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float8"}, "dtype='float8' is unknown: choose one of float16, float32"),
        ({"batch": 0}, "batch=0: give at least 1"),
        ({"batch": -3}, "batch=-3"),
        ({"count": 0}, "no images"),
        ({"memory": FIXED}, "memory=600 MiB is too little for one image: this network needs"),
    ],
)
def test_collection_refuses(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        collected(tmp_path, "qcfs", **options)


def test_collection_refuses_what_fixed_point_does_not_cover(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="time_steps=7"):
        collect(resnet("qcfs", 6), None, pictures(2), 7, tmp_path)
    brighter = TensorImages(pictures(2).pixels, pictures(2).labels, 10, Normalisation((0.4, 0.5, 0.6), (0.1, 0.3, 0.25)))
    with pytest.raises(InputError, match="the images reach"):
        collect(resnet("qcfs", 6), None, brighter, 6, tmp_path)


def test_the_limit_of_a_normalisation_is_just_above_what_it_gives() -> None:
    bright, thirds = Normalisation((0.0, 0.0, 0.99), (1.0, 1.0, 0.5)), Normalisation((0.1, 0.2, 0.3), (0.3, 0.3, 0.3))
    for normalisation in (NORMALISATION, bright, thirds):
        pixels = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 3, 1, 1)
        largest = float(normalisation(pixels).abs().max())
        assert largest < normalisation.limit() <= largest * (1 + 1e-5)


# Memory


def test_memory_bounds_the_batch(tmp_path: Path) -> None:
    snn = resnet("qffs", 6)
    assert batch_size(snn) == BATCH["cpu"]
    needed = bytes_without_samples(snn)
    for wanted in (1, 2, 5):
        assert batch_size(snn, needed + wanted * bytes_a_sample(snn)) == wanted
        assert batch_size(snn, needed + (wanted + 1) * bytes_a_sample(snn) - 1) == wanted
    assert batch_size(snn, 1 << 40) == BATCH["cpu"]
    told: list[tuple[Any, ...]] = []
    memory = needed + 5 * bytes_a_sample(snn)
    bounded = collected(tmp_path / "a", "qffs", memory=memory, progress=lambda *given: told.append(given))
    assert [entry[:2] for entry in told] == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(bounded.logits, collected(tmp_path / "b", "qffs").logits)


BOUNDED = r"""
import re, sys
from pathlib import Path
import torch
from dynconf_core.conversion.file import load_snn
from dynconf_core.data.images import Normalisation, TensorImages
from dynconf_core.simulation.collect import collect
from dynconf_core.simulation.footprint import batch_size

snn, memory = load_snn(Path(sys.argv[1])), int(sys.argv[2])
assert 1 < batch_size(snn, memory) < 64
pixels, half = torch.zeros(64, 3, 64, 64, dtype=torch.uint8), (0.5, 0.5, 0.5)
images = TensorImages(pixels, torch.zeros(64).long(), 5, Normalisation(half, half))
collect(snn, None, images, 2, Path(sys.argv[3]), memory=memory)
# Not getrusage: its peak counts the process that this one was forked from.
print(1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


def test_a_process_keeps_within_its_memory(root: Path, tmp_path: Path) -> None:
    """Wide states, and a linear layer of 4 M weights, whose preparation takes more than they do."""
    make = activation("qffs", bits=2, initial_threshold=1.0)
    layers = (
        nn.Conv2d(3, 64, 3, padding=1),
        make(),
        nn.AvgPool2d(8),
        nn.Flatten(),
        nn.Linear(4096, 1024),
        make(),
        nn.Linear(1024, 5),
    )
    network = nn.Sequential(*layers)
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))  # the normalisations' statistics
    snn = convert(network.eval(), torch.ones(1, 3, 64, 64), time_steps=2, image_limit=1.1)
    save_snn(snn, tmp_path / "snn.pt")
    memory = bytes_without_samples(snn) + 20 * bytes_a_sample(snn)
    (tmp_path / "traces").mkdir()
    command = [sys.executable, "-c", BOUNDED, str(tmp_path / "snn.pt"), str(memory), str(tmp_path / "traces")]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < memory


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_takes_no_more_than_estimated(method: str) -> None:
    """Peak of what torch allocates while a batch runs; and the estimate is no wild one."""
    snn, count = resnet(method, 6), 16
    snn.accelerate(count)
    batch = NORMALISATION(pictures(count).pixels)
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        input_current, state, counter = snn.input_current(batch), None, Counter(snn)
        for time_step in range(1, 4):
            state = snn.step(input_current, state, time_step, counter).state
    changes = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())])
    estimate = count * bytes_a_sample(snn)
    assert estimate / 8 < held.max() < estimate
