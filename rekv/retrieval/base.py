"""The interfaces of retrieval: what a retriever may know of a question, and what it does."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import index
from typing import Protocol

from torch import Tensor

from rekv.core import AskConfig, QueryForm
from rekv.errors import ConfigError


class Query(Protocol):
    """One question, before it is asked. What takes time is computed when it is called for."""

    @property
    def text(self) -> str:
        """The question."""

    @property
    def config(self) -> AskConfig: ...

    @property
    def size(self) -> int:
        """Frames to pick at most, per layer: what `retrieve_size` or `retrieve_tokens` says."""

    @property
    def candidates(self) -> Sequence[int]:
        """Frames that may be picked, ascending: those in scope but for the recent ones, which are read anyway."""

    @property
    def times(self) -> Sequence[float]:
        """By frame: seconds."""

    def similarity(self) -> Tensor:
        """How alike each candidate's picture and the question are to a dual encoder: (candidates,) fp32.

        Raises `ConfigError` if the session was read without one.
        """

    def scan(self, form: QueryForm) -> Tensor:
        """Each layer's scores in a pass of the question by internal retrieval: (layers, candidates) fp32."""


class Retriever(Protocol):
    """Chooses frames, layer by layer, while the question passes through the model."""

    def most(self, candidates: Sequence[int]) -> int:
        """The largest number of frames that `pick` may return for these candidates."""

    def pick(self, layer: int, scores: Tensor, candidates: Sequence[int]) -> Sequence[int]:
        """Choose among `candidates` (frame ids, ascending); `scores` (len(candidates),) are the layer's own, fp32.

        Returns frame ids, at most as many as `most` said, in the order in which the layer shall read them.
        """


def checked(picked: Sequence[int], visible: Sequence[int], most: int, by: str) -> list[int]:
    """Return what a retriever picked. Raises `ConfigError` if it broke its promises: it may be anybody's."""
    try:
        frames = [index(frame) for frame in picked]
    except TypeError as error:
        raise ConfigError(f"{by or 'the retriever'} picked {picked!r}; it must be a sequence of frame ids") from error
    for frame in frames:
        place = bisect_left(visible, frame)
        if place == len(visible) or visible[place] != frame:
            raise ConfigError(
                f"{by or 'the retriever'} picked frame {frame}, which this question does not see: `pick` gives frames "
                f"out of its `candidates`, whose numbers are not their places in `scores`"
            )
    if len(frames) > most:
        raise ConfigError(f"{by or 'the retriever'} picked {len(frames)} frames, where its `most` had said {most}")
    return frames


Factory = Callable[[Query], Retriever]  # what is registered under a retriever's name; called once per question
