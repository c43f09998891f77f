"""Networks that hold what cannot be copied convert from their present weights; what has no weights to convert is named."""

from __future__ import annotations

import copy
import io
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graph_checks import disturbed
from spiking_cases import gaussian_images
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from dynconf_core.errors import InputError
from dynconf_core.graph.operations import run
from dynconf_core.graph.trace import traced


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    return nn.Sequential(*layers)


def plain(changed: nn.Sequential) -> nn.Module:
    """The same network, whose weights are those that ``changed`` computes now."""
    same = network()
    with torch.no_grad():
        for number in (0, 4):
            same[number].weight.copy_(changed[number].weight)
            same[number].bias.copy_(changed[number].bias)
        same[1].load_state_dict(changed[1].state_dict())
    return same.eval()


def weight_norm(net: nn.Sequential) -> None:
    nn.utils.weight_norm(net[0])
    nn.utils.weight_norm(net[4], dim=None)


def spectral_norm(net: nn.Sequential) -> None:
    nn.utils.spectral_norm(net[0])
    nn.utils.spectral_norm(net[4], n_power_iterations=2)


def parametrized(net: nn.Sequential) -> None:
    parametrizations.weight_norm(net[0])
    parametrizations.spectral_norm(net[4])


def pruned(net: nn.Sequential) -> None:
    prune.random_unstructured(net[0], "weight", 0.5)
    prune.l1_unstructured(net[0], "weight", 0.2)
    prune.ln_structured(net[4], "weight", 0.3, n=2, dim=0)
    prune.random_unstructured(net[4], "bias", 0.5)


def orthogonal(net: nn.Sequential) -> None:
    parametrizations.orthogonal(net[4], "weight")


COMPUTED = [weight_norm, spectral_norm, parametrized, orthogonal, pruned]


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("change", COMPUTED, ids=lambda change: change.__name__)
def test_computed_weights(change: Callable[[nn.Sequential], None], double: bool) -> None:
    """As they are at present: also after a step of training that no call has followed."""
    changed = network()
    change(changed)
    changed.train()(gaussian_images(4, 1)).square().mean().backward()
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    changed = disturbed(changed.double() if double else changed)
    before = {name: value.clone() for name, value in changed.state_dict().items()}
    held = {name: dict(module.__dict__) for name, module in changed.named_modules()}
    found, x = traced(changed, gaussian_images(1, 2)), gaussian_images(5, 3)
    assert all(torch.equal(value, before[name]) for name, value in changed.state_dict().items())
    assert all(module.__dict__.keys() == held[name].keys() for name, module in changed.named_modules())
    with torch.no_grad():
        changed(x.double() if double else x)  # the hooks bring the weights of plain() up to date
    expected = changed(x.double()).detach() if double else run(traced(plain(changed), x), x.double())
    torch.testing.assert_close(run(found, x.double()), expected, rtol=0, atol=1e-12)


def test_weights_that_cannot_be_computed() -> None:
    net = network()
    prune.identity(net[0], "weight")
    net[0].weight_mask = torch.ones(7)
    with pytest.raises(InputError, match=r"a weight of 0 is computed from other tensors, which fails .* \(remove_weight_norm"):
        traced(net.eval(), gaussian_images(1, 0))


class Holding(nn.Module):
    """Holds what the function gives it, and works all the same."""

    def __init__(self, held: dict[str, Any]) -> None:
        super().__init__()
        self.body = network()
        self.__dict__.update(held)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class Meter:
    """Keeps values beside a lock."""

    def __init__(self) -> None:
        self.lock, self.values = threading.Lock(), list[Tensor]()

    def add(self, value: Tensor) -> None:
        with self.lock:
            self.values.append(value)


class Stubborn:
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("no copies")


def activation_with_gradient() -> Tensor:
    return nn.Linear(2, 2)(torch.ones(1, 2)).relu()


HELD: dict[str, Callable[[], dict[str, Any]]] = {
    "an activation": lambda: {"kept": activation_with_gradient()},
    "activations in containers": lambda: {
        "kept": [activation_with_gradient(), {"a": (activation_with_gradient(),)}],
        "more": OrderedDict(a=deque([activation_with_gradient()], maxlen=3)),
    },
    "a lock": lambda: {"lock": threading.Lock(), "condition": threading.Condition(), "local": threading.local()},
    "a logger": lambda: {"log": logging.getLogger("x"), "handler": logging.StreamHandler(io.StringIO())},
    "a file": lambda: {"file": open(__file__, encoding="utf-8")},  # noqa: SIM115
    "a generator": lambda: {"numbers": (i for i in range(3)), "random": torch.Generator()},
    "a thread": lambda: {"thread": threading.Thread(target=print)},
    "an object with a lock": lambda: {"meter": Meter()},
    "what refuses": lambda: {"object": Stubborn(), "objects": {"a": [Stubborn()]}},
    "a module of its own": lambda: {"others": [nn.Linear(2, 2)], "function": partial(nn.Linear(2, 2).forward)},
    "a class and a function": lambda: {"kind": Meter, "function": lambda: threading.Lock()},
}


