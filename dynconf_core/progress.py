"""How long work tells its caller how far it is, and how its caller stops it."""

from typing import Protocol


class Progress(Protocol):
    """Called after every batch; an exception raised here ends the work, which keeps what it has written."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` batches are done; ``text`` says what the figures are now (a loss, an accuracy)."""


def silent(done: int, total: int, text: str) -> None:
    """Tell nobody."""
