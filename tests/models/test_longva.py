"""LongVA: a checkpoint of the original LLaVA code, read under transformers' names."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import avg_pool2d, max_pool2d
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from rekv.errors import ModelError
from rekv.models import load, longva
from tests.models import families
from tests.models.families import original_name


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    families.longva(tmp_path)
    return tmp_path


def test_every_weight_comes_from_the_checkpoint(checkpoint: Path) -> None:
    stored = load_file(checkpoint / "model.safetensors")
    model = load(checkpoint, device="cpu").hf
    for name, weight in model.named_parameters():
        assert torch.equal(weight, stored[original_name(name)]), name
    assert model.config.text_config.rope_parameters["rope_theta"] == 1_000_000_000.0


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["average", "max"])
def test_frames_are_pooled_after_the_projector(mode: str, tmp_path: Path) -> None:
    families.longva(tmp_path, mm_spatial_pool_mode=mode)
    model = load(tmp_path, device="cpu")
    pixels = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    every = torch.stack(tuple(model.hf.model.get_image_features(pixels).pooler_output))
    assert every.shape == (3, 16, 64)  # the class token is left out
    pool = {"average": avg_pool2d, "max": max_pool2d}[mode]
    expected = pool(every.view(3, 4, 4, 64).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).reshape(3, 4, 64)
    torch.testing.assert_close(model.frame_features(pixels), expected)


def test_a_tower_that_the_checkpoint_leaves_out_comes_from_its_own_repository(tmp_path: Path) -> None:
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    for folder, with_tower in ((whole, True), (bare, False)):
        folder.mkdir()
        families.longva(folder, with_tower=with_tower)
    expected, found = (load(folder, device="cpu").hf.state_dict() for folder in (whole, bare))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "change",
    [
        {"mm_vision_tower": "google/siglip-so400m-patch14-384"},
        {"mm_projector_type": "spatial_pool"},
        {"mm_spatial_pool_mode": "bilinear"},
    ],
    ids=str,
)
def test_other_models_of_that_class_are_refused(change: dict[str, Any], checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text()) | change
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"LongVA alone.*llava-hf/") as caught:
        load(checkpoint)
    assert next(iter(change.values())) in str(caught.value)


def test_the_published_tower_is_known_without_its_repository(offline: list[object]) -> None:
    config = longva._tower_config(longva._CLIP)
    assert (config.image_size // config.patch_size) ** 2 == 576
    assert (config.hidden_act, config.layer_norm_eps) == ("quick_gelu", 1e-5)
    defaults = CLIPImageProcessorPil()
    assert list(longva._CLIP_PIXELS["image_mean"]) == list(defaults.image_mean)
    assert list(longva._CLIP_PIXELS["image_std"]) == list(defaults.image_std)
    assert longva._CLIP_PIXELS["resample"] == defaults.resample
    assert offline == []


def test_settings_are_those_of_the_published_code(checkpoint: Path) -> None:
    model = load(checkpoint, device="cpu")
    assert (model.encode_config.n_local, model.ask_config.retrieve_size) == (8000, 32)
