"""ask: the prompts, the scope, the answer's parts."""

import itertools
from typing import Any

import pytest
import torch

from rekv.core import Answer
from rekv.engine import Model, Session
from rekv.errors import ConfigError
from rekv.models.base import multiple_choice
from tests.attention.test_kernels import Allocations
from tests.reference import Reference
from tests.support import TinyLM, byte_tokenizer, decoder_lm, hidden_states, in_time, pictures, tiny_model, tiny_session

SHORT: dict[str, Any] = {"max_new_tokens": 3}


def filled(frames: int = 20, **options: Any) -> Session:
    session = tiny_session(**{"n_local": 40, "frames_per_call": 4} | options)
    session.append(pictures(frames))
    return session


# -- the answer's parts --------------------------------------------------------------------------------------------


def test_answer_carries_what_was_read() -> None:
    session = filled(20)
    answer = session.ask("w7 w8", retrieve_size=3, **SHORT)
    layers = session.memory.layers
    assert answer.question == "w7 w8"
    assert len(answer.retrieval.frames) == len(layers) == 3
    assert all(len(frames) == 3 for frames in answer.retrieval.frames)
    assert answer.retrieval.scores.shape == (3, 20)
    assert answer.retrieval.scores.dtype == torch.float32
    assert answer.retrieval.candidates == range(20)
    (tier, read), *others = answer.reads.items()
    assert (tier, others, read.blocks) == ("ram", [], 3 * 3)
    assert read.bytes == 3 * 3 * layers[0].blocks.bytes_per_frame
    assert read.seconds == answer.timings.load > 0
    assert answer.bytes_read == {"ram": read.bytes}
    assert answer.warnings == ()
    assert answer.frames_seen == 20
    assert {f for span in answer.evidence for f in span.frames} == set(answer.retrieval.union)
    assert answer.text == session.model.family.tokenizer.decode(list(answer.token_ids))
    assert f"{answer}" == answer.text


def test_each_layer_picks_its_own_frames() -> None:
    picks = filled(20).ask("w7 w8", retrieve_size=3, **SHORT).retrieval.frames
    assert len(set(picks)) > 1


def test_timings_are_parts_of_a_whole() -> None:
    times = filled(20).ask("w7", **SHORT).timings
    parts = (times.wait, times.question, times.load, times.first_token, times.decode)
    assert all(part >= 0 for part in parts)
    assert times.load <= times.question
    assert times.total == pytest.approx(times.wait + times.question + times.first_token + times.decode, abs=1e-3)


def test_evidence_ends_where_the_next_frame_begins() -> None:
    session = tiny_model().session(n_local=40, sample_fps=0.25)
    session.append(pictures(6))
    spans = session.ask("w7", frames=[1, 2, 5], **SHORT).evidence
    assert sorted((s.start, s.end) for s in spans) == [(1.0, 3.0), (5.0, 9.0)]
    assert all(span.votes == 1.0 for span in spans)


def test_answer_stays_what_it_was_while_the_session_goes_on() -> None:
    session = filled(8)
    answer = session.ask("w7", **SHORT)
    kept = (answer.retrieval.scores.clone(), answer.retrieval.frames, answer.evidence)
    session.append(pictures(30)[8:])
    session.ask("w9", **SHORT)
    assert torch.equal(answer.retrieval.scores, kept[0])
    assert (answer.retrieval.frames, answer.evidence) == kept[1:]


# -- prompts -------------------------------------------------------------------------------------------------------


def test_multiple_choice_is_asked_in_the_papers_words() -> None:
    assert multiple_choice("What is it?", ["a cat", "a dog", "a bag"]) == (
        "Question: What is it?\nOptions:\n(A) a cat\n(B) a dog\n(C) a bag\nOnly give the best option."
    )


class Chat(TinyLM):
    """A chat template with line breaks."""

    def prompt(self, question: str) -> str:
        return f"\n{question}<user ends>\n<assistant>\n"


def test_prompt_of_choices_is_the_formatted_question_and_the_start_of_the_answer() -> None:
    tokenizer = byte_tokenizer()
    family = Chat(decoder_lm(vocabulary=len(tokenizer)), tokenizer, init="hello")
    session = Model(family).session()
    ids = family.prompt_ids("What is it?", ["a cat", "a dog"])
    assert tokenizer.decode(ids) == (
        "\nQuestion: What is it?\nOptions:\n(A) a cat\n(B) a dog\nOnly give the best option.<user ends>\n<assistant>\n"
        "Best option: ("
    )
    assert tokenizer.decode(family.question_ids("What is it?")) == "What is it?"
    with hidden_states(session.model.decoder) as hidden:
        session.ask("What is it?", choices=["a cat", "a dog"], max_new_tokens=1)
    assert [len(h) for h in hidden] == [len("What is it?"), len(ids)]


