"""External retrieval: the frames whose pictures are most like the question to a dual encoder (SigLIP, CLIP).

The same in every layer. It finds what is seen at a glance, in the words of captions; it knows nothing of what the
Video-LLM made of the frames, nor of what happened between them.
"""

from rekv.retrieval.base import Query
from rekv.retrieval.given import Given
from rekv.retrieval.top import Top


def external(query: Query) -> Given:
    return Given(Top.of(query).pick(query.similarity(), query.candidates))
