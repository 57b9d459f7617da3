"""Which families of Video-LLMs rekv knows. A new one is one line here, a call of `register`, or an entry point."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from rekv.errors import ModelError
from rekv.plugins import imported, installed

if TYPE_CHECKING:
    from rekv.models.base import VideoLM

GROUP = "rekv.models"  # entry points of other packages: architecture = "module:Class"

# Architecture (a class name of transformers) -> family, or where it is: imported when a checkpoint needs it.
_FAMILIES: dict[str, str | type[VideoLM]] = {
    "LlavaOnevisionForConditionalGeneration": "rekv.models.llava_onevision:LlavaOnevision",
    "VideoLlavaForConditionalGeneration": "rekv.models.video_llava:VideoLlava",
    "LlavaQwenForCausalLM": "rekv.models.longva:LongVA",
    "LlavaNextVideoForConditionalGeneration": "rekv.models.llava_next_video:LlavaNextVideo",
    "InternVLForConditionalGeneration": "rekv.models.internvl:InternVL",
    "SmolVLMForConditionalGeneration": "rekv.models.smolvlm:SmolVLM",
    "VideoLlama3ForConditionalGeneration": "rekv.models.video_llama3:VideoLlama3",
    "Qwen2VLForConditionalGeneration": "rekv.models.qwen_vl:Qwen2VL",
    "Qwen2_5_VLForConditionalGeneration": "rekv.models.qwen_vl:Qwen25VL",
    "Qwen3VLForConditionalGeneration": "rekv.models.qwen_vl:Qwen3VL",
}


def register(family: type[VideoLM]) -> type[VideoLM]:
    """Teach `load` another family, for each of its `architectures`; can be used as a decorator."""
    _FAMILIES.update(dict.fromkeys(family.architectures, family))
    return family


def find_family(architectures: Sequence[str]) -> tuple[str, type[VideoLM]] | None:
    """The first architecture that a family takes, and the family: registered, or of an installed package."""
    for architecture in architectures:
        family = _FAMILIES.get(architecture)
        if family is None and (point := installed(GROUP).get(architecture)) is not None:
            family = _load(point)
        if isinstance(family, str):
            family = imported(family)
        if family is not None:
            return architecture, family
    return None


def families() -> dict[str, str]:
    """Architecture -> name of its family's class, without importing any."""
    known = {architecture: point.value for architecture, point in installed(GROUP).items()} | _FAMILIES
    return {
        architecture: family.rpartition(":")[2] if isinstance(family, str) else family.__name__
        for architecture, family in known.items()
    }


def _load(point: EntryPoint) -> type[VideoLM]:
    from rekv.models.base import VideoLM

    origin = f"the entry point {point.name} = {point.value}" + (f" of {point.dist.name}" if point.dist else "")
    try:
        family = point.load()
    except Exception as error:  # whatever another package's import raises
        raise ModelError(
            f"{origin} cannot be imported ({type(error).__name__}: {error}); mend or uninstall that package"
        ) from error
    if not (isinstance(family, type) and issubclass(family, VideoLM)):
        raise ModelError(f"{origin} is not a subclass of rekv.models.VideoLM; mend or uninstall that package")
    return family
