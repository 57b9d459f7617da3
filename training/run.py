"""A whole run: the Video-LLM in two stages, then the dual encoder, then the checkpoints."""

import logging
import os
import sys
import tempfile
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.spawn import spawn

from training.clips import draw_pictures
from training.dual import Dual, start_from
from training.export import export_dual_encoder, export_video_llm, record, recorded
from training.language import Language
from training.loop import Run, Task
from training.models import dual_encoder, video_llm
from training.scores import load
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
    Thread(target=_end_with_parent, daemon=True).start()
    train(join(rank, size, meeting), settings, out)


def _end_with_parent() -> None:
    """Do not train on, and write into a folder that another run may take up, when the command was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def train(team: Team, settings: Settings, out: Path) -> None:
    """Train what is not yet trained in this folder: the Video-LLM in two stages, then the dual encoder.

    From a checkpoint to start with, the second stage alone.
    """
    logging.basicConfig(level=logging.INFO if team.leads else logging.WARNING, format="%(message)s", stream=sys.stderr)
    words = tokenizer()
    model = video_llm(settings, words)
    vision = Vision(model, settings, team)
    lessons = _Lessons(team, settings, out)
    if settings.start:
        model.load_state_dict(load(Path(settings.start)).state_dict())
        lessons.learn(Language(model, words, settings, team, vision.heads))
    else:
        lessons.learn(vision)
        dual = dual_encoder(settings, words)
        start_from(dual, model)
        pictures = draw_pictures(np.random.default_rng(settings.seed), _SAMPLE)
        scale_features(model, pictures.images.to(team.device))
        lessons.learn(Language(model, words, settings, team, vision.heads))
        lessons.learn(Dual(dual, words, settings, team))
        if team.leads:
            export_dual_encoder(out / "tiny_dual", dual, tokenizer())
            lessons.record(out / "tiny_dual")
    if team.leads:
        export_video_llm(out / "tiny", model, tokenizer())
        lessons.record(out / "tiny")


class _Lessons:
    """Stages one after the other, in one folder. Checkpoints lie there as in `rekv/models`."""

    def __init__(self, team: Team, settings: Settings, out: Path) -> None:
        self._team, self._settings, self._out = team, settings, out
        # Read before hours of training, which may end with the new checkpoint in the old one's place.
        self._start = recorded(Path(settings.start)) if settings.start else None
        self._minutes: dict[str, float] = {}

    def learn(self, task: Task[Any]) -> None:
        run = Run(task, self._team, self._out, self._settings.seed, self._settings.save_seconds)
        run.finish()
        self._minutes[task.name] = round(run.seconds / 60, 1)

    def record(self, folder: Path) -> None:
        record(folder, self._settings, self._minutes, self._team.device, self._start)