@pytest.mark.parametrize("held", list(HELD))
def test_what_cannot_be_copied_is_no_hindrance(held: str) -> None:
    holding = Holding(HELD[held]())
    net, x = disturbed(holding), gaussian_images(3, 1)
    before = dict(net.__dict__)
    expected = run(traced(disturbed(holding.body), x), x.double())
    assert torch.equal(run(traced(net, x), x.double()), expected)
    assert net.__dict__ == before


def test_what_forward_keeps_is_kept_in_the_copy() -> None:
    """Counters, lists, buffers and objects of the user's network do not change while it is traced."""

    class Keeping(Holding):
        def forward(self, x: Tensor) -> Tensor:
            self.last = x
            self.calls += 1
            self.history.append(x)
            self.by_name["x"] = x
            self.meter.add(x)
            self.plain.calls += 1
            self.seen += 1
            self.body[4].weight.data.clamp_(-0.05, 0.05)
            return super().forward(x)

    plain = SimpleNamespace(calls=0)
    keeping = Keeping({"calls": 0, "history": [threading.Lock()], "by_name": {}, "meter": Meter(), "plain": plain})
    keeping.register_buffer("seen", torch.zeros(1))
    before = copy.deepcopy(keeping.body.state_dict())
    found = traced(keeping.eval(), gaussian_images(1, 0))
    assert not hasattr(keeping, "last") and keeping.calls == 0 and len(keeping.history) == 1 and not keeping.by_name
    assert not keeping.meter.values and not plain.calls and not keeping.seen.any()
    assert all(torch.equal(value, before[name]) for name, value in keeping.body.state_dict().items())
    assert float(found.output.tensors["weight"].abs().max()) <= 0.05, "what forward does to its weights is done"


def test_a_forward_of_an_object_is_run() -> None:
    """Replaced on one module, as people change torchvision's networks: the closure holds the original modules."""
    net, x = disturbed(network()), gaussian_images(3, 1)
    expected = run(traced(nn.Sequential(net[0], net[2], net[3], net[4]).eval(), x), x.double())
    net.forward = lambda x: net[4](net[3](net[2](net[0](x))))  # type: ignore[method-assign]
    torch.testing.assert_close(run(traced(net, x), x.double()), expected, rtol=0, atol=1e-12)


def test_a_network_that_trains_meanwhile() -> None:
    """Its steps are not disturbed, and every graph is one of a network that can have been."""
    net, x = network(), gaussian_images(4, 1)
    stop, wrong = threading.Event(), list[BaseException]()

    def train() -> None:
        optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
        try:
            while not stop.is_set():
                optimiser.zero_grad()
                net(x).square().mean().backward()
                optimiser.step()
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=train)
    other = disturbed(network())
    thread.start()
    try:
        outputs = [run(traced(other, x), x.double()) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert not wrong and all(torch.equal(outputs[0], output) for output in outputs)


# What has no weights, or is no Python code


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return network()


@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lazy, r"0\.weight has no shape yet: run the network once on an image"),
        (on_meta, r"0\.weight is on the meta device, without values: use to_empty\(\) and load_state_dict\(\)"),
        (lambda: torch.jit.script(network()), r"is TorchScript: give the nn\.Module it was made of"),
        (
            lambda: torch.jit.trace(network().eval(), gaussian_images(1, 0)),
            r"is TorchScript: give the nn\.Module it was made of",
        ),
        (lambda: nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 3)), nn.Flatten()), r"^0 \(.*\) is TorchScript"),
        (
            lambda: nn.Sequential(nn.Flatten(), torch.ao.nn.quantized.dynamic.Linear(192, 2)),
            r"^1 \(Linear\) is a quantised module: give the nn\.Module with real weights",
        ),
    ],
    ids=["lazy", "meta", "script", "trace", "a part of TorchScript", "quantised"],
)
def test_refuses_by_name(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(InputError, match=words):
        traced(make().eval(), gaussian_images(1, 0))


def test_refuses_exported_programs() -> None:
    exported = torch.export.export(network().eval(), (gaussian_images(1, 0),))
    with pytest.raises(InputError, match=r"is an ExportedProgram: give the nn\.Module it was made of"):
        traced(exported, gaussian_images(1, 0))  # type: ignore[arg-type]


def test_lazy_modules_convert_after_a_call() -> None:
    net, x = lazy().eval(), gaussian_images(2, 0)
    expected = net(x).double().detach()
    torch.testing.assert_close(run(traced(net, x), x.double()), expected, rtol=0, atol=1e-6)
