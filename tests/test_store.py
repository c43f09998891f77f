"""An artefact is complete or absent, and a damaged one is a miss with a warning, never a hit."""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dynconf_core.errors import InputError
from dynconf_core.store.artefacts import Artefact, Store
from dynconf_core.store.keys import StageKey, key_of, stage_key
from dynconf_core.store.manifest import MANIFEST

KEY = stage_key("train", {"levels": 4}, {}, "c0de")
OTHER = stage_key("train", {"levels": 8}, {}, "c0de")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, key: StageKey = KEY, text: str = "weights") -> Artefact:
    with (writing := store.create(key, {"device": "cpu"})) as folder:
        (folder / "weights.bin").write_text(text)
        (folder / "layers").mkdir()
        (folder / "layers" / "0.bin").write_bytes(bytes(range(256)))
    return writing.created


def temporaries(store: Store) -> list[Path]:
    return list((store.root / ".tmp").iterdir())


def test_what_was_written_is_found_again(store: Store) -> None:
    assert store.get(KEY) is None
    made = put(store)
    found = Store(store.root).get(KEY)
    assert found == made == store.get(KEY.key)
    assert found is not None and found.stage == "train" and found.key == KEY.key
    assert found.file("weights.bin").read_text() == "weights"
    assert found.file("layers/0.bin").stat().st_size == 256
    assert found.manifest["schema"] == 1
    assert found.manifest["parts"] == KEY.parts
    assert found.manifest["provenance"] == {"device": "cpu"}
    assert set(found.manifest["files"]) == {"weights.bin", "layers/0.bin"}
    assert temporaries(store) == []
    with pytest.raises(KeyError, match=r"no file 'gone\.bin'"):
        found.file("gone.bin")


def test_the_digest_depends_on_the_content_alone(store: Store) -> None:
    first, same, different = put(store), put(store, OTHER), put(store, StageKey(**vars(third())), "others")
    assert first.digest == same.digest != different.digest
    assert len({first.key, same.key, different.key}) == 3


def third() -> StageKey:
    return stage_key("convert", {}, {}, "c0de")


def harm_flip(folder: Path) -> None:
    path = folder / "layers/0.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def harm_truncate(folder: Path) -> None:
    os.truncate(folder / "weights.bin", 3)


def harm_remove(folder: Path) -> None:
    (folder / "weights.bin").unlink()


def harm_swap(folder: Path) -> None:
    (folder / "weights.bin").rename(folder / "x")
    (folder / "layers/0.bin").rename(folder / "weights.bin")
    (folder / "x").rename(folder / "layers/0.bin")


def harm_stray(folder: Path) -> None:
    (folder / "weights2.bin").write_text("weights")


def harm_link(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to("nowhere")


def harm_manifest_gone(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def harm_manifest_cut(folder: Path) -> None:
    os.truncate(folder / MANIFEST, 200)


def harm_manifest_list(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


def edit_manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return harm


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (harm_flip, "layers/0.bin does not have the sha256"),
        (harm_truncate, "weights.bin has 3 bytes, not 7"),
        (harm_remove, "weights.bin is missing"),
        (harm_swap, "0.bin has 7 bytes"),
        (harm_stray, "weights2.bin does not belong"),
        (harm_link, "weights.bin is missing"),
        (harm_manifest_gone, "manifest.json is missing"),
        (harm_manifest_cut, "manifest.json is not JSON"),
        (harm_manifest_list, "manifest.json is not a manifest"),
        (edit_manifest(lambda m: m.update(schema=2)), "manifest.json has the schema 2"),
        (edit_manifest(lambda m: m.pop("schema")), "manifest.json has the schema None"),
        (edit_manifest(lambda m: m.update(key="00" * 32)), "manifest.json belongs to the key '0000"),
        (edit_manifest(lambda m: m["provenance"].update(device="cuda")), "manifest.json does not have the"),
        (edit_manifest(lambda m: m["files"].pop("weights.bin")), "manifest.json does not have the"),
        (edit_manifest(lambda m: m.update(files=None)), "manifest.json does not have the"),
        (edit_manifest(lambda m: m.update(digest=float("nan"))), "manifest.json is not JSON"),
        (edit_manifest(lambda m: m.pop("checksum")), "manifest.json does not have the"),
    ],
)
def test_damage_is_a_miss_with_a_warning_and_is_repaired(
    store: Store, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], named: str
) -> None:
    made = put(store)
    harm(made.folder)
    with caplog.at_level(logging.WARNING):
        assert store.get(KEY) is None
    assert named in caplog.text
    assert str(made.folder) in caplog.text
    assert put(store).digest == made.digest
    caplog.clear()
    found = store.get(KEY)
    assert found is not None and found.file("weights.bin").read_text() == "weights"
    assert not caplog.records
    assert temporaries(store) == []


def test_every_flipped_byte_of_the_manifest_is_a_miss_or_harmless(store: Store) -> None:
    path = put(store).folder / MANIFEST
    good = path.read_bytes()
    meant = json.loads(good)
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        found = store.get(KEY)
        assert found is None or {**found.manifest, "checksum": meant["checksum"]} == meant


