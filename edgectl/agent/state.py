"""What the agent remembers, in SQLite, written before it acts.

`synchronous=FULL` in WAL mode: a commit is on disk when it returns, at the price of one fsync
(the default rollback journal needs three, and may lose the last commit unless set to EXTRA), and
`agent status` reads while the agent writes.

The database is a memory, not the truth about what serves: `current` and `previous` are. One that
is missing or corrupt is made anew, and the agent goes on from the links.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from edgectl.agent.failure import from_text
from edgectl.agent.machine import State
from edgectl.digest import Digest
from edgectl.errors import EdgectlError, StorageError, StorageFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "agent.db"
EVENTS_KEPT = 500
_YEAR_10000 = 253_402_300_800
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE operation (
    id INTEGER PRIMARY KEY CHECK (id = 1), state TEXT NOT NULL, slot TEXT, old TEXT, older TEXT,
    generation INTEGER NOT NULL, ring TEXT NOT NULL, error TEXT NOT NULL);
CREATE TABLE failed (
    digest TEXT PRIMARY KEY, kind TEXT NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE crash (slot TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, state TEXT NOT NULL, slot TEXT,
    generation INTEGER NOT NULL, message TEXT NOT NULL);
CREATE TABLE record (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """The update that is under way; IDLE when there is none."""

    state: State = State.IDLE
    slot: Digest | None = None
    """What is to serve."""
    old: Digest | None = None
    """What served when the update began, and serves again after a rollback; None: nothing did."""
    older: Digest | None = None
    """What `previous` pointed to when the update began."""
    generation: int = 0
    ring: str = ""
    error: str = ""
    """Why it is being rolled back or has failed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Content that failed on this device, and is never tried on it again."""

    digest: Digest
    kind: str
    """`slot`, or `manifest` where one model of the slot is known to be the culprit."""
    reason: str
    at: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the device's history."""

    at: float
    """Seconds since 1970."""
    state: str
    slot: Digest | None
    generation: int
    message: str


@dataclass(frozen=True, slots=True)
class PollRecord:
    """What the last poll found."""

    settled: str = ""
    """Names the release metadata and device facts that need no further work (`Work.check`)."""
    expires: float = 0.0
    """When the release metadata expires, in seconds since 1970; 0: never seen."""
    generation: int = 0
    ring: str = ""
    polled: float = 0.0
    """When the last poll came to an end that settled something, in seconds since 1970."""
    attempts: int = 0
    """Failures in a row."""
    not_before: float = 0.0
    """Earliest next attempt, in seconds since 1970."""
    error: dict[str, str] = field(default_factory=dict)
    """`code`, `message` and `hint` of the last failure; empty after a success."""
    refusal: dict[str, str] = field(default_factory=dict)
    """The same of the failure that settled the release: why it is not what runs here."""


class _DamagedError(StorageError):
    """What the database holds is at fault, and not the file system."""


