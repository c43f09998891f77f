"""The callback by which long work reports its progress and can be stopped."""

from typing import Protocol


class Progress(Protocol):
    """Called after every batch; an exception raised here stops the work, which keeps what it has written so far."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """``done`` of ``total`` batches are finished; ``text`` gives the current figures (a loss, an accuracy)."""


def silent(done: int, total: int, text: str) -> None:
    """Report nothing."""
