"""The dual encoder's files are an ordinary SigLIP: transformers loads them, and questions find their frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, SiglipModel

import rekv.models
from rekv.world import Scene, clip_question, render_clip
from rekv.world.shapes import INPUT

FOLDER = Path(rekv.models.__file__).parent / "tiny_dual"
EASY = ("color", "shape", "exist", "digit", "where", "size")  # about one thing that is there: one frame tells
Loaded = Any  # transformers declares what these return in ways that no type checker accepts


@pytest.fixture(scope="module")
def model() -> Loaded:
    return SiglipModel.from_pretrained(FOLDER, dtype=torch.float32)


@pytest.fixture(scope="module")
def processor() -> Loaded:
    return AutoProcessor.from_pretrained(FOLDER)


def test_the_best_frame_shows_the_answer(model: Loaded, processor: Loaded) -> None:
    right = []
    for seed in range(15):
        rng = np.random.default_rng(20_000 + seed)
        scene = Scene.draw(rng, 16)
        asked = [question for question in (clip_question(rng, scene) for _ in range(8)) if question.type in EASY]
        asked = [question for question in asked if question.evidence]
        if not asked:
            continue
        inputs = processor(
            text=[question.text for question in asked],
            images=list(render_clip(scene)),
            padding="max_length",
            return_tensors="pt",
        )
        with torch.inference_mode():
            best = model(**inputs).logits_per_text.argmax(1).tolist()
        right += [
            any(start <= frame < stop for start, stop in question.evidence)
            for frame, question in zip(best, asked, strict=True)
        ]
    assert len(right) >= 30
    assert np.mean(right) >= 0.9


def test_what_never_appeared_is_liked_less(model: Loaded, processor: Loaded) -> None:
    rng = np.random.default_rng(3)
    scene = Scene.draw(rng, 16)
    there = {event.name for event in scene.events}
    absent = next(name for name in ("purple ring", "cyan heart", "orange star", "green circle") if name not in there)
    shown = next(event.name for event in scene.events if event.span(16))
    inputs = processor(
        text=[f"Did you see a {name}?" for name in (shown, absent)],
        images=list(render_clip(scene)),
        padding="max_length",
        return_tensors="pt",
    )
    with torch.inference_mode():
        likes = model(**inputs).logits_per_text.amax(1)
    assert likes[0] > likes[1]


def test_pictures_and_questions_have_the_size_that_it_was_trained_on(model: Loaded, processor: Loaded) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, INPUT, INPUT, 3), dtype=np.uint8)
    inputs = processor(text=["Was there a red ring?"], images=list(images), padding="max_length", return_tensors="pt")
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(inputs["pixel_values"], expected, atol=1e-6, rtol=0)
    assert inputs["input_ids"].shape == (1, model.config.text_config.max_position_embeddings)
    assert processor.tokenizer.unk_token_id not in inputs["input_ids"]


def test_its_weights_are_half_precision_and_small() -> None:
    assert SiglipModel.from_pretrained(FOLDER).dtype == torch.bfloat16
    assert (FOLDER / "model.safetensors").stat().st_size < 5e6
