"""Where the published implementation fails or misleads, this one works, or says what the limit is."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rekv.core import Answer
from rekv.engine import Session
from rekv.errors import ConfigError, ModelError
from tests.reference import Reference
from tests.support import TinyLM, decoder_lm, hidden_states, pictures, tiny_model, words

QUESTION = [7, 8, 9]
P, B = 4, 3  # tokens of the init prompt and of a frame


def session_of(frames: int, n_local: int, init: int = P) -> Session:
    session = tiny_model(init=words(range(1, init + 1))).session(n_local=n_local, frames_per_call=2)
    session.append(pictures(frames))
    return session


@torch.inference_mode()
def ask_and_compare(session: Session, given: Sequence[int] | None = None, retrieve_size: int = 4) -> Answer:
    """Ask, and hold picks and logits against the dense reference."""
    family, memory = session.model.family, session.memory
    assert isinstance(family, TinyLM)
    hf = decoder_lm()
    with hidden_states(session.model.decoder) as hidden:
        answer = session.ask(words(QUESTION), frames=given, retrieve_size=retrieve_size, max_new_tokens=2)
    reference = Reference(hf, n_init=memory.n_init, block=B, n_local=memory.n_local)
    features = [family.frame_features(family.pixels([f.image])) for f in pictures(memory.frames)]
    stream = torch.cat([torch.empty(0, B, hf.config.hidden_size), *features])
    _, layers = reference.encode(range(1, memory.n_init + 1), stream)
    asked = reference.question(QUESTION, layers, range(memory.frames), topk=retrieve_size, chunk=1, given=given)
    assert [list(layer) for layer in answer.retrieval.frames] == asked.picks
    logits = reference.logits([*QUESTION, 5, 6, answer.token_ids[0]], asked.contexts)
    torch.testing.assert_close(hf.lm_head(torch.cat(hidden[1:])).double(), logits, atol=2e-4, rtol=0)
    return answer


@pytest.mark.parametrize("given", [None, [0, 5, 2]], ids=["internal", "given"])
@pytest.mark.parametrize("n_local", [22, 23, 24, 25, 26, 27, 28])
def test_question_while_the_sink_is_partial_works(n_local: int, given: list[int] | None) -> None:
    """Published: AssertionError; with given indices silently the wrong context, shifted by the partial sink."""
    frames = 8
    partial = n_local - P < frames * B < n_local
    assert partial or n_local in (22, 23, 24, 28)
    ask_and_compare(session_of(frames, n_local), given)


@pytest.mark.parametrize("given", [None, []], ids=["internal", "given-none"])
def test_question_before_any_frame_is_answered_from_the_init_prompt(given: list[int] | None) -> None:
    """Published: AssertionError."""
    answer = ask_and_compare(session_of(0, 40), given)
    assert (answer.frames_seen, answer.evidence, answer.retrieval.union) == (0, (), ())
    assert answer.retrieval.scores.shape == (3, 0)


@pytest.mark.parametrize("frames", [14, 20])
def test_all_frames_selected_although_they_outgrow_the_window_works(frames: int) -> None:
    """Published: AssertionError, a context must be at most n_init + n_local."""
    assert frames * B > 40
    answer = ask_and_compare(session_of(frames, 40), retrieve_size=frames)
    assert set(answer.retrieval.frames) == {tuple(range(frames))}


def test_given_more_frames_than_retrieve_size_works() -> None:
    """Published: RuntimeError."""
    ask_and_compare(session_of(20, 40), given=[1, 2, 3, 5, 7, 11, 13], retrieve_size=2)


@pytest.mark.parametrize("n_local", [40, 400], ids=["window-full", "window-not-full"])
@pytest.mark.parametrize("frame", [20, 99, -1, -20])
def test_given_frame_that_does_not_exist_is_refused(frame: int, n_local: int) -> None:
    """Published: AssertionError, IndexError, cut off without a word, or the last frame: it depends."""
    session = session_of(20, n_local)
    with pytest.raises(ConfigError, match=f"frame {frame} .*sees frames 0 to 19"):
        session.ask("w7", frames=[3, frame])
    ask_and_compare(session, given=[3])


@pytest.mark.parametrize("n_local", [40, 400], ids=["window-full", "window-not-full"])
def test_given_frame_twice_is_read_twice(n_local: int) -> None:
    ask_and_compare(session_of(20, n_local), given=[4, 9, 4, 4])


@pytest.mark.parametrize("n_local", [40, 400], ids=["window-full", "window-not-full"])
def test_no_given_frames_at_all_works(n_local: int) -> None:
    """Published: IndexError once the window is full."""
    answer = ask_and_compare(session_of(20, n_local), given=[])
    assert (answer.retrieval.union, answer.frames_seen) == ((), 20)


@pytest.mark.parametrize("init", [1, 2, 3, 5, 8, 17, 41, 60])
def test_init_prompt_of_any_length_works(init: int) -> None:
    """Published: AssertionError unless it is what n_init says; here it is counted. Also longer than the window."""
    session = session_of(20, 40, init)
    assert session.memory.n_init == init
    ask_and_compare(session)


class Cropping(TinyLM):
    """Gives part of a frame."""

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().frame_features(pixels)[:, :-1]


def test_partial_frame_is_refused() -> None:
    """Published: AssertionError, some at the next question only."""
    from rekv.engine import Model

    session = Model(Cropping(decoder_lm())).session(n_local=40)
    with pytest.raises(ModelError, match="3 tokens per frame"):
        session.append(pictures(3))
    session.memory.check_integrity()
    assert session.ask("w7", max_new_tokens=1).frames_seen == 0


@pytest.mark.parametrize("frames", [2, 20], ids=["nothing-to-score", "something-to-score"])
def test_chunk_size_that_does_not_divide_is_refused_at_once(frames: int) -> None:
    """Published: AssertionError, only when there is something to score."""
    with pytest.raises(ConfigError, match=r"chunk_size is 3.*divisor of retrieve_size \(4\)"):
        session_of(frames, 40).ask("w7", retrieve_size=4, chunk_size=3)


def test_retrieve_size_knows_no_cache_size() -> None:
    """Published: AssertionError if max_cached_block is smaller."""
    answer = ask_and_compare(session_of(40, 40), retrieve_size=30)
    assert len(answer.retrieval.frames[0]) == 30


def test_exception_inside_a_question_leaves_the_session_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published: the caches stay in retrieval mode, and the next encode call fails too."""
    session = session_of(12, 40)

    def fails(*_: Any) -> Any:
        raise OSError("the answer is cut off")

    with pytest.raises(OSError, match="cut off"):
        session.ask("w7", on_text=fails)
    with monkeypatch.context() as patch:
        patch.setattr("rekv.retrieval.internal.Internal.pick", fails)
        with pytest.raises(OSError, match="cut off"):
            session.ask("w7")
    session.append(pictures(20)[12:])
    ask_and_compare(session)


@pytest.mark.parametrize("length", [1, 38, 39, 40, 41, 45, 100])
def test_question_and_prompt_longer_than_the_window_work(length: int) -> None:
    session = session_of(20, 40)
    hf = decoder_lm()
    question = [i % 100 + 1 for i in range(length)]
    with torch.inference_mode(), hidden_states(session.model.decoder) as hidden:
        answer = session.ask(words(question), retrieve_size=4, max_new_tokens=1)
        reference = Reference(hf, n_init=P, block=B, n_local=40)
        family = session.model.family
        features = torch.cat([family.frame_features(family.pixels([f.image])) for f in pictures(20)])
        _, layers = reference.encode(range(1, P + 1), features)
        asked = reference.question(question, layers, range(20), topk=4, chunk=1)
        assert [list(layer) for layer in answer.retrieval.frames] == asked.picks
        torch.testing.assert_close(hidden[0].double(), asked.hidden, atol=1e-4, rtol=0)
        logits = reference.logits([*question, 5, 6], asked.contexts)
        torch.testing.assert_close(hf.lm_head(hidden[1]).double(), logits, atol=2e-4, rtol=0)
