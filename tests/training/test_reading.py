"""The forward pass of training is what transformers and rekv compute."""

import numpy as np
import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerBase

from rekv.world import Scene, clip_question
from training.labels import TOKENS, UNSAID
from training.models import video_llm
from training.questions import Clips, Writer, batch, draw_clips
from training.reading import Look, Read, frame_features, matches, read
from training.settings import Settings
from training.words import INIT_PROMPT, tokenizer

FRAMES = 5


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    return tokenizer()


@pytest.fixture(scope="module")
def model(words: PreTrainedTokenizerBase) -> LlavaOnevisionForConditionalGeneration:
    return video_llm(Settings(), words).eval()


@pytest.fixture(scope="module")
def clips(words: PreTrainedTokenizerBase) -> Clips:
    return draw_clips(np.random.default_rng(0), Writer(words), 2, FRAMES, 3, FRAMES)


def hidden(
    model: LlavaOnevisionForConditionalGeneration, clips: Clips, words: PreTrainedTokenizerBase, look: Look
) -> Read:
    init = torch.tensor(Writer(words).ids(INIT_PROMPT))
    with torch.no_grad():
        return read(model, clips, frame_features(model, clips.images), init, look)


def test_with_all_frames_it_is_the_stock_model(
    model: LlavaOnevisionForConditionalGeneration, words: PreTrainedTokenizerBase, clips: Clips
) -> None:
    """Whole clip in context, a window that holds it, the newline that transformers puts: the same logits."""
    found = hidden(model, clips, words, Look(window=FRAMES, newline=True))
    init = Writer(words).ids(INIT_PROMPT)
    video = [model.config.video_token_id] * (FRAMES * TOKENS + 1)
    pixels = clips.images.unflatten(0, (-1, FRAMES)).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    for row in range(len(clips.ids)):
        text = clips.ids[row][clips.ids[row] > 0]
        ids = torch.tensor([[*init, *video, *text.tolist()]])
        with torch.no_grad():
            stock = model(input_ids=ids, pixel_values_videos=pixels[clips.clip[row]][None]).logits
        ours = model.lm_head(found.hidden[row, : len(text)])
        torch.testing.assert_close(ours, stock[0, len(init) + len(video) :], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("newline", [False, True])
def test_the_answers_alone_are_the_same_answers(
    model: LlavaOnevisionForConditionalGeneration, words: PreTrainedTokenizerBase, clips: Clips, newline: bool
) -> None:
    said = clips.labels != UNSAID
    whole, answers = (
        hidden(model, clips, words, Look(window=FRAMES, newline=newline, answers_only=only)).hidden[said]
        for only in (False, True)
    )
    torch.testing.assert_close(answers, whole, atol=1e-5, rtol=1e-5)


def test_a_frame_sees_its_window_only(
    model: LlavaOnevisionForConditionalGeneration, words: PreTrainedTokenizerBase, clips: Clips
) -> None:
    """The first frame is changed: a layer further on, one frame more can know of it."""
    changed = clips.images.clone()
    changed[0] = 255 - changed[0]
    init = torch.tensor(Writer(words).ids(INIT_PROMPT))
    with torch.no_grad():
        before, after = (
            read(model, clips, frame_features(model, images), init, Look(window=2))
            for images in (clips.images, changed)
        )
    for layer, (old, new) in enumerate(zip(before.keys, after.keys, strict=True)):
        differs = (old - new).abs().amax(1)[:FRAMES] > 1e-6
        assert differs.tolist() == [frame <= layer for frame in range(FRAMES)]


def test_what_a_question_names_is_found_in_the_scene(words: PreTrainedTokenizerBase) -> None:
    rng = np.random.default_rng(1)
    scenes = [Scene.draw(rng, 8) for _ in range(3)]
    asked = [[clip_question(rng, scene) for _ in range(20)] for scene in scenes]
    clips = batch(rng, Writer(words), scenes, asked, 8)
    found = matches(clips)
    rows = [(scene, question) for scene, questions in zip(scenes, asked, strict=True) for question in questions]
    assert found.any()
    for row, (_, question) in enumerate(rows):
        for column, (scene, frame) in enumerate((scene, frame) for scene in scenes for frame in range(8)):
            wanted = any(
                (kind is None or event.kind == kind) and (color is None or event.color == color)
                for kind, color in question.subjects
                for event in scene.visible(frame)
            )
            assert bool(found[row, column]) == wanted, (question, frame)
