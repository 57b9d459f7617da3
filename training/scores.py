"""How good a model is: exact answers on clips it never saw, by type, known and held out, clean and spoilt.

python -m training.scores rekv/models/tiny --json scores.json
"""

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import AutoTokenizer

from rekv import video
from rekv.world import TYPES, QuestionType, Scene, clip_question, render_clip, render_film
from rekv.world.shapes import INPUT
from training.clips import Bytes
from training.labels import UNSAID
from training.models import Model
from training.questions import Writer, batch
from training.reading import Look, frame_features, read
from training.words import INIT_PROMPT

SEEDS = (101, 102, 103)
FRAMES = 16
QUESTIONS = 4000  # per seed and trial
_SPOILT = 5  # as small a part of them where pictures are spoilt: films take their time
_FIRST_SEED = 1_000_000  # training draws from seeds far from these
_QUESTIONS = 16  # per clip
_CLIPS_AT_ONCE = 8
_Z = 1.96

Counts = NDArray[np.int64]
Spoiler = Callable[[np.random.Generator, Scene], Bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Right answers among those asked for, clip by clip: both int (clips,)."""

    right: Counts
    asked: Counts

    @property
    def accuracy(self) -> float:
        return float(self.right.sum() / max(self.asked.sum(), 1))

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval, of as many answers as are worth one each.

        Answers about one clip are right or wrong together: they count for less, by how much more clips differ from each
        other than answers by lot would. Where none is wrong, or none right, that cannot be told: a clip counts once.
        """
        p, n = self.accuracy, max(float(self.asked.sum()), 1.0)
        by_lot = n * p * (1 - p)
        apart = float(np.square(self.right - p * self.asked).sum())
        n = n / max(apart / by_lot, 1.0) if by_lot else max(float(np.count_nonzero(self.asked)), 1.0)
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def report(self) -> dict[str, Any]:
        return {
            "accuracy": round(self.accuracy, 4),
            "interval": [round(bound, 4) for bound in self.interval],
            "questions": int(self.asked.sum()),
            "clips": int(np.count_nonzero(self.asked)),
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """What is asked of the model: what is held out of its training, and what was done to the pictures."""

    held_out: Mapping[str, Any] | None = None  # aspect ("pairs", "backgrounds", "phrasings") to split
    spoiler: Spoiler | None = None


def film(crf: int) -> Spoiler:
    """Through a real file: H.264 of 640x480, decoded and scaled as `rekv` does it."""

    def spoilt(_: np.random.Generator, scene: Scene) -> Bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            render_film(path, scene, crf=crf)
            frames = [frame.image for frame in video(path, sample_fps=1.0)]
        return np.stack([_scaled(image, (INPUT, INPUT)) for image in frames])

    return spoilt


def small_file(rng: np.random.Generator, scene: Scene) -> Bytes:
    """Scaled up to 384x288, JPEG of quality 30, and back."""
    images = []
    for image in render_clip(scene):
        file = io.BytesIO()
        Pillow.fromarray(image).resize((384, 288), Pillow.Resampling.BICUBIC).save(file, "JPEG", quality=30)
        with Pillow.open(file) as picture:
            images.append(_scaled(np.asarray(picture), (INPUT, INPUT)))
    return np.stack(images)


def noise(rng: np.random.Generator, scene: Scene) -> Bytes:
    """Noise of 15 in 255."""
    clip = render_clip(scene).astype(np.float32)
    return (clip + rng.normal(0, 15, clip.shape)).clip(0, 255).astype(np.uint8)


def darkness(rng: np.random.Generator, scene: Scene) -> Bytes:
    """0.6 of the light, on top of the hour's own."""
    return (render_clip(scene) * 0.6).astype(np.uint8)


def _scaled(image: Bytes, size: tuple[int, int]) -> Bytes:
    return np.asarray(Pillow.fromarray(image).resize(size, Pillow.Resampling.BICUBIC))


TRIALS: dict[str, Trial] = {
    "known": Trial(),
    "held-out phrasings": Trial({"phrasings": "held_out"}),
    "held-out pairs": Trial({"pairs": "held_out"}),
    "held-out backgrounds": Trial({"backgrounds": "held_out"}),
    "H.264, crf 23": Trial(spoiler=film(23)),
    "H.264, crf 32": Trial(spoiler=film(32)),
    "scaled, JPEG quality 30": Trial(spoiler=small_file),
    "noise": Trial(spoiler=noise),
    "darkness": Trial(spoiler=darkness),
}


@torch.no_grad()
def accuracy(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    questions: int,
    trial: Trial,
) -> dict[QuestionType, Score]:
    """Ask about clips of `FRAMES` frames, all in context; return scores by type: an answer is right or wrong whole."""
    rng = np.random.default_rng(_FIRST_SEED + seed)
    writer = Writer(tokenizer)
    init = torch.tensor(writer.ids(INIT_PROMPT), device=model.device)
    held_out = dict(trial.held_out or {})
    asked_of = {name: split for name, split in held_out.items() if name != "backgrounds"}
    drawn_of = {name: split for name, split in held_out.items() if name != "phrasings"}
    right: list[Counts] = []
    asked: list[Counts] = []
    while len(asked) * _CLIPS_AT_ONCE * _QUESTIONS < questions:
        scenes = [Scene.draw(rng, FRAMES, **drawn_of) for _ in range(_CLIPS_AT_ONCE)]
        about = [[clip_question(rng, scene, **asked_of) for _ in range(_QUESTIONS)] for scene in scenes]
        clips = batch(rng, writer, scenes, about, FRAMES)
        images = clips.images
        if trial.spoiler:
            images = torch.from_numpy(np.concatenate([trial.spoiler(rng, scene) for scene in scenes]))
        features = frame_features(model, images.to(model.device)).float()
        found = read(model, clips.to(model.device), features, init, Look(window=FRAMES))
        said = model.lm_head(found.hidden).argmax(-1).cpu()
        fine = ((said == clips.labels) | (clips.labels == UNSAID)).all(1).numpy()
        for counts, by in ((right, fine), (asked, 1)):
            counts.append(np.zeros((len(scenes), len(TYPES)), np.int64))
            np.add.at(counts[-1], (clips.clip.numpy(), clips.types.numpy()), by)
    return dict(zip(TYPES, map(Score, np.concatenate(right).T, np.concatenate(asked).T), strict=True))


def together(scores: Mapping[QuestionType, Score]) -> Score:
    """Return the score of all types over the same clips."""
    return Score(
        np.sum([score.right for score in scores.values()], 0), np.sum([score.asked for score in scores.values()], 0)
    )


def joined(scores: Sequence[Score]) -> Score:
    """Return the score over the clips of all."""
    return Score(np.concatenate([score.right for score in scores]), np.concatenate([score.asked for score in scores]))


def report(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    questions: int,
    trials: Mapping[str, Trial] = TRIALS,
) -> dict[str, Any]:
    """Return accuracies of every trial, all seeds together and apart, and by type."""
    found: dict[str, Any] = {}
    for name, trial in trials.items():
        some = questions // _SPOILT if trial.spoiler else questions
        by_seed = {seed: accuracy(model, tokenizer, seed, some, trial) for seed in SEEDS}
        by_type = {type: joined([scores[type] for scores in by_seed.values()]) for type in TYPES}
        found[name] = together(by_type).report() | {
            "by_seed": {str(seed): together(scores).report()["accuracy"] for seed, scores in by_seed.items()},
            "by_type": {type: score.report() for type, score in by_type.items() if score.asked.any()},
        }
    return found


def table(found: Mapping[str, Any]) -> str:
    """Return the report as lines to read."""
    lines = []
    for name, result in found.items():
        low, high = result["interval"]
        asked = f"{result['questions']} questions about {result['clips']} clips"
        lines.append(f"{name:<26}{result['accuracy']:.3f}  ({low:.3f} to {high:.3f}; {asked})")
        parts = (f"{type} {score['accuracy']:.2f}" for type, score in result["by_type"].items())
        lines.append("  " + "  ".join(parts))
    return "\n".join(lines)


def load(folder: Path) -> Model:
    """Load a checkpoint to be measured, in float32."""
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model.train(False)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.scores", description=__doc__)
    parser.add_argument("folder", type=Path, help="a checkpoint")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="per seed and trial")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = report(load(args.folder), AutoTokenizer.from_pretrained(args.folder), args.questions)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
