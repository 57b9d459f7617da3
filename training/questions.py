"""Questions about clips as batches: the words, the answer to learn, the frames to read, the frames to retrieve."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from rekv.retrieval.simple import evenly
from rekv.world import TYPES, Question, QuestionType, Scene, clip_question, render_clip
from rekv.world.background import draw_background
from rekv.world.event import draw_timeline, pick
from rekv.world.shapes import COLORS, INPUT, KINDS
from training.clips import spoil
from training.labels import MOST_THINGS, UNSAID, Numbers, Things, contents, things
from training.words import END, START

ANY = -1  # kind or colour that a question leaves open
NOBODY = -2  # fills up the subjects of a question that has fewer
_MOST_SUBJECTS = 2
_FEW = 3  # colours and kinds of a scene whose things are alike
_TRIES = 4  # to ask what a clip allows
_ONCE_TOO_MANY = 0.6  # share of numbers of which the answer is 1, as most are, that another question replaces
# Types of which one frame of a range tells all; the others need the range, or more.
_ONE_FRAME = frozenset({"color", "shape", "exist", "digit", "where", "size"})


@dataclass(frozen=True, slots=True)
class Clips:
    """A batch: b clips of n frames, r questions about them, each given c frames."""

    images: torch.Tensor  # uint8 (b * n, INPUT, INPUT, 3)
    frames: int  # n
    contents: torch.Tensor  # int64 (b * n, MOST_THINGS, 2): (kind, colour) of what each frame shows
    clip: torch.Tensor  # int64 (r,): the clip that a question is about
    context: torch.Tensor  # int64 (r, c): the frames of its clip that it is given, in order
    ids: torch.Tensor  # int64 (r, l): prompt and answer, filled up with 0
    asked: torch.Tensor  # bool (r, l): the question's own words
    labels: torch.Tensor  # int64 (r, l): the next token where the answer is, UNSAID elsewhere
    subjects: torch.Tensor  # int64 (r, 2, 2): (kind, colour) to retrieve, ANY or NOBODY
    types: torch.Tensor  # int64 (r,): index into TYPES
    things: Things  # what each token of the b * n frames shows

    def to(self, device: torch.device) -> "Clips":
        def moved(value: object) -> object:
            if isinstance(value, torch.Tensor):
                return value.to(device, non_blocking=True)
            return value.to(device) if isinstance(value, Things) else value

        return Clips(*(moved(getattr(self, name)) for name in self.__slots__))  # type: ignore[arg-type]


class Writer:
    """Turns questions into ids, each text once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        self._before = self.ids("\n")
        self._between = self.ids(f"{END}{START}assistant\n")
        self._end = self.ids(END)

    def ids(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            self._known[text] = tuple(self._tokenizer(text, add_special_tokens=False).input_ids)
        return self._known[text]

    def write(self, question: Question) -> tuple[list[int], slice, int]:
        """Return the ids of prompt and answer, where the question's words are, and where the answer begins."""
        words, answer = self.ids(question.text), self.ids(question.answer)
        start = len(self._before)
        prompt = [*self._before, *words, *self._between]
        return [*prompt, *answer, *self._end], slice(start, start + len(words)), len(prompt)


def draw_clips(
    rng: np.random.Generator,
    writer: Writer,
    clips: int,
    frames: int,
    questions: int,
    context: int,
    *,
    often: float = 0.0,
    types: Sequence[QuestionType] = (),
    spoilt: bool = True,
) -> Clips:
    """Draw clips of so many frames, with so many questions each, and so many frames to read for each.

    `often`: share of questions, on top of those drawn anyway, of one of `types`, where clips allow it.
    """
    scenes = [draw_scene(rng, frames) for _ in range(clips)]
    return batch(
        rng,
        writer,
        scenes,
        [[_ask(rng, scene, often, types) for _ in range(questions)] for scene in scenes],
        context,
        spoilt=spoilt,
    )


def draw_scene(rng: np.random.Generator, frames: int) -> Scene:
    """Draw a scene; in half of them all things share a few colours and kinds.

    Where no two things are alike, a thing's colour is enough to find its kind. It is not where they are.
    """
    if rng.random() < 0.5:
        return Scene.draw(rng, frames)
    background = draw_background(rng)
    colors, kinds = (set(rng.permutation(names)[:_FEW]) for names in (COLORS, KINDS))
    events = draw_timeline(
        rng, frames, lambda event: event.color not in colors or event.kind not in kinds, wall=background.wall
    )
    return Scene.draw(rng, frames, events, background=background)


def _ask(rng: np.random.Generator, scene: Scene, often: float, types: Sequence[QuestionType]) -> Question:
    for _ in range(_TRIES):
        type = pick(rng, types) if rng.random() < often else None
        question = clip_question(rng, scene, type=type)
        once_too_many = question.type in ("times", "count") and question.answer == "1" and rng.random() < _ONCE_TOO_MANY
        if type in (None, question.type) and not once_too_many:
            break
    return question


def batch(
    rng: np.random.Generator,
    writer: Writer,
    scenes: Sequence[Scene],
    asked: Sequence[Sequence[Question]],
    context: int,
    *,
    spoilt: bool = False,
) -> Clips:
    """Put clips of the same length and their questions together."""
    frames = scenes[0].n_frames
    images = np.empty((len(scenes), frames, INPUT, INPUT, 3), np.uint8)
    shown = np.empty((len(scenes), frames, MOST_THINGS, 2), np.int64)
    rows: list[tuple[int, Question]] = []
    for i, (scene, about) in enumerate(zip(scenes, asked, strict=True)):
        clip = render_clip(scene)
        images[i] = spoil(rng, clip) if spoilt else clip
        shown[i] = contents(scene)
        rows += [(i, question) for question in about]
    written = [writer.write(question) for _, question in rows]
    length = max(len(ids) for ids, _, _ in written)
    ids = np.zeros((len(rows), length), np.int64)
    words = np.zeros((len(rows), length), np.bool_)
    labels = np.full((len(rows), length), UNSAID)
    subjects = np.full((len(rows), _MOST_SUBJECTS, 2), NOBODY)
    for row, ((_, question), (text, span, answer)) in enumerate(zip(rows, written, strict=True)):
        ids[row, : len(text)] = text
        words[row, span] = True
        labels[row, answer - 1 : len(text) - 1] = text[answer:]
        for i, (kind, color) in enumerate(question.subjects):
            subjects[row, i] = KINDS.index(kind) if kind else ANY, COLORS.index(color) if color else ANY
    return Clips(
        images=torch.from_numpy(images.reshape(-1, INPUT, INPUT, 3)),
        frames=frames,
        contents=torch.from_numpy(shown.reshape(-1, MOST_THINGS, 2)),
        clip=torch.tensor([clip for clip, _ in rows]),
        context=torch.from_numpy(np.stack([frames_to_read(rng, question, frames, context) for _, question in rows])),
        ids=torch.from_numpy(ids),
        asked=torch.from_numpy(words),
        labels=torch.from_numpy(labels),
        subjects=torch.from_numpy(subjects),
        types=torch.tensor([TYPES.index(question.type) for _, question in rows]),
        things=things(scenes),
    )


def frames_to_read(rng: np.random.Generator, question: Question, frames: int, size: int) -> Numbers:
    """Draw the frames a question is given: those that show its answer, then others; all if there are no more."""
    if size >= frames:
        return np.arange(frames)
    ranges = [list(range(start, stop)) for start, stop in question.evidence]
    if question.type in _ONE_FRAME and rng.random() < 0.6:
        # Retrieval finds some of an event's frames only.
        ranges = [list(rng.permutation(part)[: rng.integers(1, len(part) + 1)]) for part in ranges]
    chosen = list(dict.fromkeys(_in_turn([part if len(part) <= size else evenly(part, size) for part in ranges])))
    chosen = chosen[:size]
    others = np.setdiff1d(np.arange(frames), chosen)
    chosen += rng.permutation(others)[: size - len(chosen)].tolist()
    return np.sort(np.array(chosen, np.int64))


def _in_turn(parts: Sequence[Sequence[int]]) -> Iterator[int]:
    """Take from each part's two ends first, then from all in turn: no event is lost when there is little room."""
    ordered = [[part[0], part[-1], *part[1:-1]] if len(part) > 1 else list(part) for part in parts]
    for i in range(max((len(part) for part in ordered), default=0)):
        for part in ordered:
            if i < len(part):
                yield part[i]
