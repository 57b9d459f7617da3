"""VideoLLaMA3: pictures of any size, four patches to a token, into Qwen2.5 (arXiv 2501.13106)."""

from typing import Any

import torch

from rekv.core import EncodeConfig
from rekv.models.base import six_characters
from rekv.models.dynamic import DynamicLM


class VideoLlama3(DynamicLM):
    """VideoLLaMA3 in transformers' format: a picture of 16:9 is 84 tokens at the default budget, and its time.

    Its processor shares 16,384 tokens among at most 180 pictures; a stream has no last picture, so here each has what
    it would then have, 91. Times have six characters ("Time 0003.5s:"), for blocks have one length; and so the
    processor's own compression, which drops tokens whose pixels are all but those of the picture before, is not
    applied. Like it in effect are `skip_duplicates` and the memory policy "redundancy".
    """

    architectures = ("VideoLlama3ForConditionalGeneration",)
    encode_defaults = EncodeConfig(frame_tokens=91)
    least_tokens = 16
    video_token = "<|video_pad|>"
    markers = ("<|im_start|>", "<|im_end|>")

    @property
    def _merge(self) -> int:
        return 2  # of videos; its pictures are not merged, so the config does not say

    def frame_text(self, time: float) -> tuple[str, str]:
        return f"Time {six_characters(time)}s:", ","

    def _seen(self, patches: torch.Tensor, size: torch.Tensor) -> Any:
        return self.hf.model.get_video_features(patches, size, size.new_tensor([self._merge]))
