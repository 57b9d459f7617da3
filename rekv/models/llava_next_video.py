"""LLaVA-NeXT-Video: CLIP frames, pooled to a quarter of their patches, into Vicuna, Mistral or Yi."""

import math

import torch

from rekv.models.chat import ChatLM
from rekv.models.square import SquareLM


class LlavaNextVideo(ChatLM, SquareLM):
    """LLaVA-NeXT-Video (LLaVA blog, April 2024): 144 tokens per frame of 336 x 336."""

    architectures = ("LlavaNextVideoForConditionalGeneration",)

    @property
    def picture_tokens(self) -> int:
        side: int = math.ceil(self._patches / self.hf.config.spatial_pool_stride)
        return side * side

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.hf.model.get_video_features(pixels[None]).pooler_output[0]
        return features.reshape(pixels.shape[0], -1, features.shape[-1]).to(self.device)
