"""A language model of random weights in the shape of the published CPU timing, as a family for the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

import rekv.attention.hook
from rekv.core import AskConfig, EncodeConfig, Image, Turn
from rekv.models.base import VideoLM
from rekv.models.pixels import Preprocessor


@dataclass(frozen=True)
class Shape:
    """Sizes of a language model and of the work it is given."""

    hidden: int = 256
    mlp: int = 1024
    layers: int = 8
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    vocabulary: int = 2048
    tokens_per_frame: int = 49
    frames: int = 600
    init: int = 14
    window_frames: int = 64
    retrieve_size: int = 32
    question: int = 20
    prompt: int = 40
    new_tokens: int = 64

    @property
    def n_local(self) -> int:
        return self.tokens_per_frame * self.window_frames

    @property
    def context(self) -> int:
        """Tokens that a question reads."""
        return self.init + self.retrieve_size * self.tokens_per_frame

    def linear_shapes(self) -> list[tuple[int, int, int]]:
        """(in, out, count) of one layer's projections."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            (self.hidden, q, 1),
            (self.hidden, kv, 2),
            (q, self.hidden, 1),
            (self.hidden, self.mlp, 2),
            (self.mlp, self.hidden, 1),
        ]

    def linear_flop(self) -> float:
        """Of encoding all frames, without vocabulary logits."""
        per_token = sum(2.0 * i * o * n for i, o, n in self.linear_shapes())
        return per_token * self.layers * self.frames * self.tokens_per_frame

    def attention_flop(self) -> float:
        """Of encoding all frames: each token with its window and the sinks it sees."""
        end = self.init + self.frames * self.tokens_per_frame
        keys = 0
        for position in range(self.init, end):
            block_end = self.init + ((position - self.init) // self.tokens_per_frame + 1) * self.tokens_per_frame
            keys += min(position + 1, self.n_local) + min(self.init, max(0, block_end - self.n_local))
        return 4.0 * keys * self.heads * self.head_dim * self.layers


class Ids:
    """Stands in for a tokenizer: an answer is its numbers."""

    eos_token_id = None

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


class RandomLM(VideoLM):
    """Random weights, no vision tower: frame features are drawn when they are asked for."""

    architectures = ()
    init_prompt = ""

    def __init__(self, shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        torch.manual_seed(0)
        text = Qwen2Config(
            hidden_size=shape.hidden,
            intermediate_size=shape.mlp,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            vocab_size=shape.vocabulary,
            max_position_embeddings=32768,
        )
        text.head_dim = shape.head_dim
        vision = SiglipVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=4,
            image_size=28,
            patch_size=14,
        )
        config = LlavaOnevisionConfig(text_config=text, vision_config=vision, image_token_index=shape.vocabulary - 1)
        hf: Any = LlavaOnevisionForConditionalGeneration(config).eval().requires_grad_(False)  # type: ignore[no-untyped-call]
        rotary = hf.model.language_model.rotary_emb
        angles = rotary.inv_freq.clone()
        hf.to(dtype)
        rotary.inv_freq = angles  # kept in fp32, as from_pretrained does
        hf.set_attn_implementation({"text_config": rekv.attention.hook.NAME, "vision_config": "sdpa"})
        hf.generation_config.eos_token_id = None
        hf.generation_config.pad_token_id = 0
        super().__init__(
            hf.to(device),
            Ids(),  # type: ignore[arg-type]
            Preprocessor((28, 28), "bicubic", (0.5,) * 3, (0.5,) * 3),
            name="random",
            encode_config=EncodeConfig(sample_fps=1.0, n_local=shape.n_local),
            ask_config=AskConfig(retrieve_size=shape.retrieve_size, max_new_tokens=shape.new_tokens),
        )
        self.shape = shape

    @property
    def tokens_per_frame(self) -> int:
        return self.shape.tokens_per_frame

    def prompt(self, question: str) -> str:
        return question

    def init_ids(self, text: str | None = None) -> list[int]:
        return list(range(1, self.shape.init + 1))

    def question_ids(self, question: str) -> list[int]:
        return list(range(100, 100 + self.shape.question))

    def prompt_ids(self, question: str, choices: Sequence[str] = (), turns: Sequence[Turn] = ()) -> list[int]:
        return list(range(200, 200 + self.shape.prompt))

    def pixels(self, images: Sequence[Image]) -> Tensor:
        return torch.empty(len(images))

    def frame_features(self, pixels: Tensor) -> Tensor:
        return torch.randn(len(pixels), self.tokens_per_frame, self.shape.hidden, dtype=self.dtype, device=self.device)