class StateStore:
    """The agent's database. One writer (see `edgectl.agent.lock`), any number of readers."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, directory: Path) -> tuple[Self, str | None]:
        """Open for writing; the second value says why it had to be made anew, if it had to.

        What is made anew counts from the first `enter` on: cut off before that, it is found to be
        unfinished and made anew again. A corrupt database is kept aside as `agent.db.corrupt`.
        Raises StorageFullError and StorageError if the file system refuses.
        """
        path = directory / FILE
        reason = "the state database was missing"
        try:
            with _refusals():
                if path.exists():
                    return cls._open(path, new=False), None
        except _DamagedError as error:
            reason = error.message
        with _refusals():
            if path.exists():
                path.replace(directory / f"{FILE}.corrupt")
            for suffix in ("-wal", "-shm"):
                (directory / f"{FILE}{suffix}").unlink(missing_ok=True)
            return cls._open(path, new=True), reason

    @classmethod
    def _open(cls, path: Path, *, new: bool) -> Self:
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        store = cls(connection)
        try:
            connection.execute("PRAGMA cache_size = -256")
            if not new:
                _require_whole(connection)
                store._require_sense()
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if new:
                connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Open for reading beside a running agent; None if there is no usable database yet."""
        path = directory / FILE
        if not path.exists():
            return None
        try:
            with _refusals():
                store = cls(_connect_to_read(path))
            try:
                store._require_sense()
            except BaseException:
                store.close()
                raise
        except _DamagedError:
            return None
        return store

    def _require_sense(self) -> None:
        """Read every row; raises _DamagedError if one makes no sense.

        A byte that rots within a text or a number leaves its page whole to SQLite.
        """
        try:
            operation, _ = self.operation()
            from_text(operation.error)
            self.failed()
            self.history(-1)
            self.poll()
            for (name,) in self._all("SELECT name FROM record"):
                self.record(name)
            for slot, count in self._all("SELECT slot, count FROM crash"):
                Digest.parse(slot)
                int(count)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(f"a row makes no sense: {error!r}") from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # -- the operation ---------------------------------------------------------------------

    def operation(self) -> tuple[Operation, str]:
        """The persisted operation, and its state as written (which may be unknown to us)."""
        row = self._one("SELECT state, slot, old, older, generation, ring, error FROM operation")
        if row is None:
            return Operation(), State.IDLE
        written = str(row[0])
        state = State(written) if written in set(State) else State.ROLLBACK
        return Operation(
            state, _digest(row[1]), _digest(row[2]), _digest(row[3]), *row[4:]
        ), written

    def enter(
        self,
        operation: Operation,
        *,
        message: str = "",
        remember: tuple[Failed, ...] = (),
        poll: PollRecord | None = None,
    ) -> None:
        """Persist a transition with all that belongs to it, at once and before acting on it."""
        with self._transaction() as cursor:
            if cursor.execute("PRAGMA user_version").fetchone() == (0,):
                cursor.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            cursor.execute(
                "INSERT OR REPLACE INTO operation VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
                (operation.state, _text(operation.slot), _text(operation.old),
                 _text(operation.older), operation.generation, operation.ring, operation.error),
            )  # fmt: skip
            for failed in remember:
                cursor.execute(
                    "INSERT OR IGNORE INTO failed VALUES (?, ?, ?, ?)",
                    (str(failed.digest), failed.kind, failed.reason, failed.at or time.time()),
                )
            if poll is not None:
                _put(cursor, "poll", asdict(poll))
            if message:
                _log(cursor, operation, message)

    # -- crashes ---------------------------------------------------------------------------

    def count_crash(self, slot: Digest) -> int:
        """Count one more crash while a slot was being tried; returns how many there were."""
        with self._transaction() as cursor:
            cursor.execute(
                "INSERT INTO crash VALUES (?, 1) ON CONFLICT (slot) DO UPDATE SET count = count+1",
                (str(slot),),
            )
        row = self._one("SELECT count FROM crash WHERE slot = ?", str(slot))
        return 0 if row is None else int(row[0])

    def forget_crashes(self, slot: Digest) -> None:
        """Forget the crashes of a slot that has proven itself."""
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM crash WHERE slot = ?", (str(slot),))

    # -- memory ----------------------------------------------------------------------------

    def failed(self) -> list[Failed]:
        """Everything that failed here, oldest first."""
        rows = self._all("SELECT digest, kind, reason, at FROM failed ORDER BY at, digest")
        return [Failed(Digest.parse(row[0]), row[1], row[2], _moment(row[3])) for row in rows]

    def history(self, limit: int = 20) -> list[Happening]:
        """The newest events, newest first."""
        rows = self._all(
            "SELECT at, state, slot, generation, message FROM event ORDER BY id DESC LIMIT ?", limit
        )
        return [Happening(_moment(row[0]), row[1], _digest(row[2]), row[3], row[4]) for row in rows]

    def poll(self) -> PollRecord:
        """What the last poll found."""
        value = self.record("poll") or {}
        known = {known.name for known in fields(PollRecord)}  # a newer version may say more
        return PollRecord(**{name: said for name, said in value.items() if name in known})

    def record(self, name: str) -> dict[str, Any] | None:
        """A named JSON object, for what is worth keeping but decides nothing."""
        row = self._one("SELECT value FROM record WHERE name = ?", name)
        return None if row is None else json.loads(row[0])

    def save_record(self, name: str, value: dict[str, Any]) -> None:
        """Replace a named JSON object."""
        with self._transaction() as cursor:
            _put(cursor, name, value)

    # -- sqlite ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with _refusals(), self._connection:
            cursor = self._connection.execute("BEGIN IMMEDIATE")
            yield cursor

    def _one(self, query: str, *values: Any) -> Any:
        with _refusals():
            return self._connection.execute(query, values).fetchone()

    def _all(self, query: str, *values: Any) -> list[Any]:
        with _refusals():
            return self._connection.execute(query, values).fetchall()


