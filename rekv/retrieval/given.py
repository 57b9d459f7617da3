"""Given frames: the choice was made elsewhere, and is the same in every layer."""

from collections.abc import Sequence

from torch import Tensor

from rekv.errors import ConfigError


class Given:
    """Reads these frames in this order; the paper's hook for an external retriever. Duplicates are allowed."""

    def __init__(self, frames: Sequence[int]) -> None:
        self.frames = list(frames)

    def check(self, visible: range) -> None:
        """Raise if a frame does not exist, or is not visible to the question."""
        for frame in self.frames:
            if frame not in visible:
                known = f"frames {visible.start} to {visible.stop - 1}" if visible else "no frames"
                raise ConfigError(f"frame {frame} is not in reach of this question, which sees {known}")

    def most(self, candidates: range) -> int:
        return len(self.frames)

    def pick(self, layer: int, scores: Tensor, candidates: range) -> list[int]:
        return self.frames
