"""The processes that train together: each draws its own batches, all take the same steps."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache

import torch
import torch.distributed
from torch import nn


@dataclass(frozen=True, slots=True)
class Team:
    """A process's place among those that train together. On a GPU there is one; on a CPU one for each core used."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    hands: int = 0  # further processes that draw batches ahead; without them they are drawn between steps

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, total: int) -> int:
        """Return this process's part of a batch."""
        return max(total // self.size, 1)

    def autocast(self) -> AbstractContextManager[object]:
        """Multiply in bfloat16 where that is faster: on some processors it takes ten times as long as in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast_dtype is torch.bfloat16)

    @property
    def fast_dtype(self) -> torch.dtype:
        """What matrices are multiplied in where float32 is not needed."""
        return torch.bfloat16 if self.device.type != "cpu" or _fast_bfloat16() else torch.float32

    def average(self, weights: Iterable[nn.Parameter], numbers: torch.Tensor) -> torch.Tensor:
        """Replace every gradient by its mean over the team; return the mean of `numbers` too.

        A weight without a gradient here must have none in the other processes either.
        """
        if self.size == 1:
            return numbers
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), numbers.to(gradients[0].dtype)])
        self.add_up(flat)
        flat /= self.size
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()
        return flat[at:]

    def add_up(self, numbers: torch.Tensor) -> None:
        """Replace numbers by their sum over the team."""
        if self.size > 1:
            torch.distributed.all_reduce(numbers)

    def wait(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()


@cache
def _fast_bfloat16() -> bool:
    abilities = torch.cpu.get_capabilities()
    return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def join(rank: int, size: int, meeting: str) -> Team:
    """Join a team on this machine's CPU; the processes find each other by the file `meeting`."""
    torch.set_num_threads(1)  # a second thread that waits for a busy core costs more than it brings
    _settle(rank, size)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    return Team(rank, size)


def _settle(rank: int, size: int) -> None:
    """Take a core for oneself: two of a team on one core, while something else has the other, halve its pace."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) >= size:
            os.sched_setaffinity(0, {cores[rank]})


def calm_memory() -> None:
    """Keep freed memory in the processes started from here: the same sizes are asked for again at every step."""
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(1 << 33))
    os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(1 << 34))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
