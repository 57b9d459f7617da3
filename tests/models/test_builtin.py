"""The model that comes with rekv."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rekv.errors import ModelError
from rekv.models import builtin, load


@pytest.fixture(scope="module")
def tiny() -> builtin.Tiny:
    return builtin.load(device="cpu")


def test_it_needs_no_network_and_makes_no_noise(
    offline: list[object],
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = load()
    assert offline == []
    assert isinstance(model, builtin.Tiny)
    assert model.name == "tiny"
    assert capfd.readouterr() == ("", "")


def test_progress_bars_come_back_afterwards(tiny: builtin.Tiny) -> None:
    from transformers.utils.logging import set_tqdm_hook

    assert set_tqdm_hook(None) is None


def test_it_has_a_name_too() -> None:
    assert isinstance(load("tiny"), builtin.Tiny)


def test_it_describes_itself(tiny: builtin.Tiny) -> None:
    assert str(tiny) == (
        "tiny: LlavaOnevisionForConditionalGeneration, 3.3 M parameters, 4 layers, 16 tokens per frame, float32 on cpu"
    )


def test_its_settings_are_its_own(tiny: builtin.Tiny) -> None:
    assert tiny.encode_config.sample_fps == 1.0
    assert tiny.encode_config.n_local == 512
    assert tiny.encode_config.frames_per_call == 16
    assert tiny.ask_config.retrieve_size == 8
    assert tiny.ask_config.max_new_tokens == 24


def test_its_prompts_are_words_that_it_knows(tiny: builtin.Tiny) -> None:
    unknown = tiny.tokenizer.unk_token_id
    ids = tiny.init_ids() + tiny.prompt_ids("What color was the triangle?")
    assert unknown is not None
    assert unknown not in ids
    assert tiny.tokenizer.convert_ids_to_tokens(tiny.init_ids())[:3] == ["<|im_start|>", "system", "\n"]


def test_precision_can_be_chosen() -> None:
    assert load(dtype="bfloat16").dtype == torch.bfloat16


@torch.inference_mode()
def test_frames_become_features(tiny: builtin.Tiny) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, 64, 3), dtype=np.uint8) for height in (48, 96)]
    features = tiny.frame_features(tiny.pixels(images))
    assert features.shape == (2, 16, 256)
    assert features.isfinite().all()


def test_a_damaged_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(builtin, "FOLDER", tmp_path / "gone")
    with pytest.raises(ModelError, match="reinstall rekv"):
        load()


def test_its_weights_are_half_precision_on_disk() -> None:
    assert json.loads((builtin.FOLDER / "config.json").read_text())["dtype"] == "bfloat16"
    assert (builtin.FOLDER / "model.safetensors").stat().st_size < 10e6
