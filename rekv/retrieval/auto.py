"""Auto: decides per question between the present (the newest frames alone), memory, and both. Not trained.

Frames from memory hurt questions about the present, and recent frames alone answer nothing about the past
(SimpleStream, 2026). What tells them apart is whether anything in the stream answers to the question's words: the
scores of two passes, one by the question as a whole and one by its parts, against the session's own background.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rekv.core import QueryForm
from rekv.retrieval.base import Query
from rekv.retrieval.scoring import margin, standard_scores
from rekv.retrieval.top import Top

PRESENT = 4  # frames that are the present
_NAMES_SOMETHING = 2.75  # standard score that some frame reaches if the question is about a thing in the stream

Decision = Literal["present", "memory", "both"]


@dataclass(frozen=True, slots=True)
class Auto:
    """What was decided. Memory is searched by the parts of the question."""

    decision: Decision
    top: Top
    form: QueryForm = "phrases"

    def most(self, candidates: Sequence[int]) -> int:
        return min(len(candidates), self.top.most(candidates) + PRESENT)

    def pick(self, layer: int, scores: Tensor, candidates: Sequence[int]) -> list[int]:
        present = list(candidates[-PRESENT:])
        if self.decision == "present":
            return present
        memory = self.top.pick(scores, candidates)
        return memory if self.decision == "memory" else sorted({*memory, *present})


def auto(query: Query) -> Auto:
    return Auto(_decide(query), Top.of(query))


def _decide(query: Query) -> Decision:
    parts = query.scan("phrases")
    lead = margin(parts)
    if lead is None:
        return "both"  # so short a stream has no background to compare with
    if lead < query.config.min_margin or float(standard_scores(query.scan("mean")).max()) < _NAMES_SOMETHING:
        return "present"
    return "both" if int(standard_scores(parts).argmax()) >= len(query.candidates) - PRESENT else "memory"
