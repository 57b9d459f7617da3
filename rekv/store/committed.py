"""How many frames were committed, said once more in a file beside the catalog.

A catalog whose write-ahead log was lost, or damaged, looks whole, and lacks what was committed last: SQLite reads the
log as far as its checksums hold and takes the rest for what a crash left. Then this number is larger than the
catalog's, and the frames between the two are still in the segments. Frames beyond both were never committed.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from rekv.errors import StoreError
from rekv.store.catalog import SegmentRow
from rekv.store.files import Files
from rekv.store.inspection import extent, faults_of, meta_of
from rekv.store.meta import SessionMeta
from rekv.store.names import COMMITTED, segment_files
from rekv.store.segment import WRITTEN, Segment

logger = logging.getLogger(__name__)


def note_committed(path: Path, frames: int, files: Files) -> None:
    """Say that the session in the folder `path` has this many frames, once its catalog says so.

    Only logs what goes wrong: the frames are safe, and a smaller number, or none, means less protection.
    """
    digits = f"{frames:019d}"
    text = f"{digits} {zlib_ng.crc32(digits.encode()):08x}\n".encode()  # always as long: written in place
    try:
        try:
            descriptor = files.open(path / COMMITTED, writable=True)
        except FileNotFoundError:
            descriptor = files.create(path / COMMITTED, len(text))
        try:
            files.write(descriptor, [memoryview(text)], 0)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
    except OSError as error:
        logger.warning("%s cannot be written (%s)", path / COMMITTED, error.strerror)


def noted_frames(path: Path) -> int | None:
    """What was noted last; None if that is not known: an older rekv wrote the session, or the file is damaged.

    To be read before the catalog: whoever writes notes the number after the commit.
    """
    try:
        digits, crc = (path / COMMITTED).read_bytes().split()
        return int(digits) if zlib_ng.crc32(digits) == int(crc, 16) else None
    except (OSError, ValueError):
        return None


def lost_frames(
    path: Path, meta: SessionMeta, frames: int, segments: Sequence[SegmentRow], noted: int | None
) -> list[int]:
    """Whole frames in the folder that a catalog, which has the first `frames` and these segments, should have.

    Where nothing was noted, that is every whole frame that it does not have.
    """
    if noted is not None and noted <= frames:
        return []
    full = {row.file for row in segments[:-1]}
    found: set[int] = set()
    for file in segment_files(path):
        if file not in full:
            found.update(whole_frames(path / file, meta, lambda frame: frame >= frames))
    return sorted(found)


def whole_frames(path: Path, meta: SessionMeta, wanted: Callable[[int], bool]) -> Collection[int]:
    """Of the frames that are `wanted`, those that lie whole in a segment's file, whatever a catalog says."""
    try:
        segment = Segment(Files(), path)
        extent(segment)
        if meta_of(segment.metadata) != meta:
            return ()
        ids, commits = segment.table("frame"), segment.table("commit")
        slots = [slot for slot in np.flatnonzero(written(segment)).tolist() if 0 <= ids[slot] < commits[slot, 0]]
    except (OSError, StoreError):
        return ()
    slots = [slot for slot in slots if wanted(int(ids[slot]))]
    faults = faults_of(segment, slots)
    return [int(ids[slot]) for slot in slots if slot not in faults]


def written(segment: Segment) -> NDArray[np.bool_]:
    """By slot: whether a frame was written to it."""
    try:
        state: NDArray[np.bool_] = segment.table("state") == WRITTEN
    except StoreError:  # the end of the file was cut off, and with it this table
        state = segment.table("commit")[:, 0] > 0
    return state
