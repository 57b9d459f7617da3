"""A question that follows others: what it is answered from, and what the model is told."""

import pytest

from rekv.core import AskConfig, Turn
from rekv.engine import Session
from tests.support import pictures, tiny_session

TURN = Turn("w7 w8 w9", "w3")


@pytest.fixture(scope="module")
def session() -> Session:
    session = tiny_session(n_local=400, frames_per_call=4)
    session.append(pictures(200))  # enough to speak of a background
    return session


def looked_for(session: Session, text: str) -> tuple[tuple[int, ...], ...]:
    return session.ask(text, retrieve_size=3, max_new_tokens=2).retrieval.frames


def test_what_names_nothing_is_looked_for_with_the_turn_before(session: Session) -> None:
    """`min_margin` decides what counts as naming something: here, nothing does."""
    answer = session.ask("w1", history=[Turn("w30", "w31"), TURN], retrieve_size=3, max_new_tokens=2, min_margin=1e9)
    assert answer.retrieval.frames == looked_for(session, "w7 w8 w9 w3 w1") != looked_for(session, "w1")


def test_what_names_something_is_looked_for_by_itself(session: Session) -> None:
    answer = session.ask("w1", history=[TURN], retrieve_size=3, max_new_tokens=2, min_margin=0)
    assert answer.retrieval.frames == looked_for(session, "w1")


def test_given_frames_are_read_whatever_was_said(session: Session) -> None:
    answer = session.ask("w1", history=[TURN], frames=[2, 5], max_new_tokens=2, min_margin=1e9)
    assert set(answer.retrieval.frames) == {(2, 5)}


def test_the_model_reads_the_conversation(session: Session) -> None:
    family = session.model.family
    alone, after = session.ask("w1", frames=[2, 5]), session.ask("w1", history=[TURN], frames=[2, 5])
    assert alone.token_ids != after.token_ids
    ids = family.prompt_ids("w1", turns=[TURN])
    assert len(ids) > len(family.prompt_ids("w1"))
    assert ids == family.tokenizer(family.dialogue([TURN], "w1"), add_special_tokens=False).input_ids


def test_without_a_history_nothing_is_looked_for_twice(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    retrieve = type(session._asker).retrieve

    def counted(*args: object) -> object:
        calls.append(args)
        return retrieve(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(type(session._asker), "retrieve", counted)
    session.ask("w1", retrieve_size=3, max_new_tokens=2, min_margin=1e9)
    assert len(calls) == 1
    assert AskConfig().min_margin < 1e9
