"""What attention does in each kind of forward pass: encoding frames, retrieving for a question, answering.

Every pass receives un-rotated (heads, n, head_dim) tensors of the new tokens, one layer after the other.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rekv.attention.kernels import window_attention
from rekv.attention.rotary import rotate
from rekv.memory.context import ContextLayer, Shelf
from rekv.memory.layer import LayerMemory
from rekv.memory.memory import Memory
from rekv.memory.reads import Reads
from rekv.retrieval.base import Retriever, checked
from rekv.retrieval.scoring import Scoring


class EncodePass:
    """The init prompt, or new frames, attend to sink + window and are stored (paper, section 3.2).

    Everything is written beyond what the memory has committed; nothing counts until `Memory.commit`.
    """

    def __init__(self, memory: Memory, tokens: int) -> None:
        self._memory = memory
        self._tokens = tokens
        self._is_init = not memory.layers
        self._seen = 0 if self._is_init else memory.tokens
        # The sink fills as tokens leave the window, one frame of queries at a time.
        block = memory.tokens_per_frame
        ends = ((torch.arange(tokens) // block + 1) * block).clamp_max_(tokens) + self._seen
        self._sinks = (ends - memory.n_local).clamp_(0, memory.n_init)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        memory = self._memory
        state = memory.layer(layer, key, value)
        window_first = state.window.first
        angles = memory.positions.window(window_first, self._seen, self._seen + self._tokens, key.device)
        start = self._seen - window_first
        end = start + self._tokens
        new_keys, new_values = state.window.slots(start, end)
        rotate(key, angles, new_keys)
        new_values.copy_(value)
        if not self._is_init:
            state.blocks.write(memory.frames, key, value)
            state.index.write(memory.table.row(memory.frames), key, memory.tokens_per_frame)
        first = max(0, end - self._tokens - memory.n_local + 1)
        keys, values = state.window.slots(first, end)
        return window_attention(
            rotate(query, angles), keys, values, memory.n_local, scale, state.sink(query, self._sinks)
        )


class QuestionPass:
    """The bare question retrieves in each layer and attends to [sink | retrieved | question] (section 3.3).

    Nothing of the question is kept. What is, is the context that each layer put together: `contexts`.
    """

    def __init__(
        self,
        memory: Memory,
        retriever: Retriever,
        *,
        visible: Sequence[int],
        recent: int,
        room: int,
        scoring: Scoring | None = None,
        by: str = "",
    ) -> None:
        """Score the `visible` frames, retrieve among all but the newest `recent`, add these; leave `room` tokens."""
        self.memory = memory
        self.by = by  # who picks, in words
        self._retriever = retriever
        self._scoring = scoring or Scoring()
        self.visible = visible
        older = max(0, len(visible) - recent)
        self._candidates, self._recent = visible[:older], visible[older:]
        self._rows, self._kept = memory.table.rows(visible)
        self._room = room
        self._most = retriever.most(self._candidates)
        most = self._most + len(self._recent)
        self.bound = memory.positions.after(most)  # where the text stands that follows the longest possible context
        self.contexts: dict[int, ContextLayer] = {}
        self.picks: dict[int, tuple[int, ...]] = {}
        self.scores: dict[int, Tensor] = {}
        self.slots = memory.n_init + most * memory.tokens_per_frame + room  # of a context, at most
        self.shelf: tuple[Shelf, int] | None = None  # and the row on it, if other questions are asked together
        self.reads = Reads()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return attend_context(self.memory, layer, self.context(layer, query), query, key, value, scale)

    def context(self, layer: int, query: Tensor) -> ContextLayer:
        """Retrieve, and put the layer's context together."""
        state = self.memory.layers[layer]
        scores = self.scores[layer] = self._scoring(state.index, query, self._rows, self._kept)
        picked = checked(
            self._retriever.pick(layer, scores[: len(self._candidates)], self._candidates),
            self.visible,
            self._most,
            self.by,
        )
        frames = (*picked, *(f for f in self._recent if f not in picked))
        self.picks[layer] = frames
        self.contexts[layer] = self._gather(layer, state, frames)
        return self.contexts[layer]

    def keep(self, context: ContextLayer, tokens: int) -> None:
        """Nothing of the question."""

    @property
    def all_scores(self) -> Tensor:
        """What every layer scored: (layers, visible), on the CPU."""
        return torch.stack([self.scores[layer].cpu() for layer in sorted(self.scores)])

    def _gather(self, layer: int, state: LayerMemory, frames: Sequence[int]) -> ContextLayer:
        """[sink | blocks], rotated as if they followed each other, such that they end at `bound` in every layer.

        Of blocks that a policy has made smaller, what is kept: then layers differ in length.
        """
        memory, kept = self.memory, None
        _, kv_heads, block, dim = state.blocks.shape
        init, n = memory.n_init, len(frames)
        if state.kept is None:
            tokens, angles = init + n * block, memory.positions.context(n, self.bound, state.device)
        else:
            kept, places = state.kept.read(frames, self.reads)
            tokens, angles = init + len(places), memory.positions.kept(places, n, self.bound, state.device)
        place = None
        if self.shelf is not None:
            shelf, row = self.shelf
            place = shelf.place(layer, row, kv_heads, dim, state.dtype, state.device)
        offset = self.bound - tokens
        context = ContextLayer(kv_heads, tokens, self._room, offset, dim, state.dtype, state.device, place)
        keys, values = context.slots(0, init)
        rotate(state.sink_keys, angles[:init], keys)
        values.copy_(state.sink_values)
        if kept is not None:
            keys, values = context.slots(init, tokens - init)
            rotate(kept[0], angles[init:], keys)
            values.copy_(kept[1])
        elif n:
            pairs = state.blocks.read(frames, self.reads)
            keys, values = (x.view(kv_heads, n, block, dim) for x in context.slots(init, n * block))
            rotate(pairs[:, 0].transpose(0, 1), angles[init:].view(n, block), keys)
            values.copy_(pairs[:, 1].transpose(0, 1))
        return context


class AnswerPass:
    """Prompt and answer tokens continue a context under the window + sink rule, and are kept.

    Only used where the context outgrows `n_local`, or several are continued together; otherwise the rule is plain
    causal attention, and transformers' own `generate()` continues the context.
    """

    def __init__(
        self, memory: Memory, contexts: dict[int, ContextLayer], shelf: tuple[Shelf, int] | None = None
    ) -> None:
        self.memory = memory
        self.shelf = shelf
        self._contexts = contexts

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        context = self.context(layer, query)
        out = attend_context(self.memory, layer, context, query, key, value, scale)
        self.keep(context, key.shape[1])
        return out

    def context(self, layer: int, query: Tensor) -> ContextLayer:
        return self._contexts[layer]

    def keep(self, context: ContextLayer, tokens: int) -> None:
        context.extend(context.length + tokens)


def attend_context(
    memory: Memory,
    layer: int,
    context: ContextLayer,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
) -> Tensor:
    """Tokens that follow a context attend to it and to each other; they are written behind it, but not kept."""
    n = key.shape[1]
    start, end = context.length, context.length + n
    angles = memory.positions.text(context.offset + start, context.offset + end, key.device)
    keys, values = context.slots(start, n)
    rotate(key, angles, keys)
    values.copy_(value)
    sinks = (torch.arange(start, end) - memory.n_local + 1).clamp_(0, memory.n_init)
    sink = memory.layers[layer].sink(query, sinks, text=True)
    return window_attention(rotate(query, angles), *context.upto(end), memory.n_local, scale, sink)
