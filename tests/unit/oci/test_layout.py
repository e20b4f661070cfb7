from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.digest import Digest
from edgectl.errors import (
    ConfigError,
    IntegrityError,
    NotFoundError,
    RegistryDeniedError,
    StorageError,
    StorageFullError,
)
from edgectl.oci import layout
from edgectl.oci.access import open_store
from edgectl.oci.descriptor import (
    EMPTY_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
)
from edgectl.oci.filesystem import read_at_most
from edgectl.oci.layout import LayoutRepository, LayoutStore
from edgectl.oci.layout_index import REF_NAME, LayoutIndex
from edgectl.oci.reference import RegistryLocation
from tests.unit.oci.conformance import BLOB, StoreConformance, describe, push_artifact


@pytest.fixture
def store(tmp_path: Path) -> LayoutStore:
    return LayoutStore(tmp_path / "registry")


@pytest.fixture
def repository(store: LayoutStore) -> LayoutRepository:
    return store.repository("models/digits")


class TestConformance(StoreConformance):
    tags_know_digests = True


def directory(store: LayoutStore, name: str = "models/digits") -> Path:
    return Path(store.location.base) / name


def test_open_store_knows_layouts(tmp_path: Path) -> None:
    store = open_store(RegistryLocation.parse(f"oci-layout:{tmp_path}"))
    assert isinstance(store, LayoutStore)
    assert str(store.location) == f"oci-layout:{tmp_path}"


