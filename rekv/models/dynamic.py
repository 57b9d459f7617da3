"""What families share whose vision tower takes pictures of any size, in patches, `merge` x `merge` to a token.

All pictures of a session have one size: the largest within `frame_tokens` that has the aspect ratio of its first.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from rekv.core import EncodeConfig, Frame
from rekv.errors import ModelError
from rekv.models.base import BlockShape
from rekv.models.chat import ChatLM
from rekv.models.patches import fit, patchify
from rekv.models.pixels import Preprocessor, processor_config

_UNKNOWN = (1080, 1920)  # the size of pictures that have not been seen yet


class DynamicLM(ChatLM):
    """A Video-LLM of pictures that keep their aspect ratio. `encode_defaults` names the budget, `frame_tokens`."""

    least_tokens: ClassVar[int]  # that a small picture is enlarged to, if there may be as many

    @classmethod
    def load_preprocessor(cls, source: str) -> Preprocessor:
        # The size is the session's; older checkpoints do not say how pictures are resized.
        config = {"resample": 3} | dict(processor_config(source)) | {"size": {"height": 1, "width": 1}}
        return Preprocessor.from_config(config, name=source)

    @property
    def tokens_per_frame(self) -> int:
        return self.block_shape(self.encode_config).tokens

    @property
    def _merge(self) -> int:
        """Patches of a token's side."""
        return int(self.hf.config.vision_config.spatial_merge_size)

    @property
    def _cell(self) -> int:
        """Pixels of a token's side."""
        return int(self.hf.config.vision_config.patch_size) * self._merge

    def grid(self, height: int, width: int, config: EncodeConfig) -> tuple[int, int]:
        most = config.frame_tokens or self.encode_defaults.frame_tokens or self.least_tokens
        return fit(height, width, self._cell, least=min(self.least_tokens, most), most=most)

    def block_shape(self, config: EncodeConfig, grid: tuple[int, int] | None = None) -> BlockShape:
        rows, columns = grid or self.grid(*_UNKNOWN, config)
        return BlockShape(rows * columns + self._text_tokens(), (rows, columns))

    def block_inputs(self, blocks: Sequence[Sequence[Frame]], shape: BlockShape, first: int) -> dict[str, Any]:
        features, _ = self._see(blocks, shape)
        return {"inputs_embeds": self._told(features, blocks)}

    def _told(self, features: torch.Tensor, blocks: Sequence[Sequence[Frame]]) -> torch.Tensor:
        """Features (blocks, tokens, dim) and the times of the blocks, as language model inputs (1, tokens, dim)."""
        times = [(block[0].time + block[-1].time) / 2 for block in blocks]
        return self.in_text(features, times).flatten(0, 1)[None]

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels (frames_per_block * blocks, 3, height, width) to language model inputs (blocks, tokens, dim)."""
        return self._tower(pixels)[0]

    def _see(self, blocks: Sequence[Sequence[Frame]], shape: BlockShape) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See `_tower`. A picture that is alone in its block is taken twice, as the models' own processors do."""
        rows, columns = shape.grid or (1, 1)
        images = [block[min(i, len(block) - 1)].image for block in blocks for i in range(self.frames_per_block)]
        fitted = replace(self.preprocessor, size=(rows * self._cell, columns * self._cell))
        return self._tower(fitted(images, self.device).to(self.dtype))

    def _tower(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Features (blocks, tokens, dim), and those that are added inside the decoder (deepstack), if there are any."""
        n, patch = len(pixels) // self.frames_per_block, self._cell // self._merge
        patches = patchify(pixels, patch=patch, merge=self._merge, frames=self.frames_per_block)
        size = torch.tensor([[n, pixels.shape[2] // patch, pixels.shape[3] // patch]], device=patches.device)
        seen = self._seen(patches, size)
        features = _joined(seen.pooler_output).to(self.device)
        deep = [_joined(layer).to(self.device) for layer in getattr(seen, "deepstack_features", None) or ()]
        return features.view(n, -1, features.shape[-1]), deep

    def _seen(self, patches: torch.Tensor, size: torch.Tensor) -> Any:
        """Ask the vision tower about one video of `size` (1, 3): blocks, rows and columns of patches."""
        return self.hf.model.get_video_features(patches, size)

    def check(self) -> None:
        super().check()
        shape = self.block_shape(self.encode_config.but(frame_tokens=1))
        frame = Frame(np.zeros((self._cell, self._cell, 3), np.uint8), 0.0)
        tokens = self._tried(lambda: self.block_inputs([[frame]], shape, 0)["inputs_embeds"]).shape[1]
        if tokens != shape.tokens:
            raise ModelError(
                f"{self.name}: its vision tower gives {tokens} tokens for a block of {shape.tokens}; this is "
                f"not a {type(self).__name__} as rekv knows it"
            )


def _joined(videos: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """Features of all videos of a call; some releases of transformers split them by video, some do not."""
    return videos if isinstance(videos, torch.Tensor) else torch.cat(tuple(videos))
