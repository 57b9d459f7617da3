"""Temporal redundancy: what is where it was in the frame before is dropped."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from rekv.errors import ConfigError
from rekv.memory.policies.base import Policy


class Redundancy(Policy):
    """Drops tokens whose keys have a cosine of at least `threshold` with the same place in the previous frame.

    After TimeChat-Online (arXiv 2504.17343), which drops tokens of the vision tower, and InfiniPot-V (arXiv
    2506.15745), which compares keys. Here it is the un-rotated keys of each layer, all heads together, less the
    channels' mean over the previous frame, which is large and common to all tokens: they are stored, so that a session
    that is resumed decides as one that was never interrupted. The token that changed most always stays.
    """

    name: ClassVar[str] = "redundancy"

    def __init__(self, threshold: float = 0.9) -> None:
        if not -1 <= threshold <= 1:
            raise ConfigError(f"redundancy:{threshold:g}: its number is a cosine, from -1 to 1")
        self._threshold = threshold

    def keep(self, blocks: Tensor, before: Tensor | None) -> Tensor:
        keys = blocks[:, 0].transpose(1, 2).flatten(2).float()  # (frames, tokens, kv_heads * head_dim)
        first = keys[:1] if before is None else before[0].transpose(0, 1).flatten(1).float()[None]
        previous = torch.cat((first, keys[:-1]))
        mean = previous.mean(1, keepdim=True)
        same = cosine_similarity(keys - mean, previous - mean, dim=-1)
        kept = same < self._threshold
        kept.scatter_(1, same.argmin(1, keepdim=True), True)
        if before is None:
            kept[0] = True
        return kept
