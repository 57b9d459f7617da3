"""The blocks of one layer: on the GPU and in RAM as far as budgets go, the rest on disk."""

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rekv.errors import MemoryFullError
from rekv.memory.pool import Ints, Pool
from rekv.memory.reads import Reads

_AT_ONCE = 64 << 20  # bytes read into RAM before they are passed on


class BlocksOnDisk(Protocol):
    """Where blocks are when they leave RAM. Frames below `written` can be read from it."""

    @property
    def written(self) -> int: ...

    def read(self, layer: int, frames: Sequence[int], rows: Sequence[memoryview]) -> None:
        """Fill the memory of one block per frame, (2, kv_heads, tokens, head_dim). Raises `DamagedError`."""

    def wait_for_room(self) -> bool:
        """Return when `written` has grown; False if there is nothing left to write. Raises if writing fails."""


class Backing(BlocksOnDisk, Protocol):
    """A session on disk, as its memory reads it."""

    def read_kept(self, layer: int, frames: Sequence[int]) -> Sequence[Tensor]:
        """What a memory policy keeps of each block, (2, kv_heads, n, head_dim). Raises `DamagedError`."""

    def index(self, layer: int, frames: Ints) -> Tensor:
        """Representative keys (len(frames), kv_heads * head_dim) in fp32; anything for frames that are gone."""


