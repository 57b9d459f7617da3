"""One question of a session: what it can see, what its retriever may know, the pass in which every layer reads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from rekv.attention.hook import run
from rekv.attention.passes import QuestionPass
from rekv.attention.together import side_by_side
from rekv.core import AskConfig, QueryForm, Turn
from rekv.errors import DamagedError, StoreError
from rekv.memory.memory import Memory
from rekv.models.base import VideoLM
from rekv.retrieval import Given, Internal, Retriever, Scoring, Top, find, in_scope, parts_of
from rekv.retrieval.scoring import margin
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
        self, questions: Sequence[tuple[str, int]], frames: Sequence[int] | None, config: AskConfig
    ) -> tuple[list[QuestionPass], list[str]]:
        """The question pass: for each question, every layer picks its frames, or reads `frames`, and makes its context.

        A question is its text, and how many tokens its prompt has, for which, and for the answer, room is left. Several
        go through the model together. Frames that turn out to be damaged on disk are left out, of these questions and
        those after them; return also what there is to say about them.
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
            asked = [Asking(self, text, config, visible, prompt) for text, prompt in questions]
            try:
                passes = [one.choose(frames) for one in asked]
                self.read([one.ids for one in asked], passes)
            except DamagedError as error:
                if keeper is None or not set(error.frames) & set(visible):
                    raise
                keeper.lose(memory, error)
            else:
                return passes, warnings

    def follow_up(
        self, question: tuple[str, int], history: Sequence[Turn], frames: Sequence[int] | None, config: AskConfig
    ) -> tuple[QuestionPass, list[str]]:
        """Retrieve for a question that follows others: by its own words, or, if nothing in the video stands out for
        them, by those of the turn before as well.

        "Where was it?" names nothing to look for. A question that does is not led astray by what was asked before.
        """
        (asked,), warnings = self.retrieve([question], frames, config)
        lead = margin(asked.all_scores) if history and frames is None else None
        if lead is None or lead >= config.min_margin:
            return asked, warnings
        text, room = question
        (asked,), warnings = self.retrieve(
            [(f"{history[-1].question} {history[-1].answer} {text}", room)], None, config
        )
        return asked, warnings

    def read(self, ids: Sequence[Sequence[int]], passes: Sequence[QuestionPass]) -> None:
        """Run questions through the model. Raises `DamagedError` if frames cannot be read."""
        tokens = torch.tensor([[token for own in ids for token in own]], device=self.family.device)
        if len(passes) == 1:
            run(self.decoder, passes[0], input_ids=tokens)
            return
        together = side_by_side(passes)
        together.tokens = [len(own) for own in ids]
        run(self.decoder, together, input_ids=tokens)


class Asking:
    """A question, and the frames that it can see. It is the `Query` that retrievers are made from."""

    def __init__(self, asker: Asker, text: str, config: AskConfig, visible: Sequence[int], prompt: int) -> None:
        self.text, self.config = text, config
        self.candidates = visible[: max(0, len(visible) - config.recent_frames)]
        self._asker, self._visible = asker, visible
        self.ids = asker.family.question_ids(text)
        self._room = max(len(self.ids), prompt + config.max_new_tokens)

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
        one = self._pass(Internal(Top.of(self)), form)
        self._asker.read([self.ids], [one])
        return one.all_scores[:, : len(self.candidates)]

    def choose(self, frames: Sequence[int] | None) -> QuestionPass:
        """Return the pass that will read the given frames, or those that the retriever picks.

        Raises `ConfigError` for frames that are out of reach.
        """
        if frames is None:
            retriever = find(self.config.retriever)(self)
            form: QueryForm = getattr(retriever, "form", self.config.query)
            return self._pass(retriever, form, by=self.config.retriever)
        given = Given(frames)
        given.check(self._visible)
        return self._pass(given, self.config.query, by="given")

    def _pass(self, retriever: Retriever, form: QueryForm, by: str = "") -> QuestionPass:
        return QuestionPass(
            self._asker.memory,
            retriever,
            visible=self._visible,
            recent=len(self._visible) - len(self.candidates),
            room=self._room,
            scoring=Scoring(parts_of(form, self._asker.family.tokenizer, self.ids), self._drifting),
            by=": ".join(filter(None, (by, getattr(retriever, "decision", "")))),
        )

    @cached_property
    def _drifting(self) -> Tensor | None:
        """The times by which a drift of the scores is to be taken out, if at all."""
        if not self.config.detrend:
            return None
        return torch.tensor([self.times[frame] for frame in self._visible], dtype=torch.float64)
