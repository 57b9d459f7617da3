"""What the engine asks of a Video-LLM family. A family is one small file that fills this in."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rekv.core import AskConfig, EncodeConfig, Image
from rekv.models.pixels import Preprocessor


class VideoLM(ABC):
    """A loaded Video-LLM: prompts, frame features, tokens per frame. Holds no state of any stream.

    Subclasses set `architectures` and implement the abstract methods; the attention path has no code per family.
    """

    architectures: ClassVar[tuple[str, ...]]  # class names of transformers that this family takes

    def __init__(
        self,
        hf: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        preprocessor: Preprocessor,
        *,
        name: str,
        encode_config: EncodeConfig | None = None,
        ask_config: AskConfig | None = None,
    ) -> None:
        self.hf = hf
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self.name = name
        self.encode_config = encode_config or EncodeConfig()
        self.ask_config = ask_config or AskConfig()

    @property
    def device(self) -> torch.device:
        return self.hf.get_input_embeddings().weight.device  # type: ignore[return-value,union-attr]

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    @property
    @abstractmethod
    def tokens_per_frame(self) -> int:
        """Tokens that one frame becomes in the language model: the size of a block."""

    @property
    @abstractmethod
    def init_prompt(self) -> str:
        """The text before the first frame (the sink)."""

    @abstractmethod
    def prompt(self, question: str) -> str:
        """The text after the frames, up to where the answer starts."""

    @abstractmethod
    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels (frames, 3, height, width) to language model inputs (frames, tokens_per_frame, dim)."""

    def pixels(self, images: Sequence[Image]) -> torch.Tensor:
        """Resize and normalise pictures as the checkpoint wants them: (frames, 3, height, width), on the device."""
        return self.preprocessor(images).to(self.device, self.dtype)

    def init_ids(self, text: str | None = None) -> list[int]:
        return self._ids(self.init_prompt if text is None else text)

    def question_ids(self, question: str) -> list[int]:
        """The bare question, which only retrieves (paper, section 3.3)."""
        return self._ids(question)

    def prompt_ids(self, question: str, choices: Sequence[str] = ()) -> list[int]:
        """The prompt that is answered. With `choices`, the paper's multiple-choice form."""
        if not choices:
            return self._ids(self.prompt(question))
        return self._ids(self.prompt(multiple_choice(question, choices)) + "Best option: (")

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text).input_ids
        return ids


def multiple_choice(question: str, choices: Sequence[str]) -> str:
    """The paper's multiple-choice question; options are lettered from A."""
    options = "\n".join(f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(choices))
    return f"Question: {question}\nOptions:\n{options}\nOnly give the best option."
