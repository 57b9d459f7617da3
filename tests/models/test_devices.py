"""Layers on several devices, three of which are made up: a session's state follows each layer, answers are the same."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rekv.core import Answer, Frame
from rekv.engine import Model, Session
from rekv.models import load as load_family
from tests import elsewhere
from tests.models import families
from tests.models import test_qwen_vl as qwen
from tests.models.same import QUESTION, TOLERANCE
from tests.models.test_families import ENDLESS, pictures

PLACES = [torch.device(elsewhere.KIND, i) for i in range(3)]
QUESTIONS = [QUESTION, "what is the color of it now"]
OTHERWISE = {"query": "tokens", "min_gap": 3.0, "recent_frames": 1, "detrend": True, "shared_picks": True}


def spread(family: Any) -> Model:
    """One layer per device; the rest on the first one, but what follows the layers is on the last one."""
    decoder = family.hf.get_decoder()
    for i, layer in enumerate(decoder.layers):
        elsewhere.place(layer, PLACES[i])
    for module in (decoder.norm, family.hf.lm_head):
        elsewhere.place(module, PLACES[2])
    elsewhere.hold(family.hf.model, PLACES[0])
    others = [part for name, part in family.hf.model.named_children() if name != "language_model"]
    for module in (decoder.embed_tokens, decoder.rotary_emb, *others):
        elsewhere.place(module, PLACES[0])
    return Model(family)


@pytest.fixture(scope="module", params=["LlavaOnevision", "Qwen3VL"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    if request.param in qwen.BUILD:
        qwen.checkpoint(request.param, path)
    else:
        families.llava_onevision(path)
    return path


@pytest.fixture(scope="module")
def models(folder: Path) -> Iterator[tuple[Model, Model]]:
    """On one device, and on three."""
    one, several = (load_family(folder, device="cpu") for _ in range(2))
    with elsewhere.devices():
        yield Model(one), spread(several)


def begun(model: Model, frames: Sequence[Frame], **settings: Any) -> Session:
    budget = {} if model.family.frames_per_block == 1 else {"frame_tokens": qwen.TOKENS}
    session = model.session(frames_per_call=4, **budget, **settings)
    session.append(frames)
    return session


def same(found: Answer, expected: Answer) -> None:
    assert (found.token_ids, found.retrieval.frames) == (expected.token_ids, expected.retrieval.frames)
    torch.testing.assert_close(found.retrieval.scores, expected.retrieval.scores, atol=TOLERANCE, rtol=1e-5)


@pytest.mark.parametrize(("n_local", "policy"), [(60, None), (ENDLESS, "value-norm:0.5")], ids=["windowed", "endless"])
def test_a_session_follows_its_layers(models: tuple[Model, Model], n_local: int, policy: str | None) -> None:
    """`generate()` in the endless window, the step loop in the other; alone and together."""
    one, several = (begun(model, pictures(10), n_local=n_local, policy=policy) for model in models)
    for i, layer in several.memory.layers.items():
        context = {layer.device, layer.sink_keys.device, layer.window.slots(0, 1)[0].device}
        assert context == {PLACES[i]}
        assert layer.blocks.read([several.memory.frames - 1]).device == PLACES[i]
    for how in ({}, OTHERWISE):
        ask: dict[str, Any] = {"retrieve_size": 3, "max_new_tokens": 2} | how
        same(several.ask(QUESTION, **ask), one.ask(QUESTION, **ask))
        for found, expected in zip(*(each.ask_many(QUESTIONS, **ask) for each in (several, one)), strict=True):
            same(found, expected)


def test_resume_on_other_devices(models: tuple[Model, Model], tmp_path: Path) -> None:
    one, several = models
    ask: dict[str, Any] = {"retrieve_size": 3, "max_new_tokens": 2}
    expected = begun(one, pictures(12), n_local=60).ask(QUESTION, **ask)
    with begun(several, pictures(6), n_local=60, name="s", store=tmp_path):
        pass
    with several.session("s", store=tmp_path, ram=1 << 20) as session:
        session.append(pictures(6, first=6))
        same(session.ask(QUESTION, **ask), expected)


def test_tensors_of_two_devices_do_not_meet() -> None:
    """The tests above can fail."""
    with elsewhere.devices():
        first, second = (torch.ones(3, device=place) for place in PLACES[:2])
        assert (first + second.to(PLACES[0])).tolist() == [2, 2, 2]
        assert (first * 2 + torch.tensor(1.0)).device == PLACES[0]
        assert first[torch.tensor([0, 2])].shape == (2,)
        for other in (second, second.cpu()):
            with pytest.raises(RuntimeError, match="meet"):
                first + other
        with pytest.raises(RuntimeError, match="meet"):
            first[second.long()]
