"""A needle benchmark of two short films, and videos of noise for tiny models."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rekv.evaluation.cell import Cell
from rekv.evaluation.datasets.needle import Film, make
from rekv.evaluation.schema import Question, Video
from tests.cli.conftest import Run, run
from tests.support import SIDE

__all__ = ["Run", "run"]

FILM = Film(frames=200, width=64, height=64, fps=1)


@pytest.fixture(scope="session")
def needles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with two needle films of 200 seconds, 16 questions each."""
    folder = tmp_path_factory.mktemp("bench") / "data"
    assert len(list(make(folder, 2, FILM))) == 2
    return folder


def noise(path: Path, seconds: int, *, seed: int = 0, changed_from: int | None = None) -> Path:
    """An array of frames, one a second; from second `changed_from` on others than without."""
    array = np.random.default_rng(seed).integers(0, 256, (seconds, SIDE, SIDE, 3), np.uint8)
    if changed_from is not None:
        array[changed_from:] = 255 - array[changed_from:]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def video(path: Path, questions: Sequence[Question], index: int = 0) -> Video:
    return Video(index, path.stem, str(path), None, tuple(questions))


def cell(**changes: Any) -> Cell:
    """A cell for tiny models, asked at the end of the video."""
    settings: dict[str, Any] = {
        "model": "tiny",
        "dataset": "needle",
        "mode": "offline",
        "retriever": "internal",
        "retrieve_size": 3,
        "chunk_size": 1,
        "recent_frames": 0,
        "query": "mean",
        "detrend": False,
        "min_gap": 0.0,
        "shared_picks": False,
        "encoder": None,
        "sample_fps": 1.0,
        "n_local": 40,
        "max_new_tokens": 4,
        "choice_tokens": 4,
        "choose": "text",
        "paper": False,
        "limit": None,
        "dtype": "float32",
        "device": "cpu",
    }
    return Cell(**settings | changes)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def annotate(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path
