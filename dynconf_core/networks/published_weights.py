"""Published weights from torch's own cache, or downloaded into it, without ever hanging on a closed network.

torch's own downloader sets no time limit. The files are named ``<name>-<first digits of their sha256>.<ending>``, in the
folder ``checkpoints`` of ``torch.hub.get_dir()`` (the variable TORCH_HOME moves it), where torchvision looks as well.
"""

import hashlib
import os
import re
import secrets
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import torch

from dynconf_core.errors import InputError

TIMEOUT = 10.0  # seconds to connect, and between two pieces of data
_PIECE = 1 << 20  # bytes


def fetched(url: str) -> Path:
    """The file that ``url`` names, downloaded where it is not in the cache yet, its checksum verified either way.

    Raises:
        InputError: where it cannot be downloaded or written, or is not the file that its name promises.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    by_hand = f"download {url} by any other way and put it there as {path}, or give a file with --checkpoint"
    if not path.is_file():
        _download(url, path, by_hand)
    digits = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    if digits and not _sha256(path).startswith(digits[1]):
        raise InputError(f"{path} is not the file that its name promises (its sha256 is another): delete it, then {by_hand}.")
    return path


def _download(url: str, path: Path, by_hand: str) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response, beside.open("xb") as out:
            total = int(response.headers.get("Content-Length") or 0)
            while piece := response.read(_PIECE):
                out.write(piece)
        if total and beside.stat().st_size != total:
            raise OSError(f"the connection broke after {beside.stat().st_size} of {total} bytes")
        os.replace(beside, path)
    # A network has many ways to fail (URLError, TimeoutError, IncompleteRead, ...).
    except Exception as fault:
        cause = getattr(fault, "reason", fault)  # URLError wraps what happened
        raise InputError(f"{url} cannot be downloaded ({str(cause) or type(cause).__name__}): {by_hand}.") from fault
    finally:
        beside.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
