"""Sessions of random blocks in the shapes of published models: the store at work without a model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from rekv.core import EncodeConfig, StorageConfig
from rekv.store.commit import Commit, FrameNote
from rekv.store.creation import create_folder
from rekv.store.files import Files
from rekv.store.fingerprint import Fingerprint
from rekv.store.folder import SessionFolder
from rekv.store.maintenance import Maintenance
from rekv.store.meta import SessionMeta
from rekv.store.writer import Writer

FRAMES_PER_CALL = 16


@dataclass(frozen=True)
class BlockShape:
    """What a model stores per frame."""

    layers: int
    kv_heads: int
    tokens: int
    head_dim: int
    dtype: torch.dtype = torch.bfloat16

    @property
    def block_bytes(self) -> int:
        """Of one frame in one layer."""
        return 2 * self.kv_heads * self.tokens * self.head_dim * self.dtype.itemsize

    @property
    def frame_bytes(self) -> int:
        return self.layers * self.block_bytes

    def meta(self, codec: str) -> SessionMeta:
        return SessionMeta(
            model=Fingerprint("random", "none", str(self.dtype), "0" * 64, ()),
            encode=EncodeConfig(),
            init_ids=(1,),
            tokens_per_frame=self.tokens,
            layers=((self.kv_heads, self.head_dim),) * self.layers,
            dtype=str(self.dtype).removeprefix("torch."),
            codec=codec,
            created=0.0,
        )


SHAPES = {
    "llava_ov_7b": BlockShape(28, 4, 196, 128),
    "llava_ov_0.5b": BlockShape(24, 2, 196, 64),
    "builtin": BlockShape(4, 2, 16, 32, torch.float32),
}


class RandomBlocks:
    """Stands in for a session's memory: the blocks of one encode call, over and over."""

    def __init__(self, shape: BlockShape) -> None:
        torch.manual_seed(0)
        size = (FRAMES_PER_CALL, 2, shape.kv_heads, shape.tokens, shape.head_dim)
        self._blocks = [torch.randn(size).to(shape.dtype) for _ in range(shape.layers)]
        self._index = torch.randn(FRAMES_PER_CALL, shape.kv_heads * shape.head_dim)

    def blocks_of(self, layer: int, frames: range) -> Sequence[Tensor]:
        return [self._blocks[layer][run] for run in _runs(frames)]

    def masks_of(self, layer: int, frames: range) -> None:
        """No policy chooses among tokens."""

    def representatives_of(self, layer: int, frames: range) -> Tensor:
        return torch.cat([self._index[run] for run in _runs(frames)])


def _runs(frames: range) -> list[slice]:
    """Rows of frames, cut where the encode call's blocks begin again."""
    cuts = [
        frames.start,
        *range(-(-(frames.start + 1) // FRAMES_PER_CALL) * FRAMES_PER_CALL, frames.stop, FRAMES_PER_CALL),
    ]
    return [
        slice(start % FRAMES_PER_CALL, start % FRAMES_PER_CALL + stop - start)
        for start, stop in pairwise([*cuts, frames.stop])
    ]


def create(path: Path, shape: BlockShape, codec: str = "raw", files: Files | None = None) -> SessionFolder:
    """Make a session without frames and open it for writing."""
    files = files or Files()
    sink = [(torch.zeros(shape.kv_heads, 1, shape.head_dim, dtype=shape.dtype),) * 2] * shape.layers
    create_folder(path, shape.meta(codec), [(keys.clone(), values.clone()) for keys, values in sink], files)
    return SessionFolder(path, files, writable=True)


def write(folder: SessionFolder, blocks: RandomBlocks, frames: int, thumbnail: bytes | None = None) -> None:
    """Write frames as a session does, call by call, and return when they are durable. None is in a window."""
    writer = Writer(folder, blocks, Maintenance(folder, StorageConfig()))
    writer.start()
    for start in range(0, frames, FRAMES_PER_CALL):
        end = min(frames, start + FRAMES_PER_CALL)
        notes = [FrameNote(2.0 * frame, thumbnail=thumbnail) for frame in range(start, end)]
        writer.submit(Commit(end, (1 << 40, 0), notes))
    writer.close()


def drop_pages(folder: Path) -> None:
    """Let the system forget what it holds of the files in a folder."""
    for path in folder.iterdir():
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
