"""Video-LLaVA's frame features and settings, on the golden tiny model."""

from pathlib import Path

import numpy as np
import torch
from transformers import VideoLlavaForConditionalGeneration

from rekv.models.pixels import Preprocessor
from rekv.models.video_llava import VideoLlava

GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "models" / "video_llava_tiny"
HALF = (0.5, 0.5, 0.5)


@torch.inference_mode()
def test_golden_video_features() -> None:
    hf = VideoLlavaForConditionalGeneration.from_pretrained(GOLDEN, dtype=torch.float32)
    model = VideoLlava(hf, None, Preprocessor((56, 56), "bicubic", HALF, HALF), name="golden")  # type: ignore[arg-type]
    with np.load(GOLDEN / "stock_check.npz") as stock:
        frames, expected = stock["frames_uint8"], torch.from_numpy(stock["video_features"])
    features = model.frame_features(model.pixels(list(frames.transpose(0, 2, 3, 1))))
    assert model.tokens_per_frame == 17  # 4 x 4 patches and the class token
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)


def test_settings_are_those_of_the_published_code() -> None:
    assert (VideoLlava.encode_defaults.n_local, VideoLlava.ask_defaults.retrieve_size) == (15000, 8)
