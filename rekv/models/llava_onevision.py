"""LLaVA-OneVision: SigLIP frames, pooled to a quarter of their patches, into Qwen2 (arXiv 2408.03326)."""

import math

import numpy as np
import torch

from rekv.errors import ModelError
from rekv.models.base import VideoLM

_END = "<|im_end|>"


class LlavaOnevision(VideoLM):
    """LLaVA-OneVision with the prompts of the published ReKV code: 196 tokens per frame of 384 x 384."""

    architectures = ("LlavaOnevisionForConditionalGeneration",)

    @property
    def tokens_per_frame(self) -> int:
        vision = self.hf.config.vision_config
        side: int = math.ceil(vision.image_size // vision.patch_size / 2)
        return side * side

    @property
    def init_prompt(self) -> str:
        # The spaces before the first line's end and after "user" are those of the published code.
        return f"<|im_start|>system \nYou are a helpful assistant.{_END}<|im_start|>user "

    def prompt(self, question: str) -> str:
        return f"\n{question}{_END}<|im_start|>assistant\n"

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = pixels.shape[0] * self.tokens_per_frame
        features = self.hf.model.get_video_features(pixels[None]).pooler_output[0]
        # Newer transformers end every call in the image_newline token; the published method has none.
        if features.shape[0] not in (rows, rows + 1):
            raise ModelError(
                f"{self.name}: its vision tower gives {features.shape[0]} tokens for {pixels.shape[0]} "
                f"frames of {self.tokens_per_frame}; this is not LLaVA-OneVision as rekv knows it"
            )
        return features[:rows].unflatten(0, (pixels.shape[0], -1)).to(self.device)  # type: ignore[no-any-return]

    def check(self) -> None:
        super().check()
        if _END not in self.tokenizer.get_vocab():
            raise ModelError(
                f"{self.name}: its tokenizer does not know {_END}, by which LLaVA-OneVision's prompts are "
                f"built; fetch the checkpoint's tokenizer files again"
            )
        side = self.hf.config.vision_config.image_size
        if self.preprocessor.size != (side, side):
            raise ModelError(
                f"{self.name}: its preprocessor makes pictures of {self.preprocessor.size}, its vision tower "
                f"takes {(side, side)}; fetch the checkpoint's configuration files again"
            )
        try:
            with torch.inference_mode():
                self.frame_features(self.pixels([np.zeros((side, side, 3), np.uint8)]))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelError(f"{self.name}: its vision tower does not take a frame ({error})") from error