def test_choices_change_the_prompt_and_not_the_retrieval() -> None:
    session = filled(20)
    plain = session.ask("w7 w8", retrieve_size=3, **SHORT)
    chosen = session.ask("w7 w8", choices=["w11", "w12"], retrieve_size=3, **SHORT)
    assert chosen.retrieval.frames == plain.retrieval.frames
    assert torch.equal(chosen.retrieval.scores, plain.retrieval.scores)
    assert chosen.token_ids != plain.token_ids
    assert chosen.question == "w7 w8"


def test_more_choices_than_letters_are_refused() -> None:
    filled(1).ask("w7", choices=[f"w{i}" for i in range(1, 27)], **SHORT)
    with pytest.raises(ConfigError, match="choices"):
        filled(1).ask("w7", choices=[f"w{i}" for i in range(1, 28)], **SHORT)


@pytest.mark.parametrize("question", ["", "  ", "\n"])
def test_empty_question_is_refused(question: str) -> None:
    with pytest.raises(ConfigError, match="question is empty"):
        filled(2).ask(question)


def test_settings_are_those_of_ask_config() -> None:
    with pytest.raises(ConfigError, match="n_local"):
        filled(2).ask("w7", n_local=3)
    with pytest.raises(ConfigError, match="chunk_size is 2"):
        filled(2).ask("w7", retrieve_size=3, chunk_size=2)


# -- the time scope ------------------------------------------------------------------------------------------------


def same(ours: Answer, expected: Answer) -> None:
    """To the bit."""
    assert ours.token_ids == expected.token_ids
    assert ours.retrieval.frames == expected.retrieval.frames
    assert torch.equal(ours.retrieval.scores, expected.retrieval.scores)
    assert ours.evidence == expected.evidence
    assert ours.frames_seen == expected.frames_seen


@pytest.mark.parametrize("settings", [{}, {"chunk_size": 2}, {"recent_frames": 2}, {"temperature": 1.0, "seed": 3}])
def test_as_of_a_time_is_to_have_asked_then(settings: dict[str, Any]) -> None:
    settings = {"retrieve_size": 4, **SHORT, **settings}
    session = tiny_session(frames_per_call=3)
    frames = pictures(30)
    then = []
    for i in range(0, 30, 3):
        session.append(frames[i : i + 3])
        then.append(session.ask("w7 w8", **settings))
    for i, answer in enumerate(then):
        same(session.ask("w7 w8", at=frames[3 * i + 2].time + 0.5, **settings), answer)
        same(session.ask("w7 w8", at=frames[3 * i + 2].time, **settings), answer)


def test_scope_without_frames_answers_from_the_init_prompt() -> None:
    session = filled(20)
    nothing = session.ask("w7", frames=[], **SHORT)
    scopes: list[dict[str, Any]] = [{"start": 100.0}, {"end": 0.0}, {"at": -1.0}, {"start": 3.2, "end": 3.8}]
    for scope in scopes:
        answer = session.ask("w7", **SHORT, **scope)
        assert answer.token_ids == nothing.token_ids
        assert answer.retrieval.union == ()
        assert answer.retrieval.scores.shape == (3, 0)
        assert (answer.frames_seen, answer.evidence, answer.reads) == (0, (), {})


def test_scope_leaves_only_its_frames() -> None:
    session = filled(20)
    whole = session.ask("w7", retrieve_size=3, **SHORT)
    answer = session.ask("w7", retrieve_size=3, start=5.0, end=12.0, **SHORT)
    assert answer.retrieval.candidates == range(5, 12)
    assert all(5 <= f < 12 for f in answer.retrieval.union)
    # The first layer's scores do not depend on what was read.
    torch.testing.assert_close(answer.retrieval.scores[0], whole.retrieval.scores[0, 5:12], atol=1e-5, rtol=0)
    assert answer.frames_seen == 7


def test_small_scope_is_read_whole_as_if_given() -> None:
    session = filled(20)
    scoped = session.ask("w7", retrieve_size=8, start=5.0, end=9.0, **SHORT)
    given = session.ask("w7", frames=[5, 6, 7, 8], **SHORT)
    assert scoped.retrieval.frames == given.retrieval.frames
    assert scoped.token_ids == given.token_ids


def test_last_frame_of_a_scope_ends_as_if_it_were_the_newest() -> None:
    session = filled(20)
    (span,) = session.ask("w7", retrieve_size=8, start=5.0, at=9.5, **SHORT).evidence
    assert (span.start, span.end) == (5.0, 10.0)


