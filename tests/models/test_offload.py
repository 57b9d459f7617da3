"""Layers in several places: a session's state is where each layer computes, and results are the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rekv.core import Answer, Frame
from rekv.engine import Model, load
from rekv.models import load as load_family
from tests.models import families

accelerate = pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore:The following device_map keys")  # image_newline is not a module

PLACES: dict[str, Any] = {
    "model.vision_tower": "cpu",
    "model.multi_modal_projector": "cpu",
    "model.image_newline": "cpu",
    "model.language_model.embed_tokens": "disk",
    "model.language_model.layers.0": "cpu",
    "model.language_model.layers.1": "disk",
    "model.language_model.layers.2": "disk",
    "model.language_model.norm": "cpu",
    "model.language_model.rotary_emb": "cpu",
    "lm_head": "disk",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    families.llava_onevision(path)
    return path


def frames(n: int, first: int = 0) -> list[Frame]:
    images = np.random.default_rng(7).integers(0, 256, (first + n, 60, 80, 3), dtype=np.uint8)
    return [Frame(images[i], float(i)) for i in range(first, first + n)]


def dispatched(folder: Path, offload: Path, places: dict[str, Any], main: str) -> Model:
    family = load_family(folder, device="cpu", dtype="float32")
    accelerate.dispatch_model(family.hf, places, main_device=main, offload_dir=str(offload), force_hooks=True)
    return Model(family)


def answered(model: Model) -> Answer:
    session = model.session(n_local=60, frames_per_call=4)
    session.append(frames(12))
    for layer in session.memory.layers.values():
        assert layer.sink_keys.device.type != "meta"
    return session.ask("what is red", retrieve_size=3, max_new_tokens=5)


def same(found: Answer, expected: Answer, tolerance: float) -> None:
    assert (found.token_ids, found.retrieval.frames) == (expected.token_ids, expected.retrieval.frames)
    torch.testing.assert_close(found.retrieval.scores, expected.retrieval.scores, atol=tolerance, rtol=0)


def test_half_of_the_layers_on_disk(folder: Path, tmp_path: Path) -> None:
    model = dispatched(folder, tmp_path, PLACES, "cpu")
    layers: Any = model.decoder.layers
    assert [layer.self_attn.q_proj.weight.device.type for layer in layers] == ["cpu", "meta", "meta"]
    assert model.family.device.type == "cpu"
    same(answered(model), answered(load(folder, device="cpu")), 0.0)


def test_a_session_on_disk_of_layers_on_disk(folder: Path, tmp_path: Path) -> None:
    model = dispatched(folder, tmp_path / "weights", PLACES, "cpu")
    settings = {"n_local": 60, "frames_per_call": 4}
    with model.session("s", store=tmp_path, **settings) as session:
        session.append(frames(6))
    with dispatched(folder, tmp_path / "again", PLACES, "cpu").session("s", store=tmp_path) as session:
        session.append(frames(6, first=6))
        found = session.ask("what is red", retrieve_size=3, max_new_tokens=5)
    same(found, answered(load(folder, device="cpu")), 1e-4)  # in other calls


@pytest.mark.gpu
def test_layers_on_gpu_and_cpu(folder: Path, tmp_path: Path) -> None:
    """Layers of the CPU are computed on the GPU, where their state is, too."""
    places = {name: "cpu" if "layers.1" in name else 0 for name in PLACES}
    model = dispatched(folder, tmp_path, places, "cuda:0")
    session = model.session(n_local=60, frames_per_call=4)
    session.append(frames(12))
    assert {layer.device.type for layer in session.memory.layers.values()} == {"cuda"}
    found = session.ask("what is red", retrieve_size=3, max_new_tokens=5)
    same(found, answered(load(folder, device="cuda", dtype="float32")), 1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_layers_on_two_gpus(folder: Path, tmp_path: Path) -> None:
    """Windowed, in one pass, and together; `test_devices.py` tries the same on devices that are made up."""
    places: dict[str, Any] = dict.fromkeys(PLACES, 0)
    places |= {"model.language_model.layers.1": 1, "model.language_model.layers.2": 1}
    places |= {"model.language_model.norm": 1, "lm_head": 1}
    model, expected = dispatched(folder, tmp_path, places, "cuda:0"), load(folder, device="cuda", dtype="float32")
    for n_local in (60, 1 << 20):
        one, several = (each.session(n_local=n_local, frames_per_call=4) for each in (expected, model))
        for session in (one, several):
            session.append(frames(12))
        assert [layer.device.index for layer in several.memory.layers.values()] == [0, 1, 1]
        ask: dict[str, Any] = {"retrieve_size": 3, "max_new_tokens": 5}
        same(several.ask("what is red", **ask), one.ask("what is red", **ask), 1e-3)
        questions = ["what is red", "how many"]
        for found, alone in zip(*(each.ask_many(questions, **ask) for each in (several, one)), strict=True):
            same(found, alone, 1e-3)
