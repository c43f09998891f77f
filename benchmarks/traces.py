"""Collecting traces of QCFS networks with dynconf and SpikingJelly: images per second, peak memory, and equal logits.

    python benchmarks/traces.py                      # ResNet-18 and VGG-16, full and quarter width, T = 32
    python benchmarks/traces.py --width 0.25 --repeats 7 --threads 1
    python benchmarks/traces.py --device cuda --images 1024      # SpikingJelly chooses its own kernels for the device

Each contender runs in fresh processes with equal environments (on a GPU all run in one), first to warm up, then alternating
with the others. All use the same converted weights (batch normalisation folded, in threshold units, fixed point) and compute
the first layer's constant input current once. SpikingJelly runs its multi-step IFNode with soft reset, layer by layer, with
the batch size and memory layout that suit it best; dynconf itself chooses how many images and time steps it computes at a
time. The weights are random, as the arithmetic does not depend on them.
"""

import argparse
import copy
import hashlib
import json
import time
from functools import cache
from typing import Any

import measuring
import torch
from torch import Tensor, nn

CONTENDERS = ("spikingjelly", "dynconf-float32", "dynconf")
LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
BATCHES = {"cpu": (4, 16, 64), "cuda": (64, 256, 1024)}
FORMS: dict[str, list[dict[str, Any]]] = {
    "dynconf-float32": [{}],
    "dynconf": [{}],
}
"""Forms tried for each contender; only the fastest is compared."""


def network(architecture: str, width: float) -> tuple[nn.Module, Tensor]:
    """A network with plausible statistics of batch normalisation, and images."""
    from dynconf_core.schemes.network import described

    description = {"architecture": architecture, "stem": "cifar", "classes": 10, "resolution": 32, "width": width}
    ann = described({**description, "method": "qcfs", "levels": 4, "initial_threshold": 2.0}, seed=0)
    images = torch.randn(256, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp_(-2.5, 2.5)
    ann.train()
    with torch.no_grad():
        for _ in range(10):  # running statistics
            ann(images[:16])
    return ann.eval(), images


@cache
def converted(architecture: str, width: float, time_steps: int) -> tuple[Any, Tensor]:
    """The SNN of such a network, and its images."""
    from dynconf_core.conversion.convert import convert

    ann, images = network(architecture, width)
    return convert(ann, images[:8], time_steps=time_steps), images


class SpikingJellyNetwork(nn.Module):
    """The same graph in SpikingJelly's multi-step modules."""

    def __init__(self, snn: Any, layout: torch.memory_format) -> None:
        from spikingjelly.activation_based import layer, neuron

        super().__init__()
        self.snn, self.layout = snn, layout
        self.parts = nn.ModuleDict()
        tensors = snn.tensors()
        self.after = snn.graph.after(("neurons",))
        for node in snn.graph.nodes:
            own = tensors[node.name]
            made: nn.Module
            if node.kind == "neurons":
                made = neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode="m")
            elif node.kind == "convolution":
                outputs, inputs = own["weight"].shape[:2]
                kernel = tuple(own["weight"].shape[2:])
                settings = node.settings
                made = layer.Conv2d(
                    inputs, outputs, kernel, settings["stride"], settings["padding"], bias="bias" in own, step_mode="m"
                )
            elif node.kind == "linear":
                made = layer.Linear(own["weight"].shape[1], own["weight"].shape[0], bias="bias" in own, step_mode="m")
            else:
                continue
            if "weight" in own:
                if own["weight"].ndim == 4:  # to avoid a second copy
                    own["weight"].data = own["weight"].contiguous(memory_format=layout)
                made.weight.data = own["weight"]
                if "bias" in own:
                    made.bias.data = own["bias"]
            self.parts[node.name.replace(".", "/")] = made

    def forward(self, images: Tensor, time_steps: int) -> Tensor:
        from spikingjelly.activation_based import functional

        from dynconf_core.graph.operations import evaluate

        functional.reset_net(self)
        for part in self.parts.values():
            if hasattr(part, "v_threshold"):
                part.v = 0.5
        once = self.snn.input_current(images).values
        once = {name: value.contiguous(memory_format=self.layout) if value.ndim == 4 else value for name, value in once.items()}
        values = {name: value.unsqueeze(0).expand(time_steps, *value.shape) for name, value in once.items()}
        tensors = self.snn.tensors()
        for node in self.snn.graph.nodes:
            if node.name not in self.after:
                continue
            inputs = [values[name] for name in node.inputs]
            place = node.name.replace(".", "/")
            if place in self.parts:
                values[node.name] = self.parts[place](inputs[0])
            elif node.kind == "add":
                values[node.name] = inputs[0] + inputs[1]
            else:
                merged = evaluate(node, [one.flatten(0, 1) for one in inputs], tensors[node.name])
                values[node.name] = merged.view(time_steps, -1, *merged.shape[1:])
            for name in node.inputs:  # as a sequential module would free them
                if all(reader.name in values for reader in self.snn.graph.readers[name]):
                    values.pop(name, None)
        return values[self.snn.graph.output.name].transpose(0, 1)


