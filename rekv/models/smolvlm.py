"""SmolVLM2: SigLIP frames, nine or sixteen patches to a token, into SmolLM2 (arXiv 2504.05299)."""

from collections.abc import Sequence

import torch

from rekv.core import Turn
from rekv.models.chat import ChatLM
from rekv.models.square import SquareLM

_FAKE, _GLOBAL = "<fake_token_around_image>", "<global-img>"


class SmolVLM(ChatLM, SquareLM):
    """SmolVLM2: 81 (2.2B) or 64 tokens per frame, and the text around them, which tells the frame's time.

    Its template also tells the number of frames and the video's length, which a stream does not know.
    """

    architectures = ("SmolVLMForConditionalGeneration",)
    markers = (_FAKE, _GLOBAL)

    @property
    def picture_tokens(self) -> int:
        return int(self._patches / self.hf.config.scale_factor) ** 2

    @property
    def init_prompt(self) -> str:
        return f"{super().init_prompt}You are provided the following series of frames from a video.\n"

    def dialogue(self, turns: Sequence[Turn], question: str) -> str:
        return f"\n\n{super().dialogue(turns, question)}"

    def frame_text(self, time: float) -> tuple[str, str]:
        # Two digits have one length; after 99:59 minutes count from 00 again.
        minutes, seconds = divmod(int(time), 60)
        return f"\nFrame from {minutes % 100:02d}:{seconds:02d}:{_FAKE}{_GLOBAL}", _FAKE

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        # A batch of one picture each: newer transformers give it back split by batch.
        features = self.hf.model.get_image_features(pixels[:, None]).pooler_output
        return torch.stack(tuple(features)).to(self.device)
