"""One question of a session: what it can see, what its retriever may know, the pass in which every layer reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from rekv.attention.hook import run
from rekv.attention.passes import QuestionPass
from rekv.core import AskConfig, QueryForm
from rekv.errors import DamagedError, StoreError
from rekv.memory.memory import Memory
from rekv.models.base import VideoLM
from rekv.retrieval import Given, Internal, Retriever, Scoring, Top, find, in_scope, parts_of
from rekv.store.keeper import Keeper

Similarity = Callable[[str, Sequence[int]], Tensor]  # of a text and the pictures of frames, by a dual encoder


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks a session's memory."""

    family: VideoLM
    decoder: nn.Module
    memory: Memory
    keeper: Keeper | None
    similarity: Similarity

    def retrieve(
        self, text: str, prompt: int, frames: Sequence[int] | None, config: AskConfig
    ) -> tuple[QuestionPass, list[str]]:
        """The question pass: every layer picks its frames, or reads `frames`, and puts its context together.

        It leaves room for a prompt of `prompt` tokens and the answer. Frames that turn out to be damaged on disk are
        left out, of this question and those after it; return also what there is to say about them.
        """
        memory, keeper = self.memory, self.keeper
        if keeper is not None:
            keeper.refresh(memory)
        while True:
            scope = in_scope(memory.times, memory.frames, config, memory.last_pictures)
            visible = memory.table.there(scope)
            warnings = list(dict.fromkeys(why for f, why in sorted(memory.table.damage.items()) if f in scope))
            if warnings and not visible:
                raise StoreError(
                    f"no frame that this question could see is readable: {warnings[0]}. `rekv verify` lists what is "
                    f"damaged; restore it from a copy, ask about another time, or read the video into another session"
                )
            try:
                return Asking(self, text, config, visible, prompt).read(frames), warnings
            except DamagedError as error:
                if keeper is None or not set(error.frames) & set(visible):
                    raise
                keeper.lose(memory, error)


class Asking:
    """A question, and the frames that it can see. It is the `Query` that retrievers are made from."""

    def __init__(self, asker: Asker, text: str, config: AskConfig, visible: Sequence[int], prompt: int) -> None:
        self.text, self.config = text, config
        self.candidates = visible[: max(0, len(visible) - config.recent_frames)]
        self._asker, self._visible = asker, visible
        self._ids = asker.family.question_ids(text)
        self._room = max(len(self._ids), prompt + config.max_new_tokens)

    @property
    def size(self) -> int:
        tokens, chunk = self.config.retrieve_tokens, self.config.chunk_size
        if tokens is None:
            return self.config.retrieve_size
        return tokens // self._asker.memory.tokens_per_frame // chunk * chunk

    @property
    def times(self) -> Sequence[float]:
        return self._asker.memory.times

    def similarity(self) -> Tensor:
        return self._asker.similarity(self.text, self.candidates)

    def scan(self, form: QueryForm) -> Tensor:
        scores = self._pass(Internal(Top.of(self)), form).scores
        return torch.stack([scores[layer].cpu() for layer in sorted(scores)])[:, : len(self.candidates)]

    def read(self, frames: Sequence[int] | None) -> QuestionPass:
        """Read the given frames, or those that the retriever picks.

        Raises `ConfigError` for frames that are out of reach, `DamagedError` for those that cannot be read.
        """
        if frames is None:
            retriever = find(self.config.retriever)(self)
            form: QueryForm = getattr(retriever, "form", self.config.query)
            return self._pass(retriever, form, by=self.config.retriever)
        given = Given(frames)
        given.check(self._visible)
        return self._pass(given, self.config.query, by="given")

    def _pass(self, retriever: Retriever, form: QueryForm, by: str = "") -> QuestionPass:
        asker = self._asker
        asked = QuestionPass(
            asker.memory,
            retriever,
            visible=self._visible,
            recent=len(self._visible) - len(self.candidates),
            room=self._room,
            scoring=Scoring(parts_of(form, asker.family.tokenizer, self._ids), self._drifting),
            by=": ".join(filter(None, (by, getattr(retriever, "decision", "")))),
        )
        run(asker.decoder, asked, input_ids=torch.tensor([self._ids], device=asker.family.device))
        return asked

    @cached_property
    def _drifting(self) -> Tensor | None:
        """The times by which a drift of the scores is to be taken out, if at all."""
        if not self.config.detrend:
            return None
        return torch.tensor([self.times[frame] for frame in self._visible], dtype=torch.float64)
