"""Fetching CIFAR-10: verified for any source, complete or not at all, and reported in plain sentences."""

import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dynconf_core.data import cifar10_sources as sources_module
from dynconf_core.data.cifar10 import BINARY_SHA1, FOLDER, verify_cifar10
from dynconf_core.data.cifar10_sources import Source, SourceError
from dynconf_core.data.class_names import KNOWN
from dynconf_core.data.fetch_cifar10 import fetch_cifar10
from dynconf_core.errors import InputError

PER_BATCH = 3
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def batches() -> dict[str, bytes]:
    """Six tiny batches of the official layout: label byte, then 32 x 32 red, green and blue bytes."""
    random = np.random.default_rng(0)
    made = {}
    for name in NAMES:
        records = random.integers(0, 256, (PER_BATCH, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        made[f"{name}.bin"] = records.tobytes()
    return made


CONTENT = batches()
TINY_SHA1 = {name: hashlib.sha1(content).hexdigest() for name, content in CONTENT.items()}


def deliver(content: Mapping[str, bytes] = CONTENT) -> Source:
    def fill(folder: Path, say: Callable[[str], None]) -> None:
        for name, batch in content.items():
            (folder / name).write_bytes(batch)

    return Source("the good source", fill)


def fail(fault: BaseException) -> Source:
    def fill(folder: Path, say: Callable[[str], None]) -> None:
        (folder / "data_batch_1.bin").write_bytes(b"half")
        raise fault

    return Source("the broken source", fill)


def tarball(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def mirror_members() -> dict[str, bytes]:
    """The files of the npm package for the tiny batches, made pixel by pixel."""
    members = {}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    for name in NAMES:
        content = CONTENT[f"{name}.bin"]
        image = Image.new("RGB", (1024, PER_BATCH))
        for row in range(PER_BATCH):
            record = content[row * 3073 : (row + 1) * 3073]
            labels["test" if name == "test_batch" else "train"].append(record[0])
            for pixel in range(1024):
                red, green, blue = (record[1 + plane * 1024 + pixel] for plane in range(3))
                image.putpixel((pixel, row), (red, green, blue))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        members[f"package/{name}.png"] = stream.getvalue()
    members["package/train_lables.json"] = json.dumps(labels["train"]).encode()
    members["package/test_lables.json"] = json.dumps(labels["test"]).encode()
    return members


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def nothing(_: str) -> None:
    pass


def test_it_makes_the_official_folder_and_then_does_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    root = tmp_path / "new" / "data"
    target = fetch_cifar10(root, say=said.append, sources=[deliver()], sha1=TINY_SHA1)
    assert target == root / FOLDER
    assert {path.name for path in target.iterdir()} == {*CONTENT, "batches.meta.txt"}
    assert (target / "batches.meta.txt").read_text().split() == list(KNOWN["cifar10"])
    assert (target / "batches.meta.txt").stat().st_size == 61  # as in the official archive
    assert list(root.iterdir()) == [target]
    assert "Trying the good source." in said and "checksums correct" in said[-1]
    verify_cifar10(root, sha1=TINY_SHA1)

    said.clear()
    times = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    fetch_cifar10(root, say=said.append, sources=[fail(AssertionError("asked"))], sha1=TINY_SHA1)
    assert len(said) == 1 and "already in" in said[0]
    assert times == {path: path.stat().st_mtime_ns for path in target.iterdir()}


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: os.truncate(path, 100), "corrupt"),
        (lambda path: path.write_bytes(CONTENT["test_batch.bin"]), "corrupt"),
    ],
)
def test_a_damaged_file_is_named_and_repaired(tmp_path: Path, harm: Callable[[Path], object], named: str) -> None:
    target = fetch_cifar10(tmp_path, say=nothing, sources=[deliver()], sha1=TINY_SHA1)
    (target / "notes.txt").write_text("the user's own")
    harm(target / "data_batch_4.bin")
    with pytest.raises(InputError, match=rf"data_batch_4\.bin is {named}.*dynconf data fetch cifar10"):
        verify_cifar10(tmp_path, sha1=TINY_SHA1)
    said: list[str] = []
    fetch_cifar10(tmp_path, say=said.append, sources=[deliver()], sha1=TINY_SHA1)
    assert "data_batch_4.bin is " + named in said[0]
    verify_cifar10(tmp_path, sha1=TINY_SHA1)
    assert (target / "notes.txt").exists()


