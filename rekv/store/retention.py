"""What stays of a store: time spans that are pinned, and which frames go to make room.

Sessions have no common clock, so age is that of the files: a segment was complete before any later one of its
session was last written to. Frames that nobody could read again go like any other.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rekv.core import StorageConfig
from rekv.errors import ConfigError, SessionError, StoreError
from rekv.store.catalog import Catalog, FrameRow, SegmentRow
from rekv.store.folder import SessionFolder
from rekv.store.info import allocated, taken
from rekv.store.maintenance import Maintenance, first_needed, is_pinned
from rekv.store.store import Store

Spans = Sequence[tuple[float, float]]


# -- pins ----------------------------------------------------------------------------------------------------------


def pin(path: Path, start: float, end: float) -> Spans:
    """Keep the frames of [start, end), in seconds, whatever retention is set; return all pins of the session.

    A session may be pinned while it is written.
    """
    return _change_pins(path, start, end, keep=True)


def unpin(path: Path, start: float, end: float) -> Spans:
    """Let retention have [start, end) again, also where it is part of a longer pin; return the pins that are left."""
    return _change_pins(path, start, end, keep=False)


def frames_within(path: Path, start: float, end: float) -> int:
    """Return how many frames of [start, end), in seconds, a session has that can be read."""
    catalog = Catalog(path, writable=False)
    try:
        return sum(not frame.damaged and is_pinned(frame, [(start, end)]) for frame in catalog.frames())
    finally:
        catalog.close()


def _change_pins(path: Path, start: float, end: float, *, keep: bool) -> Spans:
    if not start < end:
        raise ConfigError(f"the span ends at {end:g} s, which is not after its start, {start:g} s")
    catalog = Catalog(path, writable=True)
    try:
        with catalog.transaction() as sql:
            pins = list(_without(catalog.pins(), start, end))
            pins = _merged([*pins, (start, end)]) if keep else pins
            sql.execute("DELETE FROM pins")
            sql.executemany("INSERT INTO pins (start, until) VALUES (?, ?)", pins)
    finally:
        catalog.close()
    return pins


def _without(pins: Iterable[tuple[float, float]], start: float, end: float) -> Iterator[tuple[float, float]]:
    for first, last in pins:
        if first < min(last, start):
            yield first, min(last, start)
        if max(first, end) < last:
            yield max(first, end), last


def _merged(pins: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for first, last in sorted(pins):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged


# -- prune ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Removal:
    """Frames of one segment that went, or would go."""

    session: str
    frames: int
    bytes: int  # that became free on disk; before they go, about
    start: float  # seconds: the first of them
    end: float  # seconds: until the last was seen
    written: float  # seconds since the epoch: when the segment was complete, at the latest


@dataclass(frozen=True, slots=True)
class Pruned:
    """What pruning a store did, or would do."""

    removals: tuple[Removal, ...]
    bytes: int  # of the store on disk, afterwards
    skipped: dict[str, str]  # sessions that were left alone, and why


@dataclass(frozen=True, slots=True)
class _Candidate:
    session: str
    segment: SegmentRow
    frames: Sequence[FrameRow]
    keep: Sequence[FrameRow]
    bytes: int
    written: float

    def removal(self, freed: int) -> Removal:
        kept = {frame.id for frame in self.keep}
        lost = [frame for frame in self.frames if frame.id not in kept]
        end = max(lost[-1].time, lost[-1].until)
        return Removal(self.session, len(lost), freed, lost[0].time, end, self.written)


def prune(
    store: Store,
    *,
    disk: int | None = None,
    max_age: float | None = None,
    thin_keep: int | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Remove the oldest segments of all sessions until the store takes at most `disk` bytes, and those that were
    written more than `max_age` seconds ago.

    `thin_keep`: first keep every n-th frame of them; whole segments go only if `disk` bytes are still too few.
    Left alone are sessions that are being written or cannot be opened, pinned frames, the window of each session
    and the segment it ends in: every session can go on. `dry_run` only says what would go.
    """
    if disk is None and max_age is None:
        raise ConfigError("say what to prune to: a size on disk, a greatest age, or both")
    if thin_keep is not None and thin_keep < 2:
        raise ConfigError(f"thin_keep is {thin_keep}; it must be at least 2: every n-th frame is kept")
    total, skipped = sum(taken(store.path(name)) for name in store.names()), dict[str, str]()
    oldest = -float("inf") if max_age is None else time.time() - max_age
    removals: list[Removal] = []
    thinned: dict[tuple[str, int], int] = {}  # bytes that thinning took from a segment, if this is only a trial
    for every in (None,) if thin_keep is None else (thin_keep, None):
        candidates: list[_Candidate] = []
        for name in (name for name in store.names() if name not in skipped):
            try:
                with store.lock(name):
                    candidates += _candidates(store, name, every)
            except (SessionError, StoreError) as error:
                skipped[name] = str(error)
        for candidate in sorted(candidates, key=lambda one: one.written):
            too_old = candidate.written < oldest and every == thin_keep
            if not too_old and (disk is None or total <= disk):
                break
            if candidate.session in skipped:
                continue
            try:
                freed = candidate.bytes if dry_run else _remove(store, candidate)
            except (SessionError, StoreError, OSError) as error:
                skipped[candidate.session] = str(error)
                continue
            place = candidate.session, candidate.segment.id
            if dry_run:
                freed -= thinned.get(place, 0)
                thinned[place] = freed
            total -= freed
            removals.append(candidate.removal(freed))
    return Pruned(tuple(removals), total, skipped)


