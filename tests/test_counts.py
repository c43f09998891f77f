"""Spikes, synaptic operations, multiply-accumulates: by hand, by loops over every spike and every weight, by SpikingJelly."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dynconf_core.activations.lsq import LSQ
from dynconf_core.activations.qcfs import QCFS
from dynconf_core.conversion.convert import convert
from dynconf_core.graph.graph import Node
from dynconf_core.simulation import counts as counting
from dynconf_core.simulation.counts import Counter, fan_out, multiply_accumulates
from dynconf_core.simulation.network import InputCurrent, SpikingNetwork, State
from dynconf_core.simulation.products import Products

SIDE = 7  # odd: a stride of two leaves a border on one side only
TIME_STEPS = 6


def qcfs() -> nn.Module:
    layer = QCFS(4)
    nn.init.constant_(layer.threshold, 0.5)
    return layer


def lsq() -> nn.Module:
    layer = LSQ(2)
    nn.init.constant_(layer.step, 0.2)
    layer.initialised.fill_(True)
    return layer


class Several(nn.Module):
    """Every kind of convolution behind neurons: padded, strided, dilated, grouped, depthwise; both pools; a shortcut."""

    def __init__(self, make: Callable[[], nn.Module], pool: str) -> None:
        super().__init__()
        self.first, self.first_spikes = nn.Conv2d(3, 4, 3, padding=1), make()
        self.strided, self.strided_spikes = nn.Conv2d(4, 6, 3, stride=2, padding=1), make()
        self.grouped, self.grouped_spikes = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3), make()
        self.depthwise, self.depthwise_spikes = nn.Conv2d(6, 6, (3, 2), padding=(1, 0), groups=6), make()
        pools = {"none": nn.Identity(), "average": nn.AvgPool2d(3, 2, 1), "max": nn.MaxPool2d(3, 1, 1)}
        self.pool, self.flatten = pools[pool], nn.Flatten()
        sides = {"none": (4, 3), "average": (2, 2), "max": (4, 3)}[pool]
        self.last = nn.Linear(6 * sides[0] * sides[1], 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.strided_spikes(self.strided(self.first_spikes(self.first(x))))
        b = self.grouped_spikes(self.grouped(a) + a)
        result: Tensor = self.last(self.flatten(self.pool(self.depthwise_spikes(self.depthwise(b)))))
        return result


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def several(make: Callable[[], nn.Module], pool: str, seed: int = 0) -> SpikingNetwork:
    network = Several(make, pool)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("weight"):
                parameter.copy_(1.5 * torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)
            elif name.endswith("bias"):
                parameter.copy_(0.1 + 0.2 * torch.randn(parameter.shape, generator=generator))
    return convert(network.eval(), images(), time_steps=TIME_STEPS)


def sent(snn: SpikingNetwork, given: Tensor) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """What each layer sends in each step, and what the counter makes of it."""
    spikes: list[dict[str, Tensor]] = []
    counts: list[dict[str, Tensor]] = []
    counter, state = Counter(snn), None
    with torch.inference_mode():
        input_current = snn.input_current(given)
        for time_step in range(1, TIME_STEPS + 1):
            now: dict[str, Tensor] = {}

            def look(node: Node, value: Tensor, now: dict[str, Tensor] = now) -> None:
                now[node.name] = value.clone()
                counter(node, value)

            state = snn.step(input_current, state, time_step, look).state
            spikes.append(now)
            counts.append(counter.taken())
    return spikes, counts


# The independent count: loops over units, and over every place of a kernel


def reached(size: int, place: int, kernel: int, stride: int, padding: int, dilation: int) -> list[int]:
    """The outputs along one side whose kernel covers ``place``."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return [
        output
        for output in range(outputs)
        for position in range(kernel)
        if output * stride - padding + position * dilation == place
    ]


def convolution_uses(layer: nn.Conv2d, channel: int, y: int, x: int, height: int, width: int) -> int:
    """Weights that one spike at (channel, y, x) meets."""
    given = zip((height, width), (y, x), layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True)
    along = [len(reached(size, place, *how)) for size, place, *how in given]  # type: ignore[arg-type]
    per_group_in, per_group_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    group = channel // per_group_in
    outputs = range(group * per_group_out, (group + 1) * per_group_out)
    return sum(along[0] * along[1] for _ in outputs)


