from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from edgectl.agent.machine import State
from edgectl.agent.state import EVENTS_KEPT, FILE, Failed, Operation, PollRecord, StateStore
from edgectl.digest import Digest
from edgectl.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))
OPERATION = Operation(State.SOAK, A, B, C, 7, "canary", '{"code": "x"}')


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened, lost = StateStore.open(tmp_path)
    assert lost == "the state database was missing"
    yield opened
    opened.close()


def reopened(directory: Path) -> tuple[StateStore, str | None]:
    return StateStore.open(directory)


def test_it_is_written_through(store: StateStore, tmp_path: Path) -> None:
    connection = store._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_new_one_is_idle(store: StateStore) -> None:
    assert store.operation() == (Operation(), "idle")
    assert store.poll() == PollRecord()
    assert store.failed() == []
    assert store.history() == []


def test_the_record_of_another_version_is_read_as_far_as_it_is_known(store: StateStore) -> None:
    """An agent that is downgraded must not stumble over what the newer one wrote."""
    store.save_record("poll", {"generation": 4, "ring": "canary", "invented": [1]})
    assert store.poll() == PollRecord(generation=4, ring="canary")


def test_a_transition_is_persisted_with_all_that_belongs_to_it(
    store: StateStore, tmp_path: Path
) -> None:
    poll = PollRecord("head", 5.0, 7, "canary", 1.0, 2, 3.0, {"code": "x"}, {"code": "y"})
    failed = (Failed(A, "slot", "bad", 10.0), Failed(B, "manifest", "worse", 11.0))
    store.enter(OPERATION, message="switched", remember=failed, poll=poll)
    store.close()
    again, lost = reopened(tmp_path)
    try:
        assert lost is None
        assert again.operation() == (OPERATION, "soak")
        assert again.poll() == poll
        assert again.failed() == list(failed)
        (event,) = again.history()
        assert (event.state, event.slot, event.generation) == ("soak", A, 7)
        assert event.message == "switched"
    finally:
        again.close()


def test_the_first_reason_of_a_failure_stays(store: StateStore) -> None:
    store.enter(Operation(), remember=(Failed(A, "slot", "first", 1.0),))
    store.enter(Operation(), remember=(Failed(A, "slot", "second", 2.0),))
    assert [failed.reason for failed in store.failed()] == ["first"]


def test_a_state_of_a_newer_version_is_kept_as_written(store: StateStore) -> None:
    store.enter(OPERATION)
    store._connection.execute("UPDATE operation SET state = 'migrate'")
    operation, written = store.operation()
    assert written == "migrate"
    assert operation.state is State.ROLLBACK


def test_crashes_are_counted_by_slot(store: StateStore) -> None:
    assert [store.count_crash(A), store.count_crash(A), store.count_crash(B)] == [1, 2, 1]
    store.forget_crashes(A)
    assert store.count_crash(A) == 1


def test_history_is_bounded(store: StateStore) -> None:
    for number in range(EVENTS_KEPT + 10):
        store.enter(Operation(), message=str(number))
    assert len(store.history(10_000)) == EVENTS_KEPT
    assert store.history(1)[0].message == str(EVENTS_KEPT + 9)


@pytest.mark.parametrize("damage", [b"no database at all", b"", b"SQLite format 3\0" + b"x" * 4096])
def test_a_corrupt_database_is_set_aside(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    store, lost = reopened(tmp_path)
    try:
        store.enter(OPERATION)
        assert store.operation()[0] == OPERATION
    finally:
        store.close()
    assert lost is not None
    assert "corrupt" in lost
    assert (tmp_path / f"{FILE}.corrupt").read_bytes() == damage


def test_what_was_made_anew_counts_when_something_is_entered(tmp_path: Path) -> None:
    """The power may be cut before what is on disk has been adopted."""
    for _ in range(2):
        store, lost = reopened(tmp_path)
        store.save_record("engines", {})
        store.close()
        assert lost is not None
        assert StateStore.read(tmp_path) is None
    assert "unfinished" in str(lost)
    store, _ = reopened(tmp_path)
    store.enter(Operation())
    store.close()
    store, lost = reopened(tmp_path)
    store.close()
    assert lost is None


def test_pages_that_rot_are_found(tmp_path: Path) -> None:
    store, _ = reopened(tmp_path)
    for number in range(300):
        store.enter(OPERATION, message=f"{number} " * 50)
    store.close()
    path = tmp_path / FILE
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 8] = b"\xff" * (4096 * 5)
    path.write_bytes(data)
    store, lost = reopened(tmp_path)
    store.close()
    assert lost is not None
    assert "corrupt" in lost


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE record SET value = replace(value, '{', 'z')",
        "UPDATE record SET value = '7'",
        "UPDATE operation SET slot = replace(slot, 'sha256', 'sha25v')",
        "UPDATE operation SET error = replace(error, '{', 'z')",
        """UPDATE operation SET error = '{"retryAfter": "3n"}'""",
        "UPDATE failed SET digest = replace(digest, ':', ';')",
        "UPDATE failed SET at = 1e200",
        "UPDATE event SET slot = x'00'",
        "UPDATE event SET at = -5.0",
        "UPDATE event SET message = CAST(x'ff' AS TEXT)",
        "UPDATE crash SET slot = 'sha256:'",
        "ALTER TABLE crash RENAME TO crasi",
    ],
)
def test_a_row_that_rots_is_found(tmp_path: Path, damage: str) -> None:
    """Its page is whole to SQLite."""
    store, _ = reopened(tmp_path)
    store.count_crash(A)
    store.enter(
        OPERATION, message="m", remember=(Failed(B, "slot", "bad"),), poll=PollRecord("head")
    )
    store._connection.execute(damage)
    store.close()
    assert StateStore.read(tmp_path) is None
    store, lost = reopened(tmp_path)
    try:
        assert lost is not None
        assert "corrupt" in lost
        assert store.operation()[0] == Operation()
    finally:
        store.close()


def test_a_schema_that_rots_is_found(tmp_path: Path) -> None:
    """Also where SQLite's message about it cannot be read."""
    store, _ = reopened(tmp_path)
    store.enter(OPERATION)
    store.close()
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE crash", b"CR\xc5ATE TABLE crash"))
    assert StateStore.read(tmp_path) is None
    store, lost = reopened(tmp_path)
    store.close()
    assert lost is not None
    assert "corrupt" in lost


def test_another_schema_is_set_aside(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    store, lost = reopened(tmp_path)
    store.close()
    assert lost is not None
    assert "schema version 99" in lost


def test_reading_beside_a_writer(store: StateStore, tmp_path: Path) -> None:
    store.enter(OPERATION)
    reader = StateStore.read(tmp_path)
    assert reader is not None
    try:
        assert reader.operation()[0] == OPERATION
        store.enter(Operation())
        assert reader.operation()[0] == Operation()
        with pytest.raises(StorageError, match="readonly"):
            reader.enter(OPERATION)
    finally:
        reader.close()


def test_reading_without_a_database(tmp_path: Path) -> None:
    assert StateStore.read(tmp_path) is None
    (tmp_path / FILE).write_bytes(b"nonsense" * 100)
    assert StateStore.read(tmp_path) is None


def test_a_directory_that_refuses(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(StorageError, match="state database"):
        StateStore.open(tmp_path)
