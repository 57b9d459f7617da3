"""Host memory that a GPU copies to and from at full speed: slow to make, so the next piece is made ahead."""

import mmap
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

import torch
from torch import Tensor

from rekv.errors import MemoryFullError

T = TypeVar("T")

_PORTABLE = 1  # cudaHostRegisterPortable: for all GPUs


class _Pinned(mmap.mmap):
    """Memory that is registered with CUDA for as long as it is mapped."""

    address = 0

    def __del__(self) -> None:
        if self.address:
            with suppress(Exception):  # at the interpreter's end CUDA may be gone before
                torch.cuda.cudart().cudaHostUnregister(self.address)  # type: ignore[no-untyped-call]


@torch.inference_mode(False)  # a tensor made in that mode could be written to in no other
def pinned(size: int) -> Tensor:
    """Return `size` bytes of page-locked memory. Raises `MemoryFullError` if the system gives none.

    torch's own pinned memory (`pin_memory=True`) came at 1.7 GB/s on the machine that it was measured on, while nothing
    else was launched. Here the pages come first, by being touched, which needs no CUDA and no interpreter lock.
    """
    memory = _Pinned(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # larger pages are a matter of speed
        memory.madvise(getattr(mmap, "MADV_HUGEPAGE", mmap.MADV_NORMAL))
    slab = torch.frombuffer(memory, dtype=torch.uint8)
    slab[:: mmap.PAGESIZE] = 0
    cuda = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if status := int(cuda.cudaHostRegister(slab.data_ptr(), size, _PORTABLE)):
        raise MemoryFullError(
            f"the system gives no more memory that a GPU can read from ({size} bytes, CUDA error {status}): let less "
            f"of the session be in RAM (ram), or raise the limit on locked memory (ulimit -l)"
        )
    memory.address = slab.data_ptr()
    return slab


class Ahead(Generic[T]):
    """Makes one thing ahead of its being asked for, in a thread that all share."""

    _maker = ThreadPoolExecutor(1, "rekv-ahead")

    def __init__(self) -> None:
        self._next: Future[T] | None = None

    def take(self, make: Callable[[], T], *, more: bool) -> T:
        """Return what was made ahead, or make it now; `more`: another one will be asked for."""
        coming, self._next = self._next, None
        made = make() if coming is None else coming.result()
        if more:
            self._next = self._maker.submit(make)
        return made

    def forget(self) -> None:
        """Do without what was made ahead."""
        self._next = None
