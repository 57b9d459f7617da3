"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (arXiv 2409.12191, 2502.13923, 2511.21631).

Their vision tower takes pictures by twos, in any size, and tokens stand in time, height and width (M-RoPE). A block is
what two pictures become.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rekv.attention.positions import Layout
from rekv.core import AskConfig, EncodeConfig, Frame
from rekv.errors import ModelError
from rekv.models.base import BlockShape, six_characters
from rekv.models.dynamic import DynamicLM

_START, _PAD, _END = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"


class Qwen2VL(DynamicLM):
    """Qwen2-VL: two pictures of 16:9 are 252 tokens at the default budget."""

    architectures = ("Qwen2VLForConditionalGeneration",)
    # 32 blocks are the paper's 64 frames.
    encode_defaults = EncodeConfig(frame_tokens=256)
    ask_defaults = AskConfig(retrieve_size=32)
    frames_per_block = 2
    least_tokens = 128  # the models' own bound for video
    video_token = _PAD
    markers = (_START, _END)

    def block_shape(self, config: EncodeConfig, grid: tuple[int, int] | None = None) -> BlockShape:
        shape = super().block_shape(config, grid)
        rows, columns = shape.grid or (1, 1)
        return replace(shape, layout=self._layout(rows, columns, config))

    def _layout(self, rows: int, columns: int, config: EncodeConfig) -> Layout:
        """Where the models' own `get_rope_index` puts the tokens of a video."""
        return Layout(_plane(rows, columns), (self._interval(config), 0.0, 0.0))

    def _interval(self, config: EncodeConfig) -> float:
        """Positions in time from one block to the next."""
        return 1.0

    def check(self) -> None:
        if (pair := self.hf.config.vision_config.temporal_patch_size) != self.frames_per_block:
            raise ModelError(f"{self.name}: its vision tower takes {pair} pictures together; rekv knows only 2")
        super().check()


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: as Qwen2-VL, but positions in time are proportional to seconds."""

    architectures = ("Qwen2_5_VLForConditionalGeneration",)

    def _interval(self, config: EncodeConfig) -> float:
        return float(self.hf.config.vision_config.tokens_per_second * self.frames_per_block / config.sample_fps)


class Qwen3VL(Qwen2VL):
    """Qwen3-VL: before each block, text tells its time; features enter the decoder's first layers, too (deepstack).

    The family's own prompts say "<3.5 seconds>". A block has one length, so here the number has six characters, zeros
    in front: "<0003.5 seconds>". It is the block's own time, wherever the block is put when it is retrieved.
    """

    architectures = ("Qwen3VLForConditionalGeneration",)
    video_token = f"{_START}{_PAD}{_END}"  # the family's processor takes them away, too, and puts blocks there

    def frame_text(self, time: float) -> tuple[str, str]:
        return f"<{six_characters(time)} seconds>{_START}", _END

    def _layout(self, rows: int, columns: int, config: EncodeConfig) -> Layout:
        before, after = self._around
        begin, end = before, before + max(rows, columns)
        parts = (
            torch.arange(begin).expand(3, -1),
            _plane(rows, columns) + begin,
            torch.arange(after).expand(3, -1) + end,
        )
        return Layout(torch.cat(parts, 1), (float(end + after),) * 3)

    def block_inputs(self, blocks: Sequence[Sequence[Frame]], shape: BlockShape, first: int) -> dict[str, Any]:
        features, deep = self._see(blocks, shape)
        before, after = self._around
        picture = torch.zeros(shape.tokens, dtype=torch.bool, device=self.device)
        picture[before : shape.tokens - after] = True
        return {
            "inputs_embeds": self._told(features, blocks),
            "visual_pos_masks": picture.repeat(len(blocks))[None],
            "deepstack_visual_embeds": deep,
        }

    @property
    def _around(self) -> tuple[int, int]:
        """Tokens of text before and after a picture."""
        before, after = (len(self._ids(text)) for text in self.frame_text(0.0))
        return before, after


def _plane(rows: int, columns: int) -> torch.Tensor:
    """Time, height and width of a block's tokens: (3, rows * columns)."""
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    return torch.stack((torch.zeros_like(row), row, column))
