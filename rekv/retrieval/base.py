"""The interfaces of retrieval: what a retriever may know of a question, and what it does."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from rekv.core import AskConfig, QueryForm


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
        """Choose among `candidates` (frame ids); `scores` (len(candidates),) are the layer's own, fp32.

        Returns frame ids in the order in which the layer shall read them.
        """


Factory = Callable[[Query], Retriever]  # what is registered under a retriever's name; called once per question