def test_what_is_written_is_a_standard_layout(store: LayoutStore) -> None:
    repository = store.repository("models/digits")
    tagged = push_artifact(repository, b"one", tag="1.0.0")
    untagged = push_artifact(repository, b"two")
    root = directory(store)
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((root / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["mediaType"] == OCI_INDEX
    entries = {entry["digest"]: entry for entry in index["manifests"]}
    assert entries[str(tagged.digest)]["annotations"] == {REF_NAME: "1.0.0"}
    assert "annotations" not in entries[str(untagged.digest)]
    for blob in (root / "blobs" / "sha256").iterdir():
        assert Digest.of_file(blob).hex == blob.name
    assert {path.name for path in root.iterdir()} == {"oci-layout", "index.json", "blobs"}


def test_a_manifest_whose_tag_moved_stays_listed(store: LayoutStore) -> None:
    repository = store.repository("models/digits")
    first = push_artifact(repository, b"one", tag="latest")
    push_artifact(repository, b"two", tag="latest")
    index = json.loads((directory(store) / "index.json").read_bytes())
    assert str(first.digest) in {entry["digest"] for entry in index["manifests"]}


def test_nested_manifests_of_other_tools_are_found(store: LayoutStore) -> None:
    repository = store.repository("models/digits")
    child = push_artifact(repository, b"weights")
    root = repository.push_manifest(Index((child,)).to_bytes(), OCI_INDEX, tag="1")
    file = directory(store) / "index.json"
    index = json.loads(file.read_bytes())
    index["manifests"] = [e for e in index["manifests"] if e["digest"] == str(root.digest)]
    file.write_text(json.dumps(index))
    assert repository.resolve(str(child.digest)) == child
    assert repository.read_manifest(str(child.digest))[0] == child


def test_a_blob_is_not_a_manifest(repository: LayoutRepository) -> None:
    push_artifact(repository, BLOB, tag="1")
    assert repository.resolve(str(describe(BLOB).digest)) is None


@pytest.mark.parametrize("where", [0, len(BLOB) // 2, len(BLOB) - 1])
def test_a_deleted_byte_is_noticed_by_name(
    store: LayoutStore, repository: LayoutRepository, where: int
) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    file = directory(store) / "blobs" / "sha256" / describe(BLOB).digest.hex
    file.write_bytes(BLOB[:where] + BLOB[where + 1 :])
    with pytest.raises(IntegrityError, match=str(describe(BLOB).digest)):
        list(repository.read_blob(describe(BLOB)))


def test_a_flipped_byte_never_ends_a_read(store: LayoutStore, repository: LayoutRepository) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    file = directory(store) / "blobs" / "sha256" / describe(BLOB).digest.hex
    file.write_bytes(BLOB[:-1] + b"!")
    received = bytearray()
    chunks = repository.read_blob(describe(BLOB))
    with pytest.raises(IntegrityError):
        received.extend(byte for chunk in chunks for byte in chunk)
    assert len(received) < len(BLOB)


def test_a_damaged_manifest_is_refused(store: LayoutStore, repository: LayoutRepository) -> None:
    pushed = push_artifact(repository, b"model", tag="1")
    file = directory(store) / "blobs" / "sha256" / pushed.digest.hex
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=str(pushed.digest)):
        repository.read_manifest("1")


def test_pushing_again_heals_a_truncated_blob(
    store: LayoutStore, repository: LayoutRepository
) -> None:
    repository.push_blob(describe(BLOB), BLOB)
    (directory(store) / "blobs" / "sha256" / describe(BLOB).digest.hex).write_bytes(BLOB[:-1])
    repository.push_blob(describe(BLOB), BLOB)
    assert b"".join(repository.read_blob(describe(BLOB))) == BLOB


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
@pytest.mark.parametrize("name", ["blob", "manifest", "index.json"])
def test_what_is_no_file_is_refused_at_once(
    store: LayoutStore, repository: LayoutRepository, kind: str, name: str
) -> None:
    """Whoever made the stick could have put anything on it."""
    model = push_artifact(repository, BLOB, tag="1")
    root = directory(store)
    digest = describe(BLOB).digest if name == "blob" else model.digest
    path = root / name if name == "index.json" else root / "blobs" / "sha256" / digest.hex
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    again = LayoutStore(Path(store.location.base)).repository(repository.name)
    with pytest.raises(IntegrityError, match="no ordinary file"):
        list(again.read_blob(describe(BLOB)) if name == "blob" else again.read_manifest("1"))
    if name != "index.json":
        with pytest.raises(IntegrityError, match="no ordinary file"):
            list(again.check_blobs())


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"manifests": [{}]}', b"null"])
def test_a_malformed_index_is_one_clear_error(
    store: LayoutStore, repository: LayoutRepository, content: bytes
) -> None:
    push_artifact(repository, b"model", tag="1")
    (directory(store) / "index.json").write_bytes(content)
    fresh = LayoutStore(Path(store.location.base)).repository(repository.name)
    for each in (repository, fresh):
        with pytest.raises(IntegrityError, match=r"index\.json"):
            each.resolve("1")
        with pytest.raises(IntegrityError, match=r"index\.json"):
            push_artifact(each, b"another", tag="2")
    assert (directory(store) / "index.json").read_bytes() == content


@pytest.mark.parametrize("name", ["", "/etc", "../outside", "models/../../outside"])
def test_names_do_not_lead_outside(store: LayoutStore, name: str) -> None:
    with pytest.raises(ConfigError):
        store.repository(name)


def test_another_digest_algorithm_is_not_found(repository: LayoutRepository) -> None:
    with pytest.raises(NotFoundError):
        repository.resolve("sha512:abc")


def test_changes_of_another_process_are_seen(store: LayoutStore) -> None:
    repository = store.repository("models/digits")
    one = push_artifact(repository, b"one", tag="latest")
    assert repository.resolve("latest") == one
    two = push_artifact(LayoutStore(Path(store.location.base)).repository("models/digits"), b"two")
    script = (
        "import sys; from pathlib import Path; from edgectl.oci.layout import LayoutStore\n"
        "repository = LayoutStore(Path(sys.argv[1])).repository('models/digits')\n"
        "repository.tag(repository.resolve(sys.argv[2]), 'latest')"
    )
    arguments = [sys.executable, "-c", script, store.location.base, str(two.digest)]
    subprocess.run(arguments, check=True)
    assert repository.resolve("latest") == two


def test_concurrent_writers_lose_no_tag(store: LayoutStore) -> None:
    pushed = push_artifact(store.repository("models/digits"), b"model")

    def write(worker: int) -> None:
        own = LayoutStore(Path(store.location.base)).repository("models/digits")
        for number in range(10):
            own.tag(pushed, f"{worker}-{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert len(store.repository("models/digits").tags()) == 60


def test_a_killed_writer_leaves_the_layout_as_it_was(tmp_path: Path) -> None:
    """Kill a process that pushes without end, at many moments."""
    script = (
        "import sys, os; from pathlib import Path\n"
        "from tests.unit.oci.conformance import push_artifact\n"
        "from edgectl.oci.layout import LayoutStore\n"
        "repository = LayoutStore(Path(sys.argv[1])).repository('r')\n"
        "print('ready', flush=True)\n"
        "number = 0\n"
        "while True:\n"
        "    push_artifact(repository, os.urandom(100_000), tag=f't{number}')\n"
        "    number += 1\n"
    )
    for delay in (0.0, 0.01, 0.02, 0.03, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(delay)
            process.kill()
        repository = LayoutStore(tmp_path).repository("r")
        for tag in repository.tags():
            assert repository.read_manifest(tag)
    blobs = tmp_path / "r" / "blobs" / "sha256"
    if blobs.exists():
        assert all(Digest.of_file(blob).hex == blob.name for blob in blobs.iterdir())
    push_artifact(LayoutStore(tmp_path).repository("r"), b"afterwards", tag="after")


def test_what_killed_writers_left_is_removed_after_a_day(store: LayoutStore) -> None:
    push_artifact(store.repository("models/digits"), b"one")
    old, new = (directory(store) / f".edgectl-{name}" for name in ("old", "new"))
    for leftover in (old, new):
        leftover.write_bytes(b"half")
    os.utime(old, (0, 0))
    push_artifact(LayoutStore(Path(store.location.base)).repository("models/digits"), b"two")
    assert not old.exists()
    assert new.exists()


def test_a_writer_waits_for_the_lock(store: LayoutStore) -> None:
    import fcntl

    repository = store.repository("models/digits")
    pushed = push_artifact(repository, b"one")
    with (directory(store) / "oci-layout").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=repository.tag, args=(pushed, "late"))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        assert repository.tags() == {}
    thread.join()
    assert list(repository.tags()) == ["late"]


def test_what_a_killed_writer_did_not_list_is_listed_by_the_next(store: LayoutStore) -> None:
    """The manifest's blob is there, and so pushing it is not what prepares the layout."""
    killed = store.repository("models/digits")
    subject = push_artifact(killed, b"model")
    manifest = Manifest(EMPTY_CONFIG, (EMPTY_CONFIG,), "application/vnd.example", subject)
    killed.push_blob(describe(manifest.to_bytes()), manifest.to_bytes())
    repository = LayoutStore(Path(store.location.base)).repository("models/digits")
    pushed = repository.push_manifest(manifest.to_bytes(), OCI_MANIFEST)
    assert [found.digest for found in repository.referrers(subject.digest)] == [pushed.digest]


class FailingFile:
    """A source whose reads fail as a broken disk's do."""

    def __init__(self, number: int) -> None:
        self.number = number

    def read(self, count: int = -1) -> bytes:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EIO, StorageError),
        (errno.EROFS, RegistryDeniedError),
        (errno.EACCES, RegistryDeniedError),
    ],
)
def test_what_the_file_system_refuses_is_named(
    repository: LayoutRepository, store: LayoutStore, number: int, expected: type[Exception]
) -> None:
    with pytest.raises(expected, match=os.strerror(number)):
        repository.push_blob(describe(BLOB), FailingFile(number))  # type: ignore[arg-type]
    assert not repository.has_blob(describe(BLOB).digest)
    assert not list(directory(store).glob(".edgectl-*"))


