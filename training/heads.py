"""What tokens are asked during training, beside the questions: thrown away after it."""

import torch
import torch.nn.functional as F
from torch import nn

from rekv.world.shapes import COLORS, KINDS, SIZES
from training.clips import Pictures
from training.labels import TOKENS, UNSAID, Things

_CLOCK_TOKENS = 2  # the first of a picture, over which the clock lies
_EMPTY = 0.15  # weight of tokens with nothing on them: most have


class ThingHeads(nn.Module):
    """What is in a token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, len(KINDS) + 1)
        self.color = nn.Linear(width, len(COLORS))
        self.size = nn.Linear(width, len(SIZES))
        self.digit = nn.Linear(width, 10)
        self.place = nn.Linear(width, 2)

    def loss(self, tokens: torch.Tensor, things: Things) -> torch.Tensor:
        """`tokens`: (m, TOKENS, width), normed."""
        thing = things.kind < len(KINDS)
        tokens, (kind, color, size, digit) = tokens.flatten(0, 1), (part.flatten() for part in things[:4])
        at = thing.flatten()
        distance = F.smooth_l1_loss(self.place(tokens[at]), things.place[thing], reduction="sum")
        return (
            F.cross_entropy(self.kind(tokens), kind, weight=_weights(kind.device))
            + mean_said(self.color(tokens), color)
            + 0.5 * mean_said(self.size(tokens), size)
            + 0.7 * mean_said(self.digit(tokens), digit)
            + 5 * distance / (2 * at.sum()).clamp(1)
        )


class Heads(nn.Module):
    """What the vision tower is asked. Without index and place it forgets where its tokens are: no place is learned."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.things = ThingHeads(width)
        self.index = nn.Linear(width, TOKENS)
        # Kinds apart from colours: whole pairs would teach that those held out do not exist.
        self.seen = nn.Linear(width, len(KINDS) + len(COLORS))
        self.clock = nn.Linear(_CLOCK_TOKENS * width, 40)

    def loss(self, tokens: torch.Tensor, pictures: Pictures) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of `tokens` (n, TOKENS, width), normed, and how much of what they say is right."""
        things, seen = pictures.things, pictures.seen
        said_index = self.index(tokens)
        said_clock = self.clock(tokens[:, :_CLOCK_TOKENS].flatten(1)).unflatten(1, (4, 10))
        index = torch.arange(TOKENS, device=tokens.device).expand(len(tokens), -1)
        known = seen != UNSAID
        loss = (
            self.things.loss(tokens, things)
            + 10 * F.binary_cross_entropy_with_logits(self.seen(tokens.mean(1))[known], seen[known])
            + F.cross_entropy(said_index.flatten(0, 1), index.flatten())
            + F.cross_entropy(said_clock.flatten(0, 1), pictures.clock.flatten())
        )
        thing, colored = things.kind < len(KINDS), things.color != UNSAID
        return loss, {
            "kind": right(self.things.kind(tokens[thing]), things.kind[thing]),
            "color": right(self.things.color(tokens[colored]), things.color[colored]),
            "clock": right(said_clock, pictures.clock),
            "index": right(said_index, index),
        }


def normed(tokens: torch.Tensor) -> torch.Tensor:
    """Return frame features as the heads take them: of one size."""
    return F.rms_norm(tokens.float(), tokens.shape[-1:])


def mean_said(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy where there is a label; 0 where there is none at all."""
    return F.cross_entropy(logits, labels, ignore_index=UNSAID, reduction="sum") / (labels != UNSAID).sum().clamp(1)


def right(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(-1) == labels).float().mean())


def _weights(device: torch.device) -> torch.Tensor:
    return torch.tensor([1.0] * len(KINDS) + [_EMPTY], device=device)
