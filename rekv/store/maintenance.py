"""What the writer does between commits: packs segments that have left the window, removes what is too old.

Files change by making another one and swapping it in with one transaction; readers keep what they have open.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rekv.core import StorageConfig
from rekv.errors import DamagedError
from rekv.memory.pool import as_bytes
from rekv.store.catalog import FrameRow, SegmentRow, bump
from rekv.store.codecs import codec
from rekv.store.folder import Changes, SessionFolder
from rekv.store.header import Layer
from rekv.store.meta import SessionMeta
from rekv.store.segment import WRITTEN, Segment

logger = logging.getLogger(__name__)

_FRAMES_AT_ONCE = 16


class Maintenance:
    """Keeps one session's folder small. Runs in the writer's thread, after a commit."""

    def __init__(self, folder: SessionFolder, storage: StorageConfig) -> None:
        self._folder, self._storage = folder, storage
        self._lock = threading.Lock()
        self._gone: list[int] = []
        self._recoded: list[int] = []
        self._damaged: dict[int, str] = {}
        self._leftover: list[Path] = []  # files that were replaced, and could not be removed

    def take(self) -> Changes | None:
        """What has changed since the last call."""
        with self._lock:
            gone, self._gone = self._gone, []
            recoded, self._recoded = self._recoded, []
            damaged, self._damaged = self._damaged, {}
        return Changes(self._folder.frames, (), gone, recoded, damaged) if gone or recoded or damaged else None

    def run(self, first_needed: int) -> None:
        """Seal, thin and remove segments of frames below `first_needed`: the window does not need them any more.

        What goes altogether goes first, and what is beyond the budget also goes if packing fails: a full disk gets
        room by it. Raises what stopped the packing, `OSError` or `RekvError`; to be run again then.
        """
        self._remove_leftover()
        rows = self._folder.catalog.frames()
        by_segment: dict[int, list[FrameRow]] = {}
        for row in rows:
            by_segment.setdefault(row.segment, []).append(row)
        segments = [
            row
            for row in self._folder.catalog.segments()[:-1]  # the last one is being written
            if by_segment.get(row.id) and by_segment[row.id][-1].id < first_needed
        ]
        newest = rows[-1].time if rows else 0.0
        pinned = self._folder.catalog.pins()
        changing = [
            (segment, frames, keep)
            for segment in segments
            for frames in (by_segment[segment.id],)
            for keep in (self._kept(frames, newest, pinned),)
            if not segment.sealed or len(keep) < len(frames)
        ]
        unread: DamagedError | None = None
        try:
            for segment, frames, keep in sorted(changing, key=lambda change: bool(change[2])):
                try:
                    self._try_to_replace(segment, frames, keep)
                except DamagedError as error:  # a disk that does not answer here may do so elsewhere
                    unread = error
        finally:
            self._fit(segments, by_segment, pinned)
        if unread is not None:
            raise unread

    def _kept(self, frames: Sequence[FrameRow], newest: float, pinned: Sequence[tuple[float, float]]) -> list[FrameRow]:
        """The frames of a segment that their age lets stay. A segment changes when all of it is old enough."""
        age, storage = newest - frames[-1].time, self._storage
        if storage.max_age is not None and age > storage.max_age:
            return [frame for frame in frames if is_pinned(frame, pinned)]
        if storage.thin_after is not None and age > storage.thin_after:
            return [frame for frame in frames if frame.id % storage.thin_keep == 0 or is_pinned(frame, pinned)]
        return list(frames)

    def _fit(
        self,
        segments: Sequence[SegmentRow],
        by_segment: dict[int, list[FrameRow]],
        pinned: Sequence[tuple[float, float]],
    ) -> None:
        """Remove the oldest segments until the folder fits in its budget."""
        if self._storage.disk is None:
            return
        for segment in segments:
            if self._folder.bytes() <= self._storage.disk:
                return
            row = next((row for row in self._folder.catalog.segments() if row.id == segment.id), None)
            if row is not None:
                alive = {frame.id for frame in self._folder.catalog.frames_of(row.id)}
                frames = [frame for frame in by_segment[segment.id] if frame.id in alive]
                keep = [frame for frame in frames if is_pinned(frame, pinned)]
                if len(keep) < len(frames):
                    self._try_to_replace(row, frames, keep)

    def _try_to_replace(self, old: SegmentRow, frames: Sequence[FrameRow], keep: Sequence[FrameRow]) -> None:
        """Replace a segment; frames that turn out to be damaged do not stop the writer, but are recorded."""
        try:
            self.replace(old, frames, keep)
        except DamagedError as error:
            if not error.lasting:
                raise
            logger.warning("%s: %s", self._folder.path, error)
            with self._folder.catalog.transaction() as sql:
                sql.executemany("UPDATE frames SET damaged = ? WHERE id = ?", [(str(error), f) for f in error.frames])
                bump(sql, "frames_changed")
            with self._lock:
                self._damaged.update(dict.fromkeys(error.frames, str(error)))

    def replace(self, old: SegmentRow, frames: Sequence[FrameRow], keep: Sequence[FrameRow]) -> None:
        """Replace a segment by one with the frames to keep, packed. Damaged frames are not kept, unless they have
        become readable again."""
        keep = [frame for frame in keep if not frame.damaged or self._is_readable(frame)]
        healed = [frame.id for frame in keep if frame.damaged]
        reduces = self._folder.policy is not None and bool(keep) and not self._folder.segment(old.id).is_reduced
        if len(keep) == len(frames) and old.codec == self._folder.meta.codec and not reduces:
            with self._folder.catalog.transaction() as sql:
                sql.execute("UPDATE segments SET sealed = 1 WHERE id = ?", (old.id,))
                _heal(sql, healed)
            return
        new = rewrite(self._folder, old, keep, self._folder.meta.codec, reduce=reduces) if keep else None
        lost = {frame.id for frame in frames} - {frame.id for frame in keep}
        with self._folder.catalog.transaction() as sql:
            sql.executemany("DELETE FROM frames WHERE id = ?", [(frame,) for frame in lost])
            for table in ("thumbnails", "embeddings"):
                sql.executemany(f"DELETE FROM {table} WHERE frame = ?", [(frame,) for frame in lost])
            if new is None:
                sql.execute("DELETE FROM segments WHERE id = ?", (old.id,))
            else:
                sql.executemany(
                    "UPDATE frames SET slot = ? WHERE id = ?", [(slot, frame.id) for slot, frame in enumerate(keep)]
                )
                sql.execute(
                    "UPDATE segments SET file = ?, slots = ?, codec = ?, bytes = ?, sealed = 1 WHERE id = ?",
                    (new.file, new.slots, new.codec, new.bytes, old.id),
                )
            bump(sql, "segments_changed")
            _heal(sql, healed)
            if lost:
                bump(sql, "frames_changed")
        self._folder.replace(old.id, new, [frame.id for frame in keep], lost)
        with self._lock:
            self._gone += sorted(lost)
            self._recoded += [frame.id for frame in keep]
        self._leftover.append(self._folder.path / old.file)
        self._remove_leftover()

    def _remove_leftover(self) -> None:
        while self._leftover:
            self._folder.files.unlink(self._leftover[-1])
            self._leftover.pop()

    def _is_readable(self, frame: FrameRow) -> bool:
        """Whether a frame is as it was written. Raises `DamagedError` or `OSError` if that cannot be told for now."""
        meta = self._folder.meta
        try:
            for layer, (heads, dim) in enumerate(meta.layers):
                if self._folder.policy is None:
                    row = torch.empty(2, heads, meta.tokens_per_frame, dim, dtype=meta.torch_dtype)
                    self._folder.read(layer, [frame.id], [row])
                else:
                    self._folder.read_kept(layer, [frame.id])
                self._folder.index(layer, [frame.id], check=True)
        except DamagedError as error:
            if not error.lasting:
                raise
            return False
        return bool(self._folder.segment(frame.segment).table("time")[frame.slot] == frame.time)


def _heal(sql: sqlite3.Connection, frames: Sequence[int]) -> None:
    sql.executemany("UPDATE frames SET damaged = NULL WHERE id = ?", [(frame,) for frame in frames])
    if frames:
        bump(sql, "frames_changed")


def rewrite(
    folder: SessionFolder, old: SegmentRow, keep: Sequence[FrameRow], codec_name: str, *, reduce: bool = False
) -> SegmentRow:
    """Write frames of a segment to a new file beside the old one, durably. Returns its row.

    With `reduce`, of whole blocks only what the session's memory policy keeps.
    """
    meta, source = folder.meta, folder.segment(old.id)
    kept = _recode_name(old, codec_name)
    path = folder.path / kept
    packers = [_Packer(codec_name, heads, dim, meta.torch_dtype) for heads, dim in meta.layers]
    layers = [
        Layer((heads, meta.tokens_per_frame, dim), heads * dim, packer.nbytes(meta.tokens_per_frame))
        for (heads, dim), packer in zip(meta.layers, packers, strict=True)
    ]
    sizes = None
    if reduce or source.is_reduced:
        ids = np.array([frame.id for frame in keep])
        tokens = [folder.kept(layer, ids).sum(1).tolist() for layer in range(len(layers))]
        sizes = np.array([list(map(packer.nbytes, n)) for packer, n in zip(packers, tokens, strict=True)])
    extra = {key: value for key, value in source.metadata.items() if key in ("session", "segment")}
    new = Segment.create(
        folder.files,
        path,
        slots=len(keep),
        layers=layers,
        dtype=meta.torch_dtype,
        codec=codec_name,
        metadata=extra,
        mask_bytes=meta.mask_bytes,
        sizes=sizes,
    )
    try:
        _fill(new, folder, source, keep, packers)
    except BaseException:
        folder.files.unlink(path)  # a full disk must not keep what is of no use
        raise
    return SegmentRow(old.id, kept, len(keep), codec_name, path.stat().st_size, True)


class _Packer:
    """Packs blocks of a layer, whatever their number of tokens."""

    def __init__(self, codec_name: str, heads: int, dim: int, dtype: torch.dtype) -> None:
        self._codec = cache(lambda tokens: codec(codec_name, (heads, tokens, dim), dtype))

    def nbytes(self, tokens: int) -> int:
        return self._codec(tokens).nbytes

    def pack(self, blocks: Tensor) -> memoryview:
        return as_bytes(self._codec(blocks.shape[3]).pack(blocks))


def _fill(
    new: Segment, folder: SessionFolder, source: Segment, keep: Sequence[FrameRow], packers: Sequence[_Packer]
) -> None:
    """Write frames of a segment to a new one, durably."""
    meta = folder.meta
    slots = np.array([frame.slot for frame in keep])
    source.require_places(np.array([frame.id for frame in keep]), slots)
    for layer, (heads, dim) in enumerate(meta.layers):
        for start in range(0, len(keep), _FRAMES_AT_ONCE):
            part = keep[start : start + _FRAMES_AT_ONCE]
            ids = [frame.id for frame in part]
            if source.codec == new.codec and source.is_reduced == new.is_reduced:
                packed = [_as_stored(source, layer, frame) for frame in part]
            elif new.is_reduced:
                packed = [packers[layer].pack(block[None]) for block in folder.read_kept(layer, ids)]
            else:
                rows = torch.empty(len(part), 2, heads, meta.tokens_per_frame, dim, dtype=meta.torch_dtype)
                folder.read(layer, ids, list(rows))
                packed = [packers[layer].pack(rows)]
            new.write_blocks(layer, start, packed)
        masks = source.masks(layer)
        keys = folder.index(layer, [frame.id for frame in keep], check=True)
        new.write_index(layer, 0, keys, None if masks is None else masks[slots])
    for name in ("frame", "time", "wall", "commit", "tokens"):
        new.write_table(name, 0, source.table(name)[slots])
    new.write_table("until", 0, [frame.until for frame in keep])
    new.write_table("state", 0, [WRITTEN] * len(keep))
    new.sync()


def _as_stored(source: Segment, layer: int, frame: FrameRow) -> memoryview:
    block = source.block(layer, frame.slot)
    if block is None:
        raise DamagedError(f"{source.path.name}: frame {frame.id} is damaged in layer {layer}", (frame.id,))
    return block


def _recode_name(old: SegmentRow, codec_name: str) -> str:
    """A name that the segment has not had: files are never replaced."""
    stem = old.file.removesuffix(".safetensors").split("-")
    version = int(stem[2]) + 1 if len(stem) > 2 else 1
    return f"{stem[0]}-{stem[1]}-{version:03d}.safetensors"


def first_needed(meta: SessionMeta, window_first: int) -> int:
    """The first frame of which the window, whose first token is `window_first`, holds a token."""
    return max(0, window_first - len(meta.init_ids)) // meta.tokens_per_frame


def is_pinned(frame: FrameRow, pinned: Iterable[tuple[float, float]]) -> bool:
    return any(start <= frame.until and frame.time < until for start, until in pinned)
