"""The nouns: what they refuse, and that the message names the field and the rule."""

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest
import torch

from rekv.core import Answer, AskConfig, EncodeConfig, Frame, Kv, Retrieval, StorageConfig, Timings
from rekv.errors import ConfigError, RekvError
from rekv.store.codecs import CODECS


@pytest.mark.parametrize(
    ("settings", "field", "rule"),
    [
        ({"sample_fps": 0.0}, "sample_fps", "above 0"),
        ({"sample_fps": -1.0}, "sample_fps", "above 0"),
        ({"sample_fps": float("nan")}, "sample_fps", "above 0"),
        ({"n_local": 0}, "n_local", "at least 1"),
        ({"frames_per_call": 0}, "frames_per_call", "at least 1"),
    ],
)
def test_encode_config_names_the_field_and_the_rule(settings: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is {next(iter(settings.values()))}.*{rule}"):
        EncodeConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "field", "rule"),
    [
        ({"retrieve_size": -1}, "retrieve_size", "at least 0"),
        ({"chunk_size": 0}, "chunk_size", "at least 1"),
        ({"chunk_size": 3}, "chunk_size", r"divisor of retrieve_size \(64\)"),
        ({"recent_frames": -1}, "recent_frames", "at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens", "at least 1"),
        ({"temperature": -0.1}, "temperature", "at least 0"),
        ({"temperature": float("nan")}, "temperature", "at least 0"),
        ({"top_p": 0.0}, "top_p", "above 0"),
        ({"top_p": 1.1}, "top_p", "at most 1"),
        ({"start": 5.0, "end": 5.0}, "start", r"before end \(5.0\)"),
        ({"start": 6.0, "end": 5.0}, "start", r"before end \(5.0\)"),
        ({"start": float("nan")}, "start", ""),
        ({"end": float("nan")}, "end", ""),
        ({"at": float("nan")}, "at", ""),
        ({"stop": ("",)}, "stop", ""),  # would end every answer before it began
    ],
)
def test_ask_config_names_the_field_and_the_rule(settings: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} is .*{rule}"):
        AskConfig(**settings)


def test_one_stop_string_is_not_taken_for_its_letters() -> None:
    """`stop="END"` is an easy slip; it must not end the answer at the first E."""
    try:
        config = AskConfig(stop="END")
    except ConfigError as error:
        assert "stop" in str(error)  # noqa: PT017
    else:
        assert tuple(config.stop) == ("END",)


@pytest.mark.parametrize("config", [EncodeConfig(), AskConfig()], ids=["encode", "ask"])
def test_unknown_settings_are_refused_by_name(config: EncodeConfig | AskConfig) -> None:
    with pytest.raises(ConfigError, match="retreive_size") as caught:
        config.but(retreive_size=3)
    assert all(f.name in str(caught.value) for f in dataclasses.fields(config))


def test_changing_a_copy_checks_and_leaves_the_original() -> None:
    config = AskConfig(retrieve_size=8, chunk_size=4)
    assert config.but(retrieve_size=12).retrieve_size == 12
    assert config.retrieve_size == 8
    with pytest.raises(ConfigError, match="divisor"):
        config.but(retrieve_size=9)


def test_config_errors_are_value_errors_and_rekvs_own() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, RekvError)


def test_frames_per_call_is_no_part_of_what_a_session_is() -> None:
    assert EncodeConfig(frames_per_call=1) == EncodeConfig(frames_per_call=64)
    assert EncodeConfig(n_local=1) != EncodeConfig(n_local=2)


GOOD = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "time"),
    [
        (GOOD.astype(np.float32), 0.0),
        (GOOD[..., 0], 0.0),
        (np.zeros((4, 6, 4), np.uint8), 0.0),
        (np.zeros((3, 4, 6), np.uint8), 0.0),
        (GOOD[None], 0.0),
        (GOOD[:0], 0.0),  # no rows
        (GOOD[:, :0], 0.0),
    ],
    ids=["float", "grey", "alpha", "channels-first", "batch", "no-rows", "no-columns"],
)
def test_frame_refuses_what_is_no_picture(image: Any, time: float) -> None:
    with pytest.raises(ConfigError, match="image is uint8 RGB"):
        Frame(image, time)


@pytest.mark.parametrize("time", [-0.001, float("nan"), float("inf")])
def test_frame_refuses_what_is_no_time(time: float) -> None:
    with pytest.raises(ConfigError, match="seconds from the stream's start"):
        Frame(GOOD, time)


def test_frame_takes_a_picture() -> None:
    assert Frame(GOOD, 0.0).wall is None
    assert Frame(GOOD[:, ::-1], 3).time == 3


def test_union_of_a_retrieval_is_ascending_and_without_duplicates() -> None:
    retrieval = Retrieval(((3, 1), (1, 4), ()), torch.zeros(3, 5), range(5))
    assert retrieval.union == (1, 3, 4)
    assert Retrieval(((), ()), torch.zeros(2, 0), range(0)).union == ()


def test_answer_prints_its_text() -> None:
    empty = Retrieval((), torch.zeros(0, 0), range(0))
    answer = Answer("?", "a cat", (), empty, (), "stop", Timings(0, 0, 0, 0, 0, 0), {}, 0)
    assert f"{answer}" == "a cat"


def test_the_top_level_names_are_what_they_are_however_often_and_in_whatever_order() -> None:
    """A submodule of the same name would replace a function once it is imported."""
    import rekv
    import rekv.sources.writer
    import rekv.world

    assert all(callable(rekv.video) and callable(rekv.load) for _ in range(3))
    assert {name for name in rekv.__all__ if not hasattr(rekv, name)} == set()


@pytest.mark.parametrize("kv", ["int3", "", "RAW"])
def test_an_unknown_codec_is_refused_before_anything_is_stored(kv: Any) -> None:
    with pytest.raises(ConfigError, match="kv is"):
        StorageConfig(kv=kv)


def test_codecs_that_can_be_named_are_those_that_there_are() -> None:
    assert {*CODECS, "auto"} == {*get_args(Kv)}
