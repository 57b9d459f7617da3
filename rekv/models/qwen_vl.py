"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (arXiv 2409.12191, 2502.13923, 2511.21631).

Their vision tower takes pictures by twos, in any size, and tokens stand in time, height and width (M-RoPE). A block is
what two pictures become. All of a session have one size: the largest within `frame_tokens` that has the aspect ratio
of its first picture.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from rekv.attention.positions import Layout
from rekv.core import AskConfig, EncodeConfig, Frame
from rekv.errors import ModelError
from rekv.models.base import BlockShape
from rekv.models.chat import ChatLM
from rekv.models.patches import fit, patchify
from rekv.models.pixels import Preprocessor, processor_config

_START, _PAD, _END = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"
_LEAST = 128  # tokens that a small picture is enlarged to, if there may be as many: the models' own bound for video
_UNKNOWN = (1080, 1920)  # the size of pictures that have not been seen yet


class Qwen2VL(ChatLM):
    """Qwen2-VL: two pictures of 16:9 are 252 tokens at the default budget."""

    architectures = ("Qwen2VLForConditionalGeneration",)
    # 32 blocks are the paper's 64 frames.
    encode_defaults = EncodeConfig(frame_tokens=256)
    ask_defaults = AskConfig(retrieve_size=32)
    frames_per_block = 2
    video_token = _PAD
    markers: ClassVar[tuple[str, ...]] = (_START, _END)

    @classmethod
    def load_preprocessor(cls, source: str) -> Preprocessor:
        # The size is the session's; older checkpoints do not say how pictures are resized.
        config = {"resample": 3} | dict(processor_config(source)) | {"size": {"height": 1, "width": 1}}
        return Preprocessor.from_config(config, name=source)

    @property
    def tokens_per_frame(self) -> int:
        return self.block_shape(self.encode_config).tokens

    @property
    def _cell(self) -> int:
        """Pixels of a token's side."""
        vision = self.hf.config.vision_config
        return int(vision.patch_size * vision.spatial_merge_size)

    # -- blocks ------------------------------------------------------------------------------------------------

    def grid(self, height: int, width: int, config: EncodeConfig) -> tuple[int, int]:
        most = config.frame_tokens or self.encode_defaults.frame_tokens or _LEAST
        return fit(height, width, self._cell, least=min(_LEAST, most), most=most)

    def block_shape(self, config: EncodeConfig, grid: tuple[int, int] | None = None) -> BlockShape:
        grid = grid or self.grid(*_UNKNOWN, config)
        layout = self._layout(*grid, config)
        return BlockShape(layout.block.shape[1], grid, layout)

    def _layout(self, rows: int, columns: int, config: EncodeConfig) -> Layout:
        """Where the models' own `get_rope_index` puts the tokens of a video."""
        return Layout(_plane(rows, columns), (self._interval(config), 0.0, 0.0))

    def _interval(self, config: EncodeConfig) -> float:
        """Positions in time from one block to the next."""
        return 1.0

    def block_inputs(self, blocks: Sequence[Sequence[Frame]], shape: BlockShape, first: int) -> dict[str, Any]:
        features, _ = self._see(blocks, shape)
        return {"inputs_embeds": features.flatten(0, 1)[None]}

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels (2 * blocks, 3, height, width) to language model inputs (blocks, tokens, dim)."""
        return self._tower(pixels)[0]

    def _see(self, blocks: Sequence[Sequence[Frame]], shape: BlockShape) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See `_tower`. A picture that is alone in its block is taken twice, as the models' own processors do."""
        rows, columns = shape.grid or (1, 1)
        images = [block[min(i, len(block) - 1)].image for block in blocks for i in range(self.frames_per_block)]
        resized = replace(self.preprocessor, size=(rows * self._cell, columns * self._cell))(images)
        return self._tower(resized.to(self.device, self.dtype))

    def _tower(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Features (blocks, tokens, dim), and those that are added inside the decoder (deepstack), if there are any."""
        vision, n = self.hf.config.vision_config, len(pixels) // self.frames_per_block
        patches = patchify(
            pixels, patch=vision.patch_size, merge=vision.spatial_merge_size, frames=self.frames_per_block
        )
        size = [n, pixels.shape[2] // vision.patch_size, pixels.shape[3] // vision.patch_size]
        seen = self.hf.model.get_video_features(patches, torch.tensor([size], device=patches.device))
        features = _joined(seen.pooler_output).to(self.device)
        deep = [_joined(layer).to(self.device) for layer in getattr(seen, "deepstack_features", None) or ()]
        return features.view(n, -1, features.shape[-1]), deep

    def check(self) -> None:
        super().check()
        vocabulary = self.tokenizer.get_vocab()
        if missing := [marker for marker in self.markers if marker not in vocabulary]:
            raise ModelError(
                f"{self.name}: its tokenizer does not know {' '.join(missing)}, by which the prompts of its family "
                f"are built; fetch the checkpoint's tokenizer files again"
            )
        if (pair := self.hf.config.vision_config.temporal_patch_size) != self.frames_per_block:
            raise ModelError(f"{self.name}: its vision tower takes {pair} pictures together; rekv knows only 2")
        config = self.encode_config.but(frame_tokens=1)
        shape = self.block_shape(config)
        frame = Frame(np.zeros((self._cell, self._cell, 3), np.uint8), 0.0)
        try:
            with torch.inference_mode():
                inputs = self.block_inputs([[frame]], shape, 0)["inputs_embeds"]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelError(f"{self.name}: its vision tower does not take a frame ({error})") from error
        if inputs.shape[1] != shape.tokens:
            raise ModelError(
                f"{self.name}: its vision tower gives {inputs.shape[1]} tokens for a block of {shape.tokens}; this is "
                f"not a {type(self).__name__} as rekv knows it"
            )


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
        return f"<{time:06.1f} seconds>{_START}" if time < 9999.95 else f"<{time % 1e6:06.0f} seconds>{_START}", _END

    def _layout(self, rows: int, columns: int, config: EncodeConfig) -> Layout:
        before, after = (len(self._ids(text)) for text in self.frame_text(0.0))
        begin, end = before, before + max(rows, columns)
        parts = (
            torch.arange(begin).expand(3, -1),
            _plane(rows, columns) + begin,
            torch.arange(after).expand(3, -1) + end,
        )
        return Layout(torch.cat(parts, 1), (float(end + after),) * 3)

    def block_inputs(self, blocks: Sequence[Sequence[Frame]], shape: BlockShape, first: int) -> dict[str, Any]:
        features, deep = self._see(blocks, shape)
        parts, seen = [], []
        for block, picture in zip(blocks, features, strict=True):
            time = (block[0].time + block[-1].time) / 2
            before, after = (self._embed(self._ids(text)).to(picture) for text in self.frame_text(time))
            parts += [before, picture, after]
            seen += [torch.full((len(part),), part is picture) for part in parts[-3:]]
        return {
            "inputs_embeds": torch.cat(parts)[None],
            "visual_pos_masks": torch.cat(seen)[None].to(self.device),
            "deepstack_visual_embeds": deep,
        }

    def check(self) -> None:
        super().check()
        lengths = {
            len(self._ids(text))
            for time in (0.0, 9.9, 83.55, 9999.9, 9999.96, 2e6)
            for text in self.frame_text(time)[:1]
        }
        if len(lengths) > 1:
            raise ModelError(
                f"{self.name}: its tokenizer makes different numbers of tokens of different times, so blocks would not "
                f"be equally long; fetch the checkpoint's tokenizer files again"
            )


def _joined(videos: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """Features of all videos of a call; some releases of transformers split deepstack's by video, some do not."""
    return videos if isinstance(videos, torch.Tensor) else torch.cat(tuple(videos))


def _plane(rows: int, columns: int) -> torch.Tensor:
    """Time, height and width of a block's tokens: (3, rows * columns)."""
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    return torch.stack((torch.zeros_like(row), row, column))
