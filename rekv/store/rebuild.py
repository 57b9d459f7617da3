"""Makes a session's catalog anew from its segments, when the old one is lost."""

import logging
import os
import sqlite3
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from rekv.errors import StoreError
from rekv.store.catalog import FILE, Catalog, FrameRow, SegmentRow, put
from rekv.store.committed import note_committed, written
from rekv.store.files import Files
from rekv.store.inspection import counted, extent, faults_of, meta_of
from rekv.store.meta import SessionMeta
from rekv.store.names import SEGMENT, SINK, segment_files
from rekv.store.segment import Segment

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Found:
    """A frame in a segment."""

    row: FrameRow
    commit: tuple[int, int, int]  # after the encode call that made it: frames, the window's first token, its slots
    whole: bool


@dataclass(frozen=True, slots=True)
class _Scanned:
    """A segment and what lies in it."""

    row: SegmentRow
    rewritten: bool  # to be packed or thinned: what was left out is meant to be absent
    frames: Sequence[_Found]

    @property
    def whole(self) -> int:
        return sum(frame.whole for frame in self.frames)


def rebuild(path: Path) -> str:
    """Make the catalog anew, put what there is of an old one aside, and say what was done.

    What only the old one knows, such as pins, is taken over as far as it can be read.

    The session ends with the last encode call all of whose frames are whole: so it goes on as if it had just made
    them. Frames before that which are not whole stay in it. Raises `StoreError` if nothing says whose session it is.
    """
    segments, metas = _scan_all(path)
    meta = next((meta for meta in (_sink_meta(path), *metas) if meta is not None), None)
    if meta is None:
        raise StoreError(f"nothing left in {path} says which model and settings made it; restore it from a copy")
    frames = _ascending([frame for segment in segments for frame in segment.frames])
    end, window = _end(frames, segments)
    making = path / f".catalog.{uuid.uuid4().hex[:8]}"
    making.mkdir()
    try:
        with closing(Catalog(making, writable=True)) as catalog:
            _fill(catalog, segments, [frame.row for frame in frames if frame.row.id < end])
            with catalog.transaction() as sql:
                put(sql, session=meta.dumps(), frames=end, window_first=window[0], window_slots=window[1])
            unread = _take_over(catalog, path, end)
        Files().sync_path(making / FILE)
        aside = _put_aside(path)
        os.rename(making / FILE, path / FILE)
        Files().sync_folder(path)
        note_committed(path, end, Files())
    finally:
        for entry in making.iterdir():
            entry.unlink()
        making.rmdir()
    lost = f"; lost with it: {', '.join(unread)}" if unread else ""
    return f"{FILE} was made anew from the segments, with {counted(end, 'frame')}{aside}{lost}"


# -- what there is ---------------------------------------------------------------------------------------------


def _scan_all(path: Path) -> tuple[list[_Scanned], list[SessionMeta | None]]:
    """The segments that can be opened, one for each number, and the sessions they name."""
    versions: dict[int, list[_Scanned]] = {}
    metas: list[SessionMeta | None] = []
    for file in segment_files(path):
        try:
            segment = Segment(Files(), path / file)
            scanned = _scan(segment)
        except StoreError as error:
            # Nothing can be taken from it, but it is not ours to delete: a name that is no segment's keeps it.
            logger.warning("%s; it is put aside as %s.damaged", error, file)
            os.rename(path / file, path / f"{file}.damaged")
            continue
        versions.setdefault(scanned.row.id, []).append(scanned)
        metas.append(meta_of(segment.metadata))
    return [_newest(versions[number]) for number in sorted(versions)], metas


def _newest(versions: Sequence[_Scanned]) -> _Scanned:
    """A segment is rewritten to take the older one's place, which goes when the new one is whole."""
    by_age = sorted(versions, key=lambda one: one.row.file, reverse=True)
    complete = [one for one in by_age if one.rewritten and one.whole == one.row.slots]
    return complete[0] if complete else max(by_age, key=lambda one: one.whole)


def _scan(segment: Segment) -> _Scanned:
    """Raises `StoreError` if its header or its tables cannot be read."""
    named = SEGMENT.fullmatch(segment.path.name)
    if named is None:
        raise StoreError(f"{segment.path.name} is not a segment's name")
    size, number, rewritten = extent(segment), int(named[1]), named[2] is not None
    ids, times, until, walls = (segment.table(name) for name in ("frame", "time", "until", "wall"))
    commits = segment.table("commit")
    filled = written(segment)
    slots = np.flatnonzero(filled & (commits[:, 0] > 0)).tolist()
    if slots and not rewritten:  # every frame takes the next slot: one that lacks its entries lies between the others
        ids = int(np.median(ids[slots] - slots)) + np.arange(segment.slots)
        slots = list(range(slots[-1] + 1))
    else:
        slots = [slot for slot in slots if 0 <= ids[slot] < commits[slot, 0]]
    faults = faults_of(segment, slots)
    frames = [
        _Found(
            FrameRow(
                int(ids[slot]),
                number,
                slot,
                float(times[slot]),
                float(until[slot]),
                None if np.isnan(walls[slot]) else float(walls[slot]),
            ),
            (int(commits[slot, 0]), int(commits[slot, 1]), int(commits[slot, 2])),
            slot not in faults and bool(filled[slot]) and bool(ids[slot] < commits[slot, 0]),
        )
        for slot in slots
    ]
    sealed = segment.codec != "raw" or (rewritten and len(slots) == segment.slots)
    return _Scanned(
        SegmentRow(number, segment.path.name, segment.slots, segment.codec, size, sealed), rewritten, frames
    )