def _candidates(store: Store, name: str, every: int | None) -> list[_Candidate]:
    """Segments of a session from which something may go, oldest first; of which only each n-th frame stays, if any."""
    folder = store.open(name)
    try:
        meta, segments, rows = folder.catalog.snapshot(0, 0)
        pins = folder.catalog.pins()
        needed = first_needed(folder.meta, int(meta.get("window_first", 0)))
    finally:
        folder.close()
    by_segment: dict[int, list[FrameRow]] = {}
    for row in rows:
        by_segment.setdefault(row.segment, []).append(row)
    found = []
    written = _written(folder.path, segments)
    for segment in segments[:-1]:  # whoever appends goes on in the last one
        frames = by_segment.get(segment.id, [])
        keep = [frame for frame in frames if (every and frame.id % every == 0) or is_pinned(frame, pins)]
        if len(keep) == len(frames) or frames[-1].id >= needed:
            continue
        size = allocated(folder.path / segment.file)
        freed = size * (len(frames) - len(keep)) // len(frames)
        found.append(_Candidate(name, segment, frames, keep, freed, written[segment.id]))
    return found


def _written(path: Path, segments: Sequence[SegmentRow]) -> dict[int, float]:
    """When each segment was complete, at the latest: packing one again makes its own file younger."""
    times: dict[int, float] = {}
    latest = time.time()
    for segment in reversed(segments):
        with suppress(FileNotFoundError):  # one that is missing counts as old as the one after it
            latest = min(latest, (path / segment.file).stat().st_mtime)
        times[segment.id] = latest
    return times


def _remove(store: Store, candidate: _Candidate) -> int:
    """Remove it, unless the session has changed meanwhile; return the bytes that this freed."""
    path = store.find(candidate.session)
    with store.lock(candidate.session):
        before = taken(path)
        folder = SessionFolder(path, writable=True)
        try:
            folder.refresh()
            if candidate.segment not in folder.catalog.segments():
                raise SessionError(f"session {candidate.session!r} was changed meanwhile: prune again")
            Maintenance(folder, StorageConfig()).replace(candidate.segment, candidate.frames, candidate.keep)
            folder.catalog.checkpoint()  # or a journal that readers keep open would seem to have grown
        finally:
            folder.close()
        return before - taken(path)  # now that SQLite has put its journal away
