"""LongVA: CLIP frames, pooled to a quarter of their patches after the projector, into Qwen2 (arXiv 2406.16852).

Its checkpoint is in the format of the original LLaVA code. It becomes transformers' LLaVA as it is loaded, by other
names for its weights; nothing is converted on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import avg_pool2d, max_pool2d

from rekv.core import AskConfig, EncodeConfig
from rekv.errors import ModelError
from rekv.models.pixels import Preprocessor, read_json
from rekv.models.square import SquareLM

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig, LlavaConfig, PreTrainedModel

_NAMES = {
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "model.vision_tower.",
    r"^model\.mm_projector\.0\.": "model.multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "model.multi_modal_projector.linear_2.",
    r"^model\.embed_tokens\.": "model.language_model.embed_tokens.",
    r"^model\.layers\.": "model.language_model.layers.",
    r"^model\.norm\.": "model.language_model.norm.",
}
_UNUSED = "model.image_newline"  # of the checkpoint: images in tiles have it, frames do not
_POOLS: dict[str, Callable[..., torch.Tensor]] = {"average": avg_pool2d, "max": max_pool2d}

# The tower that the published checkpoint names, so that a folder of it loads without the tower's repository.
_CLIP = "openai/clip-vit-large-patch14-336"
_CLIP_SIZES: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
_CLIP_PIXELS: dict[str, Any] = {
    "size": {"shortest_edge": 336},
    "do_center_crop": True,
    "crop_size": {"height": 336, "width": 336},
    "resample": 3,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}


class LongVA(SquareLM):
    """LongVA with the prompts and settings of the published ReKV code: 144 tokens per frame of 336 x 336."""

    architectures = ("LlavaQwenForCausalLM",)
    encode_defaults = EncodeConfig(n_local=8000)
    ask_defaults = AskConfig(retrieve_size=32)
    markers = ("<|im_start|>", "<|im_end|>")
    next_turn = "<|im_end|>\n<|im_start|>user"
    init_prompt = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"

    @classmethod
    def load_hf(cls, source: str, architecture: str, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
        config = _config(source)
        as_llava = {"config": config, "key_mapping": _NAMES}
        hf, info = super().load_hf(source, "LlavaForConditionalGeneration", **as_llava, **options)
        info["unexpected_keys"] = set(info["unexpected_keys"]) - {_UNUSED}
        _add_tower(hf, info, hf.config.mm_vision_tower)
        return hf, info

    @classmethod
    def load_preprocessor(cls, source: str) -> Preprocessor:
        tower = _original(source)["mm_vision_tower"]
        return (
            Preprocessor.from_config(_CLIP_PIXELS, name=tower) if tower == _CLIP else super().load_preprocessor(tower)
        )

    @property
    def picture_tokens(self) -> int:
        side: int = self._patches // self.hf.config.mm_spatial_pool_stride
        return side * side

    def prompt(self, question: str) -> str:
        return f"\n{question}<|im_end|>\n<|im_start|>assistant\n"

    def frame_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features = torch.stack(tuple(self.hf.model.get_image_features(pixels).pooler_output))
        grid = features.mT.reshape(*features.mT.shape[:2], self._patches, self._patches)
        pool = _POOLS[self.hf.config.mm_spatial_pool_mode]
        pooled: torch.Tensor = pool(grid, self.hf.config.mm_spatial_pool_stride)
        return pooled.flatten(2).mT.to(self.device)


def _original(source: str) -> dict[str, Any]:
    """The checkpoint's own config. Raises `ModelError` if it is another model of the same class name."""
    config = read_json(source, "config.json") or {}
    tower, projector = str(config.get("mm_vision_tower")), config.get("mm_projector_type")
    if "clip" not in tower.lower() or projector != "mlp2x_gelu" or config.get("mm_spatial_pool_mode") not in _POOLS:
        raise ModelError(
            f"{source} is in the format of the original LLaVA code, of which rekv reads LongVA alone: a CLIP tower, an "
            f"mlp2x_gelu projector and average or max pooling. This one has {tower}, {projector} and "
            f"{config.get('mm_spatial_pool_mode')}. Many such models exist in transformers' format, under llava-hf/ on "
            f"the Hub; use that one"
        )
    return config


def _config(source: str) -> LlavaConfig:
    from transformers import LlavaConfig, Qwen2Config

    original = _original(source)
    known = Qwen2Config().to_dict().keys() | {"rope_theta"}
    text = {key: value for key, value in original.items() if key in known} | {"model_type": "qwen2"}
    text.pop("architectures", None)
    feature = original.get("mm_vision_select_feature")
    pooling = {key: original[key] for key in ("mm_vision_tower", "mm_spatial_pool_mode", "mm_spatial_pool_stride")}
    return LlavaConfig(
        text_config=Qwen2Config(**text),
        vision_config=_tower_config(original["mm_vision_tower"]),
        image_token_index=text["vocab_size"] - 1,  # of no use here: frames come as embeddings
        projector_hidden_act="gelu",
        multimodal_projector_bias=True,
        vision_feature_layer=original.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="full" if feature == "cls_patch" else "default",
        tie_word_embeddings=bool(original.get("tie_word_embeddings", False)),
        dtype=original.get("torch_dtype") or original.get("dtype"),
        **pooling,
    )


def _tower_config(tower: str) -> CLIPVisionConfig:
    from transformers import CLIPVisionConfig

    if tower == _CLIP:
        return CLIPVisionConfig(hidden_act="quick_gelu", **_CLIP_SIZES)
    return CLIPVisionConfig.from_pretrained(tower)


def _add_tower(hf: PreTrainedModel, info: dict[str, Any], tower: str) -> None:
    """Some checkpoints leave the tower out, where it was not trained; then it comes from its own repository."""
    from transformers import CLIPVisionModel

    missing = set(info["missing_keys"])
    prefix = "model.vision_tower."
    if not missing or not all(key.startswith(prefix) for key in missing):
        return
    weights = CLIPVisionModel.from_pretrained(tower, dtype=hf.dtype, use_safetensors=True).state_dict()
    hf.model.vision_tower.load_state_dict(weights)
    info["missing_keys"] = missing - {prefix + key for key in weights}
