"""Dual encoders: random SigLIP and CLIP checkpoints are loaded, and give what transformers gives."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from rekv.errors import ModelError
from rekv.models.dual import BUILTIN, load_dual
from tests.models.conftest import SPECIAL, WORDS, save_tokenizer

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {"vocab_size": len(SPECIAL + WORDS), "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 2}
VISION = {"image_size": 28, "patch_size": 14}
QUESTIONS = ["where is the red ball", "what is blue"]
LONG = "the ball is on the table and the ball is blue and so on and so on"


@pytest.fixture(scope="module", params=["siglip", "clip"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    if request.param == "siglip":
        text = TOWER | TEXT | {"projection_size": 32, "pad_token_id": 0}
        SiglipModel(SiglipConfig(text_config=text, vision_config=TOWER | VISION)).save_pretrained(folder)
        SiglipImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    else:
        config = CLIPConfig(text_config=TOWER | TEXT, vision_config=TOWER | VISION, projection_dim=24)
        CLIPModel(config).save_pretrained(folder)
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = SPECIAL[0]
    tokenizer.save_pretrained(folder)
    return folder


def stock(checkpoint: Path) -> tuple[Any, Any]:
    siglip = "siglip" in checkpoint.name
    model, processor = (SiglipModel, SiglipImageProcessorPil) if siglip else (CLIPModel, CLIPImageProcessorPil)
    return model.from_pretrained(checkpoint).eval(), processor.from_pretrained(checkpoint)


@torch.inference_mode()
def test_pictures_are_those_of_transformers(checkpoint: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i, shape in enumerate([(60, 80, 3)] * 3)]
    model, processor = stock(checkpoint)
    expected = F.normalize(model.get_image_features(**processor(images, return_tensors="pt")).pooler_output, dim=-1)
    found = load_dual(str(checkpoint)).pictures(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert found.norm(dim=1).tolist() == pytest.approx([1.0] * 3)


@torch.inference_mode()
def test_texts_are_those_of_transformers(checkpoint: Path) -> None:
    model, _ = stock(checkpoint)
    encoder = load_dual(str(checkpoint))
    for text in QUESTIONS:
        ids = encoder._tokenizer(text).input_ids
        if "siglip" in checkpoint.name:  # padded to its length always, without a mask
            ids = ids + [encoder._tokenizer.pad_token_id] * (8 - len(ids))
        expected = F.normalize(model.get_text_features(torch.tensor([ids])).pooler_output, dim=-1)
        torch.testing.assert_close(encoder.texts([text]), expected, atol=1e-5, rtol=0)
    together = encoder.texts(QUESTIONS)
    torch.testing.assert_close(together, torch.cat([encoder.texts([text]) for text in QUESTIONS]), atol=1e-5, rtol=0)


def test_what_is_too_long_is_cut(checkpoint: Path) -> None:
    assert load_dual(str(checkpoint)).texts([LONG]).shape[0] == 1


def test_the_built_in_one_puts_questions_near_their_pictures() -> None:
    from rekv.world import Scene, clip_question, render_clip

    encoder, found = load_dual(BUILTIN), []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scene = Scene.draw(rng, n_frames=24)
        question = clip_question(rng, scene, type="exist")
        if not question.evidence:
            continue
        likes = encoder.texts([question.text])[0] @ encoder.pictures(list(render_clip(scene))).T
        best = int(likes.argmax())
        found.append(any(start <= best < stop for start, stop in question.evidence))
    assert sum(found) > 0.6 * len(found) > 0


def test_what_cannot_be_loaded_says_why(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere' cannot be loaded.*google/siglip2-base-patch16-224"):
        load_dual(str(tmp_path / "nowhere"))
    folder = Path(shutil.copytree(checkpoint, tmp_path / "cut"))
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "vision_model" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights of a dual encoder"):
        load_dual(str(folder))


def test_other_models_are_refused(pristine: Path) -> None:
    with pytest.raises(ModelError, match="llava_onevision model, not a dual encoder"):
        load_dual(str(pristine))