def test_verify_names_a_missing_folder_and_a_truncated_official_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the folder .*{FOLDER} is missing.*dynconf data fetch cifar10"):
        verify_cifar10(tmp_path)
    (tmp_path / FOLDER).mkdir()
    for name in BINARY_SHA1:
        (tmp_path / FOLDER / name).write_bytes(b"\0" * 3073)
    with pytest.raises(InputError, match=r"test_batch\.bin is truncated .*3073 bytes, not 30730000"):
        verify_cifar10(tmp_path)


@pytest.mark.parametrize(
    "first",
    [
        fail(TimeoutError("timed out")),
        fail(SourceError("no such member")),
        deliver({**CONTENT, "data_batch_2.bin": b"something else"}),
        deliver({name: content for name, content in CONTENT.items() if name != "test_batch.bin"}),
    ],
)
def test_the_next_source_is_tried_in_a_clean_folder(tmp_path: Path, first: Source) -> None:
    said: list[str] = []
    fetch_cifar10(tmp_path, say=said.append, sources=[first, deliver()], sha1=TINY_SHA1)
    assert any(line.startswith("That did not work: ") for line in said)
    verify_cifar10(tmp_path, sha1=TINY_SHA1)


def test_if_no_source_delivers_all_faults_are_reported_and_nothing_remains(tmp_path: Path) -> None:
    bad = deliver({**CONTENT, "data_batch_2.bin": b"something else"})
    with pytest.raises(InputError) as caught:
        fetch_cifar10(tmp_path, say=nothing, sources=[fail(TimeoutError("timed out")), bad], sha1=TINY_SHA1)
    message = str(caught.value)
    assert "the broken source: timed out" in message and "the good source: what it holds is not" in message
    assert "data_batch_2.bin" in message and str(tmp_path) in message
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_and_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch_cifar10(tmp_path, say=nothing, sources=[fail(KeyboardInterrupt())], sha1=TINY_SHA1)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written to .*file.*DYNCONF_DATA"):
        fetch_cifar10(tmp_path / "file", say=nothing, sources=[deliver()], sha1=TINY_SHA1)


def test_old_remains_of_a_killed_download_are_removed(tmp_path: Path) -> None:
    old, young = tmp_path / ".fetch-cifar10-old", tmp_path / ".fetch-cifar10-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    fetch_cifar10(tmp_path, say=nothing, sources=[deliver()], sha1=TINY_SHA1)
    assert not old.exists() and young.exists()


def test_a_faster_process_is_not_an_error(tmp_path: Path) -> None:
    def fill(folder: Path, say: Callable[[str], None]) -> None:
        fetch_cifar10(tmp_path, say=say, sources=[deliver()], sha1=TINY_SHA1)
        deliver().fill(folder, say)

    fetch_cifar10(tmp_path, say=nothing, sources=[Source("the slow source", fill)], sha1=TINY_SHA1)
    verify_cifar10(tmp_path, sha1=TINY_SHA1)


# --- The two real sources, on tiny archives ---------------------------------------------------------------


def test_the_mirrors_images_become_the_official_bytes(tmp_path: Path) -> None:
    package = tarball(tmp_path / "package.tgz", mirror_members())
    sources_module.rebuild_from_mirror(package, tmp_path, nothing, sha256=digest(package), per_batch=PER_BATCH)
    assert {name: (tmp_path / name).read_bytes() for name in CONTENT} == CONTENT