def expected_operations(spikes: dict[str, Tensor], network: Several, pool: str, sample: int) -> dict[str, int]:
    """Of one sample in one step, by layer that sends."""
    readers = {"first_spikes": network.strided, "strided_spikes": network.grouped, "grouped_spikes": network.depthwise}
    found = {}
    for name, reader in readers.items():
        train, total = spikes[name][sample], 0
        for channel, y, x in itertools.product(*map(range, train.shape)):
            if train[channel, y, x] != 0:
                total += abs(int(train[channel, y, x])) * convolution_uses(reader, channel, y, x, *train.shape[1:])
        found[name] = total
    train, total = spikes["depthwise_spikes"][sample], 0
    outputs = network.last.out_features
    for channel, y, x in itertools.product(*map(range, train.shape)):
        if pool == "average":  # in each window that covers it, the spike meets one column of the linear layer
            windows = [len(reached(size, place, 3, 2, 1, 1)) for size, place in zip(train.shape[1:], (y, x), strict=True)]
            total += abs(int(train[channel, y, x])) * windows[0] * windows[1] * outputs
        elif pool == "none":
            total += abs(int(train[channel, y, x])) * outputs
    found["depthwise_spikes"] = total  # 0 before a max pool, which sends spikes of its own
    if pool == "max":
        found["pool"] = int(spikes["pool"][sample].abs().sum()) * outputs
    return found


@pytest.mark.parametrize("pool", ["none", "average", "max"])
@pytest.mark.parametrize("make", [qcfs, lsq])
def test_equal_to_loops_over_every_spike_and_every_weight(make: Callable[[], nn.Module], pool: str) -> None:
    snn, network = several(make, pool), Several(make, pool)
    spikes, counts = sent(snn, images())
    negative = 0
    for step, now in enumerate(spikes):
        for sample in range(len(images())):
            expected = expected_operations(now, network, pool, sample)
            assert {name: int(count[sample, 1]) for name, count in counts[step].items()} == expected
            for name, count in counts[step].items():
                assert int(count[sample, 0]) == int((now[name][sample].abs()).sum())
        negative += sum(int((train < 0).sum()) for train in now.values())
        totals = Counter(snn).totals(counts[step])
        together = Counter(snn)
        for name, train in now.items():
            together(snn.graph.by_name[name], train)
        assert torch.equal(together.in_all(), torch.stack(totals, dim=1).double())
        neurons = [train for name, train in now.items() if name != "pool"]
        assert totals[0].tolist() == [sum(int((train[i] != 0).sum()) for train in neurons) for i in range(len(images()))]
        assert totals[1].tolist() == [sum(int(count[i, 1]) for count in counts[step].values()) for i in range(len(images()))]
    assert all(int(count[:, 0].sum()) > 0 for count in counts[1].values()), "every layer sends something, or little is shown"
    assert (negative > 0) == (make is lsq), "negative spikes occur where there may be any"


def test_a_negative_spike_counts_one() -> None:
    """A layer that fires at step 1 and takes everything back at step 2 has emitted as many spikes again."""
    first, last = nn.Conv2d(1, 1, 1, bias=False), nn.Linear(1, 2, bias=False)
    nn.init.constant_(first.weight, 1.0)
    network = nn.Sequential(first, lsq(), nn.Flatten(), last).eval()  # theta 0.6
    given = torch.full((1, 1, 1, 1), 0.5)
    snn = convert(network, given, time_steps=4)
    found, state, counter = [], None, Counter(snn)
    for time_step, factor in ((1, 1.0), (2, -3.0), (3, 0.0)):
        input_current = snn.input_current(given)
        step = snn.step(
            InputCurrent({name: factor * value for name, value in input_current.values.items()}, 1), state, time_step, counter
        )
        state = step.state
        found.append([int(number) for number in counter.totals(counter.taken())])
    assert found == [[1, 2], [1, 2], [0, 0]]


# By hand


def graph_of(*layers: nn.Module, side: int = 4, channels: int = 1) -> SpikingNetwork:
    return convert(nn.Sequential(*layers).eval(), torch.randn(1, channels, side, side), time_steps=4)


