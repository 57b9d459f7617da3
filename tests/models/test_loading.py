"""Loading: what is whole loads as it should, what is not is refused with a message that helps."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from rekv.attention import hook
from rekv.errors import ConfigError, ModelError
from rekv.models import ALIASES, VideoLM, load, register
from rekv.models.llava_onevision import LlavaOnevision
from tests.models.conftest import SPECIAL, WORDS, save_tokenizer

Edit = Callable[..., None]


# -- what loads -------------------------------------------------------------------------------------------


def test_a_folder_loads_as_transformers_loads_it(pristine: Path, offline: list[object]) -> None:
    model = load(pristine)
    assert offline == []
    assert isinstance(model, LlavaOnevision)
    assert model.name == str(pristine)
    assert model.tokens_per_frame == 4
    assert model.preprocessor.size == (42, 42)
    assert not model.hf.training
    assert not any(p.requires_grad for p in model.hf.parameters())
    stock = LlavaOnevisionForConditionalGeneration.from_pretrained(pristine, dtype=torch.float32)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        torch.testing.assert_close(model.hf(input_ids=ids).logits, stock(input_ids=ids).logits)


def test_only_the_language_model_attends_through_rekv(pristine: Path) -> None:
    config = load(pristine).hf.config
    assert config.text_config._attn_implementation == hook.NAME
    assert config.vision_config._attn_implementation == "sdpa"


def test_names_of_folders(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(str(pristine)).name == str(pristine)
    monkeypatch.chdir(pristine.parent)
    assert load(f"./{pristine.name}").name == f"./{pristine.name}"
    monkeypatch.setenv("HOME", str(pristine.parent))
    assert load(f"~/{pristine.name}").tokens_per_frame == 4


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        (torch.float16, torch.float16),
    ],
    ids=str,
)
def test_dtype(dtype: str | torch.dtype, expected: torch.dtype, pristine: Path) -> None:
    model = load(pristine, device="cpu", dtype=dtype)
    assert model.dtype == expected
    assert {p.dtype for p in model.hf.parameters()} == {expected}
    assert {b.dtype for name, b in model.hf.named_buffers() if name.endswith("inv_freq")} == {torch.float32}
    assert str(model).endswith(f"{str(expected).removeprefix('torch.')} on cpu")


def test_on_the_cpu_weights_become_float32(pristine: Path) -> None:
    assert load(pristine, device="cpu").dtype == torch.float32


@pytest.mark.gpu
def test_on_the_gpu_weights_stay_as_they_are(pristine: Path) -> None:
    model = load(pristine, device="cuda")
    assert model.dtype == torch.bfloat16
    assert {p.device.type for p in model.hf.parameters()} == {"cuda"}


def test_spread_over_devices(pristine: Path) -> None:
    pytest.importorskip("accelerate")
    model = load(pristine, device="auto", dtype="float32")
    with torch.inference_mode():
        assert model.frame_features(torch.zeros(2, 3, 42, 42).to(model.device)).shape == (2, 4, 32)


def test_sharded_weights(pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    whole = LlavaOnevisionForConditionalGeneration.from_pretrained(pristine)
    whole.save_pretrained(folder, max_shard_size="10KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert load(folder).tokens_per_frame == 4
    shards[1].unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)


def test_weights_without_a_use_are_no_reason_to_refuse(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights["vision_tower.vision_model.head.probe"] = torch.zeros(1, 1, 16)
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    assert load(checkpoint).tokens_per_frame == 4


# -- names that lead nowhere ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llava_ov_8b", "", "a/b/c", "my model", "https://example.com/a"])
def test_a_name_that_cannot_be_one(name: str, offline: list[object]) -> None:
    with pytest.raises(ModelError, match="there is no model") as caught:
        load(name)
    assert offline == []
    assert "llava_ov_7b" in str(caught.value)
    assert "built-in" in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere", "~/nowhere/at/all", Path("nowhere"), "/nowhere"])
def test_a_folder_that_is_not_there(name: str | Path, offline: list[object]) -> None:
    with pytest.raises(ModelError, match=r"there is no folder .*nowhere"):
        load(name)
    assert offline == []


def test_a_file_instead_of_a_folder(pristine: Path) -> None:
    with pytest.raises(ModelError, match="is a file; name the folder"):
        load(pristine / "model.safetensors")


@pytest.mark.parametrize("name", ["nobody-at-all/no-such-model", "llava_ov_72b"])
def test_a_hub_name_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        load(name)
    for part in (ALIASES.get(name, name), "network", str(tmp_path), "HF_HOME", "built-in"):
        assert part in str(caught.value)


# -- checkpoints that are not whole -----------------------------------------------------------------------


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["{", "", "[]", "7", "null"])
def test_a_config_that_is_not_one(content: str, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"config"):
        load(checkpoint)


@pytest.mark.parametrize("architectures", [["Qwen2ForCausalLM"], [], None])
def test_another_architecture(architectures: list[str] | None, checkpoint: Path, edit: Edit) -> None:
    edit("config.json", architectures=architectures)
    with pytest.raises(ModelError, match=r"Use a model of one of the families LlavaOnevision, ") as caught:
        load(checkpoint)
    assert (architectures or ["no named architecture"])[0] in str(caught.value)


@pytest.mark.parametrize("size", [0, 5, 100, 5000], ids="{} bytes".format)
def test_cut_off_weights(size: int, checkpoint: Path) -> None:
    os.truncate(checkpoint / "model.safetensors", size)
    with pytest.raises(ModelError, match=r"cannot be loaded.*fetch its files again"):
        load(checkpoint)


def test_weights_that_are_something_else(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n" * 3)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(checkpoint)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file(file: str, checkpoint: Path) -> None:
    (checkpoint / file).unlink()
    with pytest.raises(ModelError, match=r"files again"):
        load(checkpoint)


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_file(file: str, content: str, checkpoint: Path) -> None:
    (checkpoint / file).write_text(content)
    with pytest.raises(ModelError, match="files again"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_config", {"num_hidden_layers": 3, "layer_types": None}, "12 missing"),
        ("text_config", {"num_hidden_layers": 1, "layer_types": None}, "12 unknown"),
        ("text_config", {"intermediate_size": 40}, "6 of another shape"),
        ("vision_config", {"num_hidden_layers": 1}, "16 unknown"),
        ("text_config", {"num_hidden_layers": "many"}, "num_hidden_layers"),
        ("text_config", {"model_type": "no-such-model"}, "no-such-model"),
    ],
    ids=str,
)
def test_a_config_that_describes_another_model(
    part: str, change: dict[str, Any], message: str, checkpoint: Path, edit: Edit, capfd: pytest.CaptureFixture[str]
) -> None:
    edit("config.json", part, **change)
    with pytest.raises(ModelError, match=message):
        load(checkpoint)
    assert "LOAD REPORT" not in capfd.readouterr().err  # one sentence says it


def test_pictures_of_another_size_than_the_tower_takes(checkpoint: Path) -> None:
    LlavaOnevisionImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(checkpoint)
    with pytest.raises(ModelError, match=r"\(28, 28\).*\(42, 42\)"):
        load(checkpoint)


def test_a_tower_with_a_class_token_too_few(checkpoint: Path, edit: Edit) -> None:
    edit("config.json", vision_feature_select_strategy="default")  # drops a token that SigLIP does not have
    with pytest.raises(ModelError, match="does not take a frame"):
        load(checkpoint)


def test_the_tokenizer_of_another_model(checkpoint: Path) -> None:
    save_tokenizer(checkpoint, words=WORDS + [f"word{i}" for i in range(64)])
    with pytest.raises(ModelError, match="not from one checkpoint"):
        load(checkpoint)
    save_tokenizer(checkpoint, special=SPECIAL[:2])
    with pytest.raises(ModelError, match=r"does not know <.im_end.>"):
        load(checkpoint)


# -- devices and dtypes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", "cpu:0", "mps", ""], ids=repr)
def test_a_device_that_means_nothing(device: str, pristine: Path) -> None:
    with pytest.raises(ConfigError, match='must be "cpu", "cuda", "cuda:N" or "auto"'):
        load(pristine, device=device)


def test_a_gpu_that_is_not_there(pristine: Path) -> None:
    with pytest.raises(ModelError, match=r"torch sees .* CUDA device"):
        load(pristine, device=f"cuda:{torch.cuda.device_count()}")


@pytest.mark.parametrize("dtype", ["int8", "fp32", torch.int8, torch.float64], ids=str)
def test_a_dtype_that_models_do_not_run_in(dtype: str | torch.dtype, pristine: Path) -> None:
    with pytest.raises(ConfigError, match="float32, float16, bfloat16"):
        load(pristine, dtype=dtype)


def test_auto_needs_accelerate(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ModelError, match="pip install accelerate"):
        load(pristine, device="auto")


# -- families of one's own --------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test registers."""
    from rekv.models import registry

    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))


