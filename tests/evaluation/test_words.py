"""Comparing answers by words."""

import pytest

from rekv.evaluation.words import contains, count, exact, token_f1


@pytest.mark.parametrize(
    ("answer", "text", "same"),
    [("a red ball", "Red ball.", 1.0), ("red ball", "ball red", 0.0), ("2", "two", 1.0), ("yes", "", 0.0)],
)
def test_exact(answer: str, text: str, same: float) -> None:
    assert exact(answer, text) == same


@pytest.mark.parametrize(
    ("answer", "text", "there"),
    [("Yes", "Yes, it can.", 1.0), ("No", "Nothing", 0.0), ("on table", "it is on the table", 1.0), ("", "x", 0.0)],
)
def test_contains(answer: str, text: str, there: float) -> None:
    assert contains(answer, text) == there


@pytest.mark.parametrize(
    ("answer", "text", "same"),
    [("3", "3", 1.0), ("3", "They did it three times.", 1.0), ("3", "13", 0.0), ("3", "often", 0.0), ("No", "no", 1.0)],
)
def test_count(answer: str, text: str, same: float) -> None:
    assert count(answer, text) == same


def test_token_f1_by_hand() -> None:
    assert token_f1("a red ball", "the red car") == pytest.approx(0.5)
    assert token_f1("red red", "red") == pytest.approx(2 / 3)
    assert token_f1("x", "y") == 0.0
    assert token_f1("", "") == 0.0
