"""The method once more, slow and plain: whole streams at once in float64, dense masks, no cache, no code of rekv.

Semantics are those of the published implementation: W = n_local, P = tokens of the init prompt, b = tokens per frame.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Layer:
    """Keys, not rotated, and values of a stream in one layer: (kv_heads, tokens, head_dim)."""

    keys: Tensor
    values: Tensor


@dataclass
class Asked:
    """A question pass."""

    hidden: Tensor  # (question tokens, dim)
    scores: Tensor  # (layers, visible frames)
    picks: list[list[int]]
    contexts: list[Layer]
    gap: float  # the smallest distance between a chosen chunk's score and one that was not


class Reference:
    """Llama and Qwen2 decoders; `hf` is the causal language model."""

    def __init__(self, hf: Any, *, n_init: int, block: int, n_local: int) -> None:
        self.lm = copy.deepcopy(hf).double()
        self.decoder = self.lm.get_decoder()
        self.config = hf.config.get_text_config()
        self.n_init, self.block, self.n_local = n_init, block, n_local

    def encode(self, init_ids: Sequence[int], frames: Tensor) -> tuple[Tensor, list[Layer]]:
        """Read the init prompt and all frames' features (frames, b, dim); return hidden states and the stream."""
        embeds = torch.cat((self.embed(init_ids), frames.double().flatten(0, 1)))
        at = torch.arange(len(embeds))
        init, later = at[: self.n_init], at[self.n_init :] - self.n_init
        ends = torch.cat(
            (
                ((init // self.block + 1) * self.block).clamp(max=self.n_init),
                self.n_init + (later // self.block + 1) * self.block,
            )
        )
        sinks = (ends - self.n_local).clamp(0, self.n_init)
        hidden, stream = embeds, []
        for i in range(len(self.decoder.layers)):
            _, own = self.project(i, hidden, len(at))
            stream.append(own)
            hidden = self.layer(i, hidden, own, at, sinks)
        return self.norm(self.decoder.norm, hidden), stream

    def question(
        self,
        ids: Sequence[int],
        stream: list[Layer],
        visible: range,
        *,
        topk: int,
        chunk: int,
        recent: int = 0,
        given: Sequence[int] | None = None,
    ) -> Asked:
        hidden = self.embed(ids)
        newest = range(max(visible.start, visible.stop - recent), visible.stop)
        scores, picks, contexts, gap = [], [], [], float("inf")
        for i, layer in enumerate(stream):
            query, _ = self.project(i, hidden, 0)
            mine = self.scores(query, layer, visible)
            scores.append(mine)
            if given is not None:
                chosen = list(given)
            else:
                chosen, distance = select(mine, visible, newest.start, topk, chunk)
                gap = min(gap, distance)
            chosen += [f for f in newest if f not in chosen]
            picks.append(chosen)
            contexts.append(self.context(layer, chosen))
            hidden = self.follow(i, hidden, contexts[-1])
        return Asked(self.norm(self.decoder.norm, hidden), torch.stack(scores), picks, contexts, gap)

    def logits(self, ids: Sequence[int], contexts: list[Layer]) -> Tensor:
        """Continue the contexts with a prompt and the answer's tokens: (tokens, vocabulary)."""
        hidden = self.embed(ids)
        for i, context in enumerate(contexts):
            hidden = self.follow(i, hidden, context)
        return torch.as_tensor(self.lm.lm_head(self.norm(self.decoder.norm, hidden)))

    # -- parts -----------------------------------------------------------------------------------------------

    def embed(self, ids: Sequence[int]) -> Tensor:
        return torch.as_tensor(self.decoder.embed_tokens(torch.tensor(ids)))

    def norm(self, module: Any, x: Tensor) -> Tensor:
        scale = (x.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps).rsqrt()
        return torch.as_tensor(x * scale * module.weight)

    def project(self, i: int, hidden: Tensor, tokens: int) -> tuple[Tensor, Layer]:
        """Queries (heads, n, head_dim) and this layer's own keys and values, none of them rotated."""
        attention = self.decoder.layers[i].self_attn
        x = self.norm(self.decoder.layers[i].input_layernorm, hidden)
        dim = attention.head_dim
        q, k, v = (
            p(x).view(len(x), -1, dim).transpose(0, 1) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return q, Layer(k, v)

    def follow(self, i: int, hidden: Tensor, context: Layer) -> Tensor:
        """One layer, its tokens coming after a context whose positions count from 0."""
        _, own = self.project(i, hidden, 0)
        start = context.keys.shape[1]
        at = torch.arange(start, start + len(hidden))
        everything = Layer(torch.cat((context.keys, own.keys), 1), torch.cat((context.values, own.values), 1))
        sinks = (at - self.n_local + 1).clamp(0, self.n_init)
        return self.layer(i, hidden, everything, at, sinks)

    def layer(self, i: int, hidden: Tensor, seen: Layer, at: Tensor, sinks: Tensor) -> Tensor:
        query, _ = self.project(i, hidden, 0)
        layer = self.decoder.layers[i]
        mixed = self.attend(query, seen, at, sinks).transpose(0, 1).flatten(1)
        hidden = hidden + layer.self_attn.o_proj(mixed)
        return torch.as_tensor(hidden + layer.mlp(self.norm(layer.post_attention_layernorm, hidden)))

    def attend(self, query: Tensor, seen: Layer, at: Tensor, sinks: Tensor) -> Tensor:
        """One softmax over the window and the sink; key j stands at position j, query n at `at[n]`."""
        heads, _, dim = query.shape
        group = heads // seen.keys.shape[0]
        keys, values = (x.repeat_interleave(group, 0) for x in (seen.keys, seen.values))
        positions = torch.arange(keys.shape[1])
        near = self.rope(query, at) @ self.rope(keys, positions).mT
        distance = at[:, None] - positions
        near = near.masked_fill((distance < 0) | (distance >= self.n_local), -torch.inf)
        far = self.from_afar(query, at) @ keys[:, : self.n_init].mT
        far = far.masked_fill(torch.arange(far.shape[-1]) >= sinks[:, None], -torch.inf)
        weights = torch.softmax(torch.cat((near, far), -1) * dim**-0.5, -1)
        return weights @ torch.cat((values, values[:, : self.n_init]), 1)

    def from_afar(self, query: Tensor, at: Tensor) -> Tensor:
        """Queries rotated as the sink sees them, whose keys stand at position 0."""
        return self.rope(query, torch.full_like(at, self.n_local - 1))

    def rope(self, x: Tensor, at: Tensor) -> Tensor:
        theta = self.config.rope_parameters["rope_theta"]
        half = x.shape[-1] // 2
        angles = at.double()[:, None] * theta ** (-torch.arange(half, dtype=torch.float64) / half)
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()), -1)

    def scores(self, query: Tensor, layer: Layer, frames: range) -> Tensor:
        """Mean query with each frame's mean key, head by head, summed."""
        group = query.shape[0] // layer.keys.shape[0]
        blocks = layer.keys[:, self.n_init :].reshape(len(layer.keys), -1, self.block, query.shape[-1]).mean(2)
        mean = query.mean(1)
        totals = [sum(mean[h] @ blocks[h // group, f] for h in range(len(mean))) for f in frames]
        return torch.stack([torch.as_tensor(t) for t in totals]) if totals else mean.new_empty(0)

    def context(self, layer: Layer, frames: Sequence[int]) -> Layer:
        """The init prompt, then these frames."""
        tokens = list(range(self.n_init))
        for frame in frames:
            first = self.n_init + frame * self.block
            tokens += range(first, first + self.block)
        return Layer(layer.keys[:, tokens], layer.values[:, tokens])


def select(scores: Tensor, visible: range, stop: int, topk: int, chunk: int) -> tuple[list[int], float]:
    """The best chunks of `visible` before frame `stop`, in time order; and by how much they are the best."""
    candidates = list(range(visible.start, stop))
    if len(candidates) <= topk:
        return candidates, float("inf")
    values = dict(zip(visible, scores.tolist(), strict=True))
    chunks = [candidates[i : i + chunk] for i in range(0, len(candidates), chunk)]
    ranked = sorted(chunks, key=lambda c: -sum(values[f] for f in c) / len(c))
    kept, dropped = ranked[: topk // chunk], ranked[topk // chunk :]
    if not kept or not dropped:
        return sorted(f for c in kept for f in c), float("inf")
    means = [sum(values[f] for f in c) / len(c) for c in (kept[-1], dropped[0])]
    return sorted(f for c in kept for f in c), means[0] - means[1]
