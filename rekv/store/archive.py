"""A session as one file: an uncompressed tar archive of its folder, without the room that is kept for more frames.

What `tar x` makes of it in a store's folder is a session.
"""

import os
import shutil
import sqlite3
import tarfile
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from rekv.errors import DamagedError, StoreError
from rekv.store.catalog import BUSY_SECONDS, FILE, Catalog, FrameRow, SegmentRow
from rekv.store.committed import note_committed
from rekv.store.files import Files
from rekv.store.folder import SessionFolder
from rekv.store.maintenance import rewrite
from rekv.store.names import SEGMENT, SINK
from rekv.store.segment import Segment
from rekv.store.sink import load_sink
from rekv.store.store import Store
from rekv.store.verify import verify

_ATTEMPTS = 20  # to find all segments that a catalog names, while they are packed and removed


def export(path: Path, target: Path) -> int:
    """Write the session in the folder `path`, as it is now, to the file `target`; return the bytes of that file.

    The session may be appended to meanwhile: frames committed later are not in the archive. Frames marked as damaged
    are left out. `target` appears when it is whole, and takes the place of a file of that name. Needs room beside it
    for one segment more. Raises `StoreError`; `DamagedError` names frames that turn out not to be readable.
    """
    making = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}"
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            with closing(_snapshot(path, Path(scratch))) as snapshot, tarfile.open(making, "x:") as tar:
                _write(snapshot, path, tar)
            Files().sync_path(making)
            os.replace(making, target)
            Files().sync_folder(target.parent)
    except DamagedError as error:
        if not error.frames:  # it is the sink
            raise
        words = f"{error}; `rekv verify {path.name} --repair` first: then they are left out"
        raise DamagedError(words, error.frames, lasting=error.lasting) from error
    except OSError as error:
        raise StoreError(
            f"{path.name} cannot be exported to {target} ({error.strerror}); is there such a folder, and room in it?"
        ) from error
    finally:
        making.unlink(missing_ok=True)
    return target.stat().st_size


def import_(archive: Path, store: Store, name: str | None = None) -> str:
    """Add the session in an archive to the store, under its own name or `name`; return the name.

    It is there when it is whole and all its checksums hold, or not at all. Raises `StoreError` if the file is not an
    archive, is damaged or cut short, or a session of this name exists.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            return _import(tar, archive, store, name)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise StoreError(f"{archive} is not an archive of a session, or was cut short ({error})") from error
    except OSError as error:
        raise StoreError(f"{archive} cannot be imported into {store.folder} ({error.strerror or error})") from error


# -- export ----------------------------------------------------------------------------------------------------


def _snapshot(path: Path, scratch: Path) -> SessionFolder:
    """The session as of one moment: a copy of its catalog, with its segments open, so that they stay readable."""
    SessionFolder(path).close()  # what is no session says so
    for _ in range(_ATTEMPTS):
        _copy_catalog(path, scratch / FILE)
        folder = SessionFolder(scratch, writable=True)
        folder.refresh()
        try:
            _drop_damaged(folder)
            for row in folder.catalog.segments():
                folder.know(row, Segment(folder.files, path / row.file))
            return folder
        except FileNotFoundError as error:
            folder.close()
            with closing(Catalog(path, writable=False)) as live:
                if row in live.segments():
                    raise StoreError(
                        f"{path / row.file} is gone; `rekv verify {path.name} --repair` leaves its frames out"
                    ) from error
        except BaseException:
            folder.close()
            raise
    raise StoreError(f"the segments of {path.name} change faster than they can be opened; try again")


def _copy_catalog(path: Path, to: Path) -> None:
    """Also from a folder that may not be written, where SQLite cannot make the shared memory of WAL."""
    to.unlink(missing_ok=True)
    address = (path / FILE).absolute().as_uri()
    for options in ("mode=ro", "mode=ro&immutable=1"):
        try:
            with closing(sqlite3.connect(f"{address}?{options}", uri=True, timeout=BUSY_SECONDS)) as source:
                with closing(sqlite3.connect(to)) as target:
                    source.backup(target)
            return
        except sqlite3.Error as error:
            last = error
    raise StoreError(f"{path / FILE} cannot be copied ({last}); `rekv verify` says what is wrong with it")


def _drop_damaged(folder: SessionFolder) -> None:
    """Take damaged frames out of a copy of the catalog, and segments that hold no others."""
    with folder.catalog.transaction() as sql:
        for table in ("thumbnails", "embeddings"):
            sql.execute(f"DELETE FROM {table} WHERE frame IN (SELECT id FROM frames WHERE damaged IS NOT NULL)")
        sql.execute("DELETE FROM frames WHERE damaged IS NOT NULL")
        sql.execute("DELETE FROM segments WHERE id NOT IN (SELECT segment FROM frames)")


def _write(snapshot: SessionFolder, path: Path, tar: tarfile.TarFile) -> None:
    """Add a session's files; the catalog is the last: an archive that has it has everything."""
    load_sink(path, snapshot.meta)  # or it says what is wrong
    tar.add(path / SINK, f"{path.name}/{SINK}")
    frames: dict[int, list[FrameRow]] = {}
    for frame in snapshot.catalog.frames():
        frames.setdefault(frame.segment, []).append(frame)
    for row in snapshot.catalog.segments():
        new = _pack(snapshot, row, frames[row.id])
        tar.add(snapshot.path / new.file, f"{path.name}/{new.file}")
        (snapshot.path / new.file).unlink()
    snapshot.close()
    tar.add(snapshot.path / FILE, f"{path.name}/{FILE}")


