"""Reading a choice from an answer."""

import pytest

from rekv.evaluation.choices import letter, likeliest, published, right

OPTIONS = ("Red", "Dark blue", "Blue", "I do not know")


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", "B"),
        ("B) Dark blue", "B"),
        (" c)", "C"),
        ("(D) I do not know", "D"),
        ("A.", "A"),
        ("B: dark blue", "B"),
        ("The answer is C", "C"),
        ("Best option: (B)", "B"),
        ("Red", "A"),
        ("It is dark blue.", None),  # "blue" is among it, too
        ("blue", "C"),
        ("It was red!", "A"),
        ("E", None),
        ("", None),
        ("A and B are both fine: (A) or (B)", None),
        ("A red thing", "A"),
        ("I cannot tell", None),
        ("Because", None),
    ],
)
def test_letters_with_care(text: str, choice: str | None) -> None:
    assert letter(text, OPTIONS) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [("B) Dark blue", "B"), ("B", "B"), ("Blue", "B"), ("it is (C)", "C"), (") x", ""), ("", ""), ("b", "b")],
)
def test_letters_as_published(text: str, choice: str) -> None:
    assert published(text) == choice


def test_the_likeliest_letter() -> None:
    assert likeliest((-3.0, -0.5, -2.0)) == "B"
    assert likeliest(()) is None


def test_an_answer_that_is_listed_twice_is_right_twice() -> None:
    assert right(("x", "y", "x"), "x") == {"A", "C"}
