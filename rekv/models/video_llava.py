"""Video-LLaVA: CLIP frames, all patches and the class token, into Vicuna (arXiv 2311.10122)."""

import torch

from rekv.core import AskConfig
from rekv.models.square import SquareLM


class VideoLlava(SquareLM):
    """Video-LLaVA with the prompts of the published ReKV code: 257 tokens per frame of 224 x 224.

    64 frames of it are more than the window, so by default 8 are retrieved, as there.
    """

    architectures = ("VideoLlavaForConditionalGeneration",)
    ask_defaults = AskConfig(retrieve_size=8)
    choice_prefix = " Best option: ("
    init_prompt = "USER: "
    next_turn = "</s>USER: "

    @property
    def picture_tokens(self) -> int:
        return self._patches**2 + 1

    def prompt(self, question: str) -> str:
        return f"\n{question} ASSISTANT:"

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.hf.model.get_video_features(pixels[None]).pooler_output
        return features.to(self.device)
