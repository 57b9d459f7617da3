"""Whatever fails, the session is as it would be had it not been tried; what was complete before stays."""

import linecache
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import count, islice
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import rekv
from rekv.core import Frame
from rekv.engine import Model, Session
from tests.support import (
    Record,
    TinyLM,
    decoder_lm,
    hidden_states,
    in_time,
    pictures,
    record,
    shrink_slabs,
    tiny_session,
)

FRAMES = pictures(50)


class Failure(Exception):
    """Stands for anything that goes wrong."""


class Fuse:
    """Lets a number of calls pass, fails one, lets all others pass."""

    def __init__(self, function: Callable[..., Any], passes: int, error: type[BaseException] = Failure) -> None:
        self.function, self.left, self.error = function, passes, error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        if self.left == -1:
            raise self.error
        return self.function(*args, **kwargs)

    @property
    def blown(self) -> bool:
        return self.left < 0


def blow(monkeypatch: pytest.MonkeyPatch, place: str, passes: int, error: type[BaseException] = Failure) -> Fuse:
    """Put a fuse into a method or function of rekv, by its full name."""
    owner_name, name = place.rsplit(".", 1)
    owner: Any = sys.modules.get(owner_name)
    if owner is None:
        module, owner_class = owner_name.rsplit(".", 1)
        owner = getattr(sys.modules[module], owner_class)
    fuse = Fuse(getattr(owner, name), passes, error)
    monkeypatch.setattr(owner, name, fuse if not isinstance(owner, type) else lambda *a, **k: fuse(*a, **k))
    return fuse


def session_of(calls: int, n_local: int = 25, layers: int = 3) -> Session:
    """After a number of encode calls of four frames, out of slabs of three."""
    session = tiny_session(n_local=n_local, hf=decoder_lm(layers=layers))
    session.append(FRAMES[: 4 * calls])
    return session


@pytest.fixture(autouse=True)
def _small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_slabs(monkeypatch, block_bytes=3 * 2 * 2 * 3 * 16 * 4, index_frames=5)


@cache
def never_failed(calls: int, n_local: int) -> Record:
    return record(session_of(calls, n_local), FRAMES[4 * calls : 4 * calls + 16])


def goes_on(session: Session, calls: int, n_local: int = 25) -> None:
    """It holds the frames of so many calls, and goes on like one that never failed."""
    assert session.memory.frames == 4 * calls
    record(session, FRAMES[4 * calls : 4 * calls + 16]).assert_close(never_failed(calls, n_local))


# -- append --------------------------------------------------------------------------------------------------------

PLACES = [
    ("rekv.attention.passes.window_attention", 0),
    ("rekv.attention.passes.window_attention", 1),
    ("rekv.attention.passes.window_attention", 2),
    ("rekv.attention.passes.rotate", 3),
    ("rekv.memory.blocks.Blocks.write", 0),
    ("rekv.memory.blocks.Blocks.write", 2),
    ("rekv.memory.index.Index.write", 1),
    ("rekv.memory.memory.Memory.make_room", 0),
    ("rekv.memory.memory.Memory.commit", 0),
]


