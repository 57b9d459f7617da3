"""The unit of work: one video with its questions, under every cell that shares its encoding.

The video is encoded once. In streaming mode a question is asked when the stream has reached its time, before anything
later is encoded. A worker needs a loaded model and this function, nothing else.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from rekv.core import Answer, Frame
from rekv.engine import Model, Session
from rekv.errors import ConfigError, DataError
from rekv.evaluation.arms import settings
from rekv.evaluation.cell import FULL, STOCK, Cell
from rekv.evaluation.costs import Costs, peak_gpu, peak_ram, reset_peaks
from rekv.evaluation.feed import Feed, schedule
from rekv.evaluation.frames import Footage
from rekv.evaluation.grounding import ground
from rekv.evaluation.schema import Question, Video
from rekv.evaluation.temporary import temporary
from rekv.retrieval.simple import evenly

logger = logging.getLogger(__name__)

_TEXT_ROOM = 2048  # tokens that prompt and answer may have in the baselines of full attention
_DIGITS = 6  # of what is written


@dataclass(frozen=True, slots=True)
class Work:
    """One video, where it lies, and the cells to ask it under; they share an encoding."""

    video: Video
    path: Path
    cells: tuple[Cell, ...]
    ram: int | None = None  # bytes of memory in RAM; the rest lies on disk meanwhile. None: all in RAM


@dataclass(slots=True)
class Record:
    """What came of one video in one run. A line of its results."""

    index: int
    video: str
    questions: list[dict[str, Any]] = field(default_factory=list)  # in the order of the file
    error: str | None = None  # why nothing could be asked

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    @property
    def failed(self) -> bool:
        return self.error is not None or any("error" in question for question in self.questions)


Progress = Callable[[float], None]  # is given seconds of video that have been encoded
Outcome = Mapping[Cell, tuple[Record, Costs]]


def answer(model: Model, work: Work, progress: Progress = lambda seconds: None) -> Outcome:
    """Encode the video and ask its questions. What fails is recorded, not raised.

    Raises `ConfigError` for settings that cannot be, and lets interrupts through.
    """
    outcome = {cell: (Record(work.video.index, work.video.id), Costs()) for cell in work.cells}
    for part in _encodings(work.cells):
        reset_peaks()
        try:
            asked = {cell: _Asked(work.video, *outcome[cell]) for cell in part}
            _stock(model, work, asked) if part[0].retriever == STOCK else _stream(model, work, asked, progress)
        except ConfigError:  # a setting, which no other video would put right
            raise
        except Exception as error:  # whatever a damaged video, or a model that has no memory left, may raise
            logger.debug("%s", work.path, exc_info=True)
            for cell in part:
                _fail(outcome[cell][0], work.video, error)
        for cell in part:
            outcome[cell][1].peak_ram, outcome[cell][1].peak_gpu = peak_ram(), peak_gpu()
    return outcome


def failed(work: Work, error: Exception) -> Outcome:
    """What is recorded of a video that could not be asked at all."""
    outcome = {cell: (Record(work.video.index, work.video.id), Costs()) for cell in work.cells}
    for record, _ in outcome.values():
        _fail(record, work.video, error)
    return outcome


def _fail(record: Record, video: Video, error: Exception) -> None:
    record.error = _told(error)
    record.questions = [{**_stated(question), "error": record.error} for question in video.questions]


def _encodings(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that can be asked of one session: all but the baselines, which have their own."""
    memory = [cell for cell in cells if cell.retriever not in (FULL, STOCK)]
    full = [cell for cell in cells if cell.retriever == FULL]
    return [part for part in (memory, full, *([cell] for cell in cells if cell.retriever == STOCK)) if part]


class _Asked:
    """Fills one record and its costs."""

    def __init__(self, video: Video, record: Record, costs: Costs) -> None:
        self.record, self.costs = record, costs
        self._questions = video.questions
        record.questions = [{} for _ in video.questions]

    def ask(self, session: Session, i: int, cell: Cell, at: float | None) -> None:
        question = self._questions[i]
        try:
            answer = session.ask(question.text, **settings(session, question, cell, at))
        except Exception as error:  # this question's only, such as one that is too long
            logger.debug("%s, question %d", self.record.video, i, exc_info=True)
            self.record.questions[i] = {**_stated(question), "error": _told(error)}
            return
        self.record.questions[i] = {**_stated(question), **_answered(session, question, answer, at)}
        times = answer.timings
        self.costs.first_token_seconds += (round(times.wait + times.question + times.first_token, _DIGITS),)
        self.costs.answer_seconds += (round(times.total, _DIGITS),)


def _stream(model: Model, work: Work, asked: Mapping[Cell, _Asked], progress: Progress) -> None:
    """Play the video as a stream; ask each question in its turn."""
    cell = next(iter(asked))
    footage = Footage(work.path, cell.sample_fps, cell.paper)
    feed = Feed(footage.frames(), model.family.frames_per_block)
    n_local = _whole(model, footage, work.video, cell) if cell.retriever == FULL else cell.n_local
    seconds, done = 0.0, 0.0
    encoder = next((one.encoder for one in asked if one.encoder), None)
    with temporary(model, work.ram, **_shape(cell), n_local=n_local, encoder=encoder, policy=cell.policy) as session:

        def encoded(session: Session) -> None:
            nonlocal done
            now = session.memory.times[-1]
            progress(now - done)
            done = now

        for at, indices in schedule(work.video.questions, cell):
            begun, waited = perf_counter(), feed.seconds
            session.append(_portion(feed, at, cell), on_progress=encoded)
            seconds += perf_counter() - begun - (feed.seconds - waited)
            for i in indices:
                for one, part in asked.items():
                    part.ask(session, i, one, None if cell.paper else at)
        for part in asked.values():
            part.costs.frames = session.memory.frames
            part.costs.bytes_per_frame = round(session.memory.bytes / max(session.memory.frames, 1))
            part.costs.encode_seconds, part.costs.read_seconds = round(seconds, _DIGITS), round(feed.seconds, _DIGITS)


