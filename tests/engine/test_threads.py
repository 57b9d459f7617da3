"""One thread appends, others ask: every answer is one that a session with just those frames gives."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from rekv.core import Answer, Frame
from rekv.engine import Session
from tests.support import pictures, tiny_model

PATIENCE = 60.0
FRAMES = pictures(40)
CALL = 2
ASKED: list[tuple[str, dict[str, Any]]] = [
    ("w7 w8", {"retrieve_size": 3, "max_new_tokens": 4}),
    ("w30 w2 w5", {"retrieve_size": 4, "chunk_size": 2, "recent_frames": 1, "max_new_tokens": 3}),
    ("w41", {"retrieve_size": 3, "max_new_tokens": 40}),  # outgrows the window: the step loop
    ("w41 w9", {"retrieve_size": 2, "max_new_tokens": 3, "temperature": 1.0, "seed": 5}),
]


def together(*work: Callable[[], None]) -> None:
    """Run each in a thread; raise what any of them raised; refuse to hang."""
    errors: list[BaseException] = []

    def run(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "deadlock"


def same(ours: Answer, expected: Answer) -> None:
    assert ours.token_ids == expected.token_ids
    assert ours.text == expected.text
    assert ours.retrieval.frames == expected.retrieval.frames
    assert torch.equal(ours.retrieval.scores, expected.retrieval.scores)
    assert ours.evidence == expected.evidence


def alone(session: Session, frames: tuple[Frame, ...]) -> dict[tuple[int, int], Answer]:
    """Every question after every call, nobody else about: (frames seen, question) -> answer."""
    answers = {}
    for done in range(0, len(frames) + 1, CALL):
        session.append(frames[max(0, done - CALL) : done])
        for i, (question, settings) in enumerate(ASKED):
            answers[done, i] = session.ask(question, **settings)
    return answers


def paced(seen: list[int]) -> Iterator[Frame]:
    """Every few calls, let a question be answered: otherwise encoding may be over before anyone asked twice."""
    answered = 0
    for i, frame in enumerate(FRAMES):
        deadline = time.monotonic() + PATIENCE
        while i % (3 * CALL) == 0 and len(seen) == answered and time.monotonic() < deadline:
            time.sleep(0.001)
        answered = len(seen)
        yield frame


def test_answers_beside_a_writer_are_those_of_a_quiet_session() -> None:
    model = tiny_model()
    expected = alone(model.session(n_local=30, frames_per_call=CALL), FRAMES)
    for round_ in range(2):
        session = model.session(n_local=30, frames_per_call=CALL)
        over = threading.Event()
        seen: list[int] = []

        def write(session: Session = session, over: threading.Event = over, seen: list[int] = seen) -> None:
            try:
                session.append(paced(seen))
            finally:
                over.set()

        def ask(seed: int, session: Session = session, over: threading.Event = over, seen: list[int] = seen) -> None:
            draw = random.Random(seed)
            last = 0
            while not over.is_set() or last < len(FRAMES):
                i = draw.randrange(len(ASKED))
                question, settings = ASKED[i]
                answer = session.ask(question, on_text=lambda text: None, **settings)
                same(answer, expected[answer.frames_seen, i])
                assert answer.frames_seen >= last
                last = answer.frames_seen
                seen.append(last)

        together(write, lambda r=round_: ask(2 * r), lambda r=round_: ask(2 * r + 1))  # type: ignore[misc]
        session.memory.check_integrity()
        assert len(set(seen)) > 3, "nobody asked while it was being written"
        same(session.ask(ASKED[0][0], **ASKED[0][1]), expected[len(FRAMES), 0])


def test_two_writers_take_turns_and_their_sessions_are_their_own() -> None:
    model = tiny_model()
    other = tuple(Frame(frame.image[::-1], frame.time) for frame in FRAMES)
    expected = []
    for frames in (FRAMES, other):
        session = model.session(n_local=30, frames_per_call=CALL)
        session.append(frames)
        expected.append(session.ask(ASKED[0][0], **ASKED[0][1]))
    sessions = [model.session(n_local=30, frames_per_call=CALL) for _ in range(2)]
    together(lambda: void(sessions[0].append(FRAMES)), lambda: void(sessions[1].append(other)))
    for session, answer in zip(sessions, expected, strict=True):
        same(session.ask(ASKED[0][0], **ASKED[0][1]), answer)


def void(_: object) -> None:
    return None


def test_two_appends_to_one_session_come_one_after_the_other() -> None:
    session = tiny_model().session(n_local=30, frames_per_call=CALL)
    picture = FRAMES[0].image
    together(*(lambda: void(session.append([Frame(picture, 1.0)] * 9)) for _ in range(4)))
    assert session.memory.frames == 36
    session.memory.check_integrity()


def test_question_waits_for_one_encode_call_not_for_the_video() -> None:
    """The writer would go on for ever."""
    session = tiny_model().session(n_local=30, frames_per_call=CALL)
    enough = threading.Event()

    def endless() -> Any:
        time = 0.0
        while not enough.is_set():
            yield Frame(FRAMES[0].image, time)
            time += 1

    def ask() -> None:
        for _ in range(5):
            session.ask("w7", max_new_tokens=2)
        enough.set()

    together(lambda: void(session.append(endless())), ask)
    assert session.memory.frames > 0


@pytest.mark.parametrize("failing", ["ask", "append"])
def test_failures_of_some_do_not_stop_the_others(failing: str) -> None:
    session = tiny_model().session(n_local=30, frames_per_call=CALL)

    def fails(*_: Any) -> None:
        raise ValueError

    def bad() -> None:
        for _ in range(15):
            with pytest.raises(ValueError):  # noqa: PT011 - any will do
                if failing == "ask":
                    session.ask("w7", on_text=fails)
                else:
                    session.append(FRAMES[-1], on_progress=fails)

    def good() -> None:
        for _ in range(15):
            session.ask("w8", max_new_tokens=2)

    together(bad, good, good)
    session.memory.check_integrity()
    assert session.memory.frames == (15 if failing == "append" else 0)
