"""What the engine asks of a Video-LLM family. A family is one small file that fills this in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from rekv.attention.devices import input_device
from rekv.attention.positions import Layout
from rekv.core import AskConfig, EncodeConfig, Frame, Image, Turn
from rekv.errors import ConfigError, ModelError
from rekv.models.pixels import Preprocessor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_TIMES = (0.0, 9.9, 83.55, 5999.0, 9999.96, 360_000.0, 2e6)  # seconds, at which text around a frame is as long


@dataclass(frozen=True, slots=True)
class BlockShape:
    """What a block is in one session."""

    tokens: int
    grid: tuple[int, int] | None = None  # its rows and columns of tokens, where the family's resolution is dynamic
    layout: Layout | None = None  # where its tokens stand, where the model has several position axes


class VideoLM(ABC):
    """A loaded Video-LLM: prompts, frame features, tokens per frame. Holds no state of any stream.

    Subclasses set `architectures` and implement the abstract methods; the attention path has no code per
    family.
    """

    architectures: ClassVar[tuple[str, ...]]  # class names of transformers that this family takes
    encode_defaults: ClassVar[EncodeConfig] = EncodeConfig()
    ask_defaults: ClassVar[AskConfig] = AskConfig()
    next_turn: ClassVar[str] = "\n"  # between an answer and the `prompt` of the question that follows it
    choice_prefix: ClassVar[str] = "Best option: ("  # how the answer to a multiple-choice question begins
    frames_per_block: ClassVar[int] = 1  # neighbouring pictures that the vision tower takes together
    markers: ClassVar[tuple[str, ...]] = ()  # tokens by which the family's prompts are built

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
        self.encode_config = encode_config or self.encode_defaults
        self.ask_config = ask_config or self.ask_defaults

    @classmethod
    def load_hf(cls, source: str, architecture: str, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        """Load the model through transformers; return it and what `output_loading_info` tells.

        `source` is a local folder or a Hub name, `architecture` one of `architectures`. A family whose
        checkpoints transformers cannot read as they are overrides this, to pass a config or key mapping.
        """
        import transformers

        hf, info = getattr(transformers, architecture).from_pretrained(source, **options)
        return hf, info

    @classmethod
    def load_preprocessor(cls, source: str) -> Preprocessor:
        """Read what `source`, a folder or a Hub name, wants done to pictures."""
        return Preprocessor.from_pretrained(source)

    def check(self) -> None:
        """Raise `ModelError` if the checkpoint's parts do not fit together. Called once, after loading."""
        rows = self._embedding.num_embeddings
        if len(self.tokenizer) > rows:
            raise ModelError(
                f"{self.name}: its tokenizer has {len(self.tokenizer)} tokens, its model {rows}; they are "
                f"not from one checkpoint, fetch its files again"
            )
        vocabulary = self.tokenizer.get_vocab()
        if missing := [marker for marker in self.markers if marker not in vocabulary]:
            raise ModelError(
                f"{self.name}: its tokenizer does not know {' '.join(missing)}, by which the prompts of its family "
                f"are built; fetch the checkpoint's tokenizer files again"
            )
        if len({self._text_tokens(time) for time in _TIMES}) > 1:
            raise ModelError(
                f"{self.name}: its tokenizer makes different numbers of tokens of different times, so frames would "
                f"not be equally long; fetch the checkpoint's tokenizer files again"
            )

    def _tried(self, see: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What comes of a first frame. Raises `ModelError` if the vision tower does not take it."""
        try:
            with torch.inference_mode():
                return see()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelError(f"{self.name}: its vision tower does not take a frame ({error})") from error

    def _text_tokens(self, time: float = 0.0) -> int:
        """Tokens of the text around a frame."""
        return sum(len(self._ids(text)) for text in self.frame_text(time) if text)

    @property
    def _embedding(self) -> torch.nn.Embedding:
        return self.hf.get_input_embeddings()  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the language model takes its inputs; with a device map, its layers may be elsewhere."""
        return input_device(self._embedding)

    @property
    def dtype(self) -> torch.dtype:
        return self.hf.dtype

    @property
    @abstractmethod
    def tokens_per_frame(self) -> int:
        """Tokens that one frame becomes in the language model, `frame_text` included: the size of a block."""

    @property
    @abstractmethod
    def init_prompt(self) -> str:
        """The text before the first frame (the sink)."""

    @abstractmethod
    def prompt(self, question: str) -> str:
        """The text after the frames, up to where the answer starts."""

    def dialogue(self, turns: Sequence[Turn], question: str) -> str:
        """The text after the frames in a conversation, oldest turn first, up to where the answer starts."""
        past = (f"{self.prompt(turn.question)}{turn.answer}{self.next_turn}" for turn in turns)
        return "".join((*past, self.prompt(question)))

    @abstractmethod
    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels (frames, 3, height, width) to language model inputs (frames, tokens, dim)."""

    def frame_text(self, time: float) -> tuple[str, str]:
        """What the family's prompts say before and after each frame, such as its time in seconds.

        It is part of the frame's block, so it must come to the same number of tokens at all times.
        """
        return "", ""

    def frame_inputs(self, images: Sequence[Image], times: Sequence[float]) -> torch.Tensor:
        """Map pictures and their times in seconds to language model inputs (frames, tokens_per_frame, dim)."""
        return self.in_text(self.frame_features(self.pixels(images)), times)

    def in_text(self, features: torch.Tensor, times: Sequence[float]) -> torch.Tensor:
        """Put what `frame_text` says at these times around features (frames, tokens, dim)."""
        if self.frame_text(0.0) == ("", ""):
            return features
        rows = []
        for frame, time in zip(features, times, strict=True):
            before, after = (self._embed(self._ids(text)).to(frame) for text in self.frame_text(time))
            rows.append(torch.cat((before, frame, after)))
        if len({len(row) for row in rows}) > 1:
            raise ModelError(
                f"{self.name}: the text around its frames differs in length, which blocks cannot; report it"
            )
        return torch.stack(rows)

    def grid(self, height: int, width: int, config: EncodeConfig) -> tuple[int, int] | None:
        """Rows and columns of tokens that pictures of this size in pixels become; None if that is always the same."""
        return None

    def block_shape(self, config: EncodeConfig, grid: tuple[int, int] | None = None) -> BlockShape:
        """What a block is in a session of these settings, and of this grid, if the pictures are known."""
        if config.frame_tokens is not None:
            raise ConfigError(
                f"frame_tokens is {config.frame_tokens}, but a frame of {self.name} always has "
                f"{self.tokens_per_frame} tokens: leave it out"
            )
        return BlockShape(self.tokens_per_frame)

    def block_inputs(self, blocks: Sequence[Sequence[Frame]], shape: BlockShape, first: int) -> dict[str, Any]:
        """What the decoder takes for these blocks, each made of at most `frames_per_block` pictures.

        `first` is the number of the first block in its session. Returns `inputs_embeds` (1, len(blocks) *
        shape.tokens, dim), and whatever else the decoder needs.
        """
        frames = [frame for block in blocks for frame in block]
        features = self.frame_inputs([frame.image for frame in frames], [frame.time for frame in frames])
        if features.shape[:2] != (len(blocks), shape.tokens):
            raise ModelError(
                f"{self.name} made {tuple(features.shape[:2])} (frames, tokens) of {len(blocks)} frames; "
                f"it promised {shape.tokens} tokens per frame"
            )
        return {"inputs_embeds": features.flatten(0, 1)[None]}

    def pixels(self, images: Sequence[Image]) -> torch.Tensor:
        """Resize and normalise pictures as the checkpoint wants them.

        Returns (frames, 3, height, width) on the model's device, in its dtype.
        """
        return self.preprocessor(images, self.device).to(self.dtype)

    def init_ids(self, text: str | None = None) -> list[int]:
        return self._ids(self.init_prompt if text is None else text, starts=True)

    def question_ids(self, question: str) -> list[int]:
        """The bare question, which only retrieves (paper, section 3.3)."""
        return self._ids(question)

    def prompt_ids(self, question: str, choices: Sequence[str] = (), turns: Sequence[Turn] = ()) -> list[int]:
        """The prompt that is answered, behind earlier `turns`. With `choices`, the paper's multiple-choice form."""
        if not choices:
            return self._ids(self.dialogue(turns, question))
        return self._ids(self.dialogue(turns, multiple_choice(question, choices)) + self.choice_prefix)

    def letter_ids(self, choices: int) -> list[list[int]]:
        """Of each of the first letters: the tokens that it may be written as where an answer starts."""
        return [self._letter_ids(chr(ord("A") + i)) for i in range(choices)]

    def _letter_ids(self, letter: str) -> list[int]:
        written = {self._ids(text)[-1] for text in (letter, f" {letter}", f"({letter}")}
        alone = [id for id in written if str(self.tokenizer.decode([id])).strip().upper() == letter]
        return sorted(alone) or self._ids(letter)[-1:]

    def _ids(self, text: str, *, starts: bool = False) -> list[int]:
        """Token ids; where a stream starts, with what the tokenizer puts before all text, such as `<s>`."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=starts).input_ids
        return ids

    def _embed(self, ids: list[int]) -> torch.Tensor:
        embedded: torch.Tensor = self._embedding(torch.tensor(ids, dtype=torch.long, device=self.device))
        return embedded

    def __str__(self) -> str:
        layers = self.hf.config.get_text_config().num_hidden_layers
        return (
            f"{self.name}: {type(self.hf).__name__}, {self.hf.num_parameters() / 1e6:,.1f} M parameters, "
            f"{layers} layers, {self.tokens_per_frame} tokens per frame, "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}"
        )


def six_characters(time: float) -> str:
    """Seconds, for `frame_text`: always of one length, such as "0003.5", and without tenths where they do not fit."""
    return f"{time:06.1f}" if time < 9999.95 else f"{time % 1e6:06.0f}"


def multiple_choice(question: str, choices: Sequence[str]) -> str:
    """The paper's multiple-choice question; options are lettered from A."""
    if len(choices) > 26:
        raise ConfigError(f"there are {len(choices)} choices; at most 26 can be lettered")
    options = "\n".join(f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(choices))
    return f"Question: {question}\nOptions:\n{options}\nOnly give the best option."
