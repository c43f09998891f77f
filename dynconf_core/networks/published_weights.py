"""Published weights, from torch's cache or downloaded into it, with a time limit.

torch's own downloader has no time limit and can hang on a closed network. The files are named ``<name>-<first digits of their
sha256>.<ending>`` and kept in the folder ``checkpoints`` of ``torch.hub.get_dir()`` (set by the variable TORCH_HOME), where
torchvision looks for them too.
"""

import os
import re
import secrets
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import torch

from dynconf_core.data.digests import file_digest
from dynconf_core.errors import InputError

TIMEOUT = 10.0  # seconds to connect, and between two pieces of data
_PIECE = 1 << 20  # bytes


def fetched(url: str) -> Path:
    """The file at ``url``, downloaded if it is not in the cache yet; its checksum is verified in either case.

    Raises:
        InputError: if it cannot be downloaded or written, or does not have the checksum in its name.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    by_hand = f"download {url} in another way and save it as {path}, or give a file with --checkpoint"
    if not path.is_file():
        _download(url, path, by_hand)
    digits = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    if digits and not file_digest(path).startswith(digits[1]):
        raise InputError(f"{path} does not have the sha256 that its name gives: delete it, then {by_hand}.")
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
