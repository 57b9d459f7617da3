"""Checkpoints that cannot be used: the reason, before any weight is read."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as hf

from rekv.errors import ModelError
from rekv.models import load
from tests.models.families import text, vision

SIGLIP = vision("siglip_vision_model", vision_use_head=False)


def gemma3() -> Any:
    parts = text("gemma3_text", num_hidden_layers=6, head_dim=16, sliding_window=1024)
    return hf.Gemma3Config(text_config=parts, vision_config=SIGLIP, architectures=["Gemma3ForConditionalGeneration"])


def qwen3_5() -> Any:
    parts = text("qwen3_5_text", num_hidden_layers=4, head_dim=16)
    return hf.Qwen3_5Config(text_config=parts, architectures=["Qwen3_5ForConditionalGeneration"])


def onevision_with_a_sliding_decoder() -> Any:
    parts = text("qwen2", use_sliding_window=True, sliding_window=1024, max_window_layers=1)
    return hf.LlavaOnevisionConfig(
        text_config=parts, vision_config=SIGLIP, architectures=["LlavaOnevisionForConditionalGeneration"]
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (gemma3, "5 of the 6 layers of its decoder are attention to their own sliding window of 1024 tokens, in which"),
        (qwen3_5, "3 of the 4 layers of its decoder are linear attention"),
        (onevision_with_a_sliding_decoder, "2 of the 3 layers of its decoder are attention to their own sliding"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_decoders_that_cannot_carry_the_method(config: Any, message: str, tmp_path: Path) -> None:
    config().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        load(tmp_path)
    assert "Use a model of one of the families LlavaOnevision, VideoLlava," in str(caught.value)


def test_a_model_of_text_alone(tmp_path: Path) -> None:
    hf.Qwen2Config(architectures=["Qwen2ForCausalLM"]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a Qwen2ForCausalLM, a model of text alone") as caught:
        load(tmp_path)
    assert "rekv models" in str(caught.value)


def test_a_model_that_sees_but_is_not_known(tmp_path: Path) -> None:
    config = {"architectures": ["OtherForConditionalGeneration"], "vision_config": {}, "model_type": "other"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"OtherForConditionalGeneration, which rekv does not know.*register"):
        load(tmp_path)


def test_a_model_of_code_of_its_own(tmp_path: Path) -> None:
    """It sees, whatever its config calls that; and there may be another checkpoint of it."""
    config = {
        "architectures": ["Videollama3Qwen2ForCausalLM"],
        "vision_encoder_config": {},
        "auto_map": {"AutoConfig": "x.y"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"which rekv does not know.*trust_remote_code.*-HF"):
        load(tmp_path)