def _pack(snapshot: SessionFolder, row: SegmentRow, frames: Sequence[FrameRow]) -> SegmentRow:
    """Make a segment with no room for others, note it in the catalog, and return its row."""
    for layer in range(len(snapshot.meta.layers)):
        snapshot.index(layer, [frame.id for frame in frames], check=True)
    new = rewrite(snapshot, row, frames, row.codec)
    with snapshot.catalog.transaction() as sql:
        sql.executemany("UPDATE frames SET slot = ? WHERE id = ?", [(i, frame.id) for i, frame in enumerate(frames)])
        # Whether it is sealed stays as it is: what has not been packed yet will be.
        sql.execute(
            "UPDATE segments SET file = ?, slots = ?, bytes = ? WHERE id = ?", (new.file, new.slots, new.bytes, row.id)
        )
    return new


# -- import ----------------------------------------------------------------------------------------------------


def _import(tar: tarfile.TarFile, archive: Path, store: Store, name: str | None) -> str:
    store.folder.mkdir(parents=True, exist_ok=True)
    making = store.folder / f".importing.{uuid.uuid4().hex[:8]}"
    making.mkdir()
    try:
        stored_name = _unpack(tar, archive, making)
        name = stored_name if name is None else name
        path = store.path(name)
        _check(making, archive)
        if path.exists():
            raise StoreError(f"there is a session {name!r} in {store.folder} already; import it under another name")
        os.rename(making, path)  # fails if somebody else made it meanwhile
        Files().sync_folder(store.folder)
        return name
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _unpack(tar: tarfile.TarFile, archive: Path, to: Path) -> str:
    """Write the files of an archive, if they are a session's, durably; return the session's name."""
    names: set[str] = set()
    most = archive.stat().st_size
    for member in tar:
        name, _, file = member.name.partition("/")
        known = file in (FILE, SINK) or SEGMENT.fullmatch(file)
        if not (known and member.isreg() and not member.issparse()):
            raise StoreError(f"{archive} is not an archive of a session: it holds {member.name!r}")
        if not 0 <= member.size <= most:
            raise StoreError(f"{archive} was cut short: {member.name!r} alone is said to have {member.size} bytes")
        names.add(name)
        source = tar.extractfile(member)
        if source is None or len(names) > 1 or (to / file).exists():
            raise StoreError(f"{archive} is not an archive of one session")
        with source, open(to / file, "xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        Files().sync_path(to / file)
    if not (to / FILE).exists():
        raise StoreError(f"{archive} was cut short, or is not an archive of a session: it has no {FILE}")
    return names.pop()


def _check(making: Path, archive: Path) -> None:
    """Raise `StoreError` unless every byte of a session is as it was written, and nothing else is there."""
    report = verify(making)
    if report.problems:
        problem = report.problems[0]
        raise StoreError(f"{archive} is damaged: {problem.file}: {problem.message}; make it again")
    with closing(Catalog(making, writable=True)) as catalog:  # which takes away what SQLite put beside it for reading
        note_committed(making, int(catalog.get("frames") or 0), Files())
    Files().sync_folder(making)
