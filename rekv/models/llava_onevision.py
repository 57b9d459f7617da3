"""LLaVA-OneVision: SigLIP frames, pooled to a quarter of their patches, into Qwen2 (arXiv 2408.03326)."""

import math

import torch

from rekv.errors import ModelError
from rekv.models.square import SquareLM

_END = "<|im_end|>"


class LlavaOnevision(SquareLM):
    """LLaVA-OneVision with the prompts of the published ReKV code: 196 tokens per frame of 384 x 384."""

    architectures = ("LlavaOnevisionForConditionalGeneration",)
    markers = ("<|im_start|>", _END)
    next_turn = f"{_END}<|im_start|>user "

    @property
    def picture_tokens(self) -> int:
        return math.ceil(self._patches / 2) ** 2

    @property
    def init_prompt(self) -> str:
        # The spaces before the first line's end and after "user" are those of the published code.
        return f"<|im_start|>system \nYou are a helpful assistant.{_END}<|im_start|>user "

    def prompt(self, question: str) -> str:
        return f"\n{question}{_END}<|im_start|>assistant\n"

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = pixels.shape[0] * self.picture_tokens
        features = self.hf.model.get_video_features(pixels[None]).pooler_output[0]
        # Newer transformers end every call in the image_newline token; the published method has none.
        if features.shape[0] not in (rows, rows + 1):
            raise ModelError(
                f"{self.name}: its vision tower gives {features.shape[0]} tokens for {pixels.shape[0]} "
                f"frames of {self.picture_tokens}; this is not LLaVA-OneVision as rekv knows it"
            )
        return features[:rows].unflatten(0, (pixels.shape[0], -1)).to(self.device)  # type: ignore[no-any-return]
