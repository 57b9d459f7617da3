"""Checks a session's folder down to the last stored byte, and repairs what can be repaired.

Repair never invents frames: what cannot be read as it was written is marked, and left out from then on.
"""

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rekv.errors import StoreError
from rekv.store.catalog import FILE, Catalog, FrameRow, SegmentRow, bump
from rekv.store.committed import lost_frames, note_committed, noted_frames, whole_frames
from rekv.store.files import Files
from rekv.store.inspection import Faults, counted, extent, faults_of, meta_of
from rekv.store.meta import SessionMeta
from rekv.store.names import SEGMENT, SINK, holds_session, segment_files
from rekv.store.rebuild import rebuild
from rekv.store.segment import WRITTEN, Segment
from rekv.store.sink import load_sink
from rekv.store.store import Store

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written."""

    kind: str  # catalog, sink, missing, truncated, header, blocks, index, tables, marked or orphan
    file: str  # in the session's folder
    frames: tuple[int, ...]  # that cannot be read because of it; "marked", "catalog": that can be read after all
    message: str  # without the file's name


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found, and did."""

    frames: int  # that are whole, or were not known to be damaged
    bytes: int  # compared with their checksums
    problems: list[Problem]  # as they were found, before any repair
    repaired: list[str]  # what was done about them
    ok: bool  # nothing is wrong, or no longer; segments that nothing refers to only take space
    damaged: int = 0  # frames that are marked as damaged, by now, and left out


def verify(path: Path, *, repair: bool = False, progress: Progress | None = None) -> Report:
    """Check the session in the folder `path`; `progress` is told how many blocks were read, and of how many.

    Without `repair` nothing is written, and the session may be in use. With it, the session's lock is taken, frames
    whose bytes are lost are marked as damaged, and a catalog that cannot be read is made anew from the segments.
    Raises `StoreError` if this is no session, or its disk cannot be used or holds too little to repair it from;
    `SessionError` if a session to repair is being written.
    """
    if not holds_session(path):
        raise StoreError(f"{path} is not a session: it has neither {FILE} nor {SINK} nor segments")
    if not repair:
        return _verify(path, False, progress)
    try:
        with Store(path.parent).lock(path.name):
            return _verify(path, True, progress)
    except OSError as error:
        raise StoreError(f"{path} cannot be repaired ({error.strerror}); check the disk and its permissions") from error


def _verify(path: Path, repair: bool, progress: Progress | None) -> Report:
    problems: list[Problem] = []
    repaired: list[str] = []
    noted = noted_frames(path)  # before the catalog, which may grow meanwhile
    contents = _open(path, repair)
    if isinstance(contents, str):
        problems.append(Problem("catalog", FILE, (), contents))
        if not repair:
            return Report(0, 0, problems, repaired, False)
        check = _rebuilt(path, progress, repaired)
        problems += check.problems
    else:
        check = _checked(contents, noted, progress)
        problems += check.problems
        if repair and check.lacking:
            check.contents.catalog.close()
            check = _rebuilt(path, progress, repaired)
    try:
        if repair:
            repaired += _repair(check)
    finally:
        check.contents.catalog.close()
    ok = not any(p.kind == "sink" or (p.kind != "orphan" and not repair) for p in problems)
    marked = check.marked + (len(check.damaged) if repair else 0)
    return Report(check.frames, check.bytes, problems, repaired, ok, marked)


def _checked(contents: "_Contents", noted: int | None, progress: Progress | None, *, rebuilt: bool = False) -> "_Check":
    check = _Check(contents, noted, progress, rebuilt=rebuilt)
    try:
        check.run()
    except BaseException:
        contents.catalog.close()
        raise
    return check


def _rebuilt(path: Path, progress: Progress | None, repaired: list[str]) -> "_Check":
    """Make the catalog anew, and look at all again."""
    repaired.append(rebuild(path))
    contents = _open(path, True)
    if isinstance(contents, str):
        raise StoreError(f"{contents}, although it was just made anew; check the disk")
    return _checked(contents, noted_frames(path), progress, rebuilt=True)


# -- what the catalog says -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Contents:
    """An intact catalog, and what it says as of one moment."""

    path: Path
    catalog: Catalog
    meta: SessionMeta
    frames: int  # of the session so far
    segments: Sequence[SegmentRow]
    rows: Mapping[int, Sequence[FrameRow]]  # by segment


def _open(path: Path, writable: bool) -> _Contents | str:
    """The contents, or what is wrong with the catalog. Raises `StoreError` if it may be whole, but cannot be used."""
    if not (path / FILE).is_file():
        return f"{path / FILE} is gone"
    try:
        catalog = Catalog(path, writable=writable)
    except StoreError as error:
        if error.__cause__ is None or not _is_damage(error):
            raise
        return str(error)
    try:
        catalog.check()
        return _contents(path, catalog)
    except (StoreError, KeyError, ValueError, TypeError) as error:
        catalog.close()
        if not _is_damage(error):
            raise
        return str(error) if isinstance(error, StoreError) else f"{path / FILE} contradicts itself ({error!r})"


