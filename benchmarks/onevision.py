"""LLaVA-OneVision with random weights in its published sizes, built on the device: the real path without a download."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from shapes import Ids, Shape
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    LlavaOnevisionConfig,
    PreTrainedModel,
    Qwen2Config,
    SiglipVisionConfig,
)

from rekv.attention import hook
from rekv.core import AskConfig, EncodeConfig, Image, Turn
from rekv.models.llava_onevision import LlavaOnevision
from rekv.models.pixels import Preprocessor

Product = tuple[int, int, int]  # (in, out, how often)


@dataclass(frozen=True)
class Sizes(Shape):
    """A language model (inherited), the vision tower before it, and the work they are given."""

    tokens_per_frame: int = 196
    retrieve_size: int = 64
    local: int = 15000
    tied: bool = False  # one matrix for the embedding and the vocabulary's logits
    vision_hidden: int = 1152
    vision_mlp: int = 4304
    vision_layers: int = 26  # SigLIP so400m has 27; the converted checkpoints leave out the last, which is not used
    vision_heads: int = 16
    image: int = 384
    patch: int = 14
    picture: tuple[int, int] = (720, 1280)  # height, width of the video

    @property
    def n_local(self) -> int:
        return self.local

    @property
    def patches(self) -> int:
        """Of one frame."""
        return (self.image // self.patch) ** 2

    def language_products(self) -> list[Product]:
        """Of one token on its way through all layers, without vocabulary logits."""
        return [(i, o, n * self.layers) for i, o, n in self.linear_shapes()]

    def vision_products(self) -> list[Product]:
        """Of one patch on its way through tower and projector."""
        width, mlp, layers = self.vision_hidden, self.vision_mlp, self.vision_layers
        tower = [(width, width, 4 * layers), (width, mlp, layers), (mlp, width, layers)]
        return [(3 * self.patch**2, width, 1), *tower, (width, self.hidden, 1), (self.hidden, self.hidden, 1)]

    def language_attention_flop(self) -> float:
        """Of one frame behind a full window: each token with its window and the sink."""
        keys = self.n_local + self.init
        return 4.0 * self.tokens_per_frame * keys * self.heads * self.head_dim * self.layers

    def vision_attention_flop(self) -> float:
        """Of one frame, whose patches all see each other."""
        return 4.0 * self.patches**2 * self.vision_hidden * self.vision_layers


SIZES = {
    "7b": Sizes(hidden=3584, mlp=18944, layers=28, heads=28, kv_heads=4, head_dim=128, vocabulary=152064),
    "0.5b": Sizes(hidden=896, mlp=4864, layers=24, heads=14, kv_heads=2, head_dim=64, vocabulary=152000, tied=True),
    "tiny": Sizes(
        hidden=64,
        mlp=128,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocabulary=512,
        tokens_per_frame=4,
        retrieve_size=8,
        new_tokens=16,
        local=128,
        vision_hidden=32,
        vision_mlp=64,
        vision_layers=1,
        vision_heads=2,
        image=56,
        picture=(90, 160),
    ),
}


def build(sizes: Sizes, device: torch.device) -> PreTrainedModel:
    """A model of random weights in bf16, made where it will run: nothing of it is ever in host memory."""
    torch.manual_seed(0)
    with torch.device(device):
        hf: Any = AutoModelForImageTextToText.from_config(_config(sizes), dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    hf.eval().requires_grad_(False)
    hf.set_attn_implementation({"text_config": hook.NAME, "vision_config": "sdpa"})
    hf.generation_config.eos_token_id = None  # every answer is as long as it may be
    hf.generation_config.pad_token_id = 0
    return hf  # type: ignore[no-any-return]


def _config(sizes: Sizes) -> LlavaOnevisionConfig:
    text = Qwen2Config(
        hidden_size=sizes.hidden,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        vocab_size=sizes.vocabulary,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=sizes.tied,
    )
    vision = SiglipVisionConfig(
        hidden_size=sizes.vision_hidden,
        intermediate_size=sizes.vision_mlp,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.image,
        patch_size=sizes.patch,
        vision_use_head=False,
    )
    return LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=sizes.vocabulary - 2,
        video_token_index=sizes.vocabulary - 1,
        tie_word_embeddings=sizes.tied,
    )


class RandomOnevision(LlavaOnevision):
    """The family with token ids made up: random weights have no tokenizer."""

    def __init__(self, sizes: Sizes, hf: PreTrainedModel) -> None:
        super().__init__(
            hf,
            Ids(),  # type: ignore[arg-type]
            Preprocessor((sizes.image, sizes.image), "bicubic", (0.5,) * 3, (0.5,) * 3),
            name="random",
            encode_config=EncodeConfig(n_local=sizes.n_local),
            ask_config=AskConfig(retrieve_size=sizes.retrieve_size, max_new_tokens=sizes.new_tokens),
        )
        self.sizes = sizes

    def init_ids(self, text: str | None = None) -> list[int]:
        return list(range(1, self.sizes.init + 1))

    def question_ids(self, question: str) -> list[int]:
        return list(range(100, 100 + self.sizes.question))

    def prompt_ids(self, question: str, choices: Sequence[str] = (), turns: Sequence[Turn] = ()) -> list[int]:
        return list(range(200, 200 + self.sizes.prompt))


class LanguageAlone(RandomOnevision):
    """The same without pictures: every frame's features are there before it is encoded."""

    def __init__(self, sizes: Sizes, hf: PreTrainedModel) -> None:
        super().__init__(sizes, hf)
        shape = (self.encode_config.frames_per_call, sizes.tokens_per_frame, sizes.hidden)
        self._features = torch.randn(shape, dtype=self.dtype, device=self.device)

    def pixels(self, images: Sequence[Image]) -> Tensor:
        return torch.empty(len(images))

    def frame_features(self, pixels: Tensor) -> Tensor:
        return self._features[: len(pixels)]