def test_fan_out_by_hand() -> None:
    """A unit in the middle meets the whole kernel, in every output channel; at the border part of it."""
    snn = graph_of(nn.Conv2d(1, 2, 1), qcfs(), nn.Conv2d(2, 3, 3, padding=1), qcfs(), nn.Flatten(), nn.Linear(48, 10))
    met = fan_out(snn.graph)
    rows = [[12, 18, 18, 12], [18, 27, 27, 18], [18, 27, 27, 18], [12, 18, 18, 12]]
    assert met["1"].tolist() == [rows, rows]
    assert met["3"].unique().tolist() == [10]


def test_fan_out_of_a_stride_by_hand() -> None:
    """3 x 3, stride 2, padding 1 on 4 px: along a side the kernel lies at -1..1 and 1..3, so 1, 2, 1, 1 of it cover each."""
    snn = graph_of(nn.Conv2d(1, 1, 1), qcfs(), nn.Conv2d(1, 5, 3, 2, 1), qcfs(), nn.Flatten(), nn.Linear(20, 2))
    along = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    assert torch.equal(fan_out(snn.graph)["1"][0], 5 * torch.outer(along, along))


def test_a_unit_that_a_stride_skips_meets_nothing() -> None:
    """1 x 1, stride 2 (a downsampling shortcut): three of four units are read by nobody."""
    snn = graph_of(nn.Conv2d(1, 1, 1), qcfs(), nn.Conv2d(1, 7, 1, 2), qcfs(), nn.Flatten(), nn.Linear(28, 2))
    assert fan_out(snn.graph)["1"][0].tolist() == [[7, 0, 7, 0], [0, 0, 0, 0], [7, 0, 7, 0], [0, 0, 0, 0]]


def test_a_layer_that_two_others_read_meets_both() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.spikes = nn.Conv2d(1, 2, 1), qcfs()
            self.one, self.other, self.join = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 3, padding=1, groups=1), qcfs()
            self.flatten, self.last = nn.Flatten(), nn.Linear(48, 2)

        def forward(self, x: Tensor) -> Tensor:
            a = self.spikes(self.first(x))
            result: Tensor = self.last(self.flatten(self.join(self.one(a) + self.other(a))))
            return result

    snn = convert(Forked().eval(), torch.randn(1, 1, 4, 4), time_steps=4)
    assert fan_out(snn.graph)["spikes"][0].tolist()[:2] == [[15, 21, 21, 15], [21, 30, 30, 21]]


def test_an_identity_shortcut_meets_no_weight() -> None:
    """In ``Several`` the strided layer's spikes go to a grouped convolution and past it: only the convolution counts."""
    snn = several(qcfs, "none")
    shortcut = [node for node in snn.graph.of_kind("scale") if node.settings.get("identity")]
    assert all("strided_spikes" in node.inputs for node in shortcut)
    # 3 x 3 with dilation 2 and padding 2 on 4 px: two places of the kernel cover each along a side; two outputs a group.
    assert fan_out(snn.graph)["strided_spikes"].unique().tolist() == [2 * 2 * 2]


def test_multiply_accumulates_by_hand() -> None:
    """The image's, once: 3 x 3 padded by 1 on 4 px lies inside 4 x 4 + 8 x 6 + 4 x 9 = 100 times; the ANN's: everything."""
    snn = graph_of(
        nn.Conv2d(2, 3, 3, padding=1), qcfs(), nn.Conv2d(3, 4, 1), qcfs(), nn.Flatten(), nn.Linear(64, 10), channels=2
    )
    assert multiply_accumulates(snn.graph) == {"once": 600, "every_step": 0, "ann": 600 + 12 * 16 + 640}


def test_a_linear_bottleneck_multiplies_in_every_step() -> None:
    """Two convolutions without neurons between them: the second one's input is analogue; the first one's are spikes."""
    snn = graph_of(
        *(nn.Conv2d(1, 2, 1), qcfs(), nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 1), qcfs(), nn.Flatten(), nn.Linear(64, 5))
    )
    assert multiply_accumulates(snn.graph) == {"once": 32, "every_step": 12 * 16, "ann": 32 + 6 * 16 + 12 * 16 + 320}
    met = fan_out(snn.graph)
    assert met["1"].unique().tolist() == [3] and met["4"].unique().tolist() == [5]


