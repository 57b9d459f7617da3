"""Value norms: tokens with small values add little to what attention sums up, and are dropped."""

from math import ceil
from typing import ClassVar

import torch
from torch import Tensor

from rekv.errors import ConfigError
from rekv.memory.policies.base import Policy


class ValueNorm(Policy):
    """Keeps the share of a frame's tokens whose values are largest: their norm over all heads, layer by layer.

    After the value norms of InfiniPot-V (arXiv 2506.15745).
    """

    name: ClassVar[str] = "value-norm"

    def __init__(self, share: float = 0.5) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"value-norm:{share:g}: its number is the share of tokens to keep, above 0 and at most 1")
        self._share = share

    def keep(self, blocks: Tensor, before: Tensor | None) -> Tensor:
        norms = blocks[:, 1].float().square().sum((1, 3))  # (frames, tokens)
        largest = norms.topk(ceil(self._share * norms.shape[1]), dim=1).indices
        return torch.zeros_like(norms, dtype=torch.bool).scatter_(1, largest, True)
