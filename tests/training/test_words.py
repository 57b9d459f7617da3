"""The tokenizer knows every word of the world, and says times as they are written."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from rekv.world import Scene, clip_question
from training.words import INIT_PROMPT, tokenizer


def test_no_question_or_answer_has_an_unknown_word() -> None:
    words = tokenizer()
    rng = np.random.default_rng(0)
    for phrasings in ("known", "held_out"):
        for _ in range(200):
            question = clip_question(rng, Scene.draw(rng, 16), phrasings=phrasings)
            ids = words(f"{INIT_PROMPT}\n{question.text} {question.answer}").input_ids
            assert words.unk_token_id not in ids, question


def test_answers_come_out_as_they_went_in() -> None:
    words = tokenizer()
    rng = np.random.default_rng(1)
    scenes = [Scene.draw(rng, 16) for _ in range(60)]
    answers = {clip_question(rng, scene).answer for scene in scenes for _ in range(16)}
    assert any(":" in answer for answer in answers)
    for answer in answers:
        assert words.decode(words(answer).input_ids) == answer


@pytest.mark.parametrize("text", ["14:05", "00:00", "23:59"])
def test_a_time_is_read_digit_by_digit(text: str) -> None:
    words = tokenizer()
    assert len(words(text).input_ids) == 5
    assert words.decode(words(f"at {text}").input_ids) == f"at {text}"


def test_it_is_the_same_after_saving(tmp_path) -> None:
    words = tokenizer()
    words.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = f"{INIT_PROMPT}\nWhen did the red circle appear?"
    assert again(text).input_ids == words(text).input_ids
    assert again.decode(words("at 07:31").input_ids) == "at 07:31"
