"""Given frames: the choice was made elsewhere, and is the same in every layer."""

from collections.abc import Sequence

from torch import Tensor

from rekv.errors import ConfigError


class Given:
    """Reads these frames in this order; the paper's hook for an external retriever. Duplicates are allowed."""

    def __init__(self, frames: Sequence[int]) -> None:
        self.frames = list(frames)

    def check(self, visible: Sequence[int]) -> None:
        """Raise if a frame does not exist, or is not visible to the question."""
        for frame in self.frames:
            if frame not in visible:
                known = f"frames {visible[0]} to {visible[-1]}" if visible else "no frames"
                raise ConfigError(f"frame {frame} is not in reach of this question, which sees {known}")

    def most(self, candidates: Sequence[int]) -> int:
        return len(self.frames)

    def pick(self, layer: int, scores: Tensor, candidates: Sequence[int]) -> list[int]:
        return self.frames
