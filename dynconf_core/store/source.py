"""The part of a source file that can change a result: its digest, and what it imports.

The digest covers the parsed source, so that comments, blank lines and formatting do not change it. Neither do docstrings, the
annotations of functions, and texts for people: those of exceptions that are raised, of assertions, log records and warnings,
and those given to a callback called ``progress`` or ``listener``. The entries of a ``Registry`` do not count either: a key
names the one that is used.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator

Import = tuple[int, str, tuple[str, ...]]
"""Level (leading dots), module, and the names imported from it."""
LOGGING = ("debug", "info", "warning", "error", "exception", "critical", "log")
LOGGERS = ("logging", "logger", "log", "_log", "warnings")
CALLBACKS = ("progress", "listener")


@functools.lru_cache(maxsize=512)
def digest_and_imports(source: bytes) -> tuple[str, tuple[Import, ...]]:
    """The digest (64 hexadecimal digits) of a file's source, and its imports.

    Raises SyntaxError or ValueError if it does not parse.
    """
    tree = ast.parse(source)
    imports = tuple(_imports(tree))
    text = "".join(_dump(_WithoutTexts().visit(tree)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), imports


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can be executed, that is, all but those below ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def _imports(tree: ast.Module) -> Iterator[Import]:
    for node in _run(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            name = getattr(node.args[0], "value", None)
            if called in ("import_module", "__import__") and isinstance(name, str):
                yield 0, name, ()


class _WithoutTexts(ast.NodeTransformer):
    """Removes what does not count, except for bare strings."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any(getattr(base, "id", "").endswith(("Error", "Exception")) for base in node.bases):
            for part in ast.walk(node):
                if isinstance(part, ast.Expr) and isinstance(part.value, ast.Call) and _named(part.value) == "__init__":
                    _blank(part.value, whatever_they_call=True)
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            _blank(node.exc, whatever_they_call=True)
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Call) and _for_people(node.value):
            _blank(node.value, whatever_they_call=False)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if _named(node) == "Registry" and len(node.args) > 2:
            node.args[2] = ast.Constant("")
        return self.generic_visit(node)


def _named(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _for_people(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id in CALLBACKS
    on = getattr(call.func, "value", None)
    return getattr(on, "id", "") in LOGGERS and _named(call) in (*LOGGING, "warn")


def _blank(call: ast.Call, whatever_they_call: bool) -> None:
    """Empty the texts in the arguments of a call; formatted ones that call functions only where the program goes elsewhere."""

    class Blank(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            return ast.Constant("") if isinstance(node.value, str) else node

        def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
            calls = any(isinstance(part, ast.Call | ast.NamedExpr | ast.Await) for part in ast.walk(node))
            return self.generic_visit(node) if calls and not whatever_they_call else ast.Constant("")

    call.args = [Blank().visit(argument) for argument in call.args]
    for keyword in call.keywords:
        keyword.value = Blank().visit(keyword.value)


def _dump(value: object) -> Iterator[str]:
    """The parsed source as text, without positions, bare strings and empty fields.

    `ast.dump` and `ast.unparse` would do, but their output changes between versions of Python.
    """
    if isinstance(value, ast.AST):
        yield type(value).__name__ + "("
        for field in sorted(value._fields):
            child = getattr(value, field, None)
            if field in ("ctx", "kind", "type_comment") or child == []:
                continue
            if child is None and not isinstance(value, ast.Constant):
                continue
            yield field + "="
            yield from _dump(child)
        yield ")"
    elif isinstance(value, list):
        yield "["
        for item in value:
            if not _is_bare_string(item):
                yield from _dump(item)
                yield ","
        yield "]"
    else:
        yield repr(value)


def _is_bare_string(node: object) -> bool:
    """A docstring, or a string standing alone as a statement."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