@pytest.mark.parametrize(("place", "passes"), PLACES)
@pytest.mark.parametrize("calls", [0, 1, 2, 5])
def test_append_fails_inside_a_call(calls: int, place: str, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(calls)
    with monkeypatch.context() as patch:
        fuse = blow(patch, place, passes)
        with pytest.raises(Failure):
            session.append(FRAMES[4 * calls : 4 * calls + 4])
        assert fuse.blown
    session.memory.check_integrity()
    goes_on(session, calls)


def fail_to_slide(monkeypatch: pytest.MonkeyPatch, place: str, passes: int) -> tuple[Session, int]:
    """A slide reads the window back from the blocks, layer by layer, slab by slab."""
    session = session_of(1)
    calls = 1
    with monkeypatch.context() as patch:
        fuse = blow(patch, place, passes)
        while not fuse.blown:
            assert calls < 10, "nothing slid"
            try:
                session.append(FRAMES[4 * calls : 4 * calls + 4])
                calls += 1
            except Failure:
                break
    return session, calls


SLIDES = [*(("rekv.memory.blocks.Blocks.read", n) for n in range(9)), ("rekv.memory.window.Window.reserve", 4)]


@pytest.mark.parametrize(("place", "passes"), SLIDES)
def test_append_fails_while_the_window_slides(place: str, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on(*fail_to_slide(monkeypatch, place, passes))


@pytest.mark.parametrize(("place", "passes"), SLIDES)
def test_invariants_hold_after_a_slide_that_failed(place: str, passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    session, calls = fail_to_slide(monkeypatch, place, passes)
    session.memory.check_integrity()
    session.append(FRAMES[4 * calls : 4 * calls + 8])
    session.memory.check_integrity()


def test_append_fails_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(3)
    for place, passes in PLACES * 2:
        with monkeypatch.context() as patch:
            blow(patch, place, passes)
            with pytest.raises(Failure):
                session.append(FRAMES[12:16])
    goes_on(session, 3)


class Flaky(TinyLM):
    fails = False

    def frame_features(self, pixels: Tensor) -> Tensor:
        if self.fails:
            raise Failure
        return super().frame_features(pixels)


def test_vision_tower_fails() -> None:
    family = Flaky(decoder_lm())
    session = Model(family).session(n_local=25, frames_per_call=4)
    session.append(FRAMES[:8])
    family.fails = True
    with pytest.raises(Failure):
        session.append(FRAMES[8:12])
    family.fails = False
    goes_on(session, 2)


@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt])
def test_progress_callback_fails(error: type[BaseException]) -> None:
    session = session_of(1)

    def progress(session: Session) -> None:
        if session.memory.frames == 12:
            raise error

    with pytest.raises(error):
        session.append(FRAMES[4:30], on_progress=progress)
    goes_on(session, 3)


def broken_after(n: int, error: type[BaseException] = Failure) -> Iterator[Frame]:
    yield from FRAMES[:n]
    raise error


@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt])
@pytest.mark.parametrize("n", [0, 1, 4, 7, 8])
def test_source_fails_and_the_frames_it_gave_stay(n: int, error: type[BaseException]) -> None:
    """Also those that do not fill a call."""
    session = tiny_session(n_local=25)
    with pytest.raises(error):
        session.append(broken_after(n, error))
    session.memory.check_integrity()
    assert session.memory.frames == n


def test_wrong_frame_in_the_middle_and_those_before_it_stay() -> None:
    session = tiny_session(n_local=25)
    with pytest.raises(rekv.SessionError):
        session.append([*FRAMES[:6], FRAMES[2]])
    assert session.memory.frames == 6


Line = tuple[str, int]  # file and number


class Tracer:
    """Counts the lines of rekv's core that a thread runs, and interrupts one of them, as Ctrl-C can."""

    files = frozenset(
        str(Path(rekv.__file__).parent / name)
        for name in ("engine.py", "decoding.py", "distinct.py", "attention/passes.py", "attention/hook.py")
        + ("memory/memory.py", "memory/window.py", "memory/blocks.py", "memory/index.py", "memory/context.py")
        + ("memory/pool.py", "memory/frames.py", "memory/reads.py")
    )

    def __init__(self, line: Line | None = None, passes: int = 0) -> None:
        self.line, self.left = line, passes
        self.counts: Counter[Line] = Counter()
        self.died = False

    def __enter__(self) -> "Tracer":
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._step if frame.f_code.co_filename in self.files else None

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        line = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line":
            self.counts[line] += 1
            if line == self.line and self.counts[line] > self.left:
                self.line, self.died = None, True
                raise KeyboardInterrupt
        return self._step

    def lines(self) -> list[Line]:
        """Not those of a plain lock: tracing stops where its block is left, signals do not."""
        return [line for line in self.counts if not linecache.getline(*line).strip().startswith("with self._writer")]


def test_append_interrupted_at_any_line() -> None:
    """One long stream, interrupted in every call at another line, against one that never was."""
    calls = (Frame(FRAMES[i % 50].image, float(i)) for i in count())
    truth, session = (tiny_session(n_local=25, hf=decoder_lm(layers=1)) for _ in range(2))

    def advance(line: Line | None = None, passes: int = 0) -> Tracer:
        """One call of both; should it be interrupted, another try."""
        batch = list(islice(calls, 4))
        done = session.memory.frames
        with hidden_states(truth.model.decoder) as expected:
            truth.append(batch)
        with Tracer(line, passes) as tracer, suppress(KeyboardInterrupt):
            session.append(batch)
        session.memory.check_integrity()
        rest = batch[session.memory.frames - done :]
        with hidden_states(session.model.decoder) as ours:
            in_time(lambda: session.append(rest))
        if rest:
            torch.testing.assert_close(ours[-1], expected[0][-len(ours[-1]) :], atol=1e-4, rtol=0)
        return tracer

    window = session.memory.layers[0].window
    while session.memory.layers[0].window is window or session.memory.frames < 16:
        window = session.memory.layers[0].window
        tracer = advance()  # until one slid
    last = {line: tracer.counts[line] - 1 if "memory" in line[0] else 0 for line in tracer.lines()}
    moments = [(line, passes) for line in last for passes in sorted({0, last[line]})]
    assert len(moments) > 100
    for line, passes in moments:
        for _ in range(4):  # not every call slides
            if advance(line, passes).died:
                break
        else:
            pytest.fail(f"{line} did not run again")
    record(session).assert_close(record(truth))


