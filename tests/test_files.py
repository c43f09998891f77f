"""Files and folders are written whole or not at all, and a failing disk is reported by the final path."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dynconf_core.failing import failing
from dynconf_core.files import TEMPORARY, NotWritten, copy, naming, reserve, write_text, written, written_folder


def listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    with written(target) as stream:
        stream.write(b"one")
        assert not target.exists()
        (beside,) = target.parent.iterdir()
        found = TEMPORARY.fullmatch(beside.name)
        assert found is not None and int(found["pid"]) == os.getpid() and socket.gethostname().startswith(found["host"])
    assert target.read_bytes() == b"one" and listed(target.parent) == {"a.bin"}


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(KeyboardInterrupt), written(target) as stream:
        stream.write(b"new")
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), written_folder(tmp_path / "folder") as folder:
        (folder / "x").write_text("x")
        raise ZeroDivisionError
    assert target.read_text() == "old" and listed(tmp_path) == {"a.txt"}


def test_an_error_before_the_renaming_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def hook(name: str) -> None:
        assert name == "file.written"
        assert any(path.read_text() == "new" for path in tmp_path.iterdir())
        raise InterruptedError

    with failing(hook), pytest.raises(InterruptedError):
        write_text(target, "new")
    assert target.read_text() == "old" and listed(tmp_path) == {"a.txt"}


@pytest.mark.parametrize("what", ["write_text({target!r}, 'new')", "copy(__file__, {target!r})"])
def test_a_kill_before_the_renaming_leaves_the_old_file(tmp_path: Path, what: str) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    script = tmp_path / "script.py"
    script.write_text(f"from dynconf_core.files import copy, write_text\n{what.format(target=str(target))}\n")
    environment = {**os.environ, "DYNCONF_DIE_AT": "file.written"}
    assert subprocess.run([sys.executable, script], env=environment, check=False).returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    (left,) = listed(tmp_path) - {"a.txt", "script.py"}
    assert TEMPORARY.fullmatch(left)


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "a.txt"
    outside.write_text("mine")
    target.symlink_to(outside)
    write_text(target, "new")
    assert outside.read_text() == "mine" and not target.is_symlink() and target.read_text() == "new"


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    with pytest.raises(NotWritten, match=re.escape(str(tmp_path / "a")) + r" cannot be written \(is a directory\)"):
        write_text(tmp_path / "a", "x")
    with pytest.raises(NotWritten, match="not a directory"):
        write_text(tmp_path / "a" / "b" / "c", "x")
    assert listed(tmp_path) == {"a"} and listed(tmp_path / "a") == {"b"}


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), written(tmp_path / "a"):
        (tmp_path / "missing").read_text()
    with pytest.raises(FileNotFoundError):
        copy(tmp_path / "missing", tmp_path / "a")
    with pytest.raises(RuntimeError, match="unrelated"), written(tmp_path / "a"):
        raise RuntimeError("unrelated")
    assert not listed(tmp_path)


def test_the_longest_name_and_odd_characters(tmp_path: Path) -> None:
    for name in ("é" * 127, "a" * 255, "%41 ?[red]\n"):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    with pytest.raises(NotWritten, match="shorter name"):
        write_text(tmp_path / ("a" * 256), "x")


def cannot_grow(folder: Path, lines: str) -> str:
    """The output of a process that runs ``lines`` and whose files may not grow beyond 64 KiB."""
    script = folder / "script.py"
    head = (
        "import resource, signal, sys, numpy as np\nfrom pathlib import Path\nfrom dynconf_core.files import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "target = Path(sys.argv[1])\ntry:\n"
    )
    body = "".join(f"    {line}\n" for line in lines.splitlines())
    script.write_text(head + body + "except NotWritten as error:\n    print(error)\n")
    done = subprocess.run([sys.executable, script, folder / "out" / "a"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "lines",
    [
        "write_text(target, 'a' * 10**6)",
        "with written(target) as stream:\n    np.savez(stream, a=np.zeros(10**6))",
        "with written_folder(target) as folder:\n    (folder / 'x').write_bytes(bytes(10**6))",
        "copy(target.parent.parent / 'big', target)",
    ],
)
def test_a_file_that_cannot_grow_is_named_and_removed(tmp_path: Path, lines: str) -> None:
    (tmp_path / "big").write_bytes(bytes(10**6))
    said = cannot_grow(tmp_path, lines)
    assert said.startswith(f"{tmp_path / 'out' / 'a'} cannot be written (file too large): ")
    assert not listed(tmp_path / "out")


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = os.statvfs_result((4096, 4096, 100, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: usage)


@pytest.mark.parametrize(
    "error", [OSError("2000000 requested and 262128 written"), RuntimeError("unexpected pos 576 vs 534"), OSError(28, "x")]
)
def test_errors_that_do_not_say_that_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    full(monkeypatch)
    with pytest.raises(NotWritten, match=r"a cannot be written \(no space left on device\): free"), naming(tmp_path / "a"):
        raise error


def test_space_is_reserved_before_it_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that, a write to a map on a full disk ends the process by SIGBUS."""
    script = (
        "made = np.lib.format.open_memmap('map.npy', 'w+', np.float64, (10**4,))\nreserve('map.npy')\n"
        "made[:] = 1\nprint(Path('map.npy').stat().st_blocks * 512 >= 8 * 10**4)"
    )
    (tmp_path / "script.py").write_text(
        f"import numpy as np\nfrom pathlib import Path\nfrom dynconf_core.files import reserve\n{script}\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(NotWritten, match=r"map\.npy cannot be written"):
        reserve(tmp_path / "map.npy")


def refuse(descriptor: int, start: int, length: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_torch_and_numpy_write_is_written_whole(tmp_path: Path) -> None:
    with written(tmp_path / "a.pt") as stream:
        torch.save({"a": torch.arange(3)}, stream)
    with written(tmp_path / "a.npy") as stream:
        np.save(stream, np.arange(3))
    assert torch.equal(torch.load(tmp_path / "a.pt", weights_only=True)["a"], torch.arange(3))
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.arange(3))
    with pytest.raises(NotWritten) as raised:
        write_text(tmp_path / "a.pt" / "b", "x")
    assert raised.value.errno == errno.ENOTDIR
