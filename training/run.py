"""A whole run: the Video-LLM in two stages, then the dual encoder, then the checkpoints."""

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.spawn import spawn

from training.clips import draw_pictures
from training.dual import Dual, start_from
from training.export import export_dual_encoder, export_video_llm, record
from training.language import Language
from training.loop import Run, Task
from training.models import dual_encoder, video_llm
from training.settings import Settings
from training.team import Team, calm_memory, join
from training.vision import Vision, scale_features
from training.words import tokenizer

_SAMPLE = 64  # pictures by which the size of frame features is measured


def run(settings: Settings, out: Path, processes: int | None = None) -> None:
    """Train what is not yet trained in the folder `out`; both checkpoints are there at the end.

    `processes`: on the CPU, of one thread each. By default a GPU is used if there is one, or else two processes.
    """
    out.mkdir(parents=True, exist_ok=True)
    if torch.cuda.is_available() and processes is None:
        train(Team(device=torch.device("cuda"), hands=(os.cpu_count() or 1) - 1), settings, out)
        return
    calm_memory()
    size = processes or 2
    with tempfile.TemporaryDirectory() as folder:
        spawn(_work, (size, f"{folder}/meeting", settings, out), nprocs=size)  # type: ignore[no-untyped-call]


def _work(rank: int, size: int, meeting: str, settings: Settings, out: Path) -> None:
    train(join(rank, size, meeting), settings, out)


def train(team: Team, settings: Settings, out: Path) -> None:
    """Train what is not yet trained in this folder: the Video-LLM in two stages, then the dual encoder."""
    logging.basicConfig(level=logging.INFO if team.leads else logging.WARNING, format="%(message)s", stream=sys.stderr)
    minutes = {}

    def learn(task: Task[Any]) -> None:
        run = Run(task, team, out, settings.seed, settings.save_seconds)
        run.finish()
        minutes[task.name] = round(run.seconds / 60, 1)

    words = tokenizer()
    model = video_llm(settings, words)
    learn(Vision(model, settings, team))
    dual = dual_encoder(settings, words)
    start_from(dual, model)
    pictures = draw_pictures(np.random.default_rng(settings.seed), _SAMPLE)
    scale_features(model, pictures.images.to(team.device))
    learn(Language(model, words, settings, team))
    learn(Dual(dual, words, settings, team))
    if team.leads:  # in the layout in which `rekv/models` ships them
        export_video_llm(out / "tiny", model, tokenizer())
        export_dual_encoder(out / "tiny_dual", dual, tokenizer())
        for folder in ("tiny", "tiny_dual"):
            record(out / folder, settings, minutes, team.device)
