"""Stage 1: the vision tower learns what is where, from labels of every token.

Without the heads for position and index the tower forgets where its tokens are, and the language model never learns
places and movements.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rekv.world.shapes import COLORS, KINDS, SIZES
from training.clips import TOKENS, UNSAID, Pictures, draw_pictures
from training.loop import weight_groups
from training.models import Model
from training.reading import frame_features
from training.settings import Settings
from training.team import Team

_CLOCK_TOKENS = 2  # the first of a picture, over which the clock lies
_EMPTY = 0.15  # weight of tokens with nothing on them: most have


class Heads(nn.Module):
    """What a token is asked: thrown away after the stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, len(KINDS) + 1)
        self.color = nn.Linear(width, len(COLORS))
        self.size = nn.Linear(width, len(SIZES))
        self.digit = nn.Linear(width, 10)
        self.place = nn.Linear(width, 2)
        self.index = nn.Linear(width, TOKENS)
        # Kinds apart from colours: whole pairs would teach that those held out do not exist.
        self.seen = nn.Linear(width, len(KINDS) + len(COLORS))
        self.clock = nn.Linear(_CLOCK_TOKENS * width, 40)


def _weights(device: torch.device) -> torch.Tensor:
    return torch.tensor([1.0] * len(KINDS) + [_EMPTY], device=device)


class Vision:
    """The task of stage 1."""

    name = "vision"

    def __init__(self, model: Model, settings: Settings, team: Team) -> None:
        self.stage = settings.vision
        self._model = model
        self._team = team
        self._pictures = team.share(settings.vision_pictures)
        self._heads = Heads(settings.width)
        self.module = nn.ModuleDict(
            {
                "tower": model.model.vision_tower,
                "projector": model.model.multi_modal_projector,
                "heads": self._heads,
            }
        ).to(team.device)

    def groups(self) -> list[dict[str, Any]]:
        return weight_groups(self.module, self.stage.decay)

    def pace(self, part: str, done: float) -> float:
        return 1.0

    def draw(self, rng: np.random.Generator, done: float) -> Pictures:
        return draw_pictures(rng, self._pictures)

    def loss(self, batch: Pictures, rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        device = self._team.device
        with self._team.autocast():
            tokens = frame_features(self._model, batch.images.to(device))
        tokens = F.rms_norm(tokens.float(), tokens.shape[-1:])
        heads, flat = self._heads, tokens.flatten(0, 1)
        kind, color, size, digit = (
            part.to(device).flatten() for part in (batch.kind, batch.color, batch.size, batch.digit)
        )
        thing = kind < len(KINDS)
        said_kind, said_color = heads.kind(flat), heads.color(flat[thing])
        said_index = heads.index(tokens)
        said_clock = heads.clock(tokens[:, :_CLOCK_TOKENS].flatten(1)).unflatten(1, (4, 10)).flatten(0, 1)
        clock = batch.clock.to(device).flatten()
        index = torch.arange(TOKENS, device=device).repeat(len(tokens))
        place = batch.place.to(device).flatten(0, 1)[thing]
        loss = (
            F.cross_entropy(said_kind, kind, weight=_weights(device))
            + F.cross_entropy(said_color, color[thing])
            + 0.5 * _where_said(heads.size(flat), size)
            + 0.7 * _where_said(heads.digit(flat), digit)
            + 10 * F.binary_cross_entropy_with_logits(heads.seen(tokens.mean(1)), batch.seen.to(device))
            + F.cross_entropy(said_index.flatten(0, 1), index)
            + 5 * F.smooth_l1_loss(heads.place(flat[thing]), place)
            + F.cross_entropy(said_clock, clock)
        )
        figures = {
            "loss": float(loss.detach()),
            "kind": _right(said_kind[thing], kind[thing]),
            "color": _right(said_color, color[thing]),
            "clock": _right(said_clock, clock),
            "index": _right(said_index.flatten(0, 1), index),
        }
        return loss, figures


def scale_features(model: Model, images: torch.Tensor, size: float = 0.5) -> None:
    """Bring frame features to the size (root mean square) of word embeddings, once, after stage 1."""
    with torch.no_grad():
        factor = size / frame_features(model, images).pow(2).mean().sqrt()
        last = model.model.multi_modal_projector.linear_2
        last.weight.mul_(factor)
        last.bias.mul_(factor)


def _where_said(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy where there is a label; 0 where there is none at all."""
    return F.cross_entropy(logits, labels, ignore_index=UNSAID, reduction="sum") / (labels != UNSAID).sum().clamp(1)


def _right(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(-1) == labels).float().mean())
