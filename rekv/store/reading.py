"""Reads blocks: what lies side by side with one system call, what is large in several threads."""

import os
from collections.abc import Sequence
from concurrent import futures
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby

import torch
from zlib_ng import zlib_ng

from rekv.errors import DamagedError
from rekv.store.codecs import Codec, codec
from rekv.store.files import Buffer, room
from rekv.store.meta import SessionMeta
from rekv.store.segment import Segment

MOST_BYTES = 1 << 20  # what is read at a time, about
LARGE_BYTES = 256 << 10  # of smaller pieces threads spend their time on waiting for each other
_THREADS = min(8, os.cpu_count() or 1)


@dataclass(slots=True)
class Job:
    """Neighbouring blocks of one layer, read with one system call."""

    segment: Segment
    meta: SessionMeta
    layer: int
    offset: int
    size: int
    sizes: list[int]  # in bytes
    crcs: list[int]
    frames: list[int]
    buffers: list[Buffer]

    def add(self, size: int, crc: int, frame: int, buffer: Buffer) -> None:
        self.size += size
        self.sizes.append(size)
        self.crcs.append(crc)
        self.frames.append(frame)
        self.buffers.append(buffer)

    def announce(self) -> None:
        """Let the system fetch it in the background."""
        self.segment.announce(self.layer, self.offset, self.size)

    def run(self, wait: bool) -> bool:
        """Read, check and unpack; without `wait`, False if the system does not have it in memory."""
        if self.segment.codec == "raw":
            return self._read(self.buffers, wait)
        packed = [room(size) for size in self.sizes]
        if not self._read(packed, wait):
            return False
        dtype = self.meta.torch_dtype
        for size, group in groupby(zip(self.buffers, packed, strict=True), key=lambda one: one[0].nbytes):
            buffers, rows = zip(*group, strict=True)
            unpacker = _codec(self.segment, self.meta, self.layer, size)
            blocks = unpacker.unpack(torch.stack([torch.frombuffer(row, dtype=torch.uint8) for row in rows]))
            for buffer, block in zip(buffers, blocks, strict=True):
                torch.frombuffer(buffer, dtype=dtype).copy_(block.view(-1))
        return True

    def _read(self, buffers: Sequence[Buffer], wait: bool) -> bool:
        name = self.segment.path.name
        try:
            done = self.segment.read_at(self.layer, self.offset, buffers, wait=wait)
        except OSError as error:
            words = f"{name} cannot be read ({error.strerror})"
            raise DamagedError(words, tuple(self.frames), lasting=False) from error
        if done < self.size and not wait:
            return False
        crcs = [zlib_ng.crc32(buffer) for buffer in buffers]
        if done < self.size or crcs != self.crcs:
            found = zip(self.frames, accumulate(self.sizes), crcs, self.crcs, strict=True)
            wrong = [frame for frame, end, crc, true in found if end > done or crc != true]
            words = f"{name}: the bytes of frames {wrong} in layer {self.layer} are not those that were written"
            raise DamagedError(words, tuple(wrong))
        return True


def run_in_turn(jobs: Sequence[Job]) -> None:
    """Run jobs, those first that do not wait for the disk, which meanwhile fetches what the others need."""
    jobs = run_jobs(jobs, wait=False)  # what is in memory takes less time than to say that it will be needed
    for job in jobs:
        job.announce()
    run_jobs(jobs)


def run_jobs(jobs: Sequence[Job], wait: bool = True) -> list[Job]:
    """Run jobs in this thread, and large ones in as many others as find something left to do.

    Returns those that would have had to wait for the disk.
    """
    left = iter(jobs)
    missed: list[Job] = []

    def work() -> None:
        for job in left:
            if not job.run(wait):
                missed.append(job)

    large = sum(job.size for job in jobs) >= LARGE_BYTES * len(jobs)
    helpers = [_pool().submit(work) for _ in range(min(_THREADS, len(jobs)) - 1 if large else 0)]
    try:
        work()
    finally:
        started = [helper for helper in helpers if not helper.cancel()]
        futures.wait(started)  # until then they write to rows
    for helper in started:
        helper.result()
    return missed


def fits(segment: Segment, meta: SessionMeta, layer: int, size: int, buffer: Buffer) -> bool:
    """Whether `size` bytes of a segment, unpacked, are as many as a buffer takes."""
    return size == (buffer.nbytes if segment.codec == "raw" else _codec(segment, meta, layer, buffer.nbytes).nbytes)


def _codec(segment: Segment, meta: SessionMeta, layer: int, nbytes: int) -> Codec:
    """What packed blocks of a layer that have `nbytes` bytes as computed."""
    heads, dim = meta.layers[layer]
    tokens = nbytes // (2 * heads * dim * meta.torch_dtype.itemsize)
    return codec(segment.codec, (heads, tokens, dim), meta.torch_dtype)


def lasts(error: Exception) -> bool:
    """Whether bytes are lost, and not only out of reach for now."""
    return not isinstance(error, OSError) or isinstance(error, FileNotFoundError)


@cache
def _pool() -> futures.ThreadPoolExecutor:
    return futures.ThreadPoolExecutor(_THREADS, "rekv-read")