def _is_damage(error: Exception) -> bool:
    cause = error.__cause__
    return not isinstance(cause, sqlite3.OperationalError) or "no such" in str(cause)


def _contents(path: Path, catalog: Catalog) -> _Contents:
    """Raises `KeyError`, `ValueError` or `TypeError` if one part does not fit another."""
    meta, segments, frames = catalog.snapshot(0, 0)
    rows: dict[int, list[FrameRow]] = {segment.id: [] for segment in segments}
    for row in frames:
        rows[row.segment].append(row)
    if unknown := [segment.file for segment in segments if not SEGMENT.fullmatch(segment.file)]:
        raise ValueError(f"{unknown[0]!r} is no segment's name")
    count = int(meta["frames"])
    if frames and frames[-1].id >= count:
        raise ValueError(f"frame {frames[-1].id} of {count}")
    if count:
        int(meta["window_first"]), int(meta["window_slots"])
    return _Contents(path, catalog, SessionMeta.loads(meta["session"]), count, segments, rows)


# -- what the files say ----------------------------------------------------------------------------------------


class _Check:
    """One look at all files of a session."""

    def __init__(
        self, contents: _Contents, noted: int | None, progress: Progress | None, *, rebuilt: bool = False
    ) -> None:
        self.contents = contents
        self.noted = noted  # frames of the session, as said beside the catalog
        self.rebuilt = rebuilt  # the catalog has just been made from all that is whole
        self.problems: list[Problem] = []
        self.damaged: dict[int, str] = {}  # frames that are, and are not marked yet
        self.healed: list[int] = []  # frames that are marked, and are whole
        self.unusable: list[SegmentRow] = []  # segments that cannot be opened
        self.cut: list[SegmentRow] = []  # segments that are too short
        self.orphans: list[str] = []
        self.lacking: set[int] = set()  # frames that are whole, and that the catalog does not have, or not whole
        self.kept: list[str] = []  # orphans that hold such frames
        self.frames = self.bytes = 0
        self.marked = 0  # frames that are damaged, and were marked before
        self._progress = progress

    def run(self) -> None:
        path, layers = self.contents.path, len(self.contents.meta.layers)
        try:
            load_sink(path, self.contents.meta)
        except StoreError as error:
            self.problems.append(Problem("sink", SINK, (), str(error)))
        total, done = layers * sum(map(len, self.contents.rows.values())), 0
        for segment in self.contents.segments:
            rows = self.contents.rows[segment.id]
            self._check(segment, rows)
            done += layers * len(rows)
            if self._progress is not None:
                self._progress(done, total)
        known = {row.file for row in (*self.contents.segments, *self.contents.catalog.segments())}
        self.orphans = [file for file in segment_files(path) if file not in known]
        self._look_for_lost()
        for file in self.orphans:
            if file not in self.kept:
                self.problems.append(Problem("orphan", file, (), "it holds no frame of the session"))

    def _look_for_lost(self) -> None:
        """Frames that were committed, or packed, and that the catalog has forgotten since."""
        path, meta, count = self.contents.path, self.contents.meta, self.contents.frames
        beyond = lost_frames(path, meta, count, self.contents.segments, self.noted)
        if beyond and self.noted is None and int(self.contents.catalog.get("frames") or 0) > count:
            beyond = []  # somebody writes: they have been committed since
        self.lacking.update(beyond)
        forgotten = bool(beyond)
        marked = {frame.id for rows in self.contents.rows.values() for frame in rows if frame.damaged}
        missed = self.damaged.keys() | marked.difference(self.healed)
        for file in self.orphans:
            found = whole_frames(
                path / file, meta, lambda f: f in missed or (f >= count and (forgotten or self.rebuilt))
            )
            if found:
                self.kept.append(file)
                self.lacking.update(found)
        lost = (self.noted or 0) - count
        if self.rebuilt:
            return  # better it cannot be made
        if self.lacking:
            ids = sorted(self.lacking)
            words = f"{counted(len(ids), 'whole frame')} ({ids[0]} to {ids[-1]}) are not in the catalog"
            self.problems.append(Problem("catalog", FILE, tuple(ids), words))
        elif lost > 0:
            words = f"{counted(lost, 'frame')} that came last are in neither the catalog nor a segment"
            self.problems.append(Problem("catalog", FILE, (), words))

    def _check(self, row: SegmentRow, rows: Sequence[FrameRow]) -> None:
        path, kind = self.contents.path / row.file, "header"
        try:
            segment = Segment(Files(), path)
            _require_fit(segment, row, self.contents.meta)
        except (OSError, StoreError) as error:
            if row not in self.contents.catalog.segments():
                return  # whoever writes the session has packed or removed it since its catalog was read
            kind = "missing" if isinstance(error, FileNotFoundError) else "header"
            words = "it is gone" if kind == "missing" else f"it cannot be read ({error})"
            self._note(row, rows, {frame.id: (kind, words) for frame in rows})
            if not row.sealed:
                self.unusable.append(row)
                if not any(problem.file == row.file for problem in self.problems):
                    self.problems.append(Problem(kind, row.file, (), words))
            return
        if (size := segment.size) < row.bytes:
            self.cut.append(row)
            words = f"it was cut: it has {size} bytes of {row.bytes}"
            self.problems.append(Problem("truncated", row.file, (), words))
        by_slot = faults_of(segment, [frame.slot for frame in rows])
        faults = {frame.id: by_slot[frame.slot] for frame in rows if frame.slot in by_slot}
        self._note(row, rows, faults | _contradictions(segment, rows))
        whole = [frame.slot for frame in rows if frame.id not in faults]
        self.bytes += segment.stored_bytes(whole) if whole else 0

    def _note(self, row: SegmentRow, rows: Sequence[FrameRow], faults: Faults) -> None:
        """Tell frames that are damaged, or whole, from those that are known to be; `faults` by frame."""
        by_kind: dict[tuple[str, str], list[int]] = {}
        for frame in rows:
            if frame.id not in faults:
                self.frames += 1
                if frame.damaged:
                    by_kind.setdefault(("marked", "are marked as damaged, and are whole"), []).append(frame.id)
            elif frame.damaged:
                self.marked += 1
            else:
                by_kind.setdefault(faults[frame.id], []).append(frame.id)
        for (kind, words), ids in by_kind.items():
            frames = f"frame {ids[0]}" if len(ids) == 1 else f"{len(ids)} frames ({ids[0]} to {ids[-1]})"
            message = words if kind in ("missing", "header") else f"{frames}: {words}"
            self.problems.append(Problem(kind, row.file, tuple(ids), message))
            if kind == "marked":
                self.healed += ids
            else:
                self.damaged |= dict.fromkeys(ids, f"{row.file}: {message}")


