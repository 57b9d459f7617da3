"""The file operations that durability rests on, in one place: tests put a failing disk here."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import torch

_MOST_BUFFERS = 512  # per system call; POSIX promises at least 16, Linux and macOS take 1024

Buffer = memoryview


class Files:
    """Positioned reads and writes that are complete, and what makes them durable."""

    def create(self, path: Path, size: int) -> int:
        """Make a file of `size` bytes that read as zeros, open for writing; return its descriptor."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def open(self, path: Path, *, writable: bool = False) -> int:
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def write(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write buffers one behind the other, starting at `offset`."""
        for i in range(0, len(buffers), _MOST_BUFFERS):
            left = buffers[i : i + _MOST_BUFFERS]
            while left:
                done = os.pwritev(descriptor, left, offset)
                offset += done
                left = _after(left, done)

    def read(self, descriptor: int, buffers: Sequence[Buffer], offset: int, *, wait: bool = True) -> int:
        """Fill buffers one behind the other from `offset`; return the bytes read, fewer only at the file's end.

        Without `wait`, fewer also where the system would have to ask the disk, or cannot tell.
        """
        total = 0
        for i in range(0, len(buffers), _MOST_BUFFERS):
            left = buffers[i : i + _MOST_BUFFERS]
            while left:
                done = (
                    os.preadv(descriptor, left, offset + total) if wait else _cached(descriptor, left, offset + total)
                )
                if not done:
                    return total
                total += done
                left = _after(left, done)
        return total

    def reserve(self, descriptor: int, offset: int, size: int) -> None:
        """Find room on disk for a part of a file, which goes on to read as zeros."""
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(descriptor, offset, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise

    def announce(self, descriptor: int, offset: int, size: int) -> None:
        """Let the system fetch a part that will be read soon."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)

    def sync(self, descriptor: int) -> None:
        """Return when what was written to a file is durable."""
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def sync_path(self, path: Path) -> None:
        """Return when what was written to a file that is not open is durable."""
        descriptor = self.open(path)
        try:
            self.sync(descriptor)
        finally:
            self.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Return when the names in a folder are durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)


def room(size: int) -> Buffer:
    """Memory to read into. torch's begins at a multiple of 64 bytes: to other places some processors copy slowly."""
    buffer: Buffer = torch.empty(size, dtype=torch.uint8).numpy().data
    return buffer


def _cached(descriptor: int, buffers: Sequence[Buffer], offset: int) -> int:
    """Read what is in memory."""
    try:
        return os.preadv(descriptor, buffers, offset, os.RWF_NOWAIT) if hasattr(os, "RWF_NOWAIT") else 0
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
            raise
        return 0


def _after(buffers: Sequence[Buffer], done: int) -> Sequence[Buffer]:
    """What is left of the buffers after `done` bytes."""
    for i, buffer in enumerate(buffers):
        if done < buffer.nbytes:
            return [buffer[done:], *buffers[i + 1 :]]
        done -= buffer.nbytes
    return ()
