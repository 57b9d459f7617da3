"""Weights in 8 and 4 bits: what is packed, that it is the stock packed model, and that sessions know it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rekv.core import Frame
from rekv.engine import Model, load
from rekv.errors import ConfigError, ModelError, SessionError
from rekv.models import quantization
from tests.models import families
from tests.support import hidden_states

BITS = ["int8", "int4"]
pytest.importorskip("accelerate")
pytest.importorskip("torchao")
pytest.importorskip("bitsandbytes")
# torchao and bitsandbytes warn of what they do inside.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide enough for the CPU kernel of 4-bit products."""
    path = tmp_path_factory.mktemp("checkpoint")
    sizes = {"hidden_size": 256, "intermediate_size": 512}
    with pytest.MonkeyPatch.context() as patch:
        small = families.text
        patch.setattr(families, "text", lambda kind="qwen2", **more: small(kind, **sizes | more))
        families.llava_onevision(path)
    return path


@pytest.fixture(scope="module", params=BITS)
def model(request: pytest.FixtureRequest, folder: Path) -> Model:
    return load(folder, device="cpu", weights=request.param)


def frames(n: int, first: int = 0) -> list[Frame]:
    images = np.random.default_rng(7).integers(0, 256, (first + n, 60, 80, 3), dtype=np.uint8)
    return [Frame(images[i], float(i)) for i in range(first, first + n)]


def bits(parameter: Any) -> float:
    return 8.0 * parameter.element_size() * parameter.numel()


def test_the_language_models_layers_are_packed_and_nothing_else(model: Model, folder: Path) -> None:
    plain = dict(load(folder, device="cpu").family.hf.named_parameters())
    packed = {
        name
        for name, parameter in model.family.hf.named_parameters()
        if type(parameter) is not torch.nn.Parameter or parameter.dtype != torch.float32
    }
    assert packed == {name for name in plain if "language_model.layers" in name and "proj.weight" in name}
    assert len(packed) == 3 * 7
    assert model.family.dtype == torch.float32


@torch.inference_mode()
def test_it_computes_what_the_stock_model_of_these_weights_does(model: Model, folder: Path) -> None:
    """Frame by frame and all at once, with all frames in context."""
    family, pictures = model.family, frames(6)
    ids = family.prompt_ids("what is red")
    embed: Any = family.hf.get_input_embeddings()
    inputs = family.frame_inputs([frame.image for frame in pictures], [frame.time for frame in pictures])
    parts = [embed(torch.tensor(family.init_ids())), inputs.flatten(0, 1), embed(torch.tensor(ids))]
    expected = family.hf(inputs_embeds=torch.cat(parts)[None]).logits[0, -len(ids) :]
    with hidden_states(model.decoder) as hidden:
        session = model.session(n_local=1 << 20, frames_per_call=1)
        session.append(pictures)
        session.ask("what is red", retrieve_size=6, max_new_tokens=1)
    ours = family.hf.lm_head(hidden[-1])  # type: ignore[operator]
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=0)
    other = load(folder, device="cpu").family.hf(inputs_embeds=torch.cat(parts)[None]).logits[0, -len(ids) :]
    assert (other - expected).abs().max() > 1e-2  # packing does change the model


def test_a_session_goes_on_with_the_same_weights_only(model: Model, folder: Path, tmp_path: Path) -> None:
    settings = {"n_local": 60, "frames_per_call": 4}
    with model.session("s", store=tmp_path, **settings) as session:
        session.append(frames(6))
    with pytest.raises(SessionError, match="was made by"):
        load(folder, device="cpu").session("s", store=tmp_path)
    with model.session("s", store=tmp_path) as session:
        session.append(frames(6, first=6))
        found = session.ask("what is red", retrieve_size=3, max_new_tokens=4)
    whole = model.session(**settings)
    whole.append(frames(12))
    expected = whole.ask("what is red", retrieve_size=3, max_new_tokens=4)
    assert (found.token_ids, found.retrieval.frames) == (expected.token_ids, expected.retrieval.frames)


def test_other_numbers_of_bits(folder: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of int8, int4"):
        load(folder, device="cpu", weights="int2")
    with pytest.raises(ConfigError, match="never packed"):
        load(weights="int8")


@pytest.mark.parametrize("weights", BITS)
def test_what_is_not_installed_is_named(weights: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda package: None)
    with pytest.raises(ModelError, match=r'needs (torchao|bitsandbytes), .* pip install "rekv\[quantized\]"'):
        load(folder, device="cpu", weights=weights)
