"""One session's folder, as it is read: which frames there are, their blocks, representative keys, the sink."""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rekv.errors import DamagedError, StoreError
from rekv.memory.kept import Masks, reduced, unpacked
from rekv.memory.policies import Policy
from rekv.memory.policies import find as find_policy
from rekv.memory.pool import as_bytes
from rekv.store.catalog import FILE, Catalog, FrameRow, SegmentRow
from rekv.store.committed import noted_frames
from rekv.store.files import Buffer, Files
from rekv.store.meta import SessionMeta
from rekv.store.names import holds_session
from rekv.store.reading import MOST_BYTES, Job, fits, lasts, run_in_turn
from rekv.store.segment import Segment, index_crc
from rekv.store.sink import load_sink

logger = logging.getLogger(__name__)

Ints = NDArray[np.int64]

OPEN_SEGMENTS = 128  # file descriptors kept
_first = itemgetter(0)
_GONE, _LEFT = -1, -2  # instead of a segment: removed; removed since the last look


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look at the catalog found."""

    frames: int  # of the session so far, those that are gone included
    rows: Sequence[FrameRow]  # new frames, and the newest one known before, whose span may have grown
    gone: Sequence[int] = ()  # frames that retention removed
    recoded: Sequence[int] = ()  # frames whose blocks have been packed since
    damaged: dict[int, str] = field(default_factory=dict)


class SessionFolder:
    """A session on disk. Any thread may read."""

    def __init__(self, path: Path, files: Files | None = None, *, writable: bool = False) -> None:
        """Open it. Raises `StoreError` if it is not a session, or damaged."""
        self.path = path
        self.files = files or Files()
        if not (path / FILE).is_file():
            what = (
                f"is damaged: its {FILE} is lost; `rekv verify {path.name} --repair` makes it anew"
                if holds_session(path)
                else f"is not a session: it has no {FILE}"
            )
            raise StoreError(f"{path} {what}")
        noted = noted_frames(path)
        self.catalog = Catalog(path, writable=writable)
        self.meta = SessionMeta.of(self.catalog)
        if noted is not None and noted > (found := int(self.catalog.get("frames") or 0)):
            logger.warning(
                "%s: %d committed frames are not in the catalog; `rekv verify %s --repair` takes them in again",
                path,
                noted - found,
                path.name,
            )
        self.frames = 0
        self._segments: dict[int, SegmentRow] = {}
        self._open: OrderedDict[int, Segment] = OrderedDict()
        self._segment_of = np.full(0, _GONE, np.int64)  # by frame
        self._slot_of = np.zeros(0, np.int64)
        self._versions = ("", "")
        self._seen = -1
        self._written_to = -1  # the segment that this process writes
        self._moving = threading.RLock()  # held while it is looked up, or changed, where frames lie

    def close(self) -> None:
        self._open.clear()
        self.catalog.close()

    # -- which frames there are --------------------------------------------------------------------------------

    def changed(self) -> bool:
        """Whether anybody has written to the catalog since the last look."""
        return self.catalog.data_version() != self._seen

    def refresh(self) -> Changes:
        """Look for frames committed since the last look, and for what happened to older ones."""
        known = self.frames
        self._seen = self.catalog.data_version()
        meta, segments, rows = self.catalog.snapshot(max(0, known - 1), max(self._segments, default=0))
        frames_version, segments_version = (meta.get(key, "") for key in ("frames_changed", "segments_changed"))
        before = {row.id: row.file for row in self._segments.values()}
        rows_all = rows
        if known and (frames_version, segments_version) != self._versions:
            meta, segments, rows_all = self.catalog.snapshot(0, 0)
            frames_version, segments_version = (meta.get(key, "") for key in ("frames_changed", "segments_changed"))
            self._segments.clear()
        self._segments.update({row.id: row for row in segments})
        gone: list[int] = []
        recoded: list[int] = []
        if known and segments_version != self._versions[1]:
            moved = [number for number, file in before.items() if self._file(number) != file]
            for number in moved:
                self._open.pop(number, None)
            recoded = np.flatnonzero(np.isin(self._segment_of[:known], moved)).tolist()
        if known and frames_version != self._versions[0]:
            alive = np.zeros(known, bool)
            alive[[row.id for row in rows_all if row.id < known]] = True
            gone = np.flatnonzero(~alive & (self._segment_of[:known] != _GONE)).tolist()
            self._segment_of[gone] = _GONE
            self.locate(rows_all)
            rows = [row for row in rows_all if row.id >= known - 1]
            damaged = {row.id: row.damaged for row in rows_all if row.damaged}
        else:
            rows = [row for row in rows_all if row.id >= known - 1]
            damaged = {row.id: row.damaged for row in rows if row.damaged}
        self._versions = (frames_version, segments_version)
        self.locate(row for row in rows if row.id >= known)
        for segment in {row.segment for row in rows}:
            if (opened := self._open.get(segment)) is not None:
                opened.forget_tables()
        self.frames = int(meta.get("frames", 0))
        return Changes(self.frames, rows, gone, recoded, damaged)

    def _file(self, number: int) -> str | None:
        row = self._segments.get(number)
        return None if row is None else row.file

    def forget_look(self, frames: int) -> None:
        """The last look was not taken over: look again, at what is beyond `frames` frames."""
        self.frames, self._seen = frames, -1

    def locate(self, rows: Iterator[FrameRow] | Sequence[FrameRow]) -> None:
        """Note where frames lie."""
        for row in rows:
            if row.id >= len(self._segment_of):
                self._grow(row.id + 1)
            self._slot_of[row.id] = row.slot
            self._segment_of[row.id] = row.segment

    def place(self, frame: int) -> tuple[int, int]:
        """Segment and slot of a frame; a segment below 0 if it is gone."""
        return int(self._segment_of[frame]), int(self._slot_of[frame])

    def know(self, row: SegmentRow, segment: Segment) -> None:
        """Note a segment that is being written; it stays open."""
        with self._moving:
            self._segments[row.id] = row
            self._open[row.id] = segment
            self._written_to = row.id

    def replace(self, number: int, row: SegmentRow | None, kept: Sequence[int], lost: Iterable[int]) -> None:
        """Note that a segment was rewritten with the frames `kept`, or removed (None)."""
        with self._moving:
            self._segment_of[list(lost)] = _GONE
            self._open.pop(number, None)
            if row is None:
                self._segments.pop(number, None)
                return
            self._segments[number] = row
            self._slot_of[list(kept)] = np.arange(len(kept))

    def bytes(self) -> int:
        """Bytes on disk, but for the catalog's log, which is bounded."""
        files = (entry for entry in os.scandir(self.path) if entry.is_file())
        return sum(file.stat().st_blocks * 512 for file in files if not file.name.endswith(("-wal", "-shm")))

    # -- reading -----------------------------------------------------------------------------------------------

    def sink(self) -> list[tuple[Tensor, Tensor]]:
        """Un-rotated keys and values of the init prompt, per layer: (kv_heads, tokens, head_dim).

        Raises `DamagedError` if they are lost.
        """
        return load_sink(self.path, self.meta)

    def read(self, layer: int, frames: Sequence[int], rows: Sequence[Tensor | Buffer]) -> None:
        """Fill one row per frame with a block (2, kv_heads, tokens, head_dim) in the dtype of the session.

        Rows are contiguous tensors, or their memory. Blocks that are neighbours in a file are read in one go. Every
        block's checksum is compared. Raises `DamagedError`, which names the frames to leave out.
        """
        buffers = [as_bytes(row) if isinstance(row, Tensor) else row for row in rows]
        with self._moving:
            jobs = self._plan(layer, frames, buffers)
        run_in_turn(jobs)

    def read_kept(self, layer: int, frames: Sequence[int]) -> list[Tensor]:
        """What a memory policy keeps of each block, (2, kv_heads, n, head_dim) in the dtype of the session.

        Raises `DamagedError`, as `read` does.
        """
        policy, (heads, dim) = self.policy, self.meta.layers[layer]
        if policy is None:
            raise RuntimeError("the session has no memory policy")
        ids = np.asarray(frames, np.int64)
        with self._moving:  # what is whole now is whole when it is read
            kept = self.kept(layer, ids)
            places = self._segment_of[ids].tolist()
            if min(places, default=0) < 0:
                raise self._no_longer([frame for frame, place in zip(frames, places, strict=True) if place < 0])
            whole = np.array([not self.segment(place).is_reduced for place in places], bool)
            sizes = np.where(whole, kept.shape[1], kept.sum(1)).tolist()
            blocks = [torch.empty(2, heads, tokens, dim, dtype=self.meta.torch_dtype) for tokens in sizes]
            jobs = self._plan(layer, frames, [as_bytes(block) for block in blocks])
        run_in_turn(jobs)
        return [
            reduced(policy, block, torch.from_numpy(mask)) if is_whole else block
            for block, mask, is_whole in zip(blocks, kept, whole, strict=True)
        ]

    def kept(self, layer: int, frames: Ints) -> NDArray[np.bool_]:
        """Which tokens of frames a memory policy keeps: (len(frames), tokens). Raises `DamagedError`."""
        kept = unpacked(self.masks(layer, frames), self.meta.tokens_per_frame)
        if not (some := kept.any(1)).all():
            lost = tuple(frames[~some].tolist())
            raise DamagedError(f"{self.path.name}: what is kept of frames {list(lost)} is damaged", lost)
        return kept

    def masks(self, layer: int, frames: Ints) -> Masks:
        """Which tokens a memory policy keeps of frames, packed bits; none of those that are gone."""
        out = np.zeros((len(frames), self.meta.mask_bytes), np.uint8)
        with self._moving:
            places = self._segment_of[frames]
            for place in np.unique(places[places >= 0]).tolist():
                mine = np.flatnonzero(places == place)
                segment = self.segment(place)
                mine = mine[self._segment_of[frames[mine]] == place]  # opening it, the catalog was looked at again
                slots = self._slot_of[frames[mine]]
                try:
                    segment.require_places(frames[mine], slots)
                    masks = segment.masks(layer)
                except DamagedError:
                    raise
                except (OSError, StoreError) as error:
                    words = f"{segment.path.name}: what is kept of its frames cannot be read ({error})"
                    raise DamagedError(words, tuple(frames[mine].tolist()), lasting=lasts(error)) from error
                if masks is not None:
                    out[mine] = masks[slots]
        return out

    @cached_property
    def policy(self) -> Policy | None:
        """What says which tokens of a frame are kept. Raises `ConfigError` if it is another package's, and not here."""
        return find_policy(self.meta.encode.policy)

    def index(self, layer: int, frames: Sequence[int] | Ints, *, check: bool = False) -> NDArray[np.float32]:
        """Representative keys (len(frames), width) of ascending frames; zeros for those that are gone.

        With `check` their checksums are compared. Raises `DamagedError`.
        """
        wanted = np.asarray(frames, np.int64)
        places = self._segment_of[wanted]
        if len(wanted) and (places == places[0]).all() and places[0] >= 0:
            return self._index_of(int(places[0]), layer, wanted, check)
        kv_heads, dim = self.meta.layers[layer]
        out = np.zeros((len(wanted), kv_heads * dim), np.float32)
        for place in np.unique(places[places >= 0]).tolist():
            mine = np.flatnonzero(places == place)
            out[mine] = self._index_of(place, layer, wanted[mine], check)
        return out

    def _index_of(self, number: int, layer: int, frames: Ints, check: bool) -> NDArray[np.float32]:
        """Of frames that lie in one segment."""
        with self._moving:
            segment = self.segment(number)
            slots, there = self._slot_of[frames], self._segment_of[frames] == number
        if not there.all():  # opening it, the catalog was looked at again
            raise self._no_longer(frames[~there].tolist())
        first, last = int(slots.min()), int(slots.max()) + 1
        try:
            segment.require_places(frames, slots)
            if layer + 1 < segment.layers and not check:  # a question goes on to it; meanwhile the disk is not idle
                segment.announce_index(layer + 1, first, last)
            rows = segment.index(layer, first, last)
            if last - first != len(frames):
                rows = rows[slots - first]
            crcs = segment.table("index_crc")[layer][slots] if check else ()
            masks = segment.masks(layer) if check else None
            each = [None] * len(frames) if masks is None else masks[slots]
        except DamagedError:
            raise
        except (OSError, StoreError) as error:
            words = f"{segment.path.name}: its index cannot be read ({error})"
            raise DamagedError(words, tuple(frames.tolist()), lasting=lasts(error)) from error
        checked = zip(frames.tolist(), rows, each, crcs, strict=False)
        bad = [frame for frame, row, mask, crc in checked if index_crc(row, mask) != crc]
        if bad:
            raise DamagedError(f"{segment.path.name}: the index of frames {bad} is damaged", tuple(bad))
        return rows

    def segment(self, number: int) -> Segment:
        """An open segment. Raises `DamagedError` for all its frames if it cannot be opened."""
        with self._moving:
            segment = self._open.get(number)
            if segment is not None:
                return segment
            frames = tuple(np.flatnonzero(self._segment_of == number).tolist())
            row = self._segments.get(number)
            if row is None:
                raise DamagedError(f"the catalog of {self.path.name} knows no segment {number}", frames)
            try:
                segment = self._open_segment(row)
            except DamagedError:
                raise
            except (OSError, StoreError) as error:
                if not self.path.is_dir():
                    raise StoreError(f"{self.path} is gone; is its disk still there?") from error
                raise DamagedError(f"{row.file} cannot be read ({error})", frames, lasting=lasts(error)) from error
            self._open[number] = segment
            while len(self._open) > OPEN_SEGMENTS:
                oldest = next(n for n in self._open if n != self._written_to)
                del self._open[oldest]  # closed when nobody reads from it any more
            return segment

    def _open_segment(self, row: SegmentRow) -> Segment:
        try:
            return Segment(self.files, self.path / row.file)
        except FileNotFoundError:
            # Another process may have packed or thinned it since the last look: then it has another name.
            new, frames = self.catalog.segment(row.id)
            if new is not None and new.file == row.file:
                raise
            lay_there = self._segment_of == row.id
            self._segment_of[lay_there] = _LEFT
            if new is None:
                raise self._no_longer(np.flatnonzero(lay_there).tolist()) from None
            self._segments[row.id] = new
            self.locate(frames)
            return self._open_segment(new)  # and may do so again

    def _no_longer(self, frames: list[int]) -> DamagedError:
        """Removed since the last look: the next one says so."""
        return DamagedError(f"frames {frames} are no longer in {self.path.name}", tuple(frames), lasting=False)

    def _plan(self, layer: int, frames: Sequence[int], buffers: Sequence[Buffer]) -> list[Job]:
        # Few blocks are asked for at a time: loops take less than calls of numpy.
        ids = np.asarray(frames, np.int64)
        places = self._segment_of[ids].tolist()
        if min(places, default=0) < 0:
            raise self._no_longer([frame for frame, place in zip(frames, places, strict=True) if place < 0])
        jobs: list[Job] = []
        for place in sorted(set(places)):
            mine = [i for i, there in enumerate(places) if there == place]
            segment = self.segment(place)
            if moved := [frames[i] for i in mine if self._segment_of[frames[i]] != place]:
                raise self._no_longer(moved)  # opening it, the catalog was looked at again
            jobs += self._jobs(segment, layer, ids[mine], [buffers[i] for i in mine])
        return jobs

    def _jobs(self, segment: Segment, layer: int, frames: Ints, buffers: Sequence[Buffer]) -> list[Job]:
        """Cut a request into runs of blocks that are neighbours in the file, of limited size."""
        slots = self._slot_of[frames]
        try:
            segment.require_places(frames, slots)
            tables = [table[slots].tolist() for table in segment.blocks_table(layer)]
        except DamagedError:
            raise
        except (OSError, StoreError) as error:
            words = f"{segment.path.name}: its tables cannot be read ({error})"
            raise DamagedError(words, tuple(frames.tolist()), lasting=lasts(error)) from error
        jobs: list[Job] = []
        impossible: list[int] = []
        end = -1
        for offset, size, crc, frame, buffer in sorted(zip(*tables, frames.tolist(), buffers, strict=True), key=_first):
            if not segment.holds(layer, offset, size) or not fits(segment, self.meta, layer, size, buffer):
                impossible.append(frame)
            elif offset == end and jobs[-1].size < MOST_BYTES:
                jobs[-1].add(size, crc, frame, buffer)
            else:
                jobs.append(Job(segment, self.meta, layer, offset, size, [size], [crc], [frame], [buffer]))
            end = offset + size
        if impossible:
            raise DamagedError(f"{segment.path.name}: where frames {impossible} lie is damaged", tuple(impossible))
        return jobs

    def _grow(self, frames: int) -> None:
        grown = max(1024, frames, 2 * len(self._segment_of))
        segment_of, slot_of = np.full(grown, _GONE, np.int64), np.zeros(grown, np.int64)
        segment_of[: len(self._segment_of)] = self._segment_of
        slot_of[: len(self._slot_of)] = self._slot_of
        self._slot_of, self._segment_of = slot_of, segment_of