def _require_whole(connection: sqlite3.Connection) -> None:
    """Raise _DamagedError, or sqlite3.Error, unless the pages are whole and the schema ours."""
    (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise _damaged(answer)
    _require_version(connection)


def _require_version(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        raise _damaged("it is empty or unfinished")
    if version != _SCHEMA_VERSION:
        raise _damaged(f"schema version {version}")


def _connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that only reads.

    Where nothing can be written, or the disk is full, SQLite has no place for the index that it
    shares with others beside a database that nobody has open. `immutable` does without, which is
    right there: an agent at work would have made that index.
    """
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        return _connect_by_uri(uri)
    except sqlite3.OperationalError as error:
        if not (_is_full(error) or error.sqlite_errorcode & 0xFF in _NO_PLACE):
            raise
    return _connect_by_uri(f"{uri}&immutable=1")


def _connect_by_uri(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True)
    try:
        _require_version(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file's content is at fault, and not the file system."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # of the sqlite3 module: a text that is not UTF-8
        return isinstance(error, sqlite3.OperationalError)
    return code & 0xFF in _CORRUPT


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn SQLite's and the file system's refusals into the errors of the family."""
    try:
        yield
    except sqlite3.Error as error:
        raise _refused(error) from error
    except UnicodeDecodeError as error:  # the sqlite3 module cannot even read SQLite's complaint
        raise _damaged("a text is not UTF-8") from error
    except OSError as error:
        raise StorageError(f"cannot use the state database: {error}", hint=_HINT) from error


_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
"""`SQLITE_ERROR` is what a schema that lacks a table or a column gives."""
_NO_PLACE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
_HINT = "check that the state directory is writable and that its disk is healthy"


def _is_full(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def _refused(error: sqlite3.Error) -> EdgectlError:
    if _is_full(error):
        return StorageFullError(
            "cannot write the state database: no space is left",
            hint="free space on the device's state directory; the agent tries again by itself",
        )
    if _is_corrupt(error):
        *_, last_line = str(error).splitlines() or [""]
        return _damaged(last_line)
    return StorageError(f"cannot use the state database: {error}", hint=_HINT)


def _damaged(why: str) -> _DamagedError:
    return _DamagedError(
        f"the state database is corrupt ({why})",
        hint="start the agent again: it makes the database anew from the slots",
    )


def _put(cursor: sqlite3.Cursor, name: str, value: dict[str, Any]) -> None:
    cursor.execute("INSERT OR REPLACE INTO record VALUES (?, ?)", (name, json.dumps(value)))


def _log(cursor: sqlite3.Cursor, operation: Operation, message: str) -> None:
    cursor.execute(
        "INSERT INTO event (at, state, slot, generation, message) VALUES (?, ?, ?, ?, ?)",
        (time.time(), operation.state, _text(operation.slot), operation.generation, message),
    )
    cursor.execute("DELETE FROM event WHERE id <= last_insert_rowid() - ?", (EVENTS_KEPT,))


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)


def _moment(seconds: float) -> float:
    """Seconds since 1970 as they are; raises ValueError if no calendar has them."""
    if not 0 <= seconds < _YEAR_10000:
        raise ValueError(f"{seconds!r} is no time")
    return seconds


def _digest(text: str | None) -> Digest | None:
    return None if text is None else Digest.parse(text)