def test_a_wrong_mirror_is_refused_before_it_is_read(tmp_path: Path) -> None:
    package = tarball(tmp_path / "package.tgz", mirror_members())
    with pytest.raises(SourceError, match=r"package\.tgz has the sha256 .*, not 141f061f"):
        sources_module.rebuild_from_mirror(package, tmp_path, nothing)
    assert list(tmp_path.iterdir()) == [package]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"package/test_lables.json": b"[1]"}, "test_batch.png is .* with 1 labels"),
        ({"package/test_lables.json": None}, "holds no file package/test_lables.json"),
        ({"package/data_batch_5.png": None}, "holds no file package/data_batch_5.png"),
    ],
)
def test_a_malformed_mirror_is_refused(tmp_path: Path, change: Mapping[str, bytes | None], named: str) -> None:
    members = {**mirror_members(), **change}
    package = tarball(tmp_path / "package.tgz", {name: content for name, content in members.items() if content is not None})
    with pytest.raises(SourceError, match=named):
        sources_module.rebuild_from_mirror(package, tmp_path, nothing, sha256=digest(package), per_batch=PER_BATCH)


def test_only_the_batches_of_the_official_archive_are_unpacked(tmp_path: Path) -> None:
    members = {f"{FOLDER}/{name}": content for name, content in CONTENT.items()}
    archive = tarball(tmp_path / "cifar.tar.gz", {**members, "../evil": b"", f"{FOLDER}/readme.html": b""})
    folder = tmp_path / "inside"
    folder.mkdir()
    sources_module.unpack_official(archive, folder, nothing)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert not (tmp_path / "evil").exists()
    archive.write_bytes(b"<html>a log-in page</html>")
    with pytest.raises(SourceError, match=r"not a readable \.tar\.gz"):
        sources_module.unpack_official(archive, folder, nothing)


def test_an_archive_put_there_by_hand_is_used(tmp_path: Path) -> None:
    tarball(
        tmp_path / "cifar-10-binary.tar.gz",
        {f"{FOLDER}/{name}": content for name, content in CONTENT.items()},
    )
    fetch_cifar10(tmp_path, say=nothing, sha1=TINY_SHA1)
    verify_cifar10(tmp_path, sha1=TINY_SHA1)
    assert (tmp_path / "cifar-10-binary.tar.gz").exists()


class Served(HTTPServer):
    content: bytes
    length: int


class Handler(BaseHTTPRequestHandler):
    server: Served

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    archive = tarball(tmp_path / "archive.tar.gz", {f"{FOLDER}/{name}": content for name, content in CONTENT.items()})
    with Served(("127.0.0.1", 0), Handler) as server:
        server.content = archive.read_bytes()
        server.length = len(server.content)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_official_source_over_http(tmp_path: Path, served: Served) -> None:
    said: list[str] = []
    folder = tmp_path / "folder"
    folder.mkdir()
    url = f"http://127.0.0.1:{served.server_port}/cifar-10-binary.tar.gz"
    sources_module.official(folder, said.append, url=url)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert any("100 %" in line for line in said)


def test_a_broken_connection_is_a_source_error(tmp_path: Path, served: Served) -> None:
    served.length += 1000
    with pytest.raises(SourceError, match=r"the connection broke after \d+ of \d+ bytes"):
        sources_module.official(tmp_path, nothing, url=f"http://127.0.0.1:{served.server_port}/")


def test_npm_is_tried_before_plain_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: Served) -> None:
    package = tarball(tmp_path / "package.tgz", mirror_members())
    commands = tmp_path / "bin"
    commands.mkdir()
    npm = commands / "npm"
    wanted = f"pack {sources_module.MIRROR_PACKAGE}"
    npm.write_text(f'#!/bin/sh\n[ "$1 $2" = "{wanted}" ] && /bin/cp {package} {sources_module.MIRROR_TARBALL}\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(commands))
    said: list[str] = []

    def run(folder: Path) -> None:
        folder.mkdir()
        url = f"http://127.0.0.1:{served.server_port}/"
        sources_module.mirror(folder, said.append, url=url, sha256=digest(package), per_batch=PER_BATCH)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT

    run(tmp_path / "by-npm")
    assert "npm is installed" in said[0] and not any("plain HTTPS" in line for line in said)
    npm.write_text("#!/bin/sh\necho 'npm error code E404' >&2\nexit 1\n")
    served.content = package.read_bytes()
    served.length = len(served.content)
    said.clear()
    run(tmp_path / "npm-fails")
    assert "npm failed (npm error code E404); trying plain HTTPS." in said
    npm.unlink()
    said.clear()
    run(tmp_path / "no-npm")
    assert not any("npm is installed" in line for line in said)
