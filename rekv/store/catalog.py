"""The catalog of one session: an SQLite database that says which frames exist and where they lie.

A frame exists once its row is committed. All that is said here about frames can be found again in the segments.
"""

import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rekv.errors import StoreError

FILE = "catalog.sqlite"
LOCK = "lock"  # beside it: whoever writes the session holds it
BUSY_SECONDS = 10.0

# Append only: a catalog of an older version is brought up step by step, see `user_version`.
MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE segments (
        id INTEGER PRIMARY KEY, file TEXT NOT NULL, slots INTEGER NOT NULL, codec TEXT NOT NULL,
        bytes INTEGER NOT NULL, sealed INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE frames (
        id INTEGER PRIMARY KEY, segment INTEGER NOT NULL REFERENCES segments (id), slot INTEGER NOT NULL,
        time REAL NOT NULL, until REAL NOT NULL, wall REAL, damaged TEXT
    );
    CREATE INDEX frames_of_segment ON frames (segment);
    CREATE TABLE thumbnails (frame INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
    CREATE TABLE sources (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL, bytes INTEGER, start REAL NOT NULL, shift REAL NOT NULL,
        first INTEGER NOT NULL, finished INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE pins (id INTEGER PRIMARY KEY, start REAL NOT NULL, until REAL NOT NULL);
    """,
    """
    CREATE TABLE embeddings (frame INTEGER PRIMARY KEY, vector BLOB NOT NULL);
    """,
)
_EMBEDDINGS = 2  # the version since which there are some; without them a catalog is as good as ever to read


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One frame of the catalog."""

    id: int
    segment: int
    slot: int
    time: float
    until: float
    wall: float | None
    damaged: str | None = None


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One segment of the catalog."""

    id: int
    file: str
    slots: int
    codec: str
    bytes: int
    sealed: bool


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A file that was read into the session."""

    id: int
    path: str
    bytes: int | None
    start: float  # seconds in the file from which it was read
    shift: float  # seconds added to the file's times
    first: int  # frames of the session before it
    finished: bool


class Catalog:
    """One connection, safe to use from several threads. Every write is one transaction."""

    def __init__(self, folder: Path, *, writable: bool) -> None:
        """Open it; with `writable`, make it if need be. Raises `StoreError` if it cannot be opened."""
        self.path = folder / FILE
        self._lock = threading.RLock()
        with _explained(self.path):
            self._connection = _connect(self.path, writable)
            if writable:
                self._migrate()
            version = self._version()
        if version > len(MIGRATIONS):
            self.close()
            raise StoreError(
                f"{self.path} has format {version}, this rekv reads up to {len(MIGRATIONS)}; install a newer rekv"
            )
        if version < 1:
            self.close()
            raise StoreError(f"{self.path} has the older format {version}; open it once for writing: rekv verify")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def checkpoint(self) -> None:
        """Move what is in the write-ahead log into the database, so that the one file holds all."""
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and durable when it is left without an exception."""
        with self._lock, _explained(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def begin_source(self, path: str, size: int | None, start: float, shift: float, first: int) -> int:
        """Record that a file is being read into the session; return its number."""
        with self.transaction() as sql:
            columns = "path, bytes, start, shift, first"
            number = sql.execute(
                f"INSERT INTO sources ({columns}) VALUES (?, ?, ?, ?, ?)", (path, size, start, shift, first)
            ).lastrowid
        return int(number or 0)

    def finish_source(self, number: int) -> None:
        with self.transaction() as sql:
            sql.execute("UPDATE sources SET finished = 1 WHERE id = ?", (number,))

    # -- reading -----------------------------------------------------------------------------------------------

    def meta(self) -> dict[str, str]:
        return dict(self._all("SELECT key, value FROM meta"))

    def get(self, key: str) -> str | None:
        found = self._all("SELECT value FROM meta WHERE key = ?", (key,))
        return found[0][0] if found else None

    def data_version(self) -> int:
        """A number that changes when another connection has written."""
        version: int = self._all("PRAGMA data_version")[0][0]
        return version

    def segments(self, start: int = 0) -> list[SegmentRow]:
        """Segments with an id of at least `start`, ascending."""
        columns = "id, file, slots, codec, bytes, sealed"
        rows = self._all(f"SELECT {columns} FROM segments WHERE id >= ? ORDER BY id", (start,))
        return [SegmentRow(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows]

    def frames(self, start: int = 0) -> list[FrameRow]:
        """Frames with an id of at least `start`, ascending."""
        columns = "id, segment, slot, time, until, wall, damaged"
        return [
            FrameRow(*row) for row in self._all(f"SELECT {columns} FROM frames WHERE id >= ? ORDER BY id", (start,))
        ]

    def frames_of(self, segment: int) -> list[FrameRow]:
        """Frames of a segment, ascending."""
        columns = "id, segment, slot, time, until, wall, damaged"
        query = f"SELECT {columns} FROM frames WHERE segment = ? ORDER BY id"
        return [FrameRow(*row) for row in self._all(query, (segment,))]

    def segment(self, number: int) -> tuple[SegmentRow | None, list[FrameRow]]:
        """A segment, if it is there, and its frames, ascending, as of one moment."""
        with self._moment():
            rows = [row for row in self.segments(number) if row.id == number]
            return (rows[0] if rows else None), self.frames_of(number)

    def sources(self) -> list[SourceRow]:
        rows = self._all("SELECT id, path, bytes, start, shift, first, finished FROM sources ORDER BY id")
        return [SourceRow(row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6])) for row in rows]

    def pins(self) -> list[tuple[float, float]]:
        return self._all("SELECT start, until FROM pins ORDER BY start")

    def thumbnail(self, frame: int) -> bytes | None:
        found = self._all("SELECT jpeg FROM thumbnails WHERE frame = ?", (frame,))
        return found[0][0] if found else None

    def embeddings(self, start: int = 0) -> list[tuple[int, bytes]]:
        """Frames with an id of at least `start`, and what a dual encoder made of them: fp16, little-endian."""
        if self._version() < _EMBEDDINGS:
            return []
        return self._all("SELECT frame, vector FROM embeddings WHERE frame >= ? ORDER BY frame", (start,))

    def snapshot(self, frame: int, segment: int) -> tuple[dict[str, str], list[SegmentRow], list[FrameRow]]:
        """Meta, segments from `segment` on, and frames from `frame` on, all as of one moment."""
        with self._moment():
            return self.meta(), self.segments(segment), self.frames(frame)

    def check(self) -> None:
        """Raise `StoreError` if SQLite finds the file damaged."""
        found = self._all("PRAGMA quick_check")
        if found != [("ok",)]:
            raise StoreError(f"{self.path} is damaged: {found[0][0]}")

    @contextmanager
    def _moment(self) -> Iterator[None]:
        """What is read meanwhile is all as of one moment."""
        with self._lock, _explained(self.path):
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    def _all(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        with self._lock, _explained(self.path):
            return self._connection.execute(query, tuple(values)).fetchall()

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    def _migrate(self) -> None:
        for version, script in enumerate(MIGRATIONS, 1):
            if self._version() < version:
                self._connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {version}; COMMIT;")


def put(connection: sqlite3.Connection, **meta: object) -> None:
    """Set entries of `meta`."""
    connection.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [(key, str(value)) for key, value in meta.items()],
    )


def bump(connection: sqlite3.Connection, key: str) -> None:
    """Count a change that readers must notice."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, '1') "
        "ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
        (key,),
    )


def _connect(path: Path, writable: bool) -> sqlite3.Connection:
    options: dict[str, Any] = {
        "timeout": BUSY_SECONDS,
        "isolation_level": None,
        "check_same_thread": False,
        "uri": True,
    }
    address = path.absolute().as_uri()
    if writable:
        connection: sqlite3.Connection = sqlite3.connect(f"{address}?mode=rwc", **options)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection
    reader: sqlite3.Connection = sqlite3.connect(f"{address}?mode=ro", **options)
    try:
        reader.execute("SELECT 1 FROM meta")
    except sqlite3.OperationalError as error:
        # A folder that may not be written has no room for the shared memory of WAL; nobody writes it either.
        if "unable to open" not in str(error) and "readonly" not in str(error):
            raise
        reader.close()
        if not path.with_name(f"{path.name}-wal").exists():
            reader = sqlite3.connect(f"{address}?mode=ro&immutable=1", **options)
            return reader
        with TemporaryDirectory() as folder:  # what is committed, but not yet in the database itself, counts
            for name in (path.name, f"{path.name}-wal"):
                shutil.copy(path.with_name(name), folder)
            reader = sqlite3.connect(":memory:", **{**options, "uri": False})
            with closing(sqlite3.connect(Path(folder) / path.name)) as copy:
                copy.backup(reader)
    return reader


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, which say what to do."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise StoreError(f"{path} is locked by another program; end it, or wait, and try again") from error
        if "full" in str(error):
            raise StoreError(f"the disk is full ({path}); free some space and go on: nothing is lost") from error
        if "no such table" in str(error):
            raise StoreError(f"{path} is not a catalog of rekv, or is damaged; run `rekv verify --repair`") from error
        raise StoreError(f"{path} cannot be used ({error}); check the disk and the folder's permissions") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is damaged ({error}); `rekv verify --repair` rebuilds it") from error
