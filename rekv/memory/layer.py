"""What one layer remembers of a session: sink, window, blocks, index, and what a policy keeps of the blocks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rekv.attention.kernels import Sink
from rekv.attention.positions import Positions
from rekv.attention.rotary import rotate
from rekv.memory.blocks import Blocks
from rekv.memory.index import Index
from rekv.memory.kept import KeptBlocks
from rekv.memory.window import Window

Present = Callable[[range], Sequence[int]]


class LayerMemory:
    """Sink, window, blocks and index of one layer. Made from the first keys that the layer computes."""

    def __init__(
        self,
        init_keys: Tensor,
        init_values: Tensor,
        positions: Positions,
        blocks: Blocks,
        kept: KeptBlocks | None = None,
    ) -> None:
        """`kept`: what questions read instead of `blocks`, which then are the window's alone."""
        kv_heads, _, dim = init_keys.shape
        self.dtype, self.device = init_keys.dtype, init_keys.device
        self._positions = positions
        self.sink_keys, self.sink_values = init_keys.clone(), init_values.clone()  # un-rotated
        self._far_keys = {
            text: rotate(self.sink_keys, positions.far(self.device, text=text).inverse()) for text in (False, True)
        }
        self.window = Window(kv_heads, dim, self.dtype, self.device)
        self.blocks, self.kept = blocks, kept
        self.index = Index(kv_heads, dim, self.device)

    def sink(self, query: Tensor, counts: Tensor, *, text: bool = False) -> Sink | None:
        """The init prompt as un-rotated queries, of frames or of text, see it from beyond the window.

        None if no query does.
        """
        if int(counts.max()) == 0:
            return None
        return Sink(query, self._far_keys[text], self.sink_values, counts)

    def make_room(self, tokens: int, seen: int, n_local: int, present: Present) -> None:
        """Let the window take `tokens` more, the stream having `seen` tokens so far."""
        limit = n_local + max(n_local // 2, tokens)
        length = seen - self.window.first
        if not self.window.reserve(length + tokens, limit, length):
            self.restore_window(max(0, seen - n_local), seen, limit, present)

    def restore_window(self, first: int, seen: int, slots: int, present: Present) -> None:
        """Build the window anew, with tokens first..seen-1 at its front, from the sink and the blocks.

        `present` names the frames to read for a range of them: another one for each that is gone.
        """
        _, kv_heads, block, dim = self.blocks.shape
        window = Window(kv_heads, dim, self.dtype, self.device, first=first, slots=slots)
        init = self.sink_keys.shape[1]
        at = max(0, init - first)
        if at:
            self._put(window, 0, self.sink_keys[:, first:], self.sink_values[:, first:])
        frame, skip = divmod(max(first - init, 0), block)
        frames, step = present(range(frame, (seen - init) // block)), self.blocks.ram.rows_per_slab
        for start in range(0, len(frames), step):
            pairs = self.blocks.read(frames[start : start + step])
            keys, values = (pairs[:, i].transpose(0, 1).flatten(1, 2)[:, skip:] for i in range(2))
            self._put(window, at, keys, values)
            at, skip = at + keys.shape[1], 0
        self.window = window

    def keep(self, frames: range, before: int | None) -> None:
        """Let the policy, if there is one, choose of new frames; `before` is the frame before them, if there is one."""
        if self.kept is not None:
            previous = None if before is None else self.blocks.read([before])[0].cpu()
            self.kept.write(frames.start, torch.cat(self.blocks.runs(frames)), previous)

    def forget(self, frames: Sequence[int]) -> None:
        """Let blocks go from RAM and GPU."""
        self.blocks.forget(frames)
        if self.kept is not None:
            self.kept.forget(frames)

    def _put(self, window: Window, slot: int, keys: Tensor, values: Tensor) -> None:
        end = slot + keys.shape[1]
        to_keys, to_values = window.slots(slot, end)
        rotate(
            keys, self._positions.window(window.first, window.first + slot, window.first + end, self.device), to_keys
        )
        to_values.copy_(values)
