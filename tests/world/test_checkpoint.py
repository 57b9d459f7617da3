"""The built-in model's files are an ordinary checkpoint: transformers loads it, and it knows the world."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    PreTrainedTokenizerBase,
)

import rekv
import rekv.models
from rekv.core import Frame, Image
from rekv.world import Scene, Split, clip_question, needle_stream, render_clip, vocabulary
from rekv.world.shapes import INPUT

FOLDER = Path(rekv.models.__file__).parent / "tiny"
Model = Any  # transformers declares what `generate` belongs to in a way that no type checker accepts
INIT_PROMPT = "<|im_start|>system\nYou are a helpful assistant.<|im_end|><|im_start|>user\n"
TOKENS_PER_FRAME = 16
MOST_WORDS = 24  # of an answer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Model:
    return LlavaOnevisionForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32)


def ask(model: Model, tokenizer: PreTrainedTokenizerBase, pixels: torch.Tensor, question: str) -> str:
    """Answer as transformers does; the model's own `image_newline` token follows the frames."""
    video = "<video>" * (len(pixels) * TOKENS_PER_FRAME + 1)
    prompt = f"{INIT_PROMPT}{video}\n{question}<|im_end|><|im_start|>assistant\n"
    inputs = tokenizer(prompt, return_tensors="pt")
    ids = model.generate(**inputs, pixel_values_videos=pixels[None], max_new_tokens=MOST_WORDS, do_sample=False)
    return str(tokenizer.decode(ids[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)).strip()


def pixels(images: Image) -> torch.Tensor:
    processor = LlavaOnevisionImageProcessorPil.from_pretrained(FOLDER)
    values: torch.Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
    return values[:, 0]  # the picture itself; the rest is its patches, which a video has not


def test_it_answers_questions_about_unseen_clips(model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    right = defaultdict(list)
    for seed in range(20):
        rng = np.random.default_rng(10_000 + seed)
        scene = Scene.draw(rng, 12)
        clip = pixels(render_clip(scene))
        for _ in range(3):
            question = clip_question(rng, scene)
            right[question.type].append(ask(model, tokenizer, clip, question.text) == question.answer)
    assert np.mean([mark for marks in right.values() for mark in marks]) >= 0.9, dict(right)


@torch.inference_mode()
def test_with_all_frames_in_context_rekv_says_what_generate_says(
    model: Model, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The frames alone: the token that transformers puts behind a video is no part of the method."""

    def embedded(text: str) -> torch.Tensor:
        embedding: torch.Tensor = model.get_input_embeddings()(tokenizer(text, return_tensors="pt").input_ids[0])
        return embedding

    rng = np.random.default_rng(1)
    scene = Scene.draw(rng, 16)
    images = render_clip(scene)
    features = model.get_video_features(pixels(images)[None]).pooler_output[0][: len(images) * TOKENS_PER_FRAME]
    session = rekv.load().session(n_local=4096)
    session.append(Frame(image, float(time)) for time, image in enumerate(images))
    for _ in range(12):
        question = clip_question(rng, scene).text
        prompt = embedded(f"\n{question}<|im_end|><|im_start|>assistant\n")
        inputs = torch.cat((embedded(INIT_PROMPT), features, prompt))[None]
        stock = model.generate(
            inputs_embeds=inputs,
            attention_mask=torch.ones(inputs.shape[:2], dtype=torch.long),
            max_new_tokens=MOST_WORDS,
            do_sample=False,
        )
        answer = session.ask(question, frames=range(len(images)), max_new_tokens=MOST_WORDS)
        assert answer.text == tokenizer.decode(stock[0], skip_special_tokens=True).strip()


def test_it_does_not_answer_blindly(model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    stream = needle_stream(np.random.default_rng(0), 128)
    images = render_clip(stream.scene)
    right = {"evidence": 0, "tail": 0}
    asked = [question for question in stream.questions if question.evidence and question.type != "exist"]
    for question in asked:
        shown = [frame for span in question.evidence for frame in range(*span)]
        for name, frames in (("evidence", shown), ("tail", list(range(120, 128)))):
            right[name] += ask(model, tokenizer, pixels(images[frames]), question.text) == question.answer
    assert right["evidence"] >= len(asked) - 1
    assert right["tail"] <= len(asked) - 3


def test_pictures_are_normalized_to_the_range_from_minus_one_to_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, INPUT, INPUT, 3), dtype=np.uint8)
    expected = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(pixels(images), expected, atol=1e-6, rtol=0)


def test_larger_pictures_are_resized() -> None:
    images = np.full((1, 480, 640, 3), 200, np.uint8)
    assert pixels(images).shape == (1, 3, INPUT, INPUT)
    assert pixels(images).mean() == pytest.approx(200 / 127.5 - 1, abs=1e-5)


def test_the_tokenizer_adds_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer("").input_ids == []
    assert len(tokenizer("ring").input_ids) == 1


def test_the_init_prompt_is_one_token_per_word(tokenizer: PreTrainedTokenizerBase) -> None:
    words = re.findall(r"<\|\w+\|>|\w+|\n|\.", INIT_PROMPT)
    assert len(tokenizer(INIT_PROMPT).input_ids) == len(words) == 13


def test_case_and_spaces_do_not_matter(tokenizer: PreTrainedTokenizerBase) -> None:
    neat = tokenizer("Which came first, the red ring or the blue star?").input_ids
    plain = tokenizer("which came first , the red ring or the blue star ?").input_ids
    assert neat == plain
    assert len(neat) == 12


@pytest.mark.parametrize("phrasings", ["known", "held_out"])
def test_every_word_of_the_world_is_known(tokenizer: PreTrainedTokenizerBase, phrasings: Split) -> None:
    texts = vocabulary()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        question = clip_question(rng, Scene.draw(rng, 16), phrasings=phrasings)
        texts += [question.text, question.answer]
    for text in texts:
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids, text


def test_answers_come_back_as_they_are_written(tokenizer: PreTrainedTokenizerBase) -> None:
    for answer in (
        "a small orange ring moved from left to top",
        "an orange card hid behind the wall",
        "a red ring, then a blue star",
        "at 07:31",
        "7",
        "nothing",
    ):
        ids = tokenizer(f"{answer}<|im_end|>").input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == answer
