"""What a codec costs in right answers: the same needle questions over the same blocks, as computed and packed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from needle_scores import Result, judge
from torch import Tensor

import rekv
from rekv.core import Retrieval
from rekv.store.codecs import codec
from rekv.world import NEEDLE_TYPES, NeedleStream, needle_stream


@dataclass
class Tally:
    """Pairs of answers to one question each: over blocks as computed, and over what a codec gives back."""

    lost: int = 0  # right as computed, wrong through the codec
    won: int = 0
    right: int = 0  # as computed
    same_text: int = 0
    questions: int = 0
    same_frames: int = 0  # frames that both retrieved, over all layers
    frames: int = 0
    worst: float = 1.0  # least share of same frames in one question

    def add(self, base: tuple[Result, str, Retrieval], coded: tuple[Result, str, Retrieval]) -> None:
        self.questions += 1
        self.right += base[0].right
        self.lost += base[0].right and not coded[0].right
        self.won += coded[0].right and not base[0].right
        self.same_text += base[1] == coded[1]
        pairs = list(zip(base[2].frames, coded[2].frames, strict=True))
        same, frames = sum(len({*a} & {*b}) for a, b in pairs), sum(len(a) for a, _ in pairs)
        self.same_frames += same
        self.frames += frames
        self.worst = min(self.worst, same / frames)

    def summary(self) -> dict[str, Any]:
        loss, upper = paired_loss(self.lost, self.won, self.questions)
        return {
            "questions": self.questions,
            "accuracy_as_computed": round(self.right / self.questions, 4),
            "accuracy": round((self.right - self.lost + self.won) / self.questions, 4),
            "lost": self.lost,
            "won": self.won,
            "loss": round(loss, 5),
            "loss_upper_95": round(upper, 5),
            "same_answers": round(self.same_text / self.questions, 4),
            "same_frames": round(self.same_frames / self.frames, 5),
            "same_frames_worst_question": round(self.worst, 4),
        }


def paired_loss(lost: int, won: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Loss of accuracy in n paired questions, and the upper end of its 95 % interval.

    Agresti and Min, Statistics in Medicine 24 (2005): Wald's interval after half an observation is added to each of
    the four cells, so that it has a width also where no answer differs.
    """
    b, c, m = lost + 0.5, won + 0.5, n + 2
    difference = (b - c) / m
    return (lost - won) / n, difference + z * sqrt((b + c) / m - difference**2) / sqrt(m)


def needle(model: rekv.Model, names: Sequence[str], questions: int, frames: int, seed: int) -> dict[str, Any]:
    """Ask at least so many questions, 16 of a stream of `frames` frames, over blocks as computed and by each codec.

    All blocks of the stream are packed, also those in the window, which a store leaves as computed: if anything,
    more is lost here than there.
    """
    tallies = {name: Tally() for name in names}
    per_stream = 2 * len(NEEDLE_TYPES)
    for i in range(-(-questions // per_stream)):
        stream = needle_stream(np.random.default_rng((seed, i)), frames, per_type=2)
        session = model.session(encoder=None)
        session.append(stream.frames())
        base = ask_all(session, stream)
        computed = [layer.blocks.read(range(frames)) for layer in session.memory.layers.values()]
        for name, tally in tallies.items():
            recode(session, name, computed)
            for pair in zip(base, ask_all(session, stream), strict=True):
                tally.add(*pair)
    return {name: tally.summary() for name, tally in tallies.items()}


@torch.inference_mode()
def recode(session: rekv.Session, name: str, computed: Sequence[Tensor]) -> None:
    """Give the session the blocks that a codec makes of these."""
    for layer, blocks in zip(session.memory.layers.values(), computed, strict=True):
        _, heads, tokens, dim = layer.blocks.shape
        made = codec(name, (heads, tokens, dim), layer.blocks.dtype)
        keys, values = made.unpack(made.pack(blocks)).permute(1, 2, 0, 3, 4).reshape(2, heads, -1, dim)
        layer.blocks.write(0, keys, values)
        layer.blocks.synchronize()


def ask_all(session: rekv.Session, stream: NeedleStream) -> list[tuple[Result, str, Retrieval]]:
    answers = [(question, session.ask(question.text)) for question in stream.questions]
    return [(judge(question, answer, 0), answer.text, answer.retrieval) for question, answer in answers]
