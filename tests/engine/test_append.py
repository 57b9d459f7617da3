"""append: what it takes, what it refuses, and when."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from rekv.core import Frame
from rekv.engine import Session
from rekv.errors import ConfigError, RekvError, SessionError
from rekv.stream import Source
from tests.attention.test_kernels import Allocations
from tests.support import VOCABULARY, TinyLM, decoder_lm, in_time, pictures, record, tiny_model, tiny_session


class Camera:
    """A source: it is asked for a rate, and hands out frames."""

    def __init__(self, sample_fps: float | None) -> None:
        self.sample_fps = sample_fps
        self.asked: list[float] = []

    def frames(self, sample_fps: float) -> Iterator[Frame]:
        self.asked.append(sample_fps)
        return iter(pictures(5))


def test_frame_list_generator_and_source_are_the_same() -> None:
    one_by_one, listed, generated, sourced = (tiny_session(frames_per_call=1) for _ in range(4))
    for frame in pictures(5):
        assert one_by_one.append(frame) == 1
    assert listed.append(list(pictures(5))) == 5
    assert generated.append(frame for frame in pictures(5)) == 5
    assert sourced.append(Camera(None)) == 5
    expected = record(one_by_one)
    for session in (listed, generated, sourced):
        assert list(session.memory.times) == [0.0, 1.0, 2.0, 3.0, 4.0]
        record(session).assert_equal(expected)


def test_source_is_sampled_at_its_own_rate_or_the_sessions() -> None:
    session = tiny_model().session(sample_fps=2.5)
    for camera, rate in ((Camera(None), 2.5), (Camera(0.25), 0.25)):
        assert isinstance(camera, Source)
        session = session.model.session(sample_fps=2.5)
        session.append(camera)
        assert camera.asked == [rate]


def test_nothing_is_nothing() -> None:
    session = tiny_session()
    assert session.append([]) == 0
    session.append(pictures(3))
    before = record(session)
    assert session.append(iter(())) == 0
    record(session).assert_equal(before)


def test_progress_is_told_after_every_call_with_its_frames_visible() -> None:
    seen: list[int] = []

    def progress(session: Session) -> None:
        seen.append(session.ask("w7", max_new_tokens=1).frames_seen)

    in_time(lambda: tiny_session(frames_per_call=4).append(pictures(10), on_progress=progress))
    assert seen == [4, 8, 10]


def test_source_is_not_read_further_ahead_than_one_call() -> None:
    """Bounded memory: an endless source may be appended."""
    pulled = 0

    def endless() -> Iterator[Frame]:
        nonlocal pulled
        while True:
            pulled += 1
            yield Frame(pictures(1)[0].image, float(pulled))

    class Enough(Exception):
        pass

    def progress(session: Session) -> None:
        assert pulled == session.memory.frames
        if pulled >= 12:
            raise Enough

    session = tiny_session(frames_per_call=4)
    with pytest.raises(Enough):
        session.append(endless(), on_progress=progress)
    assert session.memory.frames == 12


def test_source_may_ask_the_session_it_feeds() -> None:
    session = tiny_session(frames_per_call=2)
    seen = []

    def curious() -> Iterator[Frame]:
        for frame in pictures(6):
            seen.append(session.ask("w7", max_new_tokens=1).frames_seen)
            yield frame

    in_time(lambda: session.append(curious()))
    assert seen == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 3), np.uint8), ["a.mp4"], "a.mp4", [None]], ids=type)
def test_what_is_no_frame_is_refused_with_what_to_give(wrong: object) -> None:
    session = tiny_session()
    with pytest.raises(SessionError, match=r"rekv\.Frame"):
        session.append(wrong)  # type: ignore[arg-type]
    assert session.append(pictures(3)) == 3


def test_time_does_not_go_back() -> None:
    session = tiny_session(frames_per_call=1)
    frames = pictures(6)
    session.append(frames[:4])
    with pytest.raises(SessionError, match=r"1\.00 s comes after one at 3\.00 s"):
        session.append(frames[1])
    with pytest.raises(SessionError, match=r"2\.00 s comes after one at 5\.00 s"):
        session.append([frames[5], frames[2]])
    assert list(session.memory.times) == [0.0, 1.0, 2.0, 3.0, 5.0]
    assert session.append(Frame(frames[0].image, 5.0)) == 1  # the same time is no step back


def test_init_prompt_is_the_sink() -> None:
    model = tiny_model(init="w1 w2 w3 w4")
    session = model.session(n_local=40, init_prompt="w9 w8")
    assert (session.memory.n_init, model.session().memory.n_init) == (2, 4)
    session.append(pictures(5))
    other = tiny_model(init="w9 w8").session(n_local=40)
    other.append(pictures(5))
    record(session).assert_equal(record(other))


def test_empty_init_prompt_works_or_is_refused_by_name() -> None:
    try:
        session = tiny_model().session(n_local=12, init_prompt="")
    except ConfigError as error:
        assert "init_prompt" in str(error)  # noqa: PT017
        return
    record(session, pictures(12))


def test_settings_of_a_session_are_those_of_encode_config() -> None:
    with pytest.raises(ConfigError, match="retrieve_size"):
        tiny_model().session(retrieve_size=4)
    assert tiny_model().session(sample_fps=3).config.sample_fps == 3


class Generous(TinyLM):
    """Says 3 tokens per frame and gives some other number."""

    gives = 2

    def frame_features(self, pixels: Tensor) -> Tensor:
        return super().frame_features(pixels)[:, :1].expand(-1, self.gives, -1)


@pytest.mark.parametrize("gives", [1, 2, 4, 6])
@pytest.mark.parametrize("frames", [1, 3])
def test_family_that_breaks_its_word_about_tokens_is_refused(gives: int, frames: int) -> None:
    from rekv.engine import Model

    family = Generous(decoder_lm())
    family.gives = gives
    session = Model(family).session(n_local=40)
    with pytest.raises(RekvError):
        session.append(pictures(frames))
    assert session.memory.frames == 0
    session.memory.check_integrity()


def test_no_vocabulary_logits_for_frames() -> None:
    """The published code computes them for every token of video."""
    session = tiny_session()
    with Allocations() as allocations:
        session.append(pictures(12))
    assert len(allocations.found) > 100
    assert [shape for _, shape, _ in allocations.found if shape[-1:] == (VOCABULARY,)] == []


def test_full_window_is_neither_copied_nor_rotated_again() -> None:
    """Only every so many calls, when it slides."""
    session = tiny_session(n_local=300, frames_per_call=1, hf=decoder_lm(layers=2))
    frames = pictures(160)
    session.append(frames[:105])
    layer = session.memory.layers[0]
    quiet = 0
    for frame in frames[105:]:
        slides = session.memory.tokens - layer.window.first + 3 > layer.window.capacity
        with Allocations() as allocations:
            session.append(frame)
        if not slides:
            quiet += 1
            wide = [found for found in allocations.found if max(found[1], default=0) >= 250 and "flash" not in found[0]]
            assert wide == []
    assert quiet > 40


def test_memory_is_outside_of_autograd() -> None:
    session = tiny_session()
    assert torch.is_grad_enabled()
    session.append(pictures(3))
    session.ask("w7", max_new_tokens=1)
    assert torch.is_grad_enabled()
    assert not any(layer.sink_keys.requires_grad for layer in session.memory.layers.values())
