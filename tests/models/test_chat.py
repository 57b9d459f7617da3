"""Families that are asked by their checkpoint's chat template."""

from pathlib import Path

import pytest

from rekv.errors import ModelError
from rekv.models import load
from tests.models import families


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    families.llava_next_video(tmp_path)
    return tmp_path


def test_a_template_as_newer_checkpoints_have_it(checkpoint: Path) -> None:
    (checkpoint / "chat_template.json").unlink()
    (checkpoint / "chat_template.jinja").write_text(families.CHATML)
    model = load(checkpoint, device="cpu")
    assert model.init_prompt == "<|im_start|>user\n"
    assert model.prompt("Q") == "\nQ<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [None, "{{ messages[0]['content'][1]['text'] }}"], ids=["none", "of text alone"])
def test_without_a_template_for_videos_nothing_says_how_to_ask(template: str | None, checkpoint: Path) -> None:
    (checkpoint / "chat_template.json").unlink()
    if template is not None:
        (checkpoint / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=r"no chat template that takes a video.*chat_template\.jinja"):
        load(checkpoint, device="cpu")


def test_text_around_frames_that_changes_its_length_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rekv.models.llava_next_video import LlavaNextVideo

    monkeypatch.setattr(LlavaNextVideo, "frame_text", lambda self, time: (f"{time:.0f} s: ", ""))
    with pytest.raises(ModelError, match="different numbers of tokens of different times"):
        load(checkpoint, device="cpu")
