"""ask_many: what `ask` would say, question by question."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
import torch

from rekv.core import Answer
from rekv.engine import Session
from rekv.errors import ConfigError
from tests.support import pictures, tiny_session

QUESTIONS = ("w7 w8", "w3", "w1 w2 w3 w4 w5", "w9 w9", "w11 w12 w13")
SHORT: dict[str, Any] = {"max_new_tokens": 5}


def filled(frames: int = 20, **options: Any) -> Session:
    session = tiny_session(**{"n_local": 400, "frames_per_call": 4} | options)
    session.append(pictures(frames))
    return session


def same(together: Sequence[Answer], alone: Sequence[Answer]) -> None:
    for one, other in zip(together, alone, strict=True):
        assert one.question == other.question
        assert one.token_ids == other.token_ids
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.retrieval.frames == other.retrieval.frames
        assert one.retrieval.by == other.retrieval.by
        torch.testing.assert_close(one.retrieval.scores, other.retrieval.scores, atol=1e-5, rtol=1e-5)
        assert [span.frames for span in one.evidence] == [span.frames for span in other.evidence]
        assert one.reads.keys() == other.reads.keys()
        assert all(one.reads[tier].blocks == other.reads[tier].blocks for tier in one.reads)


@pytest.mark.parametrize("n_local", [40, 400])
@pytest.mark.parametrize("together", [1, 2, 16])
def test_answers_are_those_of_ask(together: int, n_local: int) -> None:
    """Whether the context outgrows the window (40), where `ask` decodes step by step, or not (400), by `generate()`."""
    session = filled(n_local=n_local)
    alone = [session.ask(question, retrieve_size=3, **SHORT) for question in QUESTIONS]
    assert len({answer.token_ids for answer in alone}) > 1
    same(session.ask_many(QUESTIONS, retrieve_size=3, together=together, **SHORT), alone)


@pytest.mark.parametrize(
    "settings",
    [
        {"retrieve_size": 4, "chunk_size": 4, "recent_frames": 1},  # a short last chunk: layers of unequal length
        {"retriever": "uniform", "retrieve_size": 3},
        {"retriever": "recent", "retrieve_size": 3},
        {"retriever": "auto", "retrieve_size": 3},
        {"query": "tokens", "retrieve_size": 3},
        {"start": 4.0, "end": 30.0, "retrieve_size": 2},
        {"temperature": 1.0, "seed": 5, "retrieve_size": 3},
        {"stop": "w1", "retrieve_size": 3},
    ],
    ids=lambda settings: "-".join(map(str, settings)),
)
def test_settings_act_as_in_ask(settings: dict[str, Any]) -> None:
    session = filled(22)
    alone = [session.ask(question, **settings, **SHORT) for question in QUESTIONS]
    same(session.ask_many(QUESTIONS, **settings, **SHORT), alone)


def test_each_question_has_its_choices() -> None:
    session = filled()
    choices = [("w1", "w2"), ("w3", "w4", "w5")]
    alone = [session.ask(q, choices=c, **SHORT) for q, c in zip(QUESTIONS, choices, strict=False)]
    same(session.ask_many(QUESTIONS[:2], choices=choices, **SHORT), alone)


def test_a_store_is_read_as_in_ask(tmp_path: Any) -> None:
    session = tiny_session(n_local=40, frames_per_call=4)
    with session.model.session("film", store=tmp_path, n_local=40, frames_per_call=4) as kept:
        kept.append(pictures(24))
    again = session.model.session("film", store=tmp_path)
    alone = [again.ask(question, **SHORT) for question in QUESTIONS]
    anew = session.model.session("film", store=tmp_path)  # has read no block yet
    together = anew.ask_many(QUESTIONS, **SHORT)
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert [answer.retrieval.frames for answer in together] == [answer.retrieval.frames for answer in alone]
    assert any("disk" in answer.reads for answer in together)


def test_nothing_asked_is_nothing_answered() -> None:
    assert filled().ask_many([]) == []


def test_it_can_be_cancelled() -> None:
    calls = count()
    answers = filled().ask_many(QUESTIONS, cancelled=lambda: next(calls) >= 7, max_new_tokens=50)
    assert {answer.finish_reason for answer in answers} <= {"cancelled", "stop"}
    assert "cancelled" in {answer.finish_reason for answer in answers}
    assert all(len(answer.token_ids) <= 3 for answer in answers)


def test_times_are_those_of_all() -> None:
    answers = filled().ask_many(QUESTIONS, **SHORT)
    for answer in answers:
        times = answer.timings
        assert min(times.wait, times.question, times.load, times.first_token, times.decode) >= 0
        parts = times.wait + times.question + times.first_token + times.decode
        assert parts == pytest.approx(times.total)
    assert len({answer.timings.question for answer in answers}) == 1


@pytest.mark.parametrize(
    ("questions", "options", "message"),
    [
        (["w1", " "], {}, "question is empty"),
        (["w1"], {"choices": [("a",), ("b",)]}, "1 questions and choices for 2"),
        (["w1"], {"together": 0}, "together is 0"),
    ],
)
def test_what_cannot_be_asked(questions: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        filled().ask_many(questions, **options)
