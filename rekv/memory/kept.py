"""What a memory policy keeps of one layer's blocks: of each frame as many tokens as the policy likes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rekv.errors import ConfigError, DamagedError
from rekv.memory.blocks import Backing, Blocks
from rekv.memory.policies.base import Policy
from rekv.memory.pool import Ints
from rekv.memory.reads import Reads

_PAGES = 16  # that a frame is cut into, about: half of one is wasted per frame

Masks = NDArray[np.uint8]  # packed bits (frames, bytes): which tokens of a frame are kept


def packed(kept: NDArray[np.bool_]) -> Masks:
    """Masks of bool (frames, tokens): whole words of 4 bytes."""
    return np.packbits(np.pad(kept, ((0, 0), (0, -kept.shape[1] % 32))), axis=1)


def unpacked(masks: Masks, tokens: int) -> NDArray[np.bool_]:
    """Undo `packed`."""
    return np.unpackbits(masks, axis=1, count=tokens).view(np.bool_)


class KeptBlocks:
    """Frame id -> the tokens that are kept, un-rotated, (2, kv_heads, n, head_dim), and where in the frame they were.

    Tokens lie one behind the other in pages: rows of a `Blocks`, which knows nothing of frames of unequal length. So
    budgets, tiers and what must not be overwritten are those of whole blocks, in pages. A page's id is
    `frame * pages + i`.
    """

    def __init__(self, policy: Policy, whole: Blocks, backing: Backing | None) -> None:
        """Of blocks like `whole`."""
        _, kv_heads, self.tokens, dim = whole.shape
        self.policy = policy
        self._size = max(1, self.tokens // _PAGES)  # tokens of a page
        self.pages = -(-self.tokens // self._size)  # of a whole frame
        self._masks = packed(np.zeros((0, self.tokens), np.bool_))  # by frame
        self.blocks = Blocks(
            kv_heads,
            self._size,
            dim,
            whole.dtype,
            whole.device,
            layer=whole.layer,
            backing=None if backing is None else _PagesOnDisk(self, backing),
        )

    @property
    def page_bytes(self) -> int:
        return self.blocks.bytes_per_frame

    def bytes(self, frames: Sequence[int]) -> int:
        """Bytes of what is kept of these frames, room that is wasted left out."""
        return int(self.counts(frames).sum()) * self.page_bytes // self._size

    def stored_bytes(self, frames: Sequence[int]) -> Ints:
        """Bytes that the pages of each frame take."""
        sizes: Ints = self._used(self.counts(frames)) * self.page_bytes
        return sizes

    def counts(self, frames: Sequence[int] | Ints) -> Ints:
        """Tokens that are kept of each frame."""
        counts: Ints = np.bitwise_count(self.masks(frames)).sum(1, dtype=np.int64)
        return counts

    def masks(self, frames: Sequence[int] | Ints) -> Masks:
        return self._masks[np.asarray(frames, np.int64)]

    def know(self, frames: Sequence[int] | Ints, masks: Masks) -> None:
        """Note what is kept of frames: they are on disk."""
        ids = np.asarray(frames, np.int64)
        if len(ids) and (needed := int(ids.max()) + 1) > len(self._masks):
            grown = np.zeros((max(1024, needed, 2 * len(self._masks)), self._masks.shape[1]), np.uint8)
            grown[: len(self._masks)] = self._masks
            self._masks = grown
        self._masks[ids] = masks

    def write(self, first: int, blocks: Tensor, before: Tensor | None) -> None:
        """Let the policy choose of new frames, from whole blocks (frames, 2, kv_heads, tokens, head_dim) on the CPU.

        `before` is the block of the frame before them, if there is one.
        """
        kept = self.policy.keep(blocks, before)
        if kept.shape != (len(blocks), self.tokens) or kept.dtype != torch.bool or not bool(kept.any(1).all()):
            raise ConfigError(
                f"policy {self.policy.name!r} kept {kept.dtype} {tuple(kept.shape)} of {len(blocks)} frames with "
                f"{self.tokens} tokens: `keep` returns bool (frames, tokens), with a token of each frame"
            )
        frames = np.arange(first, first + len(blocks))
        self.know(frames, packed(kept.numpy()))
        self.forget(frames)  # an earlier try may have kept more
        pages = [self._paged(reduced(self.policy, *one)) for one in zip(blocks, kept, strict=True)]
        self.blocks.put(self._ids(frames), torch.cat(pages))

    def read(self, frames: Sequence[int], reads: Reads | None = None) -> tuple[Tensor, Tensor]:
        """Copy what is kept of frames to the layer's device, in the given order.

        Returns (2, kv_heads, n, head_dim), and where each token was, (n,) int64: its place among those of all `frames`
        if they were whole. Raises `DamagedError`, as `Blocks.read` does.
        """
        ids = np.asarray(frames, np.int64)
        counts = self.counts(ids)
        pages = self.blocks.read(self._ids(ids).tolist(), reads)
        room = self._used(counts) * self._size  # tokens that a frame's pages have room for
        slots = np.repeat(np.cumsum(room) - room, counts) + _numbered(counts)
        tokens = pages.permute(1, 2, 0, 3, 4).flatten(2, 3)
        places = np.flatnonzero(unpacked(self.masks(ids), self.tokens))
        return tokens.index_select(2, torch.from_numpy(slots).to(tokens.device)), torch.from_numpy(places)

    def limit(self, in_ram: int, on_gpu: int) -> None:
        """Hold at most so many pages. Before the first frame."""
        self.blocks.limit(in_ram, on_gpu)

    def forget(self, frames: Sequence[int] | Ints) -> None:
        """Let frames go from RAM and GPU."""
        ids = np.asarray(frames, np.int64)
        self.blocks.forget((ids[:, None] * self.pages + np.arange(self.pages)).reshape(-1).tolist())

    def check_integrity(self, frames: Sequence[int]) -> None:
        """Raise if a page of a frame is neither in RAM nor on disk."""
        self.blocks.check_integrity(self._ids(np.asarray(frames, np.int64)).tolist())

    def fill(self, page: int, block: Tensor, row: Tensor) -> None:
        """Put a page's part of what is kept of its frame into a row (2, kv_heads, tokens of a page, head_dim)."""
        at = page % self.pages * self._size
        part = block[:, :, at : at + self._size]
        row[:, :, : part.shape[2]] = part

    def _ids(self, frames: Ints) -> Ints:
        """The pages of frames, in order."""
        used = self._used(self.counts(frames))
        return np.repeat(frames * self.pages, used) + _numbered(used)

    def _used(self, counts: Ints) -> Ints:
        """Pages that so many tokens take."""
        pages: Ints = -(-counts // self._size)
        return pages

    def _paged(self, block: Tensor) -> Tensor:
        """Cut (2, kv_heads, n, head_dim) into pages (pages, 2, kv_heads, tokens of one, head_dim), zeros at the end."""
        pages = block.new_zeros(-(-block.shape[2] // self._size), *self.blocks.shape)
        for page, row in enumerate(pages):
            self.fill(page, block, row)
        return pages


def reduced(policy: Policy, block: Tensor, kept: Tensor) -> Tensor:
    """What a policy makes of a whole block, and of which tokens: (2, kv_heads, n, head_dim), n = kept.sum()."""
    made = policy.reduce(block, kept)
    expected = (*block.shape[:2], int(kept.sum()), block.shape[3])
    if made.shape != expected or made.dtype != block.dtype:
        raise ConfigError(
            f"policy {policy.name!r} made {made.dtype} {tuple(made.shape)} of a block: `reduce` returns {block.dtype} "
            f"{expected}, one token for each that is kept"
        )
    return made


class _PagesOnDisk:
    """Reads pages from where whole frames are."""

    def __init__(self, kept: KeptBlocks, backing: Backing) -> None:
        self._kept, self._backing = kept, backing

    @property
    def written(self) -> int:
        return self._backing.written * self._kept.pages

    def read(self, layer: int, frames: Sequence[int], rows: Sequence[memoryview]) -> None:
        pages, kept = frames, self._kept
        ids = sorted({page // kept.pages for page in pages})
        blocks = dict(zip(ids, self._backing.read_kept(layer, ids), strict=True))
        counts = kept.counts(ids).tolist()
        wrong = tuple(frame for frame, n in zip(ids, counts, strict=True) if blocks[frame].shape[2] != n)
        if wrong:
            raise DamagedError(f"of frames {list(wrong)} another number of tokens is stored than was kept", wrong)
        for page, row in zip(pages, rows, strict=True):
            memory = torch.frombuffer(row, dtype=kept.blocks.dtype).view(kept.blocks.shape)
            kept.fill(page, blocks[page // kept.pages], memory)

    def wait_for_room(self) -> bool:
        return self._backing.wait_for_room()


def _numbered(counts: Ints) -> Ints:
    """0, 1, ... counts[0] - 1, 0, 1, ... counts[1] - 1, and so on."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
