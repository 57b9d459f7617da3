"""Stage 2: questions, answers, and which frames to retrieve.

The retrieval is trained with labels: in every layer the mean query of a question is pulled towards the mean keys of
the frames that show what it names, away from all others of the batch. Large models retrieve without that; a model as
small as this one does not.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from rekv.world.event import pick
from training.clips import UNSAID
from training.loop import weight_groups
from training.models import Model
from training.questions import Clips, Writer, draw_clips
from training.reading import Look, Read, frame_features, matches, read
from training.settings import Course, Settings
from training.team import Team
from training.words import INIT_PROMPT

_FAR = 3000  # tokens by which a clip may be moved along its stream
_FIRST_SCALE, _SCALE_UNIT, _SCALE_PACE = 4.0, 32.0, 5.0
_OWN_FROM = 0.5  # share of the steps after which the model's own retrieval is read now and then


class Scale(nn.Module):
    """What scores are multiplied by in the retrieval loss, by layer; learned, and thrown away after the stage."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.full((layers,), math.log(_FIRST_SCALE)))


class Language:
    """The task of stage 2."""

    name = "language"

    def __init__(
        self,
        model: Model,
        tokenizer: PreTrainedTokenizerBase,
        settings: Settings,
        team: Team,
    ) -> None:
        self.stage = settings.language
        self._settings, self._team, self._model = settings, team, model
        self._writer = Writer(tokenizer)
        self._init = torch.tensor(self._writer.ids(INIT_PROMPT), device=team.device)
        self._scale = Scale(settings.layers)
        self.module = nn.ModuleDict({"model": model, "scale": self._scale}).to(team.device)

    def groups(self) -> list[dict[str, Any]]:
        seeing = nn.ModuleList([self._model.model.vision_tower, self._model.model.multi_modal_projector])
        known = {id(weight) for weight in seeing.parameters()}
        speaking = nn.ParameterList(weight for weight in self._model.parameters() if id(weight) not in known)
        scale = [{"params": list(self._scale.parameters()), "weight_decay": 0.0}]
        return [
            *weight_groups(speaking, self.stage.decay),
            *scale,
            *weight_groups(seeing, self.stage.decay / 2),
        ]

    def paces(self, done: float) -> Sequence[float]:
        seeing = 0.0 if done < self._settings.frozen else self._settings.vision_pace
        return (1.0, 1.0, _SCALE_PACE, seeing, seeing)

    def draw(self, rng: np.random.Generator, done: float) -> Clips:
        course = self._course(done)
        together = np.random.default_rng(int(done * 1e9))  # the team's batches have one shape, none waits for another
        context = int(together.choice(course.contexts))
        clips = self._team.share(course.clips)
        return draw_clips(rng, self._writer, clips, course.frames, course.questions, context, hard=course.hard)

    def loss(self, batch: Clips, rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        batch = batch.to(self._team.device)
        look = self._look(rng, batch.frames, done)
        with self._team.autocast():
            with torch.no_grad() if done < self._settings.frozen else nullcontext():
                features = frame_features(self._model, batch.images)
            found = read(self._model, batch, features, self._init, look)
            said = batch.labels != UNSAID
            words = self._model.lm_head(found.hidden[said])
        labels = batch.labels[said]
        answer = F.cross_entropy(words.float(), labels)
        retrieval, first = contrast(found, matches(batch), self._scale.log)
        loss = answer + self._settings.contrast * retrieval if self._settings.contrast else answer
        right = (words.argmax(-1) == labels).float().mean()
        return loss, {
            "answer": float(answer.detach()),
            "retrieval": float(retrieval.detach()),
            "words": float(right),
            "first": float(first),
        }

    def _course(self, done: float) -> Course:
        return next(course for course in reversed(self._settings.courses) if done >= course.start)

    def _look(self, rng: np.random.Generator, frames: int, done: float) -> Look:
        return Look(
            window=pick(rng, (frames, frames, max(1, frames // 2), max(1, frames // 4))),
            newline=bool(rng.random() < 0.3),
            video_offset=pick(rng, (0, 0, int(rng.integers(_FAR // 10)), int(rng.integers(_FAR)))),
            question_offset=pick(rng, (0, 0, 0, int(rng.integers(_FAR // 6)))),
            own_choice=bool(done >= _OWN_FROM and rng.random() < self._settings.own_choice),
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
