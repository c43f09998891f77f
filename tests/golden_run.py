"""A tiny training, conversion and collection, on made-up images: prints the digest of each as JSON.

    python tests/golden_run.py [--write]

A script, because what makes its bits independent of the CPU, ``ENVIRONMENT``, has to be set before torch is loaded. With
``--write`` the digests become those that ``test_golden.py`` compares with.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden" / "digests.json"
ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
"""torch, MKL and oneDNN then use the instructions that every x86-64 CPU has."""


def digest(arrays: Iterable[Any]) -> str:
    """The sha256 over the bytes of arrays."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(array.tobytes())
    return whole.hexdigest()[:16]


def digests() -> dict[str, str]:
    """Those of training, conversion and collection with each method."""
    import torch
    from training_cases import CPU, RECIPE, network, pictures

    from dynconf_core.conversion.convert import convert
    from dynconf_core.schemes.scheme import SCHEMES
    from dynconf_core.simulation.collect import collect
    from dynconf_core.training.loop import train

    torch.backends.mkldnn.enabled = False  # type: ignore[attr-defined]
    torch.backends.nnpack.set_flags(False)
    found = {}
    images = pictures(40)
    for method, time_steps in (("qcfs", 8), ("qffs", 4)):
        ann = network(method)
        train(ann, images, RECIPE, seed=3, device=CPU)
        found[f"{method}: training"] = digest(value.numpy() for value in ann.state_dict().values())
        # Conversion and collection start from weights that no training has touched.
        fresh = network(method, seed=1)
        for module in fresh.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean = torch.linspace(-0.5, 0.5, module.num_features)
                module.running_var = torch.linspace(0.5, 2, module.num_features)
            if "initialised" in dict(module.named_buffers(recurse=False)):
                module.initialise(torch.linspace(0, 2, 64))
        options = SCHEMES.get(method)(**({"levels": 4} if method == "qcfs" else {"bits": 2})).conversion(time_steps)
        some = images.normalisation(images.pixels[:4])
        snn = convert(
            fresh.eval(),
            some,
            **options,
            time_steps=time_steps,
            fixed_point=True,
            image_limit=images.normalisation.limit(),
        )
        tensors = snn.tensors()
        found[f"{method}: conversion"] = digest(tensors[node][name].numpy() for node in tensors for name in tensors[node])
        traces = collect(snn, fresh, images, time_steps)
        parts = (traces.logits, traces.spikes, traces.synaptic_operations, traces.ann_logits, traces.reference_logits)
        found[f"{method}: collection"] = digest(parts)
    return found


def main(words: list[str]) -> None:
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, __file__, *words], {**os.environ, **ENVIRONMENT})
    import torch

    content = {"torch": torch.__version__.partition("+")[0], "digests": digests()}
    if "--write" in words:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content))


if __name__ == "__main__":
    main(sys.argv[1:])
