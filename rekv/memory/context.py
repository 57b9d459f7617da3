"""What one question reads in one layer, as a layer of a stock transformers cache."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class ContextLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """[sink | retrieved frames], rotated, with room for the tokens that follow.

    The question pass attends over it, `generate()` then continues on the same buffer: nothing is copied between
    them, nor at each decoded token as a growing cache would. Tensors are (1, kv_heads, tokens, head_dim).

    Layers may hold different numbers of tokens. They are aligned at the right: token i that follows stands at
    position `offset + i`, which is the same in every layer.
    """

    def __init__(
        self,
        kv_heads: int,
        tokens: int,
        room: int,
        offset: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        place: Sequence[Tensor] | None = None,
    ) -> None:
        """In buffers of its own, or in its `place` on a shelf."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.offset = offset
        self.length = tokens
        if place is None:
            place = [torch.empty(1, kv_heads, tokens + room, head_dim, dtype=dtype, device=device) for _ in range(2)]
        self._buffers = tuple(place)
        self.dtype, self.device, self.is_initialized = dtype, device, True
        self._show()

    def slots(self, start: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Keys and values of slots start.., each (kv_heads, tokens, head_dim), to be written in place."""
        keys, values = (x[0, :, start : start + tokens] for x in self._buffers)
        return keys, values

    def upto(self, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of slots 0..end-1, also of tokens that are not kept."""
        return self.slots(0, end)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append rotated tokens in place; called by transformers."""
        end = self.length + key_states.shape[-2]
        if end > self._buffers[0].shape[2]:  # transformers may look a step ahead of where it stops
            self._buffers = tuple(torch.cat((x, torch.empty_like(x)), 2) for x in self._buffers)
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.length : end] = new
        self.extend(end)
        keys, values = (x[:, :, :end] for x in self._buffers)
        return keys, values

    def extend(self, length: int) -> None:
        """Keep the tokens that were written up to here."""
        self.length = length
        self._show()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the newest tokens; called by transformers, with a number that may be negative."""
        self.extend(self.length - abs(tokens_to_remove))

    def get_seq_length(self) -> int:
        return self.length

    def _show(self) -> None:
        self.keys, self.values = (x[:, :, : self.length] for x in self._buffers)


class Shelf:
    """The contexts of several questions side by side: one pair of buffers per layer, a row of them per question."""

    def __init__(self, rows: int, slots: int) -> None:
        self._rows, self._slots = rows, slots
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # keys, values (rows, kv_heads, slots, head_dim)

    def place(
        self, layer: int, row: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> list[Tensor]:
        """Keys and values of a row, (1, kv_heads, slots, head_dim)."""
        if layer not in self.layers:
            # Slots that have no token yet are attended to with weight 0, which does not undo what is not a number.
            shape = (self._rows, kv_heads, self._slots, head_dim)
            keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
            self.layers[layer] = keys, values
        return [x[row : row + 1] for x in self.layers[layer]]