class Blocks:
    """Frame id -> un-rotated keys and values (2, kv_heads, tokens, head_dim).

    Memory that is read from never moves while frames are added. Frames at or beyond the session's visible count may
    be overwritten: that is how a failed call is retried.
    """

    def __init__(
        self,
        kv_heads: int,
        tokens: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        layer: int = 0,
        backing: BlocksOnDisk | None = None,
    ) -> None:
        """`device` is the layer's; `dtype` that of the blocks, which may be another than the model's."""
        self.shape = (2, kv_heads, tokens, head_dim)
        self.dtype = dtype
        self.device = device
        self.bytes_per_frame = 2 * kv_heads * tokens * head_dim * dtype.itemsize
        self.layer = layer
        self._backing = backing
        cuda = device.type == "cuda"
        self.ram = Pool(self.shape, dtype, torch.device("cpu"), pinned=cuda, limit=None)
        self.gpu: Pool | None = None
        self._stream: torch.cuda.Stream | None = None
        if cuda:
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def limit(self, in_ram: int, on_gpu: int) -> None:
        """Hold at most `in_ram` frames in RAM and cache `on_gpu` on the layer's device. Before the first frame."""
        self.ram.set_limit(in_ram)
        if on_gpu:
            self.gpu = Pool(self.shape, self.dtype, self.device, pinned=False, limit=None)
            self.gpu.set_limit(on_gpu)

    @property
    def leaving(self) -> int:
        """Frames below this one may leave RAM."""
        return 0 if self._backing is None else self._backing.written

    def write(self, first: int, keys: Tensor, values: Tensor) -> None:
        """Store frames first, first + 1, ... from un-rotated (kv_heads, frames * tokens, head_dim) tensors."""
        _, kv_heads, tokens, dim = self.shape
        pair = [x.view(kv_heads, -1, tokens, dim).transpose(0, 1) for x in (keys, values)]
        rows = self._place(np.arange(first, first + pair[0].shape[0]))
        if self.gpu is not None:
            self.gpu.drop(np.arange(first, first + len(rows)))
        if self._stream is None:
            for memory, at in self.ram.runs(rows):
                for i, source in enumerate(pair):
                    memory[:, i].copy_(source[at])
            return
        staged = torch.stack(pair, 1)
        with self._on_copy_stream(staged):
            for memory, at in self.ram.runs(rows):
                memory.copy_(staged[at], non_blocking=True)

    def put(self, frames: Ints, blocks: Tensor) -> None:
        """Store frames from blocks (len(frames), 2, kv_heads, tokens, head_dim) on the CPU."""
        rows = self._place(frames)
        if self.gpu is not None:
            self.gpu.drop(frames)
        self.synchronize()  # rows that are given away may still be on their way to the GPU
        for memory, at in self.ram.runs(rows):
            memory.copy_(blocks[at])

    def read(self, frames: Sequence[int], reads: Reads | None = None) -> Tensor:
        """Copy blocks to the layer's device: (len(frames), 2, kv_heads, tokens, head_dim), in the given order.

        Raises `DamagedError` if one cannot be read from disk as it was written.
        """
        reads = Reads() if reads is None else reads
        out = torch.empty(len(frames), *self.shape, dtype=self.dtype, device=self.device)
        wanted = np.asarray(frames, np.int64)
        if self.gpu is None:
            self._read_ram(wanted, out, reads)
            return out
        begun = perf_counter()
        rows = self.gpu.rows(wanted)
        held = rows >= 0
        self.gpu.use(rows[held])
        for memory, at in self.gpu.runs(rows[held]):
            out[torch.from_numpy(np.flatnonzero(held)[at]).to(self.device)] = memory
        reads.add("gpu", int(held.sum()), self.bytes_per_frame, perf_counter() - begun)
        if not held.all():
            rest = np.flatnonzero(~held)
            fetched = torch.empty(len(rest), *self.shape, dtype=self.dtype, device=self.device)
            self._read_ram(wanted[rest], fetched, reads)
            out[torch.from_numpy(rest).to(self.device)] = fetched
            self._cache(wanted[rest], fetched)
        return out

    def runs(self, frames: Sequence[int]) -> list[Tensor]:
        """The memory of frames that have not left RAM, to be written elsewhere: neighbours in one tensor."""
        self.synchronize()
        return [memory for memory, _ in self.ram.runs(self.ram.rows(np.asarray(frames, np.int64)))]

    def forget(self, frames: Sequence[int]) -> None:
        """Let frames go from RAM and GPU."""
        for pool in (self.ram, self.gpu):
            if pool is not None:
                pool.drop(np.asarray(frames, np.int64))

    def check_integrity(self, frames: Sequence[int]) -> None:
        """Raise if a frame is neither in RAM nor on disk, or two share a row."""
        self.ram.check_integrity()
        ids = np.asarray(frames, np.int64)
        lost = ids[(self.ram.rows(ids) < 0) & (ids >= self.leaving)]
        if len(lost):
            raise RuntimeError(f"layer {self.layer} lacks the blocks of frames {lost[:10].tolist()}")

    def synchronize(self) -> None:
        """Wait until what was written is in host memory."""
        if self._stream is not None:
            self._stream.synchronize()

    def _place(self, frames: Ints) -> Ints:
        while True:
            try:
                return self.ram.place(frames, self.leaving)
            except MemoryFullError:
                if self._backing is None or not self._backing.wait_for_room():
                    raise

    def _read_ram(self, frames: Ints, out: Tensor, reads: Reads) -> None:
        """From RAM, and what is not there from disk first; in pieces, so that no budget is too small."""
        step = max(1, _AT_ONCE // self.bytes_per_frame)
        if self.ram.limit is not None:
            step = max(1, min(step, self.ram.limit // 2))
        for start in range(0, len(frames), step):
            piece = frames[start : start + step]
            absent = np.unique(piece[self.ram.rows(piece) < 0])
            seconds = self._load(np.unique(piece), absent) if len(absent) else 0.0
            loaded = int(np.isin(piece, absent).sum()) if len(absent) else 0
            if loaded:
                reads.add("disk", loaded, self.bytes_per_frame, seconds)
            begun = perf_counter()
            rows = self.ram.rows(piece)
            self.ram.use(rows)
            self._copy_out(rows, out[start : start + step])
            reads.add("ram", len(piece) - loaded, self.bytes_per_frame, perf_counter() - begun)

    def _load(self, wanted: Ints, absent: Ints) -> float:
        """Bring `absent` frames from disk into RAM, where all `wanted` ones are then; return the seconds it took."""
        begun = perf_counter()
        if self._backing is None:
            raise MemoryFullError(f"frames {absent.tolist()} are no longer in memory")
        try:
            self._place(wanted)  # all of them, so that none makes room for another
            self.synchronize()  # rows that are given away may still be on their way to the GPU
            self._backing.read(self.layer, absent.tolist(), self.ram.buffers(self.ram.rows(absent)))
        except BaseException:
            self.ram.drop(absent)
            raise
        return perf_counter() - begun

    def _copy_out(self, rows: Ints, out: Tensor) -> None:
        if self.device.type == "cpu":
            self.ram.gather(rows, out)
            return
        if self._stream is None:
            for memory, at in self.ram.runs(rows):
                out[at].copy_(memory)
            return
        with self._on_copy_stream(out):
            for memory, at in self.ram.runs(rows):
                out[at].copy_(memory, non_blocking=True)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)

    def _cache(self, frames: Ints, blocks: Tensor) -> None:
        """Keep blocks on the GPU, as many as fit."""
        if self.gpu is None or self.gpu.limit is None:
            return
        _, first = np.unique(frames, return_index=True)
        first = np.sort(first)[: self.gpu.limit]
        rows = self.gpu.place(frames[first], keep=1 << 62)
        for memory, at in self.gpu.runs(rows):
            memory.copy_(blocks[torch.from_numpy(first[at]).to(self.device)])

    def _on_copy_stream(self, tensor: Tensor) -> torch.cuda.StreamContext:
        """Order copies of a device tensor after the work that made it, and keep it alive until they are done."""
        stream = self._stream
        if stream is None:
            raise RuntimeError("copies are only streamed on CUDA")
        stream.wait_stream(torch.cuda.current_stream(self.device))
        tensor.record_stream(stream)
        return torch.cuda.stream(stream)
