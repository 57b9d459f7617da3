"""Which frames a question puts into attention. A new idea is one small file with a `Retriever` in it."""

from rekv.retrieval.base import Factory, Query, Retriever
from rekv.retrieval.given import Given
from rekv.retrieval.internal import Internal
from rekv.retrieval.parts import parts_of
from rekv.retrieval.registry import find, names, needs_pictures, register
from rekv.retrieval.scope import in_scope
from rekv.retrieval.scoring import Scoring
from rekv.retrieval.top import Top

__all__ = [
    "Factory",
    "Given",
    "Internal",
    "Query",
    "Retriever",
    "Scoring",
    "Top",
    "find",
    "in_scope",
    "names",
    "needs_pictures",
    "parts_of",
    "register",
]
