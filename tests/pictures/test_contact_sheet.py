"""The contact sheet, by its pixels."""

import numpy as np
import pytest

from rekv.pictures import Group, Still, contact_sheet
from rekv.pictures.style import GREEN, MARGIN, PAPER, RED, WIDTH

BLUE = (10, 20, 230)


def still(time: float, *, shape: tuple[int, int] = (48, 48), true: bool = False) -> Still:
    return Still(np.full((*shape, 3), BLUE, np.uint8), time, 1.5, 3, 4, true)


def pixels(groups: list[Group], title: str = "Title", subtitle: str = "") -> np.ndarray:
    return np.array(contact_sheet(groups, title, subtitle))


def count(sheet: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((sheet == color).all(-1).sum())


def box(sheet: np.ndarray, color: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width of what has this colour."""
    rows, columns = np.nonzero((sheet == color).all(-1))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_every_still_is_there() -> None:
    one = count(pixels([Group("q", "a", [still(0)])]), BLUE)
    assert one > 100 * 100
    assert count(pixels([Group("q", "a", [still(t) for t in range(10)])]), BLUE) == 10 * one
    assert count(pixels([Group("q", "a", [still(0)]), Group("r", "b", [still(1)])]), BLUE) == 2 * one


@pytest.mark.parametrize("shape", [(1080, 1920), (1920, 1080), (48, 48), (3, 400)])
def test_a_still_keeps_its_proportions(shape: tuple[int, int]) -> None:
    height, width = box(pixels([Group("q", "a", [still(0, shape=shape)])]), BLUE)
    assert height / width == pytest.approx(shape[0] / shape[1], rel=0.05, abs=0.01)


def test_what_shows_the_answer_is_framed() -> None:
    plain = pixels([Group("q", "a", [still(0), still(1)])])
    framed = pixels([Group("q", "a", [still(0), still(1, true=True)])])
    assert count(plain, GREEN) == 0
    assert count(framed, GREEN) > 1000


def test_right_and_wrong_are_marked() -> None:
    assert count(pixels([Group("q", "a", [], right=True)]), GREEN) > 10
    assert count(pixels([Group("q", "a", [], right=False)]), RED) > 10
    unknown = pixels([Group("q", "a", [], right=None)])
    assert count(unknown, GREEN) == count(unknown, RED) == 0


def test_long_texts_stay_within_the_margins() -> None:
    text = "What was the colour of the very small thing? " * 30
    sheet = pixels([Group(text, text, [still(0)], note=text, right=True)], title=text, subtitle=text)
    assert sheet.shape[1] == WIDTH
    assert (sheet[:, -MARGIN + 2 :] == PAPER).all()


@pytest.mark.parametrize("text", ["", "\n\n", "Größe? 猫はどこ 🎥", "a\tb\nc", "\ud800"])
def test_any_text_can_be_drawn(text: str) -> None:
    assert pixels([Group(text, text, [still(0)], note=text)], title=text, subtitle=text).shape[1] == WIDTH


def test_a_sheet_of_nothing() -> None:
    assert pixels([]).shape[1] == WIDTH
