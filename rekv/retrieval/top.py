"""From scores to frames: the best ones, in time order."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rekv.retrieval.base import Query

_GROUP = 64


@dataclass(frozen=True, slots=True)
class Top:
    """Takes the `size` frames of the best scores.

    With `chunk` > 1 neighbouring frames are taken together, by the mean of their scores. The last chunk may be
    short; if it is chosen, fewer than `size` frames are. With `min_gap` > 0 (seconds; by `times`, of all frames) no
    two are closer than that: the best one first, then the best of those that are far enough from it, and so on.
    """

    size: int
    chunk: int = 1
    min_gap: float = 0.0
    times: Sequence[float] = ()

    @classmethod
    def of(cls, query: Query) -> Self:
        """As a question's settings say."""
        return cls(query.size, query.config.chunk_size, query.config.min_gap, query.times)

    def most(self, candidates: Sequence[int]) -> int:
        return min(self.size, len(candidates))

    def pick(self, scores: Tensor, candidates: Sequence[int]) -> list[int]:
        """Choose among `candidates` (frame ids), whose scores are (len(candidates),)."""
        if self.min_gap > 0:
            return self._apart(scores, candidates)
        if len(candidates) <= self.size:
            return list(candidates)
        size = self.chunk
        chosen = _top(_chunk_means(scores, size), self.size // size).sort().values.tolist()
        return [f for c in chosen for f in candidates[c * size : (c + 1) * size]]

    def _apart(self, scores: Tensor, candidates: Sequence[int]) -> list[int]:
        taken: list[tuple[float, int]] = []  # time and frame, in time order
        for place in scores.argsort(descending=True).tolist():
            if len(taken) == self.size:
                break
            one = self.times[candidates[place]], candidates[place]
            at = bisect_left(taken, one)
            if all(abs(one[0] - other) >= self.min_gap for other, _ in taken[max(0, at - 1) : at + 1]):
                insort(taken, one)
        return [frame for _, frame in taken]


def _top(scores: Tensor, k: int) -> Tensor:
    """Where the k largest scores are, in any order.

    On the CPU `topk` takes longer than computing the scores: of a long stream, first the k groups with the largest
    maxima are found, which hold the k largest scores.
    """
    groups = len(scores) // _GROUP
    if scores.device.type != "cpu" or groups < 4 * max(k, 16):
        return scores.topk(k).indices
    whole = groups * _GROUP
    best = scores[:whole].view(groups, _GROUP).amax(1).topk(k).indices
    places = (best[:, None] * _GROUP + torch.arange(_GROUP)).view(-1)
    places = torch.cat((places, torch.arange(whole, len(scores))))
    return places[scores[places].topk(k).indices]


def _chunk_means(scores: Tensor, size: int) -> Tensor:
    if size == 1:
        return scores
    whole = len(scores) // size * size
    means = scores[:whole].view(-1, size).mean(1)
    return torch.cat((means, scores[whole:].mean(0, keepdim=True))) if whole < len(scores) else means