def test_depthwise_and_strided_multiply_accumulates_equal_a_dense_count() -> None:
    network = Several(qcfs, "average")
    snn = several(qcfs, "average")
    shapes = {"first": (3, 7, 7), "strided": (4, 7, 7), "grouped": (6, 4, 4), "depthwise": (6, 4, 4)}
    total = 0
    for name, (channels, height, width) in shapes.items():
        layer = getattr(network, name)
        units = itertools.product(range(channels), range(height), range(width))
        uses = sum(convolution_uses(layer, channel, y, x, height, width) for channel, y, x in units)
        total += uses
        assert name != "first" or multiply_accumulates(snn.graph)["once"] == uses
    assert multiply_accumulates(snn.graph)["ann"] == total + 6 * 2 * 2 * 5


# Another counter


@pytest.mark.parametrize("pool", ["none", "max"])
def test_equal_to_spikingjellys_counter(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that one is right: spikes of 0 and 1. It knows no negative spikes, and takes the counts of an average pool for
    analogue values."""
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter", reason="SpikingJelly is not installed")
    if not hasattr(counters, "SynOpCounter"):
        pytest.skip("this SpikingJelly has no counter of synaptic operations")
    snn = several(qcfs, pool)
    _, ours = sent(snn, images(1))
    monkeypatch.setattr(snn, "products", lambda samples: Products())  # theirs sees PyTorch's public operations alone
    input_current, state = snn.input_current(images(1)), None
    for time_step, counts in enumerate(ours, start=1):
        theirs = counters.SynOpCounter()
        with torch.no_grad(), counters.DispatchCounterMode([theirs]):
            state = snn.step(input_current, state, time_step).state
        (operations,) = Counter(snn).totals(counts)[1].tolist()
        assert operations == theirs.get_total() > 0


def test_counts_of_large_layers_stay_whole() -> None:
    """Sums beyond 2^24, where float32 would skip numbers."""
    wide = nn.Conv2d(8, 1024, 3, padding=1)
    snn = graph_of(nn.Conv2d(1, 8, 1), qcfs(), wide, qcfs(), nn.AvgPool2d(16), nn.Flatten(), nn.Linear(1024, 2), side=16)
    assert len(Counter(snn).weights["1"].pieces) == 1, "in units of 1024 outputs the sum is small"
    node, counter = snn.graph.by_name["1"], Counter(snn)
    counter(node, torch.ones(3, *node.shape))
    met = int(fan_out(snn.graph)["1"].sum())
    assert met == 8 * 1024 * (4 * 4 + 4 * 14 * 6 + 14 * 14 * 9) > 2**24
    (count,) = counter.taken().values()
    assert count.tolist() == [[8 * 256, met]] * 3


def test_sums_too_large_for_float32_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fan-outs of 4, 6 and 9 in units of the three outputs, 200 in all."""
    layers = (nn.Conv2d(1, 2, 1), qcfs(), nn.Conv2d(2, 3, 3, padding=1), qcfs(), nn.Flatten(), nn.Linear(48, 2))
    snn = graph_of(*layers)
    given = (torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    expected = Counter(snn)
    monkeypatch.setattr(counting, "_PIECE", 20.0)
    pieced = Counter(snn)
    assert len(expected.weights["1"].pieces) == 1 < len(pieced.weights["1"].pieces)
    assert all(float(piece.sum(1).max()) < 20 + 9 for piece in pieced.weights["1"].pieces)
    for counter in (expected, pieced):
        counter(snn.graph.by_name["1"], given)
    assert expected.weights["1"].unit == 3
    (one,), (other,) = expected.taken().values(), pieced.taken().values()
    met = fan_out(snn.graph)["1"]
    assert torch.equal(one, other) and one[:, 1].tolist() == [float((met * train).sum()) for train in given]


def test_a_state_goes_on_without_being_looked_at() -> None:
    """Looking changes nothing."""
    snn = several(lsq, "max")
    watched, plain = [], []
    for into, look in ((watched, Counter(snn)), (plain, None)):
        state: State | None = None
        input_current = snn.input_current(images())
        for time_step in range(1, TIME_STEPS + 1):
            step = snn.step(input_current, state, time_step, look)
            state = step.state
            into.append(step.logits.clone())
    assert all(torch.equal(one, other) for one, other in zip(watched, plain, strict=True))