def _portion(feed: Feed, at: float | None, cell: Cell) -> Iterator[Frame]:
    """The frames that the stream has up to a question's time."""
    if cell.paper and at is not None:
        return feed.upto(int(at * cell.sample_fps))
    return feed.until(math.inf if at is None else at)


def _stock(model: Model, work: Work, asked: Mapping[Cell, _Asked]) -> None:
    """Give the stock model evenly spaced frames of what was shown until the question: the usual way of a Video-LLM."""
    (cell, part), *_ = asked.items()
    footage = Footage(work.path, cell.sample_fps, cell.paper)
    for at, indices in schedule(work.video.questions, cell):
        reader = Feed(footage.at(_grid(footage, work.video, cell, at)))
        frames = list(reader.until(math.inf if at is None else at))
        if not frames:
            raise DataError(f"{work.path} has no frame up to {at} s, when a question is asked")
        begun = perf_counter()
        size = _tokens(model, frames[0], cell) * len(frames) + _TEXT_ROOM
        session = model.session(**_shape(cell), n_local=size + len(model.family.init_ids()), encoder=None)
        session.append(frames)
        part.costs.encode_seconds = round(part.costs.encode_seconds + perf_counter() - begun, _DIGITS)
        part.costs.read_seconds = round(part.costs.read_seconds + reader.seconds, _DIGITS)
        part.costs.frames += session.memory.frames
        for i in indices:
            part.ask(session, i, cell, None)


def _grid(footage: Footage, video: Video, cell: Cell, at: float | None) -> list[float]:
    """Times of the frames that the stock model is given, in seconds."""
    length = _length(footage, video)
    count = math.ceil(length * cell.sample_fps - 1e-6)
    if at is not None:  # frame k is shown at k / sample_fps at the earliest, and must have been shown by then
        count = min(count, math.floor(at * cell.sample_fps) + 1)
    return [k / cell.sample_fps for k in evenly(range(max(1, count)), cell.retrieve_size)]


def _whole(model: Model, footage: Footage, video: Video, cell: Cell) -> int:
    """Tokens of a window that holds the whole video and what is asked."""
    frames = math.ceil(_length(footage, video) * footage.sample_fps) + 2
    return _tokens(model, next(footage.frames()), cell) * frames + len(model.family.init_ids()) + _TEXT_ROOM


def _length(footage: Footage, video: Video) -> float:
    """Seconds of the video."""
    length = footage.duration() or video.duration
    if length is None:
        raise DataError(f"neither {footage.path} nor the dataset says how long it is: re-mux it, or add `duration`")
    return length


def _shape(cell: Cell) -> dict[str, Any]:
    """What frames are made of: the same for memory and baselines."""
    return {"sample_fps": cell.sample_fps, "frame_tokens": cell.frame_tokens}


def _tokens(model: Model, frame: Frame, cell: Cell) -> int:
    """Tokens of a frame like this."""
    family, (height, width, _) = model.family, frame.image.shape
    config = family.encode_config.but(frame_tokens=cell.frame_tokens)
    return family.block_shape(config, family.grid(height, width, config)).tokens


def _stated(question: Question) -> dict[str, Any]:
    """What a record says of the question itself, so that results can be judged without the dataset."""
    lists = {"choices": list(question.choices), "tasks": list(question.tasks)}
    return {"question": question.text, "answer": question.answer, **{key: x for key, x in lists.items() if x}}


def _answered(session: Session, question: Question, answer: Answer, at: float | None) -> dict[str, Any]:
    memory, seen = session.memory, answer.retrieval.candidates
    layers = [[_span(session, frame, seen) for frame in sorted(set(frames))] for frames in answer.retrieval.frames]
    found: dict[str, Any] = {"text": answer.text}
    if ": " in answer.retrieval.by:
        found["decision"] = answer.retrieval.by.partition(": ")[2]
    if answer.choice_logprobs:
        found["logprobs"] = [round(value, _DIGITS) for value in answer.choice_logprobs]
    if answer.finish_reason == "length":
        found["cut"] = True
    if at is not None:
        found["asked"] = at
    found["seen"] = answer.frames_seen
    if seen:
        found["newest"] = round(memory.times[seen[-1]], _DIGITS)
    found["read"] = _runs(answer.retrieval.union)
    if (grounding := ground(layers, question.windows)) is not None:
        found["grounding"] = {key: round(value, _DIGITS) for key, value in asdict(grounding).items()}
    if answer.warnings:
        found["warnings"] = list(answer.warnings)
    return found


def _span(session: Session, frame: int, seen: Sequence[int]) -> tuple[float, float]:
    """What a frame stands for, in seconds: until the next one, but no longer than it would be sampled for."""
    start = session.memory.times[frame]
    lasts = session.model.family.frames_per_block / session.config.sample_fps
    following = session.memory.times[frame + 1] if frame < seen[-1] else math.inf
    return start, min(following, start + lasts)


def _runs(frames: Sequence[int]) -> list[list[int]]:
    """Frames as [first, last] of neighbours."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    return runs


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
