"""A converted network's file: everything comes back to the bit, and damage is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from second_simulation import simulated
from spiking_cases import ANALOGUE_BLOCKS, BLOCKS, RandomNetwork, gaussian_images
from torch import nn

from dynconf_core.conversion.convert import convert
from dynconf_core.conversion.file import SCHEMA, load_snn, save_snn
from dynconf_core.errors import InputError
from dynconf_core.networks.checkpoint import save_checkpoint, write_atomically
from dynconf_core.simulation.network import SpikingNetwork
from dynconf_core.simulation.reference import reference_logits


@pytest.mark.parametrize(
    ("kind", "options"), [("qcfs", {}), ("qffs", {"fixed_point": False}), ("relu", {"thresholds": "max", "correct": True})]
)
def test_file_round_trip(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Everything comes back to the bit, and nothing but the file is needed."""
    network, images = RandomNetwork(7, kind, dyadic=False, blocks=BLOCKS + ANALOGUE_BLOCKS), gaussian_images(8, 7)
    snn = convert(network, images, **{"time_steps": 6, **options})
    save_snn(snn, tmp_path / "snn.pt")
    loaded = load_snn(tmp_path / "snn.pt")
    assert (loaded.active_steps, loaded.image_limit, loaded.time_steps_limit, loaded.facts) == (
        snn.active_steps,
        snn.image_limit,
        snn.time_steps_limit,
        snn.facts,
    )
    assert list(loaded.layers()) == list(snn.layers())
    one, other = (simulated(which, images, 6) for which in (snn, loaded))
    assert torch.equal(one[0], other[0]) and all(torch.equal(spikes, other[1][name]) for name, spikes in one[1].items())
    assert torch.equal(reference_logits(snn, images), reference_logits(loaded, images))
    save_snn(loaded, tmp_path / "again.pt")
    assert torch.equal(simulated(load_snn(tmp_path / "again.pt"), images, 6)[0], one[0])


def saved(path: Path) -> SpikingNetwork:
    snn = convert(RandomNetwork(2, "qcfs", dyadic=False), gaussian_images(2, 0), time_steps=4)
    save_snn(snn, path)
    return snn


def test_every_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    path, images = tmp_path / "snn.pt", gaussian_images(2, 0)
    expected = simulated(saved(path), images, 4)[0]
    whole, refused = path.read_bytes(), 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        damaged = bytearray(whole)
        damaged[int(torch.randint(len(whole), (), generator=generator))] ^= 1 << int(torch.randint(8, (), generator=generator))
        path.write_bytes(damaged)
        try:
            assert torch.equal(simulated(load_snn(path), images, 4)[0], expected)
        except InputError:
            refused += 1
    assert refused > 40
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_snn(path)


def test_files_that_are_no_network(tmp_path: Path) -> None:
    path = tmp_path / "snn.pt"
    with pytest.raises(InputError, match="does not exist"):
        load_snn(path)
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(InputError, match="cannot be read"):
        load_snn(path)
    save_checkpoint(RandomNetwork(0, "qcfs"), {}, path)
    with pytest.raises(InputError, match="holds weights, and no converted network"):
        load_snn(path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(InputError, match="cannot be read"):
        load_snn(path)
    saved(path)
    content = torch.load(path, weights_only=True)
    write_atomically({**content, "schema": SCHEMA - 1}, path)
    with pytest.raises(InputError, match="holds no converted network of this version"):
        load_snn(path)
    broken: list[Any] = [
        {**content, "graph": content["graph"][1:]},
        {**content, "graph": []},
        {**content, "graph": [{**entry, "inputs": ["nobody"]} for entry in content["graph"]]},
        {**content, "graph": [{**entry, "tensors": {"weight": 3}} for entry in content["graph"]]},
        {**content, "graph": [{key: value for key, value in entry.items() if key != "kind"} for entry in content["graph"]]},
        {**content, "graph": "graph"},
        {**content, "limits": {}},
    ]
    for other in broken:
        write_atomically(other, path)
        with pytest.raises(InputError, match="is not a complete converted network"):
            load_snn(path)