def _ascending(frames: Sequence[_Found]) -> list[_Found]:
    """Frames in order, each with a time that is not before the last one's; those that say otherwise are not whole."""
    kept: list[_Found] = []
    last, time = -1, 0.0
    for frame in frames:
        if frame.row.id <= last:
            continue
        if not time <= frame.row.time < np.inf:
            frame = replace(frame, row=replace(frame.row, time=time, until=time), whole=False)
        elif frame.whole:
            time = frame.row.time
        last = frame.row.id
        kept.append(frame)
    return [_bounded(frame, following.row.time) for frame, following in pairwise(kept)] + [
        _bounded(frame, np.inf) for frame in kept[-1:]
    ]


def _bounded(frame: _Found, following: float) -> _Found:
    """A frame stands for near-duplicates between itself and the following one: `until` has no checksum of its own."""
    time, until = frame.row.time, frame.row.until
    sound = time <= until <= following and until < np.inf
    return frame if sound else replace(frame, row=replace(frame.row, until=time))


def _end(frames: Sequence[_Found], segments: Sequence[_Scanned]) -> tuple[int, tuple[int, int]]:
    """Frames of the session after its last whole encode call, and its window then: the first token, the slots."""
    by_id = {frame.row.id: frame for frame in frames}
    gapless = max(by_id, default=0) + 1  # from here on, no frame may be absent: nothing was thinned yet
    for segment in reversed(segments):
        if segment.rewritten:
            break
        gapless = min((frame.row.id for frame in segment.frames), default=gapless)
    ends = sorted({frame.commit[0] for frame in frames if frame.whole})
    for before, end in reversed([*pairwise([0, *ends])]):
        needed = {end - 1, *range(max(before, gapless), end)} if end - 1 in by_id else {-1}
        if all(i in by_id and by_id[i].whole for i in needed):
            windows = Counter(by_id[i].commit[1:] for i in range(before, end) if i in by_id)
            return end, windows.most_common(1)[0][0]
    return 0, (0, 0)


# -- the new catalog -------------------------------------------------------------------------------------------


def _fill(catalog: Catalog, segments: Sequence[_Scanned], rows: Sequence[FrameRow]) -> None:
    used = {row.segment for row in rows}
    with catalog.transaction() as sql:
        sql.executemany(
            "INSERT INTO segments (id, file, slots, codec, bytes, sealed) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (row.id, row.file, row.slots, row.codec, row.bytes, row.sealed)
                for row in (segment.row for segment in segments)
                if row.id in used
            ],
        )
        sql.executemany(
            "INSERT INTO frames (id, segment, slot, time, until, wall) VALUES (?, ?, ?, ?, ?, ?)",
            [(row.id, row.segment, row.slot, row.time, row.until, row.wall) for row in rows],
        )


# What a catalog alone knows: the columns of each table, and which rows are sound and of the frames that there are.
_ONLY_THERE = {
    "pins": ("id, start, until", "typeof(start) = 'real' AND typeof(until) = 'real' AND :end >= 0"),
    "sources": (
        "id, path, bytes, start, shift, first, finished",
        "typeof(path) = 'text' AND typeof(bytes) IN ('integer', 'null') AND typeof(start) = 'real' "
        "AND typeof(shift) = 'real' AND typeof(first) = 'integer' AND first <= :end",
    ),
    "thumbnails": ("frame, jpeg", "typeof(jpeg) = 'blob' AND frame < :end"),
    "embeddings": ("frame, vector", "typeof(vector) = 'blob' AND frame < :end"),
    "meta": ("key, value", "key = 'limits' AND :end >= 0"),  # not what the next frame is compared with: it is another
}


def _take_over(catalog: Catalog, path: Path, end: int) -> list[str]:
    """Copy what the old catalog alone knows; return what could not be read."""
    if not (path / FILE).is_file():
        return [table for table in _ONLY_THERE if table != "meta"]
    unread = []
    for table, (columns, sound) in _ONLY_THERE.items():
        marks = ", ".join("?" for _ in columns.split(","))
        try:
            with closing(sqlite3.connect(f"{(path / FILE).absolute().as_uri()}?mode=ro", uri=True)) as old:
                rows = old.execute(f"SELECT {columns} FROM {table} WHERE {sound}", {"end": end}).fetchall()
            with catalog.transaction() as sql:
                sql.executemany(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", rows)
        except (sqlite3.Error, StoreError, ValueError):
            unread.append(table)
    return [table for table in unread if table != "meta"]


def _put_aside(path: Path) -> str:
    """Keep what there is of the old catalog under another name; return that name, in words."""
    taken = {file.name for file in path.iterdir()}
    number = next(n for n in count(1) if f"{FILE}.damaged-{n}" not in taken)
    there = [suffix for suffix in ("", "-wal", "-shm") if FILE + suffix in taken]
    for suffix in there:
        os.rename(path / (FILE + suffix), path / f"{FILE}.damaged-{number}{suffix}")
    return f"; the old one is {FILE}.damaged-{number}" if there else ""


def _sink_meta(path: Path) -> SessionMeta | None:
    try:
        with safe_open(path / SINK, "np") as file:
            return meta_of(file.metadata() or {})
    except (OSError, SafetensorError):
        return None
