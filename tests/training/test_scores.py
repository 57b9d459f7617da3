"""What is said of a model: its intervals hold for answers that are right or wrong together."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from training.scores import Score, Trial, accuracy, darkness, joined, load, report, table, together

MODEL = Path(__file__).parents[2] / "rekv" / "models" / "tiny"


def score(right: list[int], asked: list[int]) -> Score:
    return Score(np.array(right), np.array(asked))


def width(score: Score) -> float:
    low, high = score.interval
    assert 0 <= low <= score.accuracy <= high <= 1
    return high - low


def test_answers_that_stand_and_fall_together_count_for_less() -> None:
    rng = np.random.default_rng(0)
    apart = score(list(rng.binomial(16, 0.9, 200)), [16] * 200)
    together = score(list(16 * rng.binomial(1, 0.9, 200)), [16] * 200)
    assert width(together) == pytest.approx(4 * width(apart), rel=0.35)  # 16 answers for one: four times as wide


@pytest.mark.parametrize("apart", [True, False])
def test_intervals_hold_the_truth_as_often_as_they_say(apart: bool) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        right = rng.binomial(8, 0.8, 100) if apart else 8 * rng.binomial(1, 0.8, 100)
        low, high = score(list(right), [8] * 100).interval
        held += low <= 0.8 <= high
    assert 0.91 <= held / 400 <= 0.99


@pytest.mark.parametrize("right", [0, 4])
def test_without_a_difference_a_clip_counts_once(right: int) -> None:
    few, many = score([right] * 10, [4] * 10), score([right] * 10, [40] * 10)
    assert width(few) > 0.2
    assert score([4] * 10, [4] * 10).interval == score([40] * 10, [40] * 10).interval
    assert width(many) <= 1


def test_nothing_asked_is_no_error() -> None:
    assert score([], []).interval == (0.0, pytest.approx(0.79, abs=0.01))
    assert width(score([0, 0], [0, 0])) > 0.5


def test_types_add_up_by_clip_and_seeds_by_the_side_of_each_other() -> None:
    one, other = score([1, 2], [2, 2]), score([0, 3], [1, 3])
    both = together({"color": one, "shape": other})
    assert both.right.tolist() == [1, 5]
    assert both.asked.tolist() == [3, 5]
    assert joined([one, other]).asked.tolist() == [2, 2, 1, 3]


def test_the_built_in_model_is_judged() -> None:
    model, words = load(MODEL), AutoTokenizer.from_pretrained(MODEL)
    scores = accuracy(model, words, 5, 250, Trial())
    asked = together(scores).asked
    assert asked.tolist() == [16] * 16  # questions about each of as many clips as were needed, eight at a time
    assert together(scores).accuracy > 0.9
    found = report(model, words, 128, {"known": Trial(), "darkness": Trial(spoiler=darkness)})
    assert found["known"]["questions"] == 3 * 128
    assert found["known"]["clips"] == 3 * 8
    low, high = found["darkness"]["interval"]
    assert low < found["darkness"]["accuracy"] < high
    assert f"({low:.3f} to {high:.3f}; 384 questions about 24 clips)" in table(found)
