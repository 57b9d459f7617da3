"""Where the tokens of a session stand: one after the other, or in time, height and width (M-RoPE).

Keys are stored un-rotated, so positions are given whenever they are read. Only their differences matter.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from rekv.attention.rotary import Angles, Rotary

Shift = tuple[int, ...]


class Positions:
    """On one axis, the init prompt first, then the blocks, then text: what the paper does, and most models."""

    def __init__(self, rotary: Rotary, *, n_init: int, tokens_per_frame: int, n_local: int) -> None:
        self._rotary = rotary
        self._n_init = n_init
        self._block = tokens_per_frame
        self._n_local = n_local

    def window(self, first: int, start: int, end: int, device: torch.device) -> Angles:
        """Tokens start..end-1 of the stream, in a window whose first slot is token `first`."""
        return self._rotary.angles(start - first, end - first, device)

    def after(self, blocks: int) -> int:
        """Where the text stands that follows the init prompt and so many blocks."""
        return self._n_init + blocks * self._block

    def context(self, blocks: int, end: int, device: torch.device) -> Angles:
        """The init prompt and so many blocks one after the other, such that the text that follows stands at `end`."""
        return self._rotary.angles(end - self.after(blocks), end, device)

    def kept(self, places: Tensor, blocks: int, end: int, device: torch.device) -> Angles:
        """The same, but of the blocks' tokens only those at `places` (n,), ascending from 0: one after the other."""
        return self._rotary.angles(end - self._n_init - len(places), end, device)

    def text(self, start: int, end: int, device: torch.device) -> Angles:
        """Text at positions start..end-1, behind a context."""
        return self._rotary.angles(start, end, device)

    def far(self, device: torch.device, *, text: bool) -> Angles:
        """How far the init prompt is from whatever has left it behind the window: from a frame's token, or text's."""
        return self._rotary.angles(self._n_local - 1, self._n_local, device)


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How a family places blocks on the axes of its rotary embedding (M-RoPE: time, height, width).

    The first block begins where the text before it ends, on every axis. Blocks that are retrieved are laid out as if
    they were a video of their own: the re-indexing of the paper.
    """

    block: Tensor  # (axes, tokens) int64: the tokens of a block, from where it begins
    step: tuple[float, ...]  # by axis: from one block to the next, rounded down


class GridPositions(Positions):
    """On several axes, as a `Layout` says; text stands at the same position on each, behind the largest so far."""

    def __init__(self, rotary: Rotary, layout: Layout, *, n_init: int, n_local: int) -> None:
        super().__init__(rotary, n_init=n_init, tokens_per_frame=layout.block.shape[1], n_local=n_local)
        self._layout = layout
        self._step = torch.tensor(layout.step, dtype=torch.float64)[:, None]
        self._largest = layout.block.amax(1)
        # Every layer of a pass asks for the same.
        self._angles = lru_cache(maxsize=8)(self._compute)

    def window(self, first: int, start: int, end: int, device: torch.device) -> Angles:
        # From the block of the first slot on, so that angles stay small however long the stream.
        block = max(0, first - self._n_init) // self._block
        shift = tuple((-self._begin(torch.tensor([block]))[:, 0]).tolist())
        return self._angles(start, end, shift, device)

    def after(self, blocks: int) -> int:
        if not blocks:
            return self._n_init
        last = self._begin(torch.tensor([blocks - 1]))[:, 0]
        return self._n_init + int((last + self._largest).max()) + 1

    def context(self, blocks: int, end: int, device: torch.device) -> Angles:
        shift = (end - self.after(blocks),) * len(self._step)
        return self._angles(0, self._n_init + blocks * self._block, shift, device)

    def kept(self, places: Tensor, blocks: int, end: int, device: torch.device) -> Angles:
        # In time block after block, and in a block where it was: what was dropped leaves holes in height and width.
        tokens = torch.cat((torch.arange(self._n_init), places + self._n_init))
        return self._rotary.at(self._positions(tokens) + end - self.after(blocks), device)

    def far(self, device: torch.device, *, text: bool) -> Angles:
        # One axis says W - 1 tokens. Here that is where things stand when the window is full: what of the init prompt
        # is out of reach stays as far as it was then.
        blocks = max(0, self._n_local - self._n_init) // self._block
        if text:
            position = self.after(blocks)
            return self._rotary.angles(position, position + 1, device)
        return self._rotary.at(self._begin(torch.tensor([blocks])) + self._n_init, device)

    def _begin(self, blocks: Tensor) -> Tensor:
        """Where blocks (n,) begin, from where the first one does: (axes, n)."""
        return (blocks * self._step).floor().long()

    def _compute(self, start: int, end: int, shift: Shift, device: torch.device) -> Angles:
        return self._rotary.at(self._positions(torch.arange(start, end)) + torch.tensor(shift)[:, None], device)

    def _positions(self, tokens: Tensor) -> Tensor:
        """Where tokens (n,) of the stream stand: (axes, n)."""
        behind = (tokens - self._n_init).clamp_(0)
        frames = self._begin(behind // self._block) + self._layout.block[:, behind % self._block] + self._n_init
        return torch.where(tokens < self._n_init, tokens, frames)
