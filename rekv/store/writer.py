"""Writing a session behind the encoder's back: a thread that takes frames from RAM to disk and commits them."""

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from rekv.errors import RekvError, StoreError, WriteError
from rekv.memory.pool import as_bytes
from rekv.store.catalog import FILE, FrameRow, SegmentRow, put
from rekv.store.commit import Commit, Encoded, FrameNote
from rekv.store.committed import note_committed
from rekv.store.folder import SessionFolder
from rekv.store.header import Layer
from rekv.store.maintenance import Maintenance, first_needed
from rekv.store.segment import EMPTY, WRITTEN, Segment

logger = logging.getLogger(__name__)

COMMIT_SECONDS = 1.0
COMMIT_BYTES = 64 << 20
SEGMENT_BYTES = 512 << 20
TIDY_AGAIN_SECONDS = 30.0  # after packing or removing has failed
SEGMENT_SLOTS = (16, 4096)  # fewest and most


class Writer(threading.Thread):
    """Writes frames as they are committed in memory; makes them durable every second, or every 64 MiB.

    After an error it stands still, and whoever encodes is told; `retry` lets it go on where it stopped.
    """

    def __init__(
        self,
        folder: SessionFolder,
        encoded: Encoded,
        maintenance: Maintenance,
        segment_bytes: int | None = None,
    ) -> None:
        """`segment_bytes`: of blocks in a segment, at most; never fewer than some frames."""
        super().__init__(name=f"rekv-write-{folder.path.name}", daemon=True)
        self._folder, self._encoded, self._meta = folder, encoded, folder.meta
        self.written = folder.frames  # frames below are in files, if not yet durable
        self.durable = folder.frames  # frames below are committed
        self.maintenance = maintenance
        least, most = SEGMENT_SLOTS
        nbytes = SEGMENT_BYTES if segment_bytes is None else min(segment_bytes, SEGMENT_BYTES)
        self._slots = min(most, max(least, nbytes // self._meta.bytes_per_frame))
        self._changed = threading.Condition()
        self._commits: list[Commit] = []  # not yet written
        self._uncommitted: list[tuple[Commit, list[FrameRow]]] = []  # written, but not durable
        self._new_segments: list[SegmentRow] = []
        self._touched: set[Segment] = set()
        self._current: tuple[SegmentRow, Segment, int] | None = None  # with the next free slot
        self._bytes = 0  # since the last commit
        self._last_commit = monotonic()
        self._error: Exception | None = None
        self._untidy: int | None = None  # frames below which segments were to be packed, while that has failed
        self._tidied = monotonic()
        self._flushing = 0
        self._closing = False
        self._identity = _identity(folder)

    # -- called by the encoder ---------------------------------------------------------------------------------

    @property
    def submitted(self) -> int:
        """Frames that were handed over, written or not."""
        with self._changed:
            calls = [commit for commit, _ in self._uncommitted] + self._commits
            return calls[-1].frames if calls else self.durable

    def submit(self, commit: Commit) -> None:
        """Take over the frames of an encode call; raises if an earlier call could not be written.

        Waits while more than `COMMIT_BYTES` of earlier calls are not durable: what a power cut can take is bounded.
        """
        with self._changed:
            self._commits.append(commit)
            self._changed.notify_all()
            while self._not_durable() > COMMIT_BYTES and self._error is None and self.is_alive():
                self._changed.wait()
        self.check()

    def check(self) -> None:
        """Raise what stopped the writer."""
        error = self._error
        if error is not None:
            last = self._commits[-1].frames if self._commits else self.written
            raise WriteError(
                f"{self._folder.path} cannot be written: {_reason(error)}. {self.durable} frames are safe, "
                f"{last - self.durable} more are in memory: mend this and append or flush again, nothing is lost",
                _reason(error),
                self.durable,
            ) from error

    def retry(self) -> None:
        """Go on after an error."""
        with self._changed:
            self._error = None
            self._changed.notify_all()

    def wait_for_room(self) -> bool:
        """Return when more frames have been written; False if there are none left to write."""
        with self._changed:
            before = self.written
            if not self._commits:
                return False
            while self.written == before and self._error is None and self.is_alive():
                self._changed.wait()
        self.check()
        return True

    def flush(self) -> None:
        """Return when all that was submitted is durable."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                while (self._commits or self._uncommitted) and self._error is None and self.is_alive():
                    self._changed.wait()
            finally:
                self._flushing -= 1
        self.check()

    def close(self) -> None:
        """Make everything durable and end the thread. If that fails the thread goes on waiting for `retry`."""
        self.flush()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self:
            self.join()

    def _not_durable(self) -> int:
        """Bytes of all calls but the last that a power cut would take."""
        calls = [commit for commit, _ in self._uncommitted] + self._commits
        last = calls[-2].frames if len(calls) > 1 else self.durable
        return (last - self.durable) * self._meta.bytes_per_frame

    # -- the thread --------------------------------------------------------------------------------------------

    def run(self) -> None:
        while self._wait_for_work():
            try:
                self._work()
            except (OSError, RekvError) as error:
                logger.info("%s: %s", self._folder.path, _reason(error))  # whoever encodes is told by `check`
                self._stop_with(error)
            except Exception as error:
                logger.exception("%s", self._folder.path)
                self._stop_with(error)
        if self._untidy is not None:
            self._tidy(self._untidy)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not self._closing:
                if self._error is None and (self._commits or self._is_due()):
                    return True
                due_in = COMMIT_SECONDS - (monotonic() - self._last_commit) if self._uncommitted else None
                self._changed.wait(None if due_in is None or self._error else max(due_in, 0.001))
            return False

    def _is_due(self) -> bool:
        if not self._uncommitted:
            return False
        late = monotonic() - self._last_commit >= COMMIT_SECONDS
        if self._not_durable() > COMMIT_BYTES and not self._commits:
            return True
        return late or self._bytes >= COMMIT_BYTES or (self._flushing > 0 and not self._commits)

    def _work(self) -> None:
        if self._commits:
            commit = self._commits[0]
            rows = self._write(commit)
            with self._changed:
                self._commits.pop(0)
                self._uncommitted.append((commit, rows))
                self.written = commit.frames
                self._changed.notify_all()
        if self._is_due():
            self._commit()
            with self._changed:
                self._changed.notify_all()

    def _stop_with(self, error: Exception) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()

    # -- files first -------------------------------------------------------------------------------------------

    def _write(self, commit: Commit) -> list[FrameRow]:
        """Write the frames of one encode call, or nothing: after an error all of it is written again."""
        if not self._uncommitted:
            self._last_commit = monotonic()
        before = self._current, self._new_segments.copy(), self._touched.copy(), self._bytes
        try:
            return self._write_to_segments(commit)
        except BaseException:
            self._current, self._new_segments, self._touched, self._bytes = before
            raise

    def _write_to_segments(self, commit: Commit) -> list[FrameRow]:
        rows: list[FrameRow] = []
        frame = self.written
        while frame < commit.frames:
            segment_row, segment, slot = self._segment()
            frames = range(frame, min(commit.frames, frame + segment_row.slots - slot))
            notes = commit.notes[frame - self.written : frames.stop - self.written]
            self._write_frames(segment, slot, frames, notes, commit)
            self._touched.add(segment)
            new = [
                FrameRow(f, segment_row.id, slot + i, note.time, note.time, note.wall)
                for i, (f, note) in enumerate(zip(frames, notes, strict=True))
            ]
            self._folder.locate(new)
            rows += new
            self._current = (segment_row, segment, slot + len(frames))
            frame = frames.stop
        return rows

    def _write_frames(
        self, segment: Segment, slot: int, frames: range, notes: Sequence[FrameNote], commit: Commit
    ) -> None:
        for layer in range(len(self._meta.layers)):
            blocks = [as_bytes(run) for run in self._encoded.blocks_of(layer, frames)]
            segment.write_blocks(layer, slot, blocks)
            keys, masks = self._encoded.representatives_of(layer, frames), self._encoded.masks_of(layer, frames)
            segment.write_index(layer, slot, keys.numpy(), masks)
            self._bytes += sum(block.nbytes for block in blocks)
        n = len(frames)
        times = [note.time for note in notes]
        tables: dict[str, NDArray[np.generic] | list[int] | list[float]] = {
            "frame": list(frames),
            "time": times,
            "until": times,
            "wall": [math.nan if note.wall is None else note.wall for note in notes],
            "commit": np.tile(np.array([commit.frames, *commit.window]), (n, 1)),
            "tokens": [self._meta.tokens_per_frame] * n,
            "state": [WRITTEN] * n,
        }
        for name, values in tables.items():
            segment.write_table(name, slot, values)

    def _segment(self) -> tuple[SegmentRow, Segment, int]:
        """The segment to write to next, and its first free slot."""
        if self._current is None:
            self._current = self._last_segment()
        if self._current is None:
            self._current = self._new_segment(0)
        row, segment, free = self._current
        if free == row.slots:
            segment.write_tables()  # it may be closed, and opened again to be read
            segment.forget_tables()
            self._current = self._new_segment(row.id + 1)
        return self._current

    def _last_segment(self) -> tuple[SegmentRow, Segment, int] | None:
        """Where an earlier process stopped, if there is room left."""
        rows = self._folder.catalog.segments()
        if not rows:
            return None
        row = rows[-1]
        if row.sealed:
            return self._new_segment(row.id + 1)
        used = [frame.slot + 1 for frame in self._folder.catalog.frames_of(row.id)]
        segment = Segment(self._folder.files, self._folder.path / row.file, writable=True)
        self._folder.know(row, segment)
        free = max(used, default=0)
        segment.write_table("state", free, [EMPTY] * (row.slots - free))  # of frames that were never committed
        return row, segment, free

    def _new_segment(self, number: int) -> tuple[SegmentRow, Segment, int]:
        name = f"segment-{number:06d}.safetensors"
        path = self._folder.path / name
        itemsize = self._meta.torch_dtype.itemsize
        layers = [
            Layer(
                (kv_heads, self._meta.tokens_per_frame, dim),
                kv_heads * dim,
                2 * kv_heads * self._meta.tokens_per_frame * dim * itemsize,
            )
            for kv_heads, dim in self._meta.layers
        ]
        try:
            segment = Segment.create(
                self._folder.files,
                path,
                slots=self._slots,
                layers=layers,
                dtype=self._meta.torch_dtype,
                codec="raw",
                metadata={"session": self._meta.dumps(), "segment": str(number)},
                mask_bytes=self._meta.mask_bytes,
            )
        except OSError:
            self._folder.files.unlink(path)
            raise
        row = SegmentRow(number, name, self._slots, "raw", path.stat().st_size, False)
        self._folder.know(row, segment)
        self._new_segments.append(row)
        return row, segment, 0

    # -- then the catalog --------------------------------------------------------------------------------------

    def _commit(self) -> None:
        """Make what was written durable, then visible to everyone, in that order."""
        if _identity(self._folder) != self._identity:
            raise StoreError("the folder was removed or replaced while it was written")
        until = {frame: time for commit, _ in self._uncommitted for frame, time in commit.until.items()}
        self._write_spans(until)
        for segment in sorted(self._touched, key=lambda one: one.path):
            segment.sync()
        commits = [commit for commit, _ in self._uncommitted]
        rows = [row for _, rows in self._uncommitted for row in rows]
        notes = [note for commit in commits for note in commit.notes]
        last = commits[-1]
        with self._folder.catalog.transaction() as sql:
            sql.executemany(
                "INSERT INTO segments (id, file, slots, codec, bytes) VALUES (?, ?, ?, ?, ?)",
                [(row.id, row.file, row.slots, row.codec, row.bytes) for row in self._new_segments],
            )
            sql.executemany(
                "INSERT INTO frames (id, segment, slot, time, until, wall) VALUES (?, ?, ?, ?, ?, ?)",
                [(row.id, row.segment, row.slot, row.time, row.until, row.wall) for row in rows],
            )
            sql.executemany("UPDATE frames SET until = ? WHERE id = ?", [(t, f) for f, t in until.items()])
            for table, column, blob in (("thumbnails", "jpeg", "thumbnail"), ("embeddings", "vector", "embedding")):
                kept = [(row.id, getattr(note, blob)) for row, note in zip(rows, notes, strict=True)]
                sql.executemany(
                    f"INSERT OR REPLACE INTO {table} (frame, {column}) VALUES (?, ?)",
                    [one for one in kept if one[1] is not None],
                )
            put(sql, frames=last.frames, window_first=last.window[0], window_slots=last.window[1])
            if last.duplicates is not None:
                put(sql, duplicates=last.duplicates.hex())
        note_committed(self._folder.path, last.frames, self._folder.files)
        full = bool(self._new_segments)  # a segment was filled up: there may be something to seal, or to remove
        self._new_segments, self._touched, self._bytes = [], set(), 0
        self._last_commit = monotonic()
        self._folder.frames = last.frames
        with self._changed:
            self.durable = last.frames
            self._uncommitted = []
        if full or (self._untidy is not None and monotonic() - self._tidied >= TIDY_AGAIN_SECONDS):
            self._tidy(first_needed(self._meta, last.window[0]))

    def _tidy(self, needed: int) -> None:
        """Pack and remove segments of frames below `needed`; if that fails, again later, and at the end."""
        self._untidy, self._tidied = needed, monotonic()
        try:
            self.maintenance.run(needed)
            self._untidy = None
        except (OSError, RekvError) as error:
            logger.warning("%s cannot be packed or thinned for now: %s", self._folder.path, _reason(error))

    def _write_spans(self, until: Mapping[int, float]) -> None:
        """Also in the segment: how long frames stand for near-duplicates. Only the newest frame's span ever grows."""
        if self._current is not None:
            row, segment, _ = self._current
            for frame, time in until.items():
                if self._folder.place(frame)[0] == row.id:
                    segment.write_table("until", self._folder.place(frame)[1], [time])
                    self._touched.add(segment)


def _identity(folder: SessionFolder) -> tuple[int, int]:
    try:
        status = (folder.path / FILE).stat()
    except OSError as error:
        raise StoreError(f"the folder is gone ({error.strerror}); is its disk still there?") from error
    return status.st_dev, status.st_ino


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"
    return str(error) or type(error).__name__