# -- ask -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_local", [25, 200], ids=["steps", "generate"])
@pytest.mark.parametrize(
    ("place", "passes"),
    [
        ("rekv.retrieval.internal.Internal.pick", 0),
        ("rekv.retrieval.internal.Internal.pick", 2),
        ("rekv.memory.blocks.Blocks.read", 1),
        ("rekv.memory.index.Index.scores_of", 1),
        ("rekv.attention.passes.window_attention", 1),
        ("rekv.attention.hook.sdpa_attention_forward", 4),
        ("rekv.attention.passes.window_attention", 7),
        ("rekv.decoding.Transcript._decode", 1),
        ("rekv.answering.evidence", 0),
    ],
)
def test_ask_fails_and_the_session_is_untouched(
    place: str, passes: int, n_local: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(4, n_local)
    before = record(session)
    with monkeypatch.context() as patch:
        fuse = blow(patch, place, passes)
        if not failed(session):
            assert not fuse.blown
            assert "attention" in place, "another loop decodes"
    in_time(lambda: record(session).assert_equal(before))
    in_time(lambda: goes_on(session, 4, n_local))


def failed(session: Session) -> bool:
    try:
        session.ask("w7 w8", retrieve_size=3, max_new_tokens=4, on_text=lambda text: None)
    except Failure:
        return True
    return False


@pytest.mark.parametrize("n_local", [25, 200], ids=["steps", "generate"])
@pytest.mark.parametrize("error", [Failure, KeyboardInterrupt])
@pytest.mark.parametrize("passes", [0, 2])
@pytest.mark.parametrize("callback", ["on_text", "cancelled"])
def test_callbacks_of_ask_fail(callback: str, passes: int, error: type[BaseException], n_local: int) -> None:
    session = session_of(4, n_local)
    before = record(session)
    watching: dict[str, Any] = {callback: Fuse(lambda *_: False, passes, error)}
    with pytest.raises(error):
        session.ask("w7 w8", max_new_tokens=5, **watching)
    in_time(lambda: record(session).assert_equal(before))


def test_ask_is_refused_and_the_session_is_untouched() -> None:
    session = session_of(4)
    before = record(session)
    for wrong in ({"frames": [99]}, {"retrieve_size": -1}, {"frames": [-1]}, {"chunk_size": 0}, {"nonsense": 1}):
        with pytest.raises(rekv.ConfigError):
            session.ask("w7", **wrong)
    with pytest.raises(rekv.ConfigError):
        session.ask(" ")
    in_time(lambda: record(session).assert_equal(before))


def test_ask_interrupted_at_any_line() -> None:
    tried: set[Line] = set()
    for n_local in (200, 15):  # generate(), then what is different in the step loop
        session = session_of(4, n_local, layers=1)
        before = record(session)

        def ask(session: Session = session) -> tuple[int, ...]:
            return session.ask("w7", retrieve_size=3, max_new_tokens=2, on_text=lambda text: None).token_ids

        with Tracer() as tracer:
            expected = ask()
        lines = [line for line in tracer.lines() if line not in tried]
        tried.update(lines)
        assert lines
        for line in lines:
            with Tracer(line) as tracer, suppress(KeyboardInterrupt):
                ask()
            assert tracer.died
            told: list[tuple[int, ...]] = []
            in_time(lambda told=told, ask=ask: told.append(ask()))  # type: ignore[misc]
            assert told == [expected], line
        record(session).assert_equal(before)


def test_cancelled_question_leaves_the_session_untouched() -> None:
    session = session_of(4)
    before = record(session)
    answer = session.ask("w7 w8", max_new_tokens=50, cancelled=lambda: True)
    assert (answer.finish_reason, len(answer.token_ids)) == ("cancelled", 1)
    record(session).assert_equal(before)


def test_session_cannot_be_made_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    session = session_of(2)
    with monkeypatch.context() as patch:
        blow(patch, "rekv.attention.passes.window_attention", 1)
        with pytest.raises(Failure):
            session.model.session()
    in_time(lambda: goes_on(session, 2))
    assert torch.is_inference_mode_enabled() is False
