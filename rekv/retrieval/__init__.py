"""Which frames a question puts into attention. A new idea is one small file with a `Retriever` in it."""

from rekv.retrieval.base import Retriever
from rekv.retrieval.given import Given
from rekv.retrieval.internal import Internal
from rekv.retrieval.scope import in_scope

__all__ = ["Given", "Internal", "Retriever", "in_scope"]