def test_an_artefact_in_another_ones_place_is_a_miss(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    first, second = put(store), put(store, OTHER, "other")
    shutil.rmtree(first.folder)
    shutil.copytree(second.folder, first.folder)
    assert store.get(KEY) is None
    assert "belongs to the key" in caplog.text
    assert store.get(OTHER) is not None


def test_a_file_in_an_artefacts_place_is_a_miss_and_replaced(store: Store) -> None:
    made = put(store)
    shutil.rmtree(made.folder)
    made.folder.write_text("not a folder")
    assert store.get(KEY) is None
    put(store)
    assert store.get(KEY) is not None


def test_hidden_stray_files_are_ignored(store: Store) -> None:
    (put(store).folder / ".DS_Store").write_text("")
    assert store.get(KEY) is not None


class StopHere(BaseException):
    """Stands in for Ctrl-C too."""


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, StopHere])
def test_an_exception_leaves_nothing(store: Store, fault: type[BaseException]) -> None:
    writing = store.create(KEY, {})
    with pytest.raises(fault), writing as folder:
        (folder / "half.bin").write_text("half")
        raise fault
    assert store.get(KEY) is None
    assert temporaries(store) == []
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    with pytest.raises(RuntimeError, match="not written yet"):
        _ = writing.created


def test_an_earlier_artefact_survives_a_failed_rewrite(store: Store) -> None:
    made = put(store)
    with pytest.raises(RuntimeError), store.create(KEY, {}) as folder:
        (folder / "weights.bin").write_text("worse")
        raise RuntimeError
    assert store.get(KEY) == made


def test_what_an_artefact_cannot_hold_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="wrote no file"), store.create(KEY, {}):
        pass
    with pytest.raises(ValueError, match=r"wrote manifest\.json"), store.create(KEY, {}) as folder:
        (folder / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match="wrote link"), store.create(KEY, {}) as folder:
        (folder / "link").symlink_to("elsewhere")
    with pytest.raises(TypeError, match="when is "):
        store.create(KEY, {"when": object()})
    assert store.get(KEY) is None
    assert temporaries(store) == []


def test_provenance_may_grow_inside_the_block(store: Store) -> None:
    provenance = {"device": "cpu"}
    with (writing := store.create(KEY, provenance)) as folder:
        (folder / "a").write_text("a")
        provenance["seconds"] = 1.5  # type: ignore[assignment]
    assert writing.created.manifest["provenance"] == {"device": "cpu", "seconds": 1.5}


def test_the_first_of_two_writers_wins(store: Store) -> None:
    with (late := store.create(KEY, {})) as folder:
        (folder / "weights.bin").write_text("late")
        early = put(store, text="early")
    assert late.created == early == store.get(KEY)
    assert early.file("weights.bin").read_text() == "early"


def test_many_writers_at_once_agree(store: Store) -> None:
    made: list[Artefact] = []
    start = threading.Barrier(8)

    def write(text: str) -> None:
        start.wait()
        made.append(put(store, text=text))

    threads = [threading.Thread(target=write, args=(f"writer {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len({artefact.digest for artefact in made}) == 1
    assert store.get(KEY) == made[0]
    assert temporaries(store) == []


KILLED = """
import os, sys
from pathlib import Path
from dynconf_core.store import manifest
from dynconf_core.store.artefacts import Store
from dynconf_core.store.keys import stage_key
if sys.argv[2] == "manifest":  # killed once the files are hashed, while the manifest is forced to the disk
    manifest.sync_folder = lambda folder: os._exit(9)
with Store(Path(sys.argv[1])).create(stage_key("train", {"levels": 4}, {}, "c0de"), {}) as folder:
    (folder / "weights.bin").write_text("half")
    if sys.argv[2] == "block":
        os._exit(9)
"""


@pytest.mark.parametrize("when", ["block", "manifest"])
def test_a_killed_writer_leaves_no_half_artefact(store: Store, when: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store.root), when], check=False)
    assert killed.returncode == 9
    assert store.get(KEY) is None
    (left,) = temporaries(store)
    put(store)
    assert store.get(KEY) is not None
    assert left.exists()  # young: it may belong to a writer that has not locked it yet
    os.utime(left, (time.time() - 7200,) * 2)
    put(store, OTHER)
    assert not left.exists()


def test_an_old_temporary_folder_of_a_running_writer_is_not_removed(store: Store) -> None:
    with (writing := store.create(KEY, {})) as folder:
        (folder / "weights.bin").write_text("slow")
        os.utime(folder.parent, (time.time() - 7200,) * 2)
        put(store, OTHER)
        assert folder.exists()
    assert writing.created.file("weights.bin").read_text() == "slow"


def test_a_file_system_without_locks_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    put(store)
    assert store.get(KEY) is not None


def test_an_unwritable_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    assert store.get(KEY) is None
    with (
        pytest.raises(InputError, match=r"file/store cannot be written .*DYNCONF_HOME"),
        store.create(KEY, {}),
    ):
        pass


def test_manifests_are_listed_newest_first(store: Store) -> None:
    put(store)
    put(store, OTHER)
    harmed = put(store, stage_key("train", {}, {}, "c0de"))
    harm_manifest_cut(harmed.folder)
    assert store.manifests("convert") == []
    assert [manifest["key"] for manifest in store.manifests("train")] == [OTHER.key, KEY.key]
    assert all(key_of(manifest["parts"]) == manifest["key"] for manifest in store.manifests("train"))


def test_text_that_is_not_a_key_is_refused(store: Store) -> None:
    for text in ("", "../" * 20, "AB" * 32):
        with pytest.raises(ValueError, match="not an artefact's key"):
            store.get(text)
