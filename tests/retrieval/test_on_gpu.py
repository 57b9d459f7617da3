"""Every way to choose frames gives on a GPU what it gives on the CPU."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import rekv
from rekv import Frame, Turn
from rekv.engine import Session
from rekv.retrieval import names
from rekv.world import needle_stream, render_clip

FRAMES = 300
QUESTIONS = ["What color was the {}?", "Which came first, the red ring or the blue star?", "Where was the {}?"]

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def sessions() -> Iterator[list[Session]]:
    """The same stream on both devices."""
    stream = needle_stream(np.random.default_rng(5), FRAMES, per_type=1)
    images = render_clip(stream.scene)
    made = []
    with torch.backends.cudnn.flags(allow_tf32=False):  # by default a GPU rounds what it convolves to ten bits
        for device in ("cpu", "cuda"):
            session = rekv.load(device=device, dtype="float32").session(encoder="tiny_dual")
            session.append(Frame(image, float(time)) for time, image in enumerate(images))
            made.append(session)
        yield made


def same(sessions: list[Session], question: str, **settings: Any) -> None:
    here, there = (session.ask(question, max_new_tokens=8, **settings) for session in sessions)
    assert here.text == there.text
    assert here.retrieval.frames == there.retrieval.frames


@pytest.mark.parametrize("retriever", sorted({*names(), "recent"}))
@pytest.mark.parametrize("question", QUESTIONS[:2])
def test_retrievers(sessions: list[Session], retriever: str, question: str) -> None:
    spans = [(20.0, 30.0)] if retriever == "oracle" else ()
    same(sessions, question.format("card"), retriever=retriever, retrieve_size=8, spans=spans)


@pytest.mark.parametrize(
    "settings",
    [{"query": "phrases"}, {"query": "tokens"}, {"min_gap": 5.0}, {"detrend": True}, {"shared_picks": True},
     {"retrieve_tokens": 64}, {"recent_frames": 3}, {"start": 10.0, "end": 100.0}, {"choices": ["left", "right"]}],
    ids=str,
)  # fmt: skip
def test_options(sessions: list[Session], settings: dict[str, Any]) -> None:
    same(sessions, QUESTIONS[1], retrieve_size=8, **settings)


def test_a_conversation(sessions: list[Session]) -> None:
    same(sessions, "Where was it?", history=[Turn("What color was the ring?", "red")], retrieve_size=8)


def test_several_questions(sessions: list[Session]) -> None:
    asked = [question.format(kind) for question in QUESTIONS for kind in ("ring", "star", "card")]
    here, there = (session.ask_many(asked, retrieve_size=8, max_new_tokens=8) for session in sessions)
    assert [answer.text for answer in here] == [answer.text for answer in there]
    assert [answer.retrieval.frames for answer in here] == [answer.retrieval.frames for answer in there]
