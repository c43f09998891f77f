"""dynconf: spiking neural networks that stop each inference as soon as they are confident enough.

Dynamic Confidence (Li, Jones and Furber, ICCV 2023) as a library. The public names and where they come from stand in
``__init__.pyi``, for people, type checkers and this module alike; each is imported when it is first used.
"""


def __getattr__(name: str) -> object:
    from importlib import import_module, metadata

    if name == "__version__":
        found: object = metadata.version("dynconf")
    elif name in (public := _public()):
        found = getattr(import_module(public[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_public(), "__version__"})


def _public() -> dict[str, str]:
    """Public name to the module that it comes from. Read and not imported, so that a new name makes no finished stage stale."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {alias.name: node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
