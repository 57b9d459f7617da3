"""Stage 1: the vision tower learns what is where, from labels of every token.

Without the heads for position and index the tower forgets where its tokens are, and the language model never learns
places and movements.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from training.clips import Pictures, draw_pictures
from training.heads import Heads, normed
from training.loop import weight_groups
from training.models import Model
from training.reading import frame_features
from training.settings import Settings
from training.team import Team


class Vision:
    """The task of stage 1."""

    name = "vision"

    def __init__(self, model: Model, settings: Settings, team: Team) -> None:
        self.stage = settings.vision
        self._model = model
        self._team = team
        self._pictures = team.share(settings.vision_pictures)
        self.heads = Heads(settings.width)
        self.module = nn.ModuleDict(
            {
                "tower": model.model.vision_tower,
                "projector": model.model.multi_modal_projector,
                "heads": self.heads,
            }
        ).to(team.device)

    def groups(self) -> list[dict[str, Any]]:
        return weight_groups(self.module, self.stage.decay)

    def pace(self, part: str, done: float) -> float:
        return 1.0

    def draw(self, rng: np.random.Generator, done: float) -> Pictures:
        return draw_pictures(rng, self._pictures)

    def loss(self, batch: Pictures, rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        batch = batch.to(self._team.device)
        with self._team.autocast():
            tokens = frame_features(self._model, batch.images)
        loss, figures = self.heads.loss(normed(tokens), batch)
        return loss, {"loss": float(loss.detach())} | figures


def scale_features(model: Model, images: torch.Tensor, size: float = 0.5) -> None:
    """Bring frame features to the size (root mean square) of word embeddings, once, after stage 1."""
    with torch.no_grad():
        factor = size / frame_features(model, images).pow(2).mean().sqrt()
        last = model.model.multi_modal_projector.linear_2
        last.weight.mul_(factor)
        last.bias.mul_(factor)
