"""The family's frame features and prompts, on the golden tiny model and on one with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from rekv.core import EncodeConfig
from rekv.errors import ModelError
from rekv.models import load
from rekv.models.llava_onevision import LlavaOnevision
from rekv.models.pixels import Preprocessor

GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "models" / "llava_onevision_tiny"
HALF = (0.5, 0.5, 0.5)


def golden() -> LlavaOnevision:
    """The golden model, which has neither tokenizer nor preprocessor config."""
    hf = LlavaOnevisionForConditionalGeneration.from_pretrained(GOLDEN, dtype=torch.float32)
    return LlavaOnevision(hf, None, Preprocessor((70, 70), "bicubic", HALF, HALF), name="golden")  # type: ignore[arg-type]


@torch.inference_mode()
def test_golden_video_features() -> None:
    model = golden()
    with np.load(GOLDEN / "stock_check.npz") as stock:
        frames, expected = stock["frames_uint8"], torch.from_numpy(stock["video_features"])
    pixels = model.pixels(list(frames.transpose(0, 2, 3, 1)))
    torch.testing.assert_close(pixels, (torch.from_numpy(frames) / 255 - 0.5) / 0.5)
    features = model.frame_features(pixels)
    assert model.tokens_per_frame == 9  # 5 x 5 patches, halved and rounded up
    assert features.shape == (3, 9, 64)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_frame_has_the_same_features_in_any_company() -> None:
    model = golden()
    pixels = torch.randn(3, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    together = model.frame_features(pixels)
    alone = torch.cat([model.frame_features(frame[None]) for frame in pixels])
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize(("side", "tokens"), [(384, 196), (48, 4), (70, 9), (28, 1)])
def test_tokens_per_frame_follow_the_vision_grid(side: int, tokens: int) -> None:
    model = golden()
    model.hf.config.vision_config.image_size = side  # patches of 14: 27, 3, 5 and 2 a side
    assert model.tokens_per_frame == tokens


def test_a_tower_that_gives_other_tokens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlavaOnevision, "picture_tokens", 4)
    with pytest.raises(ModelError, match="tokens for 1 frames of 4"):
        golden().frame_features(torch.zeros(1, 3, 70, 70))


def test_prompts_are_those_of_the_published_code(pristine: Path) -> None:
    model = load(pristine)
    assert model.init_prompt == ("<|im_start|>system \nYou are a helpful assistant.<|im_end|><|im_start|>user ")
    assert model.prompt("Where is it?") == "\nWhere is it?<|im_end|><|im_start|>assistant\n"
    assert model.init_ids() == model.tokenizer(model.init_prompt).input_ids
    assert model.init_ids("the ball") == model.question_ids("the ball") != model.init_ids()
    assert model.prompt_ids("where is the ball") == model.tokenizer(model.prompt("where is the ball")).input_ids


def test_choices_are_asked_as_in_the_paper(pristine: Path) -> None:
    model = load(pristine)
    text = model.tokenizer.decode(model.prompt_ids("what is the ball", ["red", "blue"]))
    question = "Question: what is the ball\nOptions:\n(A) red\n(B) blue\nOnly give the best option."
    expected = model.prompt(question) + "Best option: ("
    assert model.prompt_ids("what is the ball", ["red", "blue"]) == model.tokenizer(expected).input_ids
    assert "red" in text
    assert "blue" in text


def test_defaults_are_those_of_the_paper(pristine: Path) -> None:
    model = load(pristine)
    assert (model.encode_config.sample_fps, model.encode_config.n_local) == (0.5, 15000)
    assert model.ask_config.retrieve_size == 64
    other = LlavaOnevision(
        model.hf, model.tokenizer, model.preprocessor, name="x", encode_config=EncodeConfig(sample_fps=2)
    )
    assert other.encode_config.sample_fps == 2
