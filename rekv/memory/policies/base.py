"""What a memory policy is: it says which tokens of a frame are kept for questions, once the frame is encoded."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from rekv.errors import ConfigError


class Policy(ABC):
    """Makes blocks smaller. New frames see whole blocks in the window; questions read what is kept of them.

    Called layer by layer, with blocks (frames, 2, kv_heads, tokens, head_dim) of un-rotated keys and values as they
    are stored, on the CPU. What it returns must depend on its arguments alone: a block that is still whole on disk is
    reduced again whenever it is read.
    """

    name: ClassVar[str]

    def __init__(self, number: float | None = None) -> None:
        """`number`: what stands behind its name, as in "value-norm:0.5", for policies that take one."""
        if number is not None:
            raise ConfigError(f"policy {self.name!r} takes no number; leave out :{number:g}")

    @abstractmethod
    def keep(self, blocks: Tensor, before: Tensor | None) -> Tensor:
        """Choose tokens of new frames: bool (frames, tokens), at least one of each frame.

        `before` is the whole block of the frame before them, (2, kv_heads, tokens, head_dim); None if there is none.
        """

    def reduce(self, block: Tensor, kept: Tensor) -> Tensor:
        """Make of a block (2, kv_heads, tokens, head_dim) one of the tokens `kept`, bool (tokens,): drop the others.

        A policy that merges tokens, or gives them other weights, overrides this.
        """
        return block[:, :, kept]
