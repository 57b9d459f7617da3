"""Keeps the memory of one session in its folder: loads it, follows it, and writes what is appended."""

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from rekv.core import EncodeConfig, StorageConfig
from rekv.errors import DamagedError, RekvError, SessionError, StoreError
from rekv.memory.frames import FrameTable
from rekv.memory.memory import Memory
from rekv.memory.pool import Ints
from rekv.store.catalog import FILE, LOCK, bump
from rekv.store.codecs import codec_name
from rekv.store.commit import Commit, FrameNote
from rekv.store.creation import cannot_go_on, create, mend_sink, remove_orphans, sink_of
from rekv.store.files import Buffer, Files
from rekv.store.fingerprint import Fingerprint
from rekv.store.folder import Changes, SessionFolder
from rekv.store.limits import default_ram, keep_limits, kept_limits, segment_bytes
from rekv.store.maintenance import Maintenance
from rekv.store.meta import SessionMeta
from rekv.store.names import holds_session
from rekv.store.writer import Writer

logger = logging.getLogger(__name__)

LOCK_SECONDS = 0.3  # others may hold it for an instant, to see whether anybody does


class Keeper:
    """A session's folder, which may not be there before the first frame.

    Reading needs nothing but the folder. Writing begins with `begin`, which takes the session's lock; the system
    releases it when the process ends, however it ends.
    """

    def __init__(
        self,
        path: Path,
        model: Fingerprint,
        storage: StorageConfig,
        files: Files | None = None,
        *,
        given: Collection[str] | None = None,
    ) -> None:
        """`given`: fields of `storage` that somebody chose; for the others the session's own limits hold.

        None: all were chosen.
        """
        self.path, self.storage = path, storage
        self._model, self._files = model, files or Files()
        self._folder: SessionFolder | None = None
        self._writer: Writer | None = None
        self._maintenance: Maintenance | None = None  # of the last writer
        self._whole: FrameTable | None = None  # the memory's, with frames that could not be read for the moment
        self._unread: list[tuple[int, list[int]]] = []  # layer and frames whose representative keys could not be
        self._codec = codec_name(storage.kv) if given is not None and "kv" in given else None  # that somebody chose
        self._lock = FileLock(path / LOCK, timeout=LOCK_SECONDS, thread_local=False)
        if holds_session(path):
            self._folder = SessionFolder(path, self._files)
            self._folder.meta.model.require_alike(model, f"session {path.name!r}")
            if given is not None:
                kept = kept_limits(self._folder.catalog)
                self.storage = storage.but(**{name: kept[name] for name in kept if name not in given})

    # -- reading -----------------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return self._folder is not None

    @property
    def folder(self) -> SessionFolder:
        if self._folder is None:
            raise SessionError(f"session {self.path.name!r} does not exist yet: append frames first")
        return self._folder

    @property
    def meta(self) -> SessionMeta:
        return self.folder.meta

    @property
    def written(self) -> int:
        """Frames below this one can be read from disk."""
        writer = self._writer
        if writer is not None:
            return writer.written
        return 0 if self._folder is None else self._folder.frames

    def read(self, layer: int, frames: Sequence[int], rows: Sequence[Tensor | Buffer]) -> None:
        """See `SessionFolder.read`."""
        self.folder.read(layer, frames, rows)

    def read_kept(self, layer: int, frames: Sequence[int]) -> list[Tensor]:
        """See `SessionFolder.read_kept`."""
        return self.folder.read_kept(layer, frames)

    def index(self, layer: int, frames: Ints) -> Tensor:
        """Representative keys (len(frames), kv_heads * head_dim) in fp32; zeros for frames that are gone."""
        return torch.from_numpy(self.folder.index(layer, frames))

    def sink(self) -> list[tuple[Tensor, Tensor]] | None:
        """The init prompt's stored keys and values per layer; None before the session exists, or if they are lost."""
        try:
            return self._folder.sink() if self._folder is not None else None
        except DamagedError as error:  # the same model computes the same, but for rounding on another machine
            logger.warning("%s; until then it is computed", error)
            return None

    def load(self, memory: Memory) -> None:
        """Fill the memory, whose layers have been made, with what is in the folder."""
        changes = self.folder.refresh()
        ids = [row.id for row in changes.rows]
        memory.table.load(changes.frames, ids, [row.time for row in changes.rows])
        memory.table.leave_out(changes.damaged)
        row_bytes = sum(layer.index.row_bytes for layer in memory.layers.values())
        room = (self.ram // 2) // max(row_bytes, 1)
        last = len(ids)
        row = 0
        for _, group in groupby(changes.rows, key=lambda r: r.segment):
            frames = [r.id for r in group]
            in_ram = last - row <= room
            self._load_index(memory, row, frames, in_ram=in_ram)
            row += len(frames)
        self._note(memory, changes)
        memory.frames = changes.frames
        if memory.frames:
            memory.drop_window()
        memory.fit()

    def refresh(self, memory: Memory) -> None:
        """Take over what another process has committed since the last look, or this one's maintenance has changed."""
        if self._writer is not None:
            self.settle(memory)
            return
        self._take_back(memory)
        if self._folder is None and (self.path / FILE).exists():
            raise SessionError(f"session {self.path.name!r} has been made by another one meanwhile: open it again")
        before = memory.frames
        if not self.folder.changed():
            return
        try:
            self._take_over(memory, before)
        except BaseException:
            self.folder.forget_look(before)
            raise

    def _take_over(self, memory: Memory, before: int) -> None:
        changes = self.folder.refresh()
        new = [row for row in changes.rows if row.id >= before]
        if new:
            memory.drop_window()
            ids, times = [row.id for row in new], [row.time for row in new]
            if memory.table.add_some(before, changes.frames, ids, times):  # removed before they were seen here
                for layer in memory.layers.values():
                    missing = torch.zeros(changes.frames - before, layer.index.row_bytes // 4)
                    layer.index.put(memory.table.row(before), missing)
            for _, run in groupby(enumerate(new), key=lambda item: (item[1].segment, item[1].id - item[0])):
                frames = [row.id for _, row in run]  # without gaps
                self._load_index(memory, memory.table.row(frames[0]), frames, in_ram=True)
        self._note(memory, changes)
        memory.frames = changes.frames
        memory.fit()

    @property
    def ram(self) -> int:
        """The budget in bytes."""
        return self.storage.ram if self.storage.ram is not None else default_ram()

    def _load_index(self, memory: Memory, row: int, frames: list[int], *, in_ram: bool) -> None:
        for i, layer in memory.layers.items():
            if in_ram:
                self._read_index(memory, i, row, frames)
            else:
                rows = range(row, row + len(frames))
                layer.index.put_on_disk(len(frames), partial(memory.index_from_disk(i), rows))
            self._read_masks(memory, i, frames)

    def _read_index(self, memory: Memory, layer: int, row: int, frames: list[int]) -> None:
        index = memory.layers[layer].index
        means = np.zeros((len(frames), index.row_bytes // 4), np.float32)
        self._read_rows(memory, layer, frames, means, partial(self.folder.index, layer, check=True))
        index.put(row, torch.from_numpy(means))

    def _read_masks(self, memory: Memory, layer: int, frames: list[int]) -> None:
        masks = np.zeros((len(frames), self.meta.mask_bytes), np.uint8)
        if (kept := memory.layers[layer].kept) is not None:
            self._read_rows(memory, layer, frames, masks, partial(self.folder.masks, layer))
            kept.know(frames, masks)

    def _read_rows(
        self, memory: Memory, layer: int, frames: list[int], out: NDArray[Any], read: Callable[[Ints], NDArray[Any]]
    ) -> None:
        """Fill rows of `out`, one for each frame, with what can be read; frames that cannot are lost."""
        ids = np.asarray(frames, np.int64)
        # Frames that are known to be lost are not tried; those that are so for the moment are, in every layer.
        left = self._tables(memory)[-1].are_there(ids)
        while left.any():
            try:
                out[left] = read(ids[left])
                break
            except DamagedError as error:
                self._lose(memory, error)
                if not error.lasting:
                    self._unread.append((layer, frames))
                if not (left & np.isin(ids, error.frames)).any():
                    raise
                left &= ~np.isin(ids, error.frames)

    def _take_back(self, memory: Memory) -> None:
        """Try again what could not be read for a moment."""
        if self._whole is None:
            return
        memory.table, self._whole = self._whole, None
        unread, self._unread = self._unread, []
        for i, lacking in unread:
            if frames := [frame for frame in lacking if frame >= memory.table.oldest]:
                self._read_index(memory, i, memory.table.row(frames[0]), frames)
                self._read_masks(memory, i, frames)

    def _note(self, memory: Memory, changes: Changes) -> None:
        memory.table.until.update({row.id: row.until for row in changes.rows if row.until > row.time})
        for table in self._tables(memory):
            table.damage.update(changes.damaged)
            table.leave_out((*changes.gone, *changes.damaged))
        for layer in memory.layers.values():
            layer.forget((*changes.gone, *changes.recoded))
        if changes.gone:
            memory.forget_gone()

    def lose(self, memory: Memory, error: DamagedError) -> None:
        """Leave damaged frames out; who writes the session also records it.

        If the damage may pass, they are left out until the next look (`refresh`, `settle`).
        """
        if not error.lasting and self._whole is None:
            self._whole = table = memory.table
            memory.table = copy.deepcopy(table, {id(table.until): table.until})
        for table in self._tables(memory) if error.lasting else (memory.table,):
            table.damage.update(dict.fromkeys(error.frames, str(error)))
            table.leave_out(error.frames)
        if self._writer is not None and error.lasting:
            with self.folder.catalog.transaction() as sql:
                sql.executemany("UPDATE frames SET damaged = ? WHERE id = ?", [(str(error), f) for f in error.frames])
                bump(sql, "frames_changed")

    def _tables(self, memory: Memory) -> Sequence[FrameTable]:
        return (memory.table,) if self._whole is None else (memory.table, self._whole)

    def _lose(self, memory: Memory, error: DamagedError) -> None:
        logger.warning("%s: %s; they are left out", self.path, error)
        self.lose(memory, error)

    # -- writing -----------------------------------------------------------------------------------------------

    @property
    def writing(self) -> bool:
        return self._writer is not None

    @property
    def durable(self) -> int:
        """Frames that a power cut cannot take."""
        return self.folder.frames if self._writer is None else self._writer.durable

    def begin(self, memory: Memory, config: EncodeConfig, init_ids: Sequence[int]) -> bytes | None:
        """Become the one writer of the session, made if need be; return the state of near-duplicate skipping.

        Raises `SessionError` if another process writes it, or this model or configuration cannot continue it.
        """
        name = f"session {self.path.name!r}"
        if not (self.path / FILE).exists():
            if self._folder is not None:
                raise StoreError(f"{self.path} is gone; is its disk still there?")
            create(self.path, memory, self._model, config, init_ids, codec_name(self.storage.kv), self._files)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise SessionError(
                f"{name} is being written by another process or object; ask it as often as you like, "
                f"but wait until that ends before you append"
            ) from error
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written ({error.strerror}); check its permissions") from error
        try:
            return self._resume(memory, config, init_ids, name)
        except BaseException:
            self._lock.release()
            raise

    def settle(self, memory: Memory) -> None:
        """Take over what the maintenance of the folder has changed, and try again what could not be read."""
        self._take_back(memory)
        if self._maintenance is not None and (changes := self._maintenance.take()):
            self._note(memory, changes)

    def retry(self) -> None:
        """Go on after an error of the disk."""
        if self._writer is not None:
            self._writer.retry()

    def commit(
        self,
        memory: Memory,
        notes: Sequence[FrameNote],
        until: Mapping[int, float] | None = None,
        duplicates: bytes | None = None,
    ) -> None:
        """Take over the frames that were committed in memory. Raises `StoreError` if earlier ones cannot be written."""
        if self._writer is None:
            raise RuntimeError("not writing")
        # An interrupt may have come between the commit in memory and this one: such frames have but their times.
        first, told = self._writer.submitted, memory.finished - len(notes)
        notes = [*(FrameNote(memory.times[frame]) for frame in range(first, told)), *notes]
        window = next(iter(memory.layers.values())).window
        self._writer.submit(Commit(memory.finished, (window.first, window.capacity), notes, until or {}, duplicates))

    def catch_up(self, memory: Memory) -> None:
        """Take over frames that an interrupt kept from being handed over."""
        if self._writer is not None and memory.finished > self._writer.submitted:
            self.commit(memory, ())

    def wait_for_room(self) -> bool:
        return self._writer is not None and self._writer.wait_for_room()

    def flush(self) -> None:
        """Return when everything appended is durable."""
        if self._writer is not None:
            self._writer.retry()
            self._writer.flush()

    def close(self) -> None:
        """Make everything durable and let another process write; reading goes on.

        If that fails, nothing changes: flush or close again.
        """
        writer = self._writer
        if writer is not None:
            writer.retry()
            writer.close()
            self._writer = None
            self._lock.release()
            self.folder.catalog.checkpoint()

    def abandon(self) -> None:
        """Close what nobody holds any more; what cannot be written is only logged."""
        try:
            self.close()
        except RekvError as error:
            logger.error("%s", error)

    def finish_source(self, number: int) -> None:
        """Record that a file was read to its end; everything of it is durable then."""
        self.flush()
        self.folder.catalog.finish_source(number)

    def _resume(self, memory: Memory, config: EncodeConfig, init_ids: Sequence[int], name: str) -> bytes | None:
        """With the lock held: read what is there, build the window again, start to write."""
        folder = SessionFolder(self.path, self._files, writable=True)
        try:
            folder.meta.model.require_same(self._model, name)
            folder.meta.require_same_encoding(config, init_ids, name, memory.grid)
            if self._codec is not None and self._codec != folder.meta.codec:
                raise SessionError(f"{name} is stored as {folder.meta.codec}, not as {self._codec}: leave out kv")
            if self._folder is None:
                self._folder = folder
                self.load(memory)
            else:
                self.refresh(memory)
                folder.refresh()
            remove_orphans(folder)
            mend_sink(folder, sink_of(memory))
            meta = folder.catalog.meta()
            if memory.frames:
                memory.restore_window(int(meta["window_first"]), int(meta["window_slots"]))
        except DamagedError as error:
            folder.close()
            nothing_left = not self._tables(memory)[-1].there(range(memory.frames))
            raise cannot_go_on(self.path.name, error, nothing_left=nothing_left) from error
        except BaseException:
            folder.close()
            raise
        if self._folder is not folder:
            self._folder.close()
            self._folder = folder
        keep_limits(folder.catalog, self.storage)
        self._maintenance = Maintenance(folder, self.storage)
        self._writer = Writer(folder, memory, self._maintenance, segment_bytes(self.storage, folder.meta))
        self._writer.start()
        duplicates = meta.get("duplicates")
        return bytes.fromhex(duplicates) if duplicates else None
