"""What the store's tests of faults share: disks that fail or lose power, tiny sessions on them, their blocks."""

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rekv.core import Answer, StorageConfig
from rekv.engine import Model, Session
from rekv.store.files import Buffer, Files
from rekv.store.folder import SessionFolder
from rekv.store.keeper import Keeper
from tests.support import pictures, tiny_model

FRAMES = pictures(80)
PER_CALL = 4
SECTOR = 512
ENCODE: dict[str, Any] = {"n_local": 40, "frames_per_call": PER_CALL, "sample_fps": 1.0}


def open_session(path: Path, model: Model | None = None, files: Files | None = None, **storage: Any) -> Session:
    """As `Model.session` does, with other file operations."""
    model = model or tiny_model()
    config = StorageConfig(**storage)
    keeper = Keeper(path, model.fingerprint, config, files)
    return Session(model, model.family.encode_config.but(**ENCODE), config, keeper)


def append_rest(session: Session, until: int = len(FRAMES), *, flush: bool = True) -> None:
    """The frames that the session lacks, call by call, each durable before the next."""
    while session.memory.frames < until:
        first = session.memory.frames
        session.append(FRAMES[first : first + PER_CALL - first % PER_CALL])
        if flush:
            session.flush()


def made(path: Path, frames: int, **storage: Any) -> Path:
    """A session that was written and closed."""
    with open_session(path, **storage) as session:
        append_rest(session, frames)
    return path


def true_blocks(frames: int, model: Model | None = None) -> list[torch.Tensor]:
    """Per layer, the blocks of the first frames of the stream, from RAM."""
    session = (model or tiny_model()).session(**ENCODE)
    append_rest(session, frames)
    return [layer.blocks.read(range(frames)) for layer in session.memory.layers.values()]


def ask(session: Session, **settings: Any) -> Answer:
    """A question that reads every frame."""
    return session.ask("w7 w8 w9", **{"retrieve_size": 80, "max_new_tokens": 2, **settings})


def frames_of(path: Path) -> list[int]:
    """Frames that the catalog says are there."""
    folder = SessionFolder(path)
    try:
        return [row.id for row in folder.catalog.frames()]
    finally:
        folder.close()


def assert_intact(path: Path, truth: Sequence[torch.Tensor]) -> int:
    """Every frame of the catalog is as it was computed; return how many there are."""
    folder = SessionFolder(path)
    frames = folder.refresh().frames
    ids = [row.id for row in folder.catalog.frames()]
    assert ids == list(range(frames))
    for i, blocks in enumerate(truth if ids else ()):
        rows = [torch.empty(blocks.shape[1:], dtype=blocks.dtype) for _ in ids]
        folder.read(i, ids, rows)
        assert all(torch.equal(row, blocks[frame]) for frame, row in zip(ids, rows, strict=True))
        means = blocks[: len(ids), 0].mean(2).flatten(1)
        torch.testing.assert_close(torch.from_numpy(folder.index(i, ids, check=True)), means)
    folder.close()
    return frames


class FailingFiles(Files):
    """Refuses one kind of operation while `failing` is set, after `passes` of them, at most `most` times."""

    def __init__(self, kind: str, error: int = errno.ENOSPC) -> None:
        self.kind, self.error = kind, error
        self.failing = False
        self.passes = 0
        self.most = 1 << 30
        self.failed = 0

    def _fail(self, kind: str, path: Path | None = None) -> None:
        if not self.failing or kind != self.kind or self.failed >= self.most:
            return
        if self.passes:
            self.passes -= 1
            return
        self.failed += 1
        raise OSError(self.error, os.strerror(self.error), None if path is None else str(path))

    def create(self, path: Path, size: int) -> int:
        self._fail("create", path)
        return super().create(path, size)

    def open(self, path: Path, *, writable: bool = False) -> int:
        self._fail("open", path)
        return super().open(path, writable=writable)

    def write(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> None:
        if self.failing and self.kind == "write" and not self.passes:  # as a disk does: some of it still fits
            os.pwrite(descriptor, b"".join(buffers)[: sum(b.nbytes for b in buffers) // 2], offset)
        self._fail("write")
        super().write(descriptor, buffers, offset)

    def sync(self, descriptor: int) -> None:
        self._fail("sync")
        super().sync(descriptor)

    def sync_folder(self, path: Path) -> None:
        self._fail("sync_folder", path)
        super().sync_folder(path)

    def unlink(self, path: Path) -> None:
        self._fail("unlink", path)
        super().unlink(path)

    def read(self, descriptor: int, buffers: Sequence[Buffer], offset: int, *, wait: bool = True) -> int:
        self._fail("read")
        return super().read(descriptor, buffers, offset, wait=wait)


class PowerDisk(Files):
    """A disk with a cache that a power cut empties.

    What was written before a file's last sync is on the disk for certain. Of what came after, every sector may have
    arrived or not, in any order; a name may be missing until its folder has been synced.
    """

    def __init__(self) -> None:
        self.durable: dict[Path, bytearray] = {}  # content as of each file's last sync
        self.cached: dict[Path, list[tuple[int, bytes]]] = {}  # writes since
        self.named: set[Path] = set()  # files whose names are durable
        self.removed: dict[Path, bytes] = {}  # unlinked, and that not yet durable
        self._paths: dict[int, Path] = {}

    def create(self, path: Path, size: int) -> int:
        descriptor = super().create(path, size)
        self._paths[descriptor] = path
        self.durable[path], self.cached[path] = bytearray(), [(size, b"")]
        return descriptor

    def open(self, path: Path, *, writable: bool = False) -> int:
        descriptor = super().open(path, writable=writable)
        self._paths[descriptor] = path
        if path not in self.durable:  # from before this disk was plugged in
            self.durable[path], self.cached[path] = bytearray(path.read_bytes()), []
            self.named.add(path)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        super().close(descriptor)

    def write(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> None:
        super().write(descriptor, buffers, offset)
        self.cached[self._paths[descriptor]].append((offset, b"".join(buffers)))

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)
        path = self._paths[descriptor]
        self.durable[path] = bytearray(path.read_bytes())
        self.cached[path] = []

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.named |= {file for file in self.durable if file.parent == path}
        self.removed = {file: data for file, data in self.removed.items() if file.parent != path}

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        if path in self.durable:
            self.removed[path] = self.after_cut(path, random.Random(0))
            self.named.discard(path)
            del self.durable[path], self.cached[path]

    def after_cut(self, path: Path, rng: random.Random) -> bytes:
        """What a file may hold after the cut."""
        data = bytearray(self.durable[path])
        for offset, written in self.cached[path]:
            for start in range(offset - offset % SECTOR, offset + max(len(written), 1), SECTOR):
                if rng.random() < 0.5:
                    continue
                begin, end = max(start, offset), min(start + SECTOR, offset + len(written))
                data.extend(bytes(max(0, end - len(data))))
                data[begin:end] = written[begin - offset : end - offset]
        return bytes(data)

    def cut(self, into: Path, rng: random.Random) -> None:
        """Write what may be left of all files of a folder to another one."""
        for path in self.durable:
            if path in self.named or rng.random() < 0.5:
                (into / path.name).write_bytes(self.after_cut(path, rng))
        for path, data in self.removed.items():
            if rng.random() < 0.5:
                (into / path.name).write_bytes(data)
