"""InternVL 2.5, 3 and 3.5: InternViT frames, four patches to a token, into Qwen2 or Qwen3 (arXiv 2504.10479)."""

import torch

from rekv.models.chat import ChatLM
from rekv.models.square import SquareLM


class InternVL(ChatLM, SquareLM):
    """InternVL in transformers' format: 256 tokens per frame of 448 x 448, and the tags around them.

    Its template numbers a video's frames ("Frame12: "). A stream has no last number, and a block one length, so here
    frames have no numbers.
    """

    architectures = ("InternVLForConditionalGeneration",)
    markers = ("<img>", "</img>")

    @property
    def picture_tokens(self) -> int:
        return int(self._patches * self.hf.config.downsample_ratio) ** 2

    def frame_text(self, time: float) -> tuple[str, str]:
        return "<img>", "</img>\n"

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.hf.model.get_image_features(pixels).pooler_output
        return features.to(self.device)
