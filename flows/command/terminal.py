"""Printing on any terminal, file or pipe, of text that may come from anywhere.

Text is printed as it is: brackets are no markup, and control characters are shown instead of sent. An encoding that lacks a
character gets a substitute, and a reader that goes away (``| head``) does not end a run.
"""

import codecs
import io
import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

SUBSTITUTES = {"→": "->", "—": "-", "\u2013": "-", "±": "+-", "…": "...", "\xd7": "x", "\u2212": "-"}
HANDLER = "dynconf.substitute"
VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Control characters by code, and how they are shown."""


class Terminal(Console):
    """A console on which text is no markup; for colours there is ``Text``."""

    def __init__(self, *, stderr: bool = False, quiet: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, quiet=quiet, width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """See ``rich``; control characters are shown."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """Go on without output; ``rich`` would end the process."""
        self.quiet = True
        silence(self.file)


def labelled(label: str, style: str, text: str) -> Text:
    """A coloured label before a text."""
    return Text.assemble((label, style), " ", visible(text))


def visible(text: str) -> str:
    """The text with its control characters shown."""
    return text.translate(VISIBLE)


def prepare() -> None:
    """Let both outputs of this process take any character."""
    codecs.register_error(HANDLER, _substituted)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def flush() -> None:
    """Write what is left in both outputs; a reader that has gone away is no error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            silence(stream)


def silence(stream: Any) -> None:
    """Discard all further output to a stream of the process, as Python itself does once more when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):  # a stream without a file
        pass


def _substituted(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler for encodings: substitutes, or escapes such as \\u2192."""
    assert isinstance(error, UnicodeEncodeError)
    here = error.object[error.start]
    if here in SUBSTITUTES:
        return SUBSTITUTES[here], error.start + 1
    return codecs.backslashreplace_errors(UnicodeEncodeError(error.encoding, error.object, error.start, error.start + 1, ""))
