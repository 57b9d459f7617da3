"""The dual encoder: a SigLIP that puts a question near the frames that show what it names (arXiv 2303.15343).

Its picture side starts from the Video-LLM's vision tower after stage 1, which has the same shape.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from training.language import ranking
from training.loop import weight_groups
from training.models import DUAL_WORDS, Model
from training.questions import Clips, Writer, draw_clips
from training.reading import matches
from training.settings import Settings
from training.team import Team

_FRAMES = 8
_SCALE_PACE = 5.0
_LEVEL = 0.1  # weight of the sigmoid loss


class Dual:
    """The task of training it."""

    name = "dual"

    def __init__(self, model: Model, tokenizer: PreTrainedTokenizerBase, settings: Settings, team: Team) -> None:
        self.stage = settings.dual
        self._model, self._tokenizer, self._team = model, tokenizer, team
        self._writer = Writer(tokenizer)
        self._pairs = team.share(settings.dual_pairs)
        nn.init.constant_(model.logit_scale, float(np.log(10)))
        nn.init.constant_(model.logit_bias, -10.0)
        self.module: nn.Module = model.to(team.device)

    def groups(self) -> list[dict[str, Any]]:
        balance = [self._model.logit_scale, self._model.logit_bias]
        towers = nn.ModuleList([self._model.text_model, self._model.vision_model])
        return [
            *weight_groups(towers, self.stage.decay),
            {"params": balance, "weight_decay": 0.0, "inner": False, "part": "balance"},
        ]

    def pace(self, part: str, done: float) -> float:
        return _SCALE_PACE if part == "balance" else 1.0

    def draw(self, rng: np.random.Generator, done: float) -> Clips:
        clips = max(self._pairs // _FRAMES, 1)
        return draw_clips(rng, self._writer, clips, _FRAMES, _FRAMES, _FRAMES)

    def loss(self, batch: Clips, rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        batch = batch.to(self._team.device)
        pixels = batch.images.permute(0, 3, 1, 2).float() / 127.5 - 1
        with self._team.autocast():
            logits = self._model(input_ids=_questions(batch), pixel_values=pixels).logits_per_text
        right = matches(batch)
        # SigLIP's sigmoid loss, by which every pair is right or wrong for itself, sets the scores' level but takes long
        # to order them with so many wrong pairs for each right one.
        sigmoid = F.binary_cross_entropy_with_logits(logits.float(), right.float(), reduction="sum") / len(logits)
        order, first = ranking(logits.float(), right)
        loss = order + _LEVEL * sigmoid
        return loss, {"loss": float(loss.detach()), "first": float(first)}


def start_from(model: Model, video_llm: Model) -> None:
    """Give the picture side the Video-LLM's vision tower. Raises `RuntimeError` if their shapes differ."""
    tower = video_llm.model.vision_tower.state_dict()
    head = {name: weight for name, weight in model.vision_model.state_dict().items() if name not in tower}
    model.vision_model.load_state_dict(tower | head)


def _questions(batch: Clips) -> torch.Tensor:
    """Return the words of each question alone, padded as SigLIP wants them: always to the same length."""
    ids = torch.zeros(len(batch.ids), DUAL_WORDS, dtype=torch.long, device=batch.ids.device)
    for row, (words, asked) in enumerate(zip(batch.ids, batch.asked, strict=True)):
        question = words[asked][:DUAL_WORDS]
        ids[row, : len(question)] = question
    return ids
