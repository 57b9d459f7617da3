"""What a question comes to: its words while they come, then the answer with the moments that it rests on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rekv.attention.passes import QuestionPass
from rekv.core import Answer, AskConfig, Retrieval, Timings, Turn
from rekv.decoding import FirstToken, Transcript, end_ids
from rekv.errors import ConfigError
from rekv.evidence import evidence
from rekv.memory.frames import FrameTable
from rekv.models.base import VideoLM
from rekv.retrieval.scoring import margin


@dataclass(frozen=True, slots=True)
class Times:
    """When a question was asked, when its turn came, and when it had its frames."""

    begun: float
    started: float
    retrieved: float

    def until(self, said: Transcript, load: float) -> Timings:
        first, done = said.first_token_at, said.done_at
        return Timings(
            wait=self.started - self.begun,
            question=self.retrieved - self.started,
            load=load,
            first_token=first - self.retrieved,
            decode=done - first,
            total=done - self.begun,
        )


def prompt_of(family: VideoLM, question: str, choices: Sequence[str] = (), history: Sequence[Turn] = ()) -> list[int]:
    """Return the tokens that follow the frames. Raises `ConfigError` for what is no question."""
    if not question.strip():
        raise ConfigError("the question is empty")
    if any("\ud800" <= c <= "\udfff" for c in question):
        raise ConfigError("the question is not valid text: it holds half a character (a lone surrogate)")
    return family.prompt_ids(question, choices, history)


def transcript(
    family: VideoLM,
    config: AskConfig,
    on_text: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    on_first_token: Callable[[], None] | None = None,
    *,
    letters: int = 0,
) -> Transcript:
    """Return what will take down an answer, and how likely the first so many letters were to begin it."""
    ends = end_ids(family.hf, family.tokenizer)
    watched = FirstToken(family.letter_ids(letters)) if letters else None
    return Transcript(family.tokenizer, ends, config.stop, on_text, cancelled, on_first_token, watched)


def answer(
    question: str,
    asked: QuestionPass,
    said: Transcript,
    times: Times,
    table: FrameTable,
    frame_seconds: float,
    *,
    warnings: Sequence[str],
    config: AskConfig,
) -> Answer:
    """Put an answer together from the pass that retrieved and the words that came."""
    layers = sorted(asked.picks)
    retrieval = Retrieval(
        tuple(asked.picks[i] for i in layers),
        asked.all_scores,
        asked.visible,
        asked.by,
    )
    lead = margin(retrieval.scores)
    return Answer(
        question=question,
        text=said.text,
        evidence=evidence(retrieval, table, frame_seconds, config.at),
        retrieval=retrieval,
        token_ids=tuple(said.ids),
        finish_reason=said.reason,
        timings=times.until(said, asked.reads.seconds),
        reads=asked.reads.by_tier(),
        frames_seen=len(asked.visible),
        warnings=tuple(warnings),
        choice_logprobs=said.letters.logprobs if said.letters else (),
        margin=lead,
        stands_out=lead is None or lead >= config.min_margin,
    )
