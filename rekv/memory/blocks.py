"""The blocks of one layer in host memory, in slabs that never move once allocated."""

import math
from collections.abc import Iterator, Sequence
from mmap import mmap

import torch
from torch import Tensor

_SLAB_BYTES = {"cpu": 16 << 20, "cuda": 64 << 20}  # pinning memory is slow to begin: larger pieces


class Blocks:
    """Frame id -> un-rotated keys and values (2, kv_heads, tokens, head_dim).

    Slabs are only ever added, so a reader may hold on to what it gathers from while a writer appends. Frames at or
    beyond the session's visible count may be overwritten: that is how a failed call is retried.
    """

    def __init__(self, kv_heads: int, tokens: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = (2, kv_heads, tokens, head_dim)
        self.dtype = dtype
        self.device = device  # of the layer; blocks themselves are in host memory
        self.bytes_per_frame = 2 * kv_heads * tokens * head_dim * dtype.itemsize
        self.frames_per_slab = max(1, _SLAB_BYTES.get(device.type, 16 << 20) // self.bytes_per_frame)
        self._slabs: list[Tensor] = []  # each (frames_per_slab, 2, kv_heads, tokens, head_dim)
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @property
    def capacity(self) -> int:
        """Frames there is room for without another slab."""
        return len(self._slabs) * self.frames_per_slab

    def write(self, first: int, keys: Tensor, values: Tensor) -> None:
        """Store frames first, first + 1, ... from un-rotated (kv_heads, frames * tokens, head_dim) tensors."""
        _, kv_heads, tokens, dim = self.shape
        pair = [x.view(kv_heads, -1, tokens, dim).transpose(0, 1) for x in (keys, values)]
        n = pair[0].shape[0]
        self._reserve(first + n)
        if self._stream is None:
            for slab, rows, frames in self._runs(range(first, first + n)):
                for i, source in enumerate(pair):
                    slab[rows, i].copy_(source[frames])
            return
        staged = torch.stack(pair, 1)
        with self._on_copy_stream(staged):
            for slab, rows, frames in self._runs(range(first, first + n)):
                slab[rows].copy_(staged[frames], non_blocking=True)

    def read(self, frames: Sequence[int], out: Tensor | None = None) -> Tensor:
        """Copy blocks to the layer's device: (len(frames), 2, kv_heads, tokens, head_dim), in the given order."""
        if out is None:
            out = torch.empty(len(frames), *self.shape, dtype=self.dtype, device=self.device)
        if self._stream is None:
            for slab, picks, at in self._gathers(frames):
                torch.index_select(slab, 0, picks, out=out[at])
            return out
        with self._on_copy_stream(out):
            for slab, rows, at in self._runs(frames):
                out[at].copy_(slab[rows], non_blocking=True)
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        return out

    def synchronize(self) -> None:
        """Wait until what was written is in host memory."""
        if self._stream is not None:
            self._stream.synchronize()

    def _reserve(self, frames: int) -> None:
        while self.capacity < frames:
            self._slabs.append(self._new_slab())

    def _new_slab(self) -> Tensor:
        shape = (self.frames_per_slab, *self.shape)
        if self._stream is not None:
            return torch.empty(shape, dtype=self.dtype, pin_memory=True)
        # Straight from the system: resident only where written, and no holes in the heap of a long stream.
        return torch.frombuffer(mmap(-1, math.prod(shape) * self.dtype.itemsize), dtype=self.dtype).view(shape)

    def _runs(self, frames: Sequence[int]) -> Iterator[tuple[Tensor, slice, slice]]:
        """Split frames into runs that are adjacent in one slab: (slab, rows of the slab, positions in `frames`)."""
        start = 0
        for i in range(1, len(frames) + 1):
            here = frames[start]
            if i < len(frames) and frames[i] == frames[i - 1] + 1 and frames[i] % self.frames_per_slab:
                continue
            row = here % self.frames_per_slab
            yield self._slabs[here // self.frames_per_slab], slice(row, row + i - start), slice(start, i)
            start = i

    def _gathers(self, frames: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """Split frames where the slab changes: (slab, rows to pick, positions in `frames`)."""
        start = 0
        for i in range(1, len(frames) + 1):
            slab = frames[start] // self.frames_per_slab
            if i < len(frames) and frames[i] // self.frames_per_slab == slab:
                continue
            rows = torch.tensor([f % self.frames_per_slab for f in frames[start:i]])
            yield self._slabs[slab], rows, slice(start, i)
            start = i

    def _on_copy_stream(self, tensor: Tensor) -> torch.cuda.StreamContext:
        """Order copies of a device tensor after the work that made it, and keep it alive until they are done."""
        stream = self._stream
        if stream is None:
            raise RuntimeError("copies are only streamed on CUDA")
        stream.wait_stream(torch.cuda.current_stream(self.device))
        tensor.record_stream(stream)
        return torch.cuda.stream(stream)
