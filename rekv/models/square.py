"""What families share whose vision tower takes each frame by itself, as a square picture of one size."""

from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from rekv.errors import ModelError
from rekv.models.base import VideoLM

_TIMES = (0.0, 9.0, 83.5, 5999.0, 360_000.0)  # seconds, at which the text around a frame must be equally long


class SquareLM(VideoLM):
    """A Video-LLM of square frames: always as many tokens per frame."""

    markers: ClassVar[tuple[str, ...]] = ()  # tokens by which the family's prompts are built

    @property
    @abstractmethod
    def picture_tokens(self) -> int:
        """Tokens that a picture becomes, without the text around it."""

    @property
    def tokens_per_frame(self) -> int:
        return self.picture_tokens + self._text_tokens

    @cached_property
    def _text_tokens(self) -> int:
        return self._text_tokens_at(0.0)

    def _text_tokens_at(self, time: float) -> int:
        return sum(len(self._ids(text)) for text in self.frame_text(time) if text)

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
        vocabulary = self.tokenizer.get_vocab()
        if missing := [marker for marker in self.markers if marker not in vocabulary]:
            raise ModelError(
                f"{self.name}: its tokenizer does not know {' '.join(missing)}, by which the prompts of its family "
                f"are built; fetch the checkpoint's tokenizer files again"
            )
        side = self._side
        if self.preprocessor.size != (side, side):
            raise ModelError(
                f"{self.name}: its preprocessor makes pictures of {self.preprocessor.size}, its vision tower "
                f"takes {(side, side)}; fetch the checkpoint's configuration files again"
            )
        try:
            with torch.inference_mode():
                inputs = self.frame_inputs([np.zeros((side, side, 3), np.uint8)], [0.0])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelError(f"{self.name}: its vision tower does not take a frame ({error})") from error
        if inputs.shape[:2] != (1, self.tokens_per_frame):
            raise ModelError(
                f"{self.name}: its vision tower gives {inputs.shape[1]} tokens for a frame of "
                f"{self.tokens_per_frame}; this is not a {type(self).__name__} as rekv knows it"
            )
        if len({self._text_tokens_at(time) for time in _TIMES}) > 1:
            raise ModelError(
                f"{self.name}: its tokenizer makes different numbers of tokens of different times, so frames would "
                f"not be equally long; fetch the checkpoint's tokenizer files again"
            )


def _one(size: int | list[int] | tuple[int, int]) -> int:
    """Some configs say a size once, some for height and width."""
    return size if isinstance(size, int) else size[0]
