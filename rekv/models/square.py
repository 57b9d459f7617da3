"""What families share whose vision tower takes each frame by itself, as a square picture of one size."""

from abc import abstractmethod

import numpy as np

from rekv.errors import ModelError
from rekv.models.base import VideoLM


class SquareLM(VideoLM):
    """A Video-LLM of square frames: always as many tokens per frame."""

    @property
    @abstractmethod
    def picture_tokens(self) -> int:
        """Tokens that a picture becomes, without the text around it."""

    @property
    def tokens_per_frame(self) -> int:
        return self.picture_tokens + self._text_tokens()

    @property
    def _side(self) -> int:
        """Pixels of a picture's side."""
        return _one(self.hf.config.vision_config.image_size)

    @property
    def _patches(self) -> int:
        """Patches of a picture's side."""
        return self._side // _one(self.hf.config.vision_config.patch_size)

    def check(self) -> None:
        super().check()
        side = self._side
        if self.preprocessor.size != (side, side):
            raise ModelError(
                f"{self.name}: its preprocessor makes pictures of {self.preprocessor.size}, its vision tower "
                f"takes {(side, side)}; fetch the checkpoint's configuration files again"
            )
        inputs = self._tried(lambda: self.frame_inputs([np.zeros((side, side, 3), np.uint8)], [0.0]))
        if inputs.shape[:2] != (1, self.tokens_per_frame):
            raise ModelError(
                f"{self.name}: its vision tower gives {inputs.shape[1]} tokens for a frame of "
                f"{self.tokens_per_frame}; this is not a {type(self).__name__} as rekv knows it"
            )


def _one(size: int | list[int] | tuple[int, int]) -> int:
    """Some configs say a size once, some for height and width."""
    return size if isinstance(size, int) else size[0]
