"""How frames are scored against a question in one layer, and what scores of several layers say together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Scored(Protocol):
    """The index of one layer."""

    def scores_of(self, queries: Sequence[Tensor], rows: range) -> list[Tensor]: ...


@dataclass(frozen=True, slots=True)
class Scoring:
    """The paper's scoring: by the mean of the question's queries. Or, as an option, better ones.

    `parts` are groups of the question's tokens. Each group's mean query scores all frames, and a frame's score is the
    highest of its z-scores among them: the mean query of "Which came first, the red ring or the blue star?" finds red
    stars, its parts find both things. `times`, in seconds, lets a drift of the scores with time be taken out: the
    straight line that fits them best.
    """

    parts: Sequence[Sequence[int]] = ()
    times: Tensor | None = None

    def __call__(self, index: Scored, query: Tensor, rows: range, kept: Tensor | None) -> Tensor:
        """Score the frames in `rows`, or those of them that are `kept`, against a query (heads, n, head_dim)."""
        queries = [query[:, list(part)] for part in self.parts] or [query]
        scores = index.scores_of(queries, rows)
        if kept is not None:
            scores = [one[kept.to(one.device)] for one in scores]
        if self.times is not None:
            scores = [level(one, self.times) for one in scores]
        return scores[0] if len(scores) == 1 else z_scores(torch.stack(scores)).amax(0)


def level(scores: Tensor, times: Tensor) -> Tensor:
    """Scores (n,) less the straight line over `times` (n,) that fits them best; their mean stays."""
    centred = (times - times.mean()).to(scores.device, scores.dtype)
    spread = centred.square().sum()
    return scores - centred * ((centred @ scores) / spread) if len(scores) > 1 and spread > 0 else scores


def z_scores(scores: Tensor) -> Tensor:
    """By row: how many standard deviations above its mean; 0 where all are equal. (n, frames) fp32."""
    centred = scores - scores.mean(1, keepdim=True)
    spread = scores.std(1, keepdim=True, correction=0)
    return torch.where(spread > 0, centred / spread, torch.zeros_like(centred))


def standard_scores(scores: Tensor) -> Tensor:
    """Mean over layers of each frame's z-score among the frames: (layers, frames) -> (frames,) fp32."""
    return z_scores(scores).mean(0) if scores.shape[1] else scores.new_empty(0)


_MOMENT = 8  # frames on either side that are of the same moment
_BACKGROUND = 4  # moments besides the best one that a thing may well be seen in


def margin(scores: Tensor) -> float | None:
    """How far the best moment stands out from the session's background, in standard deviations of the scores.

    From scores (layers, frames): the best frame's standard score less that of the best frame of the fifth best
    moment, a moment being a frame with its neighbours. Differences of the largest values of a sample hardly grow with
    the sample, so this compares across questions, scopes and lengths of stream, where the score itself does not. A
    thing that came four times still stands out. None if there are too few frames to speak of a background.
    """
    standard = standard_scores(scores)
    if len(standard) < 2 * (_BACKGROUND + 1) * (2 * _MOMENT + 1):
        return None
    best = float(standard.max())
    for _ in range(_BACKGROUND):
        peak = int(standard.argmax())
        standard[max(0, peak - _MOMENT) : peak + _MOMENT + 1] = -torch.inf
    return best - float(standard.max())