def _require_fit(segment: Segment, row: SegmentRow, meta: SessionMeta) -> None:
    """Raise `StoreError` unless the file is the one that the catalog means."""
    if extent(segment) != row.bytes or segment.slots != row.slots or segment.codec != row.codec:
        raise StoreError("its header is not the one that was written")
    if meta_of(segment.metadata) != meta:
        raise StoreError("it belongs to another session")


def _contradictions(segment: Segment, rows: Sequence[FrameRow]) -> Faults:
    """By frame: those whose slots are not theirs; the segment has been read before."""
    try:
        ids, times = segment.table("frame"), segment.table("time")
    except (OSError, StoreError):
        return {}
    return {
        row.id: ("tables", "the file's tables contradict the catalog")
        for row in rows
        if row.slot < segment.slots and (ids[row.slot] != row.id or times[row.slot] != row.time)
    }


# -- repair ----------------------------------------------------------------------------------------------------


def _repair(check: _Check) -> list[str]:
    """Mark what is lost, so that the rest can be used and appended to; return what was done."""
    path, catalog, done = check.contents.path, check.contents.catalog, list[str]()
    for row in check.cut:
        lost = check.damaged.keys()
        _extend(path / row.file, row, [f.slot for f in check.contents.rows[row.id] if f.id not in lost])
        done.append(f"{row.file} has its full size again")
    with catalog.transaction() as sql:
        sql.executemany("UPDATE frames SET damaged = ? WHERE id = ?", [(why, f) for f, why in check.damaged.items()])
        sql.executemany("UPDATE frames SET damaged = NULL WHERE id = ?", [(frame,) for frame in check.healed])
        # A sealed segment is neither appended to nor packed, which this one could not be.
        sql.executemany("UPDATE segments SET sealed = 1 WHERE id = ?", [(row.id,) for row in check.unusable])
        if check.damaged or check.healed:
            bump(sql, "frames_changed")
    if check.damaged:
        are = "is" if len(check.damaged) == 1 else "are"
        done.append(f"{counted(len(check.damaged), 'frame')} {are} marked as damaged, and left out from now on")
    if check.healed:
        are = "is" if len(check.healed) == 1 else "are"
        done.append(f"{counted(len(check.healed), 'frame')} {are} whole again, and no longer left out")
    done += [f"{row.file} cannot be used any more; new frames go to another file" for row in check.unusable]
    for file in check.orphans:
        if file in check.kept:
            os.rename(path / file, path / f"{file}.unused")  # what is whole is not ours to delete
            done.append(f"{file} holds frames that fit nowhere; it is put aside as {file}.unused")
        else:
            (path / file).unlink()
            done.append(f"{file} held no frame, and was removed")
    if check.noted != check.contents.frames:
        note_committed(path, check.contents.frames, Files())
        if check.noted is not None:
            done.append(f"the session ends with what there is: {counted(check.contents.frames, 'frame')}")
    return done


def _extend(path: Path, row: SegmentRow, whole: Sequence[int]) -> None:
    """Give a segment that was cut its size again; what was cut off reads as zeros, but for the state of frames."""
    os.truncate(path, row.bytes)
    segment = Segment(Files(), path, writable=True)
    for slot in whole:
        segment.write_table("state", slot, [WRITTEN])
    segment.sync()