def test_a_file_in_the_way_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_bytes(b"a file")
    repository = LayoutStore(tmp_path).repository("models/digits")
    assert repository.resolve("1") is None
    with pytest.raises(StorageError, match="models"):
        repository.push_blob(describe(BLOB), BLOB)


TAGS = st.sampled_from(["a", "b", "c"])
DIGESTS = st.sampled_from([Digest.of(bytes([number])) for number in range(4)])
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("push"), DIGESTS, st.none() | TAGS),
        st.tuples(st.just("untag"), TAGS, st.none()),
        st.tuples(st.just("delete"), DIGESTS, st.none()),
    ),
    max_size=30,
)


@given(CHANGES)
def test_the_index_behaves_like_a_registry(
    changes: list[tuple[str, Digest | str, str | None]],
) -> None:
    index = LayoutIndex()
    manifests: set[Digest] = set()
    tags: dict[str, Digest] = {}
    for kind, what, tag in changes:
        if kind == "untag":
            assert isinstance(what, str)
            index = index.without_tag(what)
            tags.pop(what, None)
            continue
        assert isinstance(what, Digest)
        if kind == "push":
            index = index.with_manifest(Descriptor(OCI_MANIFEST, what, 1), tag)
            manifests.add(what)
            if tag is not None:
                tags[tag] = what
        else:
            index = index.without_manifest(what)
            manifests.discard(what)
            tags = {name: digest for name, digest in tags.items() if digest != what}
        assert index.manifests.keys() == manifests
        assert {name: entry.digest for name, entry in index.tags.items()} == tags
    again = LayoutIndex.from_bytes(index.to_bytes())
    assert again.to_bytes() == index.to_bytes()
    assert len(index.entries) == len(tags) + len(manifests - set(tags.values()))


