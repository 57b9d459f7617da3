"""Several questions, or their answers, in one forward pass."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rekv.attention.passes import AnswerPass, QuestionPass, attend_context
from rekv.attention.rotary import Angles, join, rotate
from rekv.memory.context import ContextLayer, Shelf


class _Plan(NamedTuple):
    """Where the tokens of a forward pass go."""

    row: Tensor  # by token: of its question
    inside: Tensor  # which of its row's new tokens it is
    slot: Tensor  # on the shelf
    angles: Angles
    mask: Tensor  # bool (rows, 1, queries, slots): what each query sees


class Together:
    """Passes run as one: the tokens of each are neighbours, and attend as they would alone.

    What a model computes for each token by itself, most of its work, is then done once for all; and so is attention,
    as long as no context outgrows the window: contexts stand side by side on a shelf.
    """

    def __init__(self, passes: Sequence[QuestionPass | AnswerPass]) -> None:
        self._passes = passes
        self.tokens = [0] * len(passes)  # of each, in the forward pass to come; none if it is over
        self._known: object = None
        self._kept: _Plan

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        memory = self._passes[0].memory
        queries, keys, values = (torch.split(x, self.tokens, 1) for x in (query, key, value))
        contexts = [own.context(layer, q) for own, q in zip(self._passes, queries, strict=True)]
        shelf = self._passes[0].shelf
        longest = max(context.length + n for context, n in zip(contexts, self.tokens, strict=True))
        if shelf is not None and longest <= memory.n_local:
            out = self._attend_rows(shelf[0], layer, contexts, query, key, value, scale)
        else:
            parts = zip(contexts, queries, keys, values, strict=True)
            out = torch.cat([attend_context(memory, layer, c, q, k, v, scale) for c, q, k, v in parts if q.shape[1]])
        for own, context, n in zip(self._passes, contexts, self.tokens, strict=True):
            own.keep(context, n)
        return out

    def _attend_rows(
        self,
        shelf: Shelf,
        layer: int,
        contexts: Sequence[ContextLayer],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
    ) -> Tensor:
        """Plain causal attention of every row to itself; rows are filled up to one number of tokens."""
        (heads, _, dim), kv_heads = query.shape, key.shape[0]
        rows, widest, group = len(contexts), max(self.tokens), heads // kv_heads
        row, inside, slot, angles, mask = self._plan(contexts, group, key.device)
        keys, values = shelf.layers[layer]
        keys[row, :, slot] = rotate(key, angles).transpose(0, 1)
        values[row, :, slot] = value.transpose(0, 1)
        wide = query.new_zeros(rows, widest, heads, dim)
        wide[row, inside] = rotate(query, angles).transpose(0, 1)
        # Heads that share keys are taken as rows of one, as if they were more tokens.
        wide = wide.view(rows, widest, kv_heads, group, dim).permute(0, 2, 3, 1, 4).flatten(2, 3)
        end = mask.shape[-1]
        out = F.scaled_dot_product_attention(wide, keys[:, :, :end], values[:, :, :end], attn_mask=mask, scale=scale)
        out = out.view(rows, kv_heads, group, widest, dim).permute(0, 3, 1, 2, 4).reshape(rows, widest, heads, dim)
        return out[row, inside]

    def _plan(self, contexts: Sequence[ContextLayer], group: int, device: torch.device) -> "_Plan":
        """Most layers have contexts of the same lengths, so the last plan is kept."""
        known = (tuple((c.length, c.offset) for c in contexts), tuple(self.tokens), group, device)
        if known != self._known:
            positions, widest = self._passes[0].memory.positions, max(self.tokens)
            first = torch.tensor([context.length for context in contexts])
            row = torch.arange(len(contexts)).repeat_interleave(torch.tensor(self.tokens))
            inside = torch.cat([torch.arange(n) for n in self.tokens])
            angles = [
                positions.text(c.offset + c.length, c.offset + c.length + n, device)
                for c, n in zip(contexts, self.tokens, strict=True)
                if n
            ]
            end = int(first.max()) + widest
            seen = torch.arange(end) <= (first[:, None] + torch.arange(widest))[..., None]
            mask = seen[:, None, None].expand(-1, 1, group, -1, -1).flatten(2, 3)
            row, inside, slot = (part.to(device) for part in (row, inside, first[row] + inside))
            self._known, self._kept = known, _Plan(row, inside, slot, join(angles), mask.to(device))
        return self._kept


def side_by_side(questions: Sequence[QuestionPass]) -> Together:
    """Questions that share a forward pass; their contexts will lie on a shelf, on which their answers can go on."""
    shelf = Shelf(len(questions), max(question.slots for question in questions))
    for row, question in enumerate(questions):
        question.shelf = shelf, row
    return Together(questions)
