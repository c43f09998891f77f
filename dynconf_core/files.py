"""Writing files and folders whole or not at all.

Everything is written under a temporary name beside its final name, flushed to disk and renamed. A process that is killed leaves
at most a temporary, whose name holds the host and the process that wrote it; an error leaves nothing. What goes wrong with the
disk is raised as ``NotWritten``, which names the final path.
"""

import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dynconf_core.failing import failure_point

TEMPORARY = re.compile(r"\..*\.(?P<host>[^/]*)-(?P<pid>\d+)-[0-9a-f]{8}\.tmp", re.DOTALL)
"""The names of temporary files and folders."""
LONGEST = 40
"""Characters of the final name, and of the host, in a temporary name: names of files have at most 255 bytes."""
LITTLE = 2**20
"""Free bytes below which a disk counts as full where the error itself does not say so."""
ANOTHER = "name another place"
REMEDIES = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some of your quota and run again",
    errno.EIO: "look at the disk and run again",
    errno.EFBIG: "write it to another file system",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.EEXIST: "move it away or name another place",
    errno.EISDIR: "it is a folder; move it away or name another place",
    errno.ENOTEMPTY: "it is a folder that is not empty; move it away or name another place",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP), ANOTHER),
}
"""What helps against each error of a disk."""


class NotWritten(OSError):
    """A file or folder that could not be written; the message names it, the reason and the remedy."""

    def __init__(self, number: int, path: Path) -> None:
        super().__init__(number, os.strerror(number), str(path))

    @property
    def of_the_disk(self) -> bool:
        """Whether the disk failed or is full; otherwise the place cannot take the file."""
        return self.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)

    def __str__(self) -> str:
        assert self.errno is not None and self.strerror is not None
        reason = self.strerror[:1].lower() + self.strerror[1:]
        return f"{self.filename} cannot be written ({reason}): {REMEDIES.get(self.errno, ANOTHER)}."


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary stream whose content becomes the file ``path`` when the block ends normally; folders are created.

    An existing file, or a link, is replaced and never written through.

    Raises:
        NotWritten: if the disk is full or does not let the file be written.
    """
    target = Path(path)
    with _placed(target) as beside:
        with beside.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        failure_point("file.written")
        beside.replace(target)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8, whole or not at all; see ``written``."""
    with written(path) as stream:
        stream.write(text.encode("utf-8"))


def copy(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Copy a file's content, whole or not at all; see ``written``."""
    with open(source, "rb") as read, written(path) as stream:
        shutil.copyfileobj(read, stream, 2**20)


@contextmanager
def written_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder that becomes ``path``, which must not exist or be an empty folder, when the block ends normally.

    Raises:
        NotWritten: if the disk is full or does not let the folder be written.
    """
    target = Path(path)
    with _placed(target) as beside:
        beside.mkdir()
        yield beside
        for file in beside.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        failure_point("file.written")
        beside.replace(target)


def link(path: str | os.PathLike[str], to: str) -> None:
    """Make the symbolic link ``path``, or replace it; a file or folder of that name is never replaced.

    Raises:
        NotWritten: if something else has that name, or the link cannot be made.
    """
    target = Path(path)
    with _placed(target) as beside:
        if os.path.lexists(target) and not target.is_symlink():
            raise NotWritten(errno.EISDIR if target.is_dir() else errno.EEXIST, target)
        beside.symlink_to(to)
        beside.replace(target)


def set_aside(path: Path, endings: Sequence[str] = ()) -> Path:
    """Rename a file that is of no use, so that a new one can take its place.

    Args:
        path: the file.
        endings: endings of files beside it that belong to it. They are renamed before it: if the process is killed in between,
            what is left is set aside the next time.

    Returns:
        its new path, ``NAME.damaged-TIME-HOST-PID``.
    """
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{host()}-{os.getpid()}")
    for ending in (*endings, ""):
        beside = path.with_name(path.name + ending)
        if beside.exists():
            beside.replace(aside.with_name(aside.name + ending))
    return aside


def host() -> str:
    """The name of this host as part of a file's name."""
    return socket.gethostname().replace("/", "")[:LONGEST]


def make_folder(path: Path) -> None:
    """Create a folder and those that it lies in.

    Raises:
        NotADirectoryError: if one of them is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from None


def reserve(path: str | os.PathLike[str]) -> None:
    """Allocate the disk space of a sparse file, such as a new memory map: once it is full, writing to a map kills the process.

    Raises:
        NotWritten: if there is not enough space.
    """
    with naming(Path(path)), open(path, "r+b") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot allocate
                raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn errors of the disk in the block, whose own text may name nothing, into ``NotWritten`` for ``path``."""
    try:
        yield
    except NotWritten:
        raise
    except (OSError, RuntimeError) as error:
        number = _number(error, path)
        if number not in REMEDIES:
            raise
        raise NotWritten(number, path) from error


@contextmanager
def _placed(target: Path) -> Iterator[Path]:
    """A temporary name beside ``target``; what lies there is removed if the block fails."""
    beside = target.with_name(f".{target.name[:LONGEST]}.{host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with naming(target):
            make_folder(target.parent)
            yield beside
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True) if beside.is_symlink() or not beside.is_dir() else shutil.rmtree(beside)
        raise


def _number(error: OSError | RuntimeError, path: Path) -> int | None:
    """The error number of a failed write; None if the error is another.

    On a full disk torch raises a RuntimeError, and numpy an OSError without a number.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    nearest = next((folder for folder in path.absolute().parents if folder.is_dir()), None)
    return errno.ENOSPC if nearest is not None and shutil.disk_usage(nearest).free < LITTLE else None
