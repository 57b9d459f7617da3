"""Intervals clustered by video; paired comparison."""

import numpy as np
import pytest

from rekv.evaluation.statistics import Values, average, compare, share, t_quantile


@pytest.mark.parametrize(
    ("df", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)]
)
def test_t_quantile(df: int, t: float) -> None:
    assert t_quantile(df) == pytest.approx(t, rel=2e-3)


def questions(per_video: list[list[float]]) -> Values:
    return [(f"v{i}", value) for i, values in enumerate(per_video) for value in values]


def test_questions_of_one_video_are_not_independent() -> None:
    """Ten videos that are all right or all wrong tell as much as ten questions do."""
    values = [1.0] * 6 + [0.0] * 4
    one_each = share(questions([[value] for value in values]))
    many_each = share(questions([[value] * 50 for value in values]))
    assert many_each.mean == one_each.mean == 0.6
    assert (many_each.low, many_each.high) == pytest.approx((one_each.low, one_each.high))
    mixed = share(questions([[1.0] * 30 + [0.0] * 20] * 10))
    assert mixed.high - mixed.low < (many_each.high - many_each.low) / 3


def test_intervals_cover_as_often_as_they_say() -> None:
    """Videos differ in difficulty; an interval that took questions for independent would cover far less."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        difficulty = rng.beta(2, 2, 30)
        sample = questions([list((rng.random(12) < p).astype(float)) for p in difficulty])
        estimate = share(sample)
        covered += estimate.low <= 0.5 <= estimate.high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_alike_is_not_certain(value: float) -> None:
    estimate = share(questions([[value] * 5] * 20))
    assert estimate.mean == value
    assert 0.05 < estimate.high - estimate.low < 0.25


def test_one_video_has_no_spread() -> None:
    estimate = share(questions([[1.0, 0.0, 1.0]]))
    assert estimate.high - estimate.low > 0.5
    assert average(questions([[3.0, 4.0]])).high == float("inf")


def test_average_by_hand() -> None:
    estimate = average(questions([[1.0], [2.0], [3.0]]))
    assert estimate.mean == 2.0
    assert estimate.high - 2.0 == pytest.approx(t_quantile(2) * (1 / 3) ** 0.5)


def by_key(values: Values) -> dict[tuple[int, int], tuple[str, float]]:
    return {(i, 0): pair for i, pair in enumerate(values)}


def test_paired_comparison() -> None:
    a = by_key([(f"v{i}", float(i % 2)) for i in range(40)])
    b = {key: (video, 1.0) for key, (video, _) in a.items()}
    comparison = compare(a, b)
    assert comparison is not None
    assert (comparison.better, comparison.worse, comparison.difference.mean) == (20, 0, 0.5)
    assert comparison.p < 0.001
    same = compare(a, a)
    assert same is not None
    assert (same.p, same.difference.mean, same.better) == (1.0, 0.0, 0)
    assert compare(a, {(99, 0): ("v", 1.0)}) is None


def test_few_videos_cannot_be_significant() -> None:
    """Four videos can fall 2^4 ways: all in one direction happens in 2 of 16."""
    a = by_key([(f"v{i // 100}", 0.0) for i in range(400)])
    comparison = compare(a, {key: (video, 1.0) for key, (video, _) in a.items()})
    assert comparison is not None
    assert comparison.p == 2 / 16
