"""dynconf: spiking neural networks that end each inference as soon as they are confident enough.

Dynamic Confidence (Li, Jones and Furber, ICCV 2023) as a library. The public names and the modules they come from are listed in
``__init__.pyi``, which serves readers, type checkers and this module alike; each name is imported on first use.
"""


def __getattr__(name: str) -> object:
    from importlib import import_module, metadata

    if name == "__version__":
        found: object = metadata.version("dynconf")
    elif name == "__all__":
        found = sorted(_public())
    elif name in (public := _public()):
        found = getattr(import_module(public[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_public(), "__version__"})


def _public() -> dict[str, str]:
    """Each public name with the module it comes from. The stub is read, not imported: a new public name invalidates no
    finished stage."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {alias.name: node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