def test_given_frames_must_be_in_the_scope() -> None:
    with pytest.raises(ConfigError, match=r"frame 9 .*frames 5 to 8"):
        filled(20).ask("w7", frames=[6, 9], start=5.0, end=9.0, **SHORT)


# -- recent frames -------------------------------------------------------------------------------------------------


def test_recent_frames_come_last_and_besides() -> None:
    session = filled(20)
    answer = session.ask("w7", retrieve_size=3, recent_frames=2, **SHORT)
    older = session.ask("w7", retrieve_size=3, at=17.0, **SHORT)
    assert answer.retrieval.frames[0] == (*older.retrieval.frames[0], 18, 19)
    for frames in answer.retrieval.frames:
        assert frames[-2:] == (18, 19)
        assert len(frames) == len(set(frames)) == 5
        assert list(frames) == sorted(frames)


def test_recent_frames_are_those_of_the_scope() -> None:
    answer = filled(20).ask("w7", retrieve_size=2, recent_frames=2, at=9.0, **SHORT)
    assert all(frames[-2:] == (8, 9) for frames in answer.retrieval.frames)


def test_recent_frames_alone() -> None:
    session = filled(20)
    answer = session.ask("w7", retrieve_size=0, recent_frames=4, **SHORT)
    assert set(answer.retrieval.frames) == {(16, 17, 18, 19)}
    assert answer.token_ids == session.ask("w7", frames=[16, 17, 18, 19], **SHORT).token_ids


@pytest.mark.parametrize("recent", [20, 50])
def test_more_recent_frames_than_there_are(recent: int) -> None:
    answer = filled(20).ask("w7", retrieve_size=3, recent_frames=recent, **SHORT)
    assert set(answer.retrieval.frames) == {tuple(range(20))}


def test_recent_frames_follow_given_ones_once() -> None:
    answer = filled(20).ask("w7", frames=[19, 4, 4], recent_frames=2, **SHORT)
    assert set(answer.retrieval.frames) == {(19, 4, 4, 18)}
    assert answer.bytes_read["ram"] == 3 * 4 * 2 * 2 * 3 * 16 * 4


# -- generate() continues the context ------------------------------------------------------------------------------


def test_decoding_copies_and_rotates_no_context() -> None:
    """The published code re-rotates and re-expands every cached key at every token."""
    session = filled(90, n_local=1000)
    marks: list[int] = []
    with Allocations() as allocations:
        session.ask("w7", retrieve_size=90, max_new_tokens=6, on_text=lambda _: marks.append(len(allocations.found)))
    context = 4 + 90 * 3
    steps = [(name, shape) for name, shape, _ in allocations.found[marks[0] :]]
    assert len(steps) > 200
    assert [found for found in steps if torch.Size(found[1]).numel() >= context * 16] == []


def test_words_come_while_the_session_goes_on() -> None:
    """A question's turn ends with its first token: what is decoded after shares nothing with the session."""
    quiet = filled(20).ask("w7 w8", max_new_tokens=8)
    session = filled(20)
    frames = iter(pictures(60)[20:])

    def busy(text: str) -> None:
        session.append(itertools.islice(frames, 5))
        session.ask("w50", max_new_tokens=2)

    answers: list[Answer] = []
    in_time(lambda: answers.append(session.ask("w7 w8", max_new_tokens=8, on_text=busy)))
    (answer,) = answers
    same(answer, quiet)
    assert session.memory.frames == 20 + 5 * len(answer.token_ids)
    outgrown = session.ask("w7 w8", at=19.0, max_new_tokens=90, on_text=lambda text: None)
    assert outgrown.token_ids[:8] == quiet.token_ids


def test_prompt_continues_the_retrieved_context() -> None:
    hf = decoder_lm()
    session = tiny_session(hf=hf, n_local=200)
    session.append(pictures(9))
    family = session.model.family
    assert isinstance(family, TinyLM)
    stream = Reference(hf, n_init=4, block=3, n_local=200)
    features = torch.cat([family.frame_features(family.pixels([f.image])) for f in pictures(9)])
    with torch.inference_mode():
        _, layers = stream.encode([1, 2, 3, 4], features)
        asked = stream.question([7, 8], layers, range(9), topk=2, chunk=1)
        prompt = [7, 8, 5, 6]
        logits = stream.logits(prompt, asked.contexts)
        with hidden_states(session.model.decoder) as hidden:
            answer = session.ask("w7 w8", retrieve_size=2, max_new_tokens=1)
        assert [list(layer) for layer in answer.retrieval.frames] == asked.picks
        torch.testing.assert_close(hf.lm_head(hidden[1]).double(), logits, atol=2e-4, rtol=0)