def test_an_index_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    repository = LayoutStore(tmp_path).repository("models/x")
    repository.push_blob(EMPTY_CONFIG, b"{}")
    with (tmp_path / "models/x/index.json").open("r+b") as index:
        index.truncate(300 << 20)
    with pytest.raises(IntegrityError, match="is over 256 MiB"):
        repository.tags()


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("way", ["replaced", "written over"])
def test_a_delivery_with_the_times_of_the_last_one_is_seen(
    store: LayoutStore, way: str, settled: bool
) -> None:
    """As tar and `cp -p` leave it, where deliveries are to be reproducible."""
    repository = store.repository("models/digits")
    index, delivered = directory(store) / "index.json", []
    pushed = []
    for content in (b"one", b"two"):
        pushed.append(push_artifact(repository, content))
        repository.tag(pushed[-1], "latest")
        entry = {**pushed[-1].to_json(), "annotations": {REF_NAME: "latest"}}
        delivered.append(json.dumps({"manifests": [entry]}).encode())
    assert len(delivered[0]) == len(delivered[1])
    reader = LayoutStore(Path(store.location.base)).repository("models/digits")
    for data, expected in zip(delivered, pushed, strict=True):
        if way == "replaced":
            index.unlink()
        index.write_bytes(data)
        os.utime(index, (0, 0))
        if settled:
            wait_until_unchanging(index)
        assert reader.resolve("latest") == expected


def wait_until_unchanging(file: Path) -> None:
    """Until the file is so old that a reader may keep what it read of it."""
    while time.time_ns() - file.stat().st_ctime_ns < 100_000_000:
        time.sleep(0.01)


def test_an_index_that_does_not_change_is_read_once(
    store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings: list[bytes] = []

    def counted(file: BinaryIO, limit: int) -> bytes:
        readings.append(read_at_most(file, limit))
        return readings[-1]

    monkeypatch.setattr("edgectl.oci.layout.read_at_most", counted)
    push_artifact(store.repository("models/digits"), b"one", tag="1")
    os.utime(directory(store) / "index.json", (0, 0))
    wait_until_unchanging(directory(store) / "index.json")
    reader = LayoutStore(Path(store.location.base)).repository("models/digits")
    readings.clear()
    for _ in range(3):
        assert list(reader.tags()) == ["1"]
    assert len(readings) == 1


def test_where_times_are_whole_seconds_an_index_is_always_read() -> None:
    """FAT has nothing finer, and lets programs set the only time it keeps."""
    for nanoseconds, kept in ((0, False), (1, True)):
        changed = 1_700_000_000 * 10**9 + nanoseconds
        status = cast("os.stat_result", Status(changed))
        cache = layout._Cache(layout._key(status), changed + 10**12, b"", LayoutIndex())
        assert cache.is_of(status) is kept


class Status:
    """A file's status, all of whose times are one."""

    st_dev, st_ino, st_size = 1, 2, 3

    def __init__(self, changed: int) -> None:
        self.st_mtime_ns = self.st_ctime_ns = changed


@pytest.mark.parametrize("left", ["oci-layout", "index.json", "blobs"])
def test_every_repository_that_can_be_read_is_found(store: LayoutStore, left: str) -> None:
    """Each of the three alone, as half of a copy leaves it."""
    push_artifact(store.repository("models/whole"), b"model")
    push_artifact(store.repository("models/whole/within"), b"model")
    push_artifact(store.repository("half"), b"model")
    for path in directory(store, "half").iterdir():
        if path.name != left:
            path.rename(directory(store, "") / f"aside-{path.name}")
    (directory(store, "models/none")).mkdir()
    found = [repository.name for repository in store.repositories()]
    assert found == ["half", "models/whole", "models/whole/within"]


def test_repositories_behind_links_are_found_once(store: LayoutStore, tmp_path: Path) -> None:
    push_artifact(LayoutStore(tmp_path / "elsewhere").repository("b"), b"model")
    push_artifact(store.repository("a"), b"model")
    for name, target in (("a/loop", ".."), ("again", "a"), ("nowhere", "absent")):
        directory(store, name).symlink_to(target)
    directory(store, "linked").symlink_to(tmp_path / "elsewhere")
    assert [repository.name for repository in store.repositories()] == ["a", "linked/b"]
