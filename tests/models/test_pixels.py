"""Pictures become what transformers' own processor makes of them, by the checkpoint's settings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from rekv.errors import ConfigError, ModelError
from rekv.models.pixels import Preprocessor

PLAIN: dict[str, Any] = {
    "size": {"height": 48, "width": 64},
    "resample": 3,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(folder: Path, file: str, content: Any) -> None:
    (folder / file).write_text(json.dumps(content))


@pytest.mark.parametrize("size", [(384, 384), (360, 640), (90, 160), (640, 640)], ids=str)
@pytest.mark.parametrize("resample", [2, 3])
def test_equals_the_processor_of_transformers(size: tuple[int, int], resample: int, tmp_path: Path) -> None:
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    reference = LlavaOnevisionImageProcessorPil(
        size={"height": 384, "width": 384},
        image_grid_pinpoints=[[384, 384]],
        resample=resample,
        image_mean=mean,
        image_std=std,
    )
    reference.save_pretrained(tmp_path)
    picture = noise(*size)
    # Its first "patch" is the whole picture, resized: what the video processor makes of a frame.
    expected = reference(picture, return_tensors="pt", input_data_format="channels_last").pixel_values[0, 0]
    found = Preprocessor.from_pretrained(tmp_path)([picture])
    assert found.dtype == torch.float32
    assert found.shape == (1, 3, 384, 384)
    off = (found[0] - expected).abs() * torch.tensor(std)[:, None, None] * 255
    assert off.max() <= 1e-3  # in steps of the 8-bit picture; 1 is asked for


SHAPES = [(48, 48), (30, 90), (91, 33), (360, 640), (49, 50), (17, 200)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("short", "cut"), [(48, 48), (48, 40), (40, 47)])
def test_the_middle_is_cut_out_as_transformers_does(
    shape: tuple[int, int], short: int, cut: int, tmp_path: Path
) -> None:
    reference = CLIPImageProcessorPil(size={"shortest_edge": short}, crop_size={"height": cut, "width": cut})
    reference.save_pretrained(tmp_path)
    picture = noise(*shape)
    expected = reference(picture, return_tensors="pt", input_data_format="channels_last").pixel_values
    found = Preprocessor.from_pretrained(tmp_path)([picture])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_old_configs_say_one_number_for_a_size() -> None:
    old = Preprocessor.from_config(PLAIN | {"do_center_crop": True, "size": 50, "crop_size": 40}, name="x")
    assert (old.short_side, old.size) == (50, (40, 40))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_long_side_comes_first_as_in_smolvlm(shape: tuple[int, int]) -> None:
    reference = SmolVLMImageProcessorPil(
        do_image_splitting=False, size={"longest_edge": 60}, max_image_size={"longest_edge": 40}
    )
    config = reference.to_dict() | {
        "size": {"longest_edge": 99},
        "video_sampling": {"video_size": {"longest_edge": 60}},
    }
    picture = noise(*shape)
    expected = reference(picture, return_tensors="pt", input_data_format="channels_last").pixel_values[0]
    found = Preprocessor.from_config(config, name="x")
    assert found.resample == "lanczos"
    torch.testing.assert_close(found([picture]), expected, atol=1e-5, rtol=0)


def test_pictures_of_different_sizes_keep_their_places(device: torch.device) -> None:
    """On a GPU too each is, to the bit, what it is alone on the CPU."""
    preprocessor = Preprocessor.from_config(PLAIN, name="x")
    images = [noise(48, 64), noise(100, 30), noise(48, 64)[::-1], noise(30, 100), noise(100, 30) // 2]
    together = preprocessor(images, device)
    assert together.device.type == device.type
    assert together.shape == (5, 3, 48, 64)
    for image, pixels in zip(images, together, strict=True):
        assert torch.equal(preprocessor([image])[0], pixels.cpu())


def test_a_picture_of_the_right_size_is_only_rescaled_and_normalised() -> None:
    image = noise(48, 64)
    expected = (torch.from_numpy(image).permute(2, 0, 1) / 255 - torch.tensor(PLAIN["image_mean"])[:, None, None]) / (
        torch.tensor(PLAIN["image_std"])[:, None, None]
    )
    torch.testing.assert_close(Preprocessor.from_config(PLAIN, name="x")([image])[0], expected)


def test_pictures_are_left_as_they_are() -> None:
    image = noise(100, 100)
    image.setflags(write=False)
    Preprocessor.from_config(PLAIN, name="x")([image])
    assert np.array_equal(image, noise(100, 100))


def test_no_pictures() -> None:
    assert Preprocessor.from_config(PLAIN, name="x")([]).shape == (0, 3, 48, 64)


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="no pixels"):
        Preprocessor.from_config(PLAIN, name="x")([np.zeros((0, 5, 3), np.uint8)])


def test_steps_that_the_config_turns_off_are_left_out() -> None:
    image = noise(48, 64)
    raw = torch.from_numpy(image).permute(2, 0, 1).float()
    off = Preprocessor.from_config(PLAIN | {"do_rescale": False, "do_normalize": False}, name="x")
    assert torch.equal(off([image])[0], raw)
    half = Preprocessor.from_config(PLAIN | {"rescale_factor": 0.5, "do_normalize": False}, name="x")
    assert torch.equal(half([image])[0], raw / 2)


def test_the_settings_for_video_come_first(tmp_path: Path) -> None:
    def height() -> int:
        return Preprocessor.from_pretrained(str(tmp_path)).size[0]

    def sized(n: int) -> dict[str, Any]:
        return PLAIN | {"size": {"height": n, "width": n}}

    save(tmp_path, "processor_config.json", {"image_processor": sized(1), "processor_class": "X"})
    assert height() == 1
    save(tmp_path, "preprocessor_config.json", sized(2))
    assert height() == 2
    save(tmp_path, "video_preprocessor_config.json", sized(3))
    assert height() == 3
    save(tmp_path, "processor_config.json", {"video_processor": sized(4), "image_processor": sized(1)})
    assert height() == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_center_crop": True}, "crops"),
        ({"do_center_crop": True, "size": {"shortest_edge": 48}}, "crops to None"),
        ({"do_resize": False}, "does not resize"),
        ({"size": {"shortest_edge": 224}}, "shortest_edge"),
        ({"size": 224}, "224"),
        ({"size": None}, "None"),
        ({"resample": 0}, "filter 0"),
        ({"resample": None}, "filter None"),
        ({"image_mean": None}, "image_mean None"),
        ({"image_std": [1, 2]}, r"image_std \[1, 2\]"),
    ],
    ids=str,
)
def test_a_processor_that_does_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        Preprocessor.from_config(PLAIN | change, name="some-model")
    assert "some-model" in str(caught.value)


def test_missing_settings_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        Preprocessor.from_pretrained(tmp_path)


def test_broken_settings_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"size": ')
    with pytest.raises(ModelError, match="not valid JSON"):
        Preprocessor.from_pretrained(tmp_path)
