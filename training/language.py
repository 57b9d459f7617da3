"""Stage 2: questions, answers, and which frames to retrieve.

The retrieval is trained with labels: in every layer the mean query of a question is pulled towards the mean keys of
the frames that show what it names, away from all others of the batch. Large models retrieve without that; a model as
small as this one does not.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from rekv.world.event import pick
from training.clips import Pictures, draw_pictures
from training.heads import Heads, normed
from training.labels import UNSAID
from training.loop import weight_groups
from training.models import Model
from training.questions import Clips, Writer, draw_clips
from training.reading import Look, Read, frame_features, matches, read
from training.settings import Course, Settings
from training.team import Team
from training.words import INIT_PROMPT

_FAR = 3000  # tokens by which a clip may be moved along its stream
_FIRST_SCALE, _SCALE_UNIT, _SCALE_PACE = 4.0, 32.0, 5.0


class Scale(nn.Module):
    """What scores are multiplied by in the retrieval loss, by layer; learned, and thrown away after the stage."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.full((layers,), math.log(_FIRST_SCALE)))


@dataclass(frozen=True, slots=True)
class Lesson:
    """A batch: questions about clips, and pictures such as stage 1 has, so that what it taught is not forgotten."""

    clips: Clips
    pictures: Pictures


class Language:
    """The task of stage 2."""

    name = "language"

    def __init__(
        self,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        team: Team,
        heads: Heads | None = None,
    ) -> None:
        self.stage = settings.language
        self._settings, self._team, self._model = settings, team, model
        self._writer = Writer(tokenizer)
        self._init = torch.tensor(self._writer.ids(INIT_PROMPT), device=team.device)
        self._scale = Scale(settings.layers)
        self._heads = heads or Heads(settings.width)
        self.module = nn.ModuleDict({"model": model, "scale": self._scale, "heads": self._heads}).to(team.device)

    def groups(self) -> list[dict[str, Any]]:
        scale = {"params": list(self._scale.parameters()), "weight_decay": 0.0, "inner": False, "part": "scale"}
        groups = [scale]
        for name, module in self._model.model.named_children():
            seeing = name in ("vision_tower", "multi_modal_projector")
            decay = self.stage.decay / 2 if seeing else self.stage.decay
            groups += weight_groups(module, decay, "seeing" if seeing else "speaking")
        newline = {"params": [self._model.model.image_newline], "weight_decay": 0.0, "inner": False, "part": "speaking"}
        head = {
            "params": [self._model.lm_head.weight],
            "weight_decay": self.stage.decay,
            "inner": False,
            "part": "speaking",
        }
        labels = weight_groups(nn.ModuleDict({"heads": self._heads}), self.stage.decay, "speaking")
        return [*groups, newline, head, *labels]

    def pace(self, part: str, done: float) -> float:
        if part == "seeing":
            return 0.0 if done < self._settings.frozen else self._settings.vision_pace
        return _SCALE_PACE if part == "scale" else 1.0

    def draw(self, rng: np.random.Generator, done: float) -> Lesson:
        course, context = self._plan(done)
        clips = self._team.share(course.clips)
        return Lesson(
            draw_clips(
                rng,
                self._writer,
                clips,
                course.frames,
                course.questions,
                context,
                often=course.often,
                types=course.types,
            ),
            draw_pictures(rng, self._team.share(self._settings.language_pictures)),
        )

    def loss(self, lesson: Lesson, rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        batch, pictures = lesson.clips.to(self._team.device), lesson.pictures.to(self._team.device)
        look = self._look(rng, batch.frames, done)
        with self._team.autocast():
            with torch.no_grad() if done < self._settings.frozen else nullcontext():
                seen = frame_features(self._model, torch.cat([batch.images, pictures.images]))
            features, others = seen[: len(batch.images)], seen[len(batch.images) :]
            found = read(self._model, batch, features, self._init, look)
            said = batch.labels != UNSAID
            words = self._model.lm_head(found.hidden[said])
        labels = batch.labels[said]
        answer = F.cross_entropy(words.float(), labels)
        retrieval, first = contrast(found, matches(batch), self._scale.log)
        seeing, figures = self._heads.loss(normed(others), pictures)
        seeing = seeing + self._heads.things.loss(normed(features), batch.things)
        loss = answer + self._settings.seeing * seeing
        if self._settings.contrast:
            loss = loss + self._settings.contrast * retrieval
        right = (words.argmax(-1) == labels).float().mean()
        return loss, {
            "answer": float(answer.detach()),
            "retrieval": float(retrieval.detach()),
            "kind": figures["kind"],
            "words": float(right),
            "first": float(first),
        }

    def _plan(self, done: float) -> tuple[Course, int]:
        """Choose a step's course and context: alike in all processes, so that none waits for another."""
        rng = np.random.default_rng(int(done * 1e9))
        open_now = [course for course in self._settings.courses if course.start <= done < course.stop]
        weights = np.array([course.weight for course in open_now])
        course = open_now[int(rng.choice(len(open_now), p=weights / weights.sum()))]
        return course, int(rng.choice(course.contexts))

    def _look(self, rng: np.random.Generator, frames: int, done: float) -> Look:
        course, _ = self._plan(done)
        return Look(
            window=pick(rng, (frames, frames, max(1, frames // 2), max(1, frames // 4))),
            newline=bool(rng.random() < 0.3),
            video_offset=pick(rng, (0, 0, int(rng.integers(_FAR // 10)), int(rng.integers(_FAR)))),
            question_offset=pick(rng, (0, 0, 0, int(rng.integers(_FAR // 6)))),
            answers_only=True,
            own_choice=bool(rng.random() < course.own_choice),
        )


def contrast(found: Read, match: torch.Tensor, log_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the retrieval loss, mean of all layers, and how often a layer's best frame is a right one.

    `match`: bool (r, b * n).
    """
    by_layer = [
        ranking(query.float() @ key.float().T * (scale.exp() / _SCALE_UNIT), match)
        for query, key, scale in zip(found.queries, found.keys, log_scale, strict=True)
    ]
    losses, firsts = zip(*by_layer, strict=True)
    return torch.stack(losses).mean(), torch.stack(firsts).mean()


def ranking(scores: torch.Tensor, match: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how badly questions rank frames, and how often the best frame is a right one. Both (r, frames).

    Every right frame is set against all wrong ones of the batch, not against other right ones. Questions with no
    right frame are left out.
    """
    asked = match.any(1)
    scores, right = scores[asked], match[asked]
    weight = right / right.sum(1, keepdim=True)
    wrong = scores.masked_fill(right, -torch.inf).logsumexp(1, keepdim=True)
    loss = (F.softplus(wrong - scores) * weight).sum(1).mean()
    return loss, right.gather(1, scores.argmax(1, keepdim=True)).float().mean()
