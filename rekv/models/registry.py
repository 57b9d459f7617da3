"""Which models rekv knows: short names, families, the paper's settings. A new family is one line here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from rekv.core import AskConfig, EncodeConfig
from rekv.errors import ModelError

if TYPE_CHECKING:
    from rekv.models.base import VideoLM

BUILTIN = "tiny"  # the model that comes with rekv

ALIASES = {
    "llava_ov_0.5b": "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
    "llava_ov_7b": "llava-hf/llava-onevision-qwen2-7b-ov-hf",
    "llava_ov_72b": "llava-hf/llava-onevision-qwen2-72b-ov-hf",
}

# Checkpoints that the paper runs with other settings than the rest of their family.
SETTINGS = {
    "llava-hf/llava-onevision-qwen2-72b-ov-hf": (EncodeConfig(sample_fps=0.1), AskConfig(retrieve_size=32)),
}

# Architecture (a class name of transformers) -> family, or where it is: imported when a checkpoint needs it.
_FAMILIES: dict[str, str | type[VideoLM]] = {
    "LlavaOnevisionForConditionalGeneration": "rekv.models.llava_onevision:LlavaOnevision",
    "VideoLlavaForConditionalGeneration": "rekv.models.video_llava:VideoLlava",
    "LlavaQwenForCausalLM": "rekv.models.longva:LongVA",
    "LlavaNextVideoForConditionalGeneration": "rekv.models.llava_next_video:LlavaNextVideo",
    "InternVLForConditionalGeneration": "rekv.models.internvl:InternVL",
    "SmolVLMForConditionalGeneration": "rekv.models.smolvlm:SmolVLM",
}


def register(family: type[VideoLM]) -> type[VideoLM]:
    """Teach `load` another family, for each of its `architectures`; can be used as a decorator."""
    _FAMILIES.update(dict.fromkeys(family.architectures, family))
    return family


def find_family(architectures: Sequence[str], source: str) -> tuple[str, type[VideoLM]]:
    """Return the first architecture that a family takes, and the family; `source` is for the message."""
    for architecture in architectures:
        family = _FAMILIES.get(architecture)
        if isinstance(family, str):
            module, _, name = family.partition(":")
            family = getattr(import_module(module), name)
        if family is not None:
            return architecture, family
    raise ModelError(
        f"{source} is a {' or '.join(architectures) or 'model of no named architecture'}, "
        f"which rekv does not know. It knows {', '.join(_FAMILIES)}; rekv.models.register adds a family"
    )