@pytest.mark.usefixtures("registry")
def test_register_a_family(checkpoint: Path, edit: Edit) -> None:
    @register
    class Toy(LlavaOnevision):
        architectures = ("ToyForConditionalGeneration",)
        init_prompt = "the system"

        @classmethod
        def load_hf(cls, source: str, architecture: str, **options: Any) -> Any:
            assert architecture == "ToyForConditionalGeneration"
            return super().load_hf(source, "LlavaOnevisionForConditionalGeneration", **options)

    edit("config.json", architectures=["Unknown", "ToyForConditionalGeneration"])
    model = load(checkpoint)
    assert isinstance(model, Toy)
    assert model.init_ids() == model.tokenizer("the system").input_ids
    edit("config.json", architectures=["Unknown"])
    with pytest.raises(ModelError, match=r"one of the families .*, Toy\b"):
        load(checkpoint)


@pytest.mark.usefixtures("registry")
def test_a_family_that_casts_its_rotary_embedding_is_refused(pristine: Path) -> None:
    @register
    class Cast(LlavaOnevision):
        @classmethod
        def load_hf(cls, source: str, architecture: str, **options: Any) -> Any:
            hf, info = super().load_hf(source, architecture, **options)
            return hf.to(torch.bfloat16), info  # type: ignore[arg-type]

    with pytest.raises(ModelError, match=r"inv_freq was cast to torch\.bfloat16"):
        load(pristine)


def test_what_is_registered_is_a_family() -> None:
    from rekv.models import registry

    for architecture, name in registry.families().items():
        found = registry.find_family([architecture])
        assert found is not None
        assert found[0] == architecture
        assert issubclass(found[1], VideoLM)
        assert found[1].__name__ == name
        assert architecture in found[1].architectures
    assert registry.find_family(["Unknown"]) is None
