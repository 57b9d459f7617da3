"""What a codec does to attention: relative errors of softmax(q k) v over blocks whose keys are un-rotated or rotated.

`synthetic` has the shape of LLaVA-OneVision 7B and the structure that keys of such models are known for (KIVI, arXiv
2402.02750): in each head some channels are large and nearly constant. `block_error` takes what a model really computes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import rekv
from rekv.attention.rotary import Angles, rotate
from rekv.store.codecs import CODECS, codec
from rekv.world import needle_stream

OUTLIERS = 4  # large channels of 128, per head
OUTLIER_MEAN, OUTLIER_NOISE = 12.0, 2.0  # against 1 of the others
THETA = 1e6  # of the rotary embedding in Qwen2


@dataclass(frozen=True)
class Case:
    """Blocks that a question reads in one layer, its queries, and where they stand. Un-rotated."""

    blocks: Tensor  # (n, 2, kv_heads, tokens, head_dim) in fp32
    query: Tensor  # (heads, queries, head_dim) in fp32
    dtype: torch.dtype  # that the model computes in
    angles: Angles  # of the positions of all tokens, then of all queries

    @property
    def shape(self) -> tuple[int, int, int]:
        _, _, heads, tokens, dim = self.blocks.shape
        return heads, tokens, dim

    def rotated(self, blocks: Tensor) -> Tensor:
        """The same with keys at their positions."""
        n, (_, tokens, _) = len(blocks), self.shape
        angles = self.angles[: n * tokens].view(n, 1, tokens)
        return torch.stack((rotate(blocks[:, 0].contiguous(), angles), blocks[:, 1]), 1)

    def attend(self, rotated: Tensor) -> Tensor:
        """Every query over all blocks, whose keys are rotated: (heads, queries, head_dim)."""
        keys, values = rotated.permute(1, 2, 0, 3, 4).flatten(2, 3)[:, None]
        query = rotate(self.query, self.angles[-self.query.shape[1] :])[None]
        return scaled_dot_product_attention(query, keys, values, enable_gqa=True)[0]

    def errors(self, name: str) -> dict[str, float]:
        """Relative errors of the output: through the codec, and with keys alone through it; stored both ways."""
        straight = self._coded(name, self.blocks)
        turned = self.rotated(self.blocks)
        turned_coded = self._coded(name, turned)
        truth = self.attend(turned)
        outputs = {
            "error": self.rotated(straight),
            "error_if_rotated": turned_coded,
            "keys_alone": self.rotated(_with(straight, self.blocks)),
            "keys_alone_if_rotated": _with(turned_coded, turned),
        }
        return {key: float((self.attend(x) - truth).norm() / truth.norm()) for key, x in outputs.items()}

    def _coded(self, name: str, blocks: Tensor) -> Tensor:
        made = codec(name, self.shape, self.dtype)
        return made.unpack(made.pack(blocks.to(self.dtype))).float()


def _with(keys: Tensor, values: Tensor) -> Tensor:
    return torch.stack((keys[:, 0], values[:, 1]), 1)


def errors(cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """By codec, the mean over cases."""
    found = {name: [case.errors(name) for case in cases] for name in CODECS}
    return {name: {key: round(fmean(e[key] for e in of), 6) for key in of[0]} for name, of in found.items()}


# -- drawn -----------------------------------------------------------------------------------------------------


def synthetic(seed: int, sharpness: float, frames: int = 64, queries: int = 16) -> Case:
    """One layer of 7B: 196 tokens, 4 KV heads of 128 with 7 query heads each, bf16; attention scores of this deviation.

    Keys and values are a mean of the head's channels plus noise, half of which a frame's tokens share; channels of
    keys that are large are drawn at random. Queries weigh channels by how much they vary, as trained ones must.
    """
    heads, group, tokens, dim = 4, 7, 196, 128
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    outlier = torch.zeros(2, heads, 1, dim)
    outlier[0].scatter_(2, torch.rand(heads, 1, dim, generator=draw).topk(OUTLIERS).indices, 1.0)
    mean = normal(2, heads, 1, dim) * torch.where(outlier > 0, OUTLIER_MEAN, 1.0)
    noise = torch.where(outlier > 0, OUTLIER_NOISE, 1.0)
    shared, own = normal(frames, 2, heads, 1, dim), normal(frames, 2, heads, tokens, dim)
    blocks = mean + noise * (shared + own) / 2**0.5
    rms = (mean[0] ** 2 + noise[0] ** 2).sqrt().repeat_interleave(group, 0)
    query = sharpness * normal(heads * group, queries, dim) / rms
    return Case(blocks, query, torch.bfloat16, plain_angles(frames * tokens + queries, dim))


def plain_angles(positions: int, dim: int) -> Angles:
    frequencies = THETA ** -(torch.arange(0, dim, 2) / dim)
    turned = torch.arange(positions)[:, None] * torch.cat((frequencies, frequencies))
    return Angles(turned.cos(), turned.sin(), interleaved=False)


# -- real ------------------------------------------------------------------------------------------------------


def block_error(model: rekv.Model, frames: int = 600, seed: int = 0) -> dict[str, Any]:
    """By codec, the error of attention outputs with a model's own keys, values and queries; mean over its layers.

    The model reads a needle stream and is asked 8 questions; each layer's queries are those that its `q_proj`
    computes in the question pass, over the blocks that it retrieved: the error of one layer, not of all in a row.
    """
    return errors(list(real_cases(model, frames, seed)))


@torch.inference_mode()
def real_cases(model: rekv.Model, frames: int, seed: int) -> Iterator[Case]:
    stream = needle_stream(np.random.default_rng(seed), frames)
    heads = model.family.hf.config.get_text_config().num_attention_heads
    session = model.session(encoder=None)
    session.append(stream.frames())
    for question in stream.questions:
        with Queries(model) as queries:
            answer = session.ask(question.text, max_new_tokens=1)
        for i, layer in session.memory.layers.items():
            blocks = layer.blocks.read(answer.retrieval.frames[i]).cpu()
            query = queries.first[i].view(-1, heads, blocks.shape[-1])  # (queries, heads, head_dim)
            tokens, start = len(blocks) * blocks.shape[3], session.memory.n_init
            angles = session.memory.rotary.angles(start, start + tokens + len(query), torch.device("cpu"))
            yield Case(blocks.float(), query.transpose(0, 1).contiguous(), blocks.dtype, angles)


class Queries:
    """Listens to what each layer's `q_proj` gives first: the un-rotated queries of the question pass."""

    def __init__(self, model: rekv.Model) -> None:
        self._model = model
        self.first: dict[int, Tensor] = {}

    def __enter__(self) -> "Queries":
        layers = self._model.family.hf.config.get_text_config().num_hidden_layers
        decoder = self._model.decoder
        self._hooks = [
            decoder.get_submodule(f"layers.{i}.self_attn.q_proj").register_forward_hook(self._listen(i))
            for i in range(layers)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _listen(self, layer: int) -> Any:
        def hook(_module: object, _inputs: object, output: Tensor) -> None:
            self.first.setdefault(layer, output[0].float().cpu())

        return hook
