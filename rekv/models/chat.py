"""Prompts that follow a checkpoint's own chat template: one turn of the user, the video and then the question."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rekv.core import Turn
from rekv.errors import ModelError
from rekv.models.base import VideoLM
from rekv.models.pixels import read_json, read_text


class ChatLM(VideoLM):
    """A Video-LLM that is asked by its chat template."""

    video_token: ClassVar[str] = "<video>"  # what templates write in the video's place

    @property
    def init_prompt(self) -> str:
        return self._split((), "")[0]

    def prompt(self, question: str) -> str:
        return self.dialogue((), question)

    def dialogue(self, turns: Sequence[Turn], question: str) -> str:
        return self._split(turns, question)[1]

    def init_ids(self, text: str | None = None) -> list[int]:
        ids = super().init_ids(text)
        start = self.tokenizer.bos_token_id
        # Templates write the start token that the tokenizer adds, too.
        return ids[1:] if start is not None and ids[:2] == [start, start] else ids

    def check(self) -> None:
        if not self.tokenizer.chat_template or self.video_token not in self._rendered((), ""):
            raise ModelError(
                f"{self.name} has no chat template that takes a video, so nothing says how it is asked; fetch the "
                f"checkpoint's files again, chat_template.jinja or chat_template.json with them"
            )
        super().check()

    def _split(self, turns: Sequence[Turn], question: str) -> tuple[str, str]:
        """The texts before and after the video."""
        before, _, after = self._rendered(turns, question).partition(self.video_token)
        return before, after

    def _rendered(self, turns: Sequence[Turn], question: str) -> str:
        said = [part for turn in turns for part in (("user", turn.question), ("assistant", turn.answer))]
        messages: list[Any] = [
            {"role": role, "content": [{"type": "text", "text": text}]} for role, text in (*said, ("user", question))
        ]
        messages[0]["content"].insert(0, {"type": "video"})
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def chat_template(source: str) -> str | None:
    """The chat template that lies beside a checkpoint's processor instead of in its tokenizer's files."""
    if (text := read_text(source, "chat_template.jinja")) is not None:
        return text
    config: Mapping[str, Any] = read_json(source, "chat_template.json") or {}
    template = config.get("chat_template")
    return template if isinstance(template, str) else None
