"""Where a name leads: `./model_zoo`, the Hub's cache, the Hub; and the message if it leads nowhere."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers as hf

from rekv.errors import ModelError
from rekv.models import ALIASES, load
from rekv.models.aliases import CHECKPOINTS, Checkpoint, settings
from rekv.models.finding import Place, find
from rekv.models.llava_onevision import LlavaOnevision
from rekv.models.registry import find_family


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a Hub cache, both empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def cache(here: Path, repo: str, checkpoint: Path) -> Path:
    """Put a checkpoint into the Hub's cache, as its own client lays it out."""
    folder = here / "cache" / f"models--{repo.replace('/', '--')}"
    snapshot = Path(shutil.copytree(checkpoint, folder / "snapshots" / ("0" * 40)))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    return snapshot


ZOO = {
    "llava_ov_0.5b": "llava-onevision-qwen2-0.5b-ov-hf",
    "llava_ov_7b": "llava-onevision-qwen2-7b-ov-hf",
    "llava_ov_72b": "llava-onevision-qwen2-72b-ov-hf",
    "video_llava_7b": "Video-LLaVA-7B-hf",
    "longva_7b": "LongVA-7B",
}


def test_aliases_are_those_of_the_papers_command_line() -> None:
    assert {alias: checkpoint.folder for alias, checkpoint in CHECKPOINTS.items()} == ZOO


@pytest.mark.parametrize("alias", ZOO)
def test_the_model_zoo_comes_first_then_the_cache_then_the_hub(alias: str, here: Path, pristine: Path) -> None:
    repo = ALIASES[alias]
    assert find(alias) == Place(repo, repo)
    snapshot = cache(here, repo, pristine)
    assert find(alias) == Place(str(snapshot), repo)
    (here / "model_zoo" / ZOO[alias]).mkdir(parents=True)
    assert find(alias) == Place(f"model_zoo/{ZOO[alias]}", repo)


def test_a_cached_snapshot_that_is_not_whole_is_left_to_the_hub(here: Path, pristine: Path) -> None:
    repo = ALIASES["llava_ov_7b"]
    snapshot = cache(here, repo, pristine)
    (snapshot / "model.safetensors").unlink()
    assert find("llava_ov_7b").source == repo
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (snapshot / "model-1.safetensors").touch()
    assert find("llava_ov_7b").source == repo
    (snapshot / "model-2.safetensors").touch()
    assert find("llava_ov_7b").source == str(snapshot)


def test_a_checkpoint_of_the_zoo_has_the_papers_settings(here: Path, pristine: Path, offline: list[object]) -> None:
    shutil.copytree(pristine, here / "model_zoo" / ZOO["llava_ov_72b"])
    model = load("llava_ov_72b", device="cpu")
    assert isinstance(model, LlavaOnevision)
    assert model.name == "llava_ov_72b"
    assert (model.encode_config.sample_fps, model.ask_config.retrieve_size) == (0.1, 32)
    assert offline == []


def test_what_takes_several_gpus_is_spread_over_them(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a device is named. There are none here: where the weights would go is looked at."""
    asked: list[str | None] = []

    def seen(device: str | None, *_: object) -> None:
        asked.append(device)
        raise ModelError("enough seen")

    monkeypatch.setattr("rekv.models.loading.placement", seen)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.chdir(tmp_path)
    for alias in ("llava_ov_72b", "llava_ov_7b"):
        shutil.copytree(pristine, tmp_path / "model_zoo" / ZOO[alias])
    for alias, device in (("llava_ov_72b", None), ("llava_ov_72b", "cuda:1"), ("llava_ov_7b", None)):
        with pytest.raises(ModelError, match="enough seen"):
            load(alias, device=device)
    assert asked == ["auto", "cuda:1", None]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("llava_ov_8b", "llava_ov_7b"),
        ("llava-ov-0.5b", "llava_ov_0.5b"),
        ("longva", "longva_7b"),
        ("videollava_7b", "video_llava_7b"),
        ("tinny", "tiny"),
    ],
)
def test_the_nearest_alias_is_suggested(name: str, meant: str, here: Path) -> None:
    with pytest.raises(ModelError, match=f"there is no model '{name}'; did you mean {meant}\\?"):
        find(name)


def test_nothing_is_suggested_for_a_name_that_is_like_none(here: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find("gpt")
    assert "did you mean" not in str(caught.value)


def test_a_wrong_folder_beside_the_right_one(here: Path, pristine: Path) -> None:
    shutil.copytree(pristine, here / "checkpoints" / "my-model")
    with pytest.raises(ModelError, match="checkpoints/my-model is there"):
        find("./checkpoints/my-modell")
    with pytest.raises(ModelError, match=r"no config\.json .* It holds folders that do: checkpoints/my-model\."):
        find("checkpoints")


# -- what is said of a checkpoint before it is loaded ----------------------------------------------------------------


def qwen2(layers: int, hidden: int, heads: int, kv_heads: int) -> hf.Qwen2Config:
    return hf.Qwen2Config(
        num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv_heads
    )


SIGLIP = hf.SiglipVisionConfig(image_size=384, patch_size=14)
CLIP = hf.CLIPVisionConfig(image_size=224, patch_size=14)
LARGE_CLIP = hf.CLIPVisionConfig(image_size=336, patch_size=14)
# The published checkpoints' sizes.
CONFIGS: dict[str, Any] = {
    "llava_ov_0.5b": hf.LlavaOnevisionConfig(text_config=qwen2(24, 896, 14, 2), vision_config=SIGLIP),
    "llava_ov_7b": hf.LlavaOnevisionConfig(text_config=qwen2(28, 3584, 28, 4), vision_config=SIGLIP),
    "llava_ov_72b": hf.LlavaOnevisionConfig(text_config=qwen2(80, 8192, 64, 8), vision_config=SIGLIP),
    "video_llava_7b": hf.VideoLlavaConfig(text_config=hf.LlamaConfig(), vision_config=CLIP),
    "longva_7b": hf.LlavaConfig(
        text_config=qwen2(28, 3584, 28, 4), vision_config=LARGE_CLIP, **{"mm_spatial_pool_stride": 2}
    ),
}


@pytest.mark.parametrize(("alias", "checkpoint"), CHECKPOINTS.items(), ids=CHECKPOINTS.keys())
def test_sizes_are_those_of_the_configs(alias: str, checkpoint: Checkpoint) -> None:
    config = CONFIGS[alias]
    text = config.get_text_config()
    found = find_family([checkpoint.architecture])
    assert found is not None
    family = object.__new__(found[1])
    family.hf = SimpleNamespace(config=config)  # type: ignore[assignment]
    assert family.tokens_per_frame == checkpoint.tokens_per_frame
    assert checkpoint.layers == text.num_hidden_layers
    assert checkpoint.kv_heads == text.num_key_value_heads
    assert checkpoint.head_dim == text.hidden_size // text.num_attention_heads


@pytest.mark.parametrize(("alias", "checkpoint"), CHECKPOINTS.items(), ids=CHECKPOINTS.keys())
def test_settings_are_the_families_but_for_72b(alias: str, checkpoint: Checkpoint) -> None:
    found = find_family([checkpoint.architecture])
    assert found is not None
    defaults = found[1].encode_defaults, found[1].ask_defaults
    if alias == "llava_ov_72b":
        defaults = defaults[0].but(sample_fps=0.1), defaults[1].but(retrieve_size=32)
    assert settings(checkpoint.repo) == defaults
    assert settings("somebody/else") == (None, None)
