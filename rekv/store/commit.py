"""What an encode call hands over to be written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rekv.core import Frame
from rekv.sources.thumbnail import thumbnail as jpeg


class Encoded(Protocol):
    """What the writer takes frames from: the memory of the session."""

    def blocks_of(self, layer: int, frames: range) -> Sequence[Tensor]:
        """Blocks in host memory, in runs (n, 2, kv_heads, tokens, head_dim)."""

    def representatives_of(self, layer: int, frames: range) -> Tensor:
        """Representative keys (len(frames), kv_heads * head_dim), fp32 on the CPU."""

    def masks_of(self, layer: int, frames: range) -> NDArray[np.uint8] | None:
        """Which tokens a policy keeps, packed bits (len(frames), mask bytes); None without a policy."""


@dataclass(frozen=True, slots=True)
class FrameNote:
    """What is stored of a frame besides its blocks."""

    time: float
    wall: float | None = None
    thumbnail: bytes | None = None
    embedding: bytes | None = None  # by the session's dual encoder: fp16, little-endian

    @classmethod
    def of(cls, picture: Frame, embedding: bytes | None = None) -> Self:
        """Of a frame by its first picture."""
        return cls(picture.time, picture.wall, jpeg(picture.image), embedding)


@dataclass(frozen=True, slots=True)
class Commit:
    """The state of a session after an encode call."""

    frames: int  # of the session
    window: tuple[int, int]  # its first token, its slots
    notes: Sequence[FrameNote]  # of the frames this call added
    until: Mapping[int, float] = field(default_factory=dict)  # frames whose span grew, seconds
    duplicates: bytes | None = None  # what the next frame is compared with