@torch.inference_mode()
def worker(arguments: dict[str, Any]) -> dict[str, Any]:
    """Simulate; returns images per second of each repeat, peak memory, and a digest of the logits."""
    from dynconf_core.simulation.exactness import plain_arithmetic

    contender, time_steps, count = arguments["contender"], arguments["time_steps"], arguments["images"]
    batch = arguments.get("batch", count)
    with torch.inference_mode(False):
        snn, images = converted(arguments["architecture"], arguments["width"], time_steps)
        snn = copy.deepcopy(snn).to(arguments["device"])  # of which SpikingJelly's modules share the weights
        images = images.repeat(-(-count // len(images)), 1, 1, 1)[:count].to(arguments["device"])
        run: Any = SpikingJellyNetwork(snn, LAYOUTS[arguments["layout"]]).eval() if contender == "spikingjelly" else snn
    layers: list[str] = []
    on_gpu = arguments["device"] != "cpu"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if contender == "dynconf" and not on_gpu:
        layers = snn.accelerate(snn.pace(count, time_steps).rows)
    rates, digest = [], hashlib.sha256()
    with plain_arithmetic():
        for repeat in range(arguments["repeats"] + 1):
            start = time.perf_counter()
            for part in images[:count].split(batch):
                logits = run(part, time_steps)
                if repeat == 0:
                    digest.update(logits.contiguous().cpu().numpy().tobytes())
            if on_gpu:
                torch.cuda.synchronize()
            if repeat:
                rates.append(count / (time.perf_counter() - start))
    form = f"{batch}, {arguments['layout']}" if contender == "spikingjelly" else "{} x {}".format(*snn.pace(count, time_steps))
    return {
        "rates": rates,
        "memory": torch.cuda.max_memory_allocated() / 2**20 if on_gpu else measuring.peak_memory(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "logits": digest.hexdigest()[:16],
        "integer_layers": len(layers),
        "form": form,
    }


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--architecture", action="append", choices=("resnet18", "vgg16"))
    parser.add_argument("--width", action="append", type=float)
    parser.add_argument("--device", default="cpu", choices=tuple(BATCHES))
    parser.add_argument("--time-steps", type=int, default=32)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--form", help="form of SpikingJelly, e.g. 16,NCHW [default: the fastest in a trial]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(json.loads(given.worker))))
        return
    batches = [batch for batch in BATCHES[given.device] if batch <= given.images] or [given.images]
    FORMS["spikingjelly"] = [{"batch": batch, "layout": layout} for batch in batches for layout in LAYOUTS]
    if given.form:
        batch, layout = given.form.split(",")
        FORMS["spikingjelly"] = [{"batch": int(batch), "layout": layout}]
    print(f"T = {given.time_steps}, {given.images} images, medians of {given.repeats}")
    print(measuring.environment_line(given.threads))
    print("| network | width | contender | at a time | images/s | against SpikingJelly | peak memory | same logits |")
    print("|---|---:|---|---:|---:|---:|---:|---|")
    for architecture in given.architecture or ("resnet18", "vgg16"):
        for width in given.width or (1.0, 0.25):
            base = {"architecture": architecture, "width": width, "device": given.device}
            base |= {"time_steps": given.time_steps, "images": given.images}
            best: dict[str, dict[str, Any]] = {}
            # On a GPU float32 is all there is.
            contenders = [one for one in CONTENDERS if given.device == "cpu" or one != "dynconf-float32"]
            for contender in contenders:
                rates = [0.0]
                if len(FORMS[contender]) > 1:
                    asked = [{**base, "contender": contender, "repeats": 1, **form} for form in FORMS[contender]]
                    rates = [measuring.asked(worker, "traces.py", one, given.threads)["rates"][0] for one in asked]
                best[contender] = FORMS[contender][rates.index(max(rates))]
            rounds: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
            for _ in range(given.repeats):  # alternating, so that other load on the machine affects all alike
                for contender in contenders:
                    one = {**base, "contender": contender, "repeats": 1, **best[contender]}
                    rounds[contender].append(measuring.asked(worker, "traces.py", one, given.threads))
            reference = rounds[contenders[0]]
            for contender in contenders:
                found = rounds[contender]
                rate = measuring.median([one["rates"][0] for one in found])
                ratio = measuring.median(
                    [one["rates"][0] / other["rates"][0] for one, other in zip(found, reference, strict=True)]
                )
                memory = measuring.median([one["memory"] for one in found])
                same = "yes" if found[0]["logits"] == reference[0]["logits"] else "NO"
                layers = f" ({found[0]['integer_layers']} integer layers)" if contender == "dynconf" else ""
                print(
                    f"| {architecture} | {width:g} | {contender}{layers} | {found[0]['form']} | {rate:.1f} | {ratio:.2f}x | "
                    f"{memory:.0f} MiB | {same} |",
                    flush=True,
                )
            if given.device != "cpu":
                print(f"on {reference[0]['device']}", flush=True)


if __name__ == "__main__":
    main()
