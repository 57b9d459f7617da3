"""From a name to a loaded Video-LLM: find the checkpoint, load it through transformers, trust none of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from rekv.errors import ConfigError, ModelError, RekvError
from rekv.models.aliases import BUILTIN, settings, usual_gpus
from rekv.models.chat import chat_template
from rekv.models.finding import find, names
from rekv.models.placement import placement
from rekv.models.quiet import without_hints
from rekv.models.refusals import require_retrievable, unknown
from rekv.models.registry import find_family

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rekv.models.base import VideoLM

Family = TypeVar("Family", bound="VideoLM")

# What a checkpoint may hold beyond the model's weights: a head that the vision tower does not use, constants.
_SPARE = re.compile(r"_tower\.(\w+\.)*head\.|\.(inv_freq|position_ids)$")


def load(
    name: str | Path | None = None,
    *,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    weights: str | None = None,
) -> VideoLM:
    """Load a Video-LLM.

    name: None for the built-in model; an alias such as "llava_ov_7b", which is looked for in `./model_zoo`, in
        the Hugging Face Hub's cache and on the Hub, in this order; a local folder; or a name on the Hub, whose
        files transformers fetches and keeps.
    device: "cpu", "cuda", "cuda:1", or "auto" to spread it over all devices (needs accelerate).
        By default CUDA where there is one, "auto" for what takes several GPUs (llava_ov_72b).
    dtype: "float32", "float16" or "bfloat16". By default the checkpoint's own on CUDA and float32 on the CPU;
        the built-in model is float32 everywhere.
    weights: "int8" or "int4" packs those of the language model's layers, which takes the extra "quantized". What a
        session keeps has the dtype above all the same.

    Raises `ModelError` if it cannot be found, is of no known family, or is not complete and whole.
    """
    if name is None or name == BUILTIN:
        from rekv.models import builtin

        if weights is not None:
            raise ConfigError("the built-in model is small, its weights are never packed: leave weights out")
        return builtin.load(device=device, dtype=dtype)
    place = find(name)
    if device is None and min(usual_gpus(name), torch.cuda.device_count()) > 1:
        device = "auto"
    config = _config(place.source)
    architectures = tuple(config.get("architectures") or ())
    require_retrievable(place.source)
    if (found := find_family(architectures)) is None:
        raise unknown(architectures, config, place.source)
    architecture, family = found
    return assemble(
        *(family, architecture, place.source),
        name=str(name),
        repo=place.repo,
        device=device,
        dtype=dtype,
        weights=weights,
    )


def assemble(
    family: type[Family],
    architecture: str,
    source: str,
    *,
    name: str,
    repo: str | None = None,
    device: str | None,
    dtype: str | torch.dtype | None,
    weights: str | None = None,
) -> Family:
    """Load a checkpoint's weights, tokenizer and preprocessor, and check that they fit together.

    `repo` is its name on the Hub, if it has one: the paper ran some checkpoints with settings of their own.
    """
    from transformers import AutoTokenizer

    from rekv.attention import hook

    options, device_after = placement(device, dtype, weights)
    with _refusing(source), without_hints():
        preprocessor = family.load_preprocessor(source)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if not tokenizer.chat_template:
            tokenizer.chat_template = chat_template(source)
        hf, info = family.load_hf(
            source,
            architecture,
            attn_implementation={"text_config": hook.NAME, "vision_config": "sdpa"},
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told with the missing ones, and refused
            **options,
        )
    _require_all_weights(info, source)
    _require_exact_rotary(hf, source)
    hf.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    if device_after is not None:
        hf.to(device_after)  # type: ignore[arg-type]
    encode, ask = settings(repo or source)
    model = family(hf, tokenizer, preprocessor, name=name, encode_config=encode, ask_config=ask)
    model.check()
    return model


def _config(source: str) -> dict[str, Any]:
    from huggingface_hub import constants
    from transformers import PreTrainedConfig

    with _refusing(source):
        try:
            config, _ = PreTrainedConfig.get_config_dict(source)
        except OSError as error:
            if Path(source).is_dir():
                raise
            raise ModelError(
                f"there is no folder {source}, and the Hugging Face Hub did not give a model of that name: "
                f"{_reason(error)} Check the name and the network; without one, only models that lie in "
                f"{constants.HF_HUB_CACHE} can be used (HF_HOME moves it). {names()}"
            ) from error
    if not isinstance(config, dict) or not config:
        raise ModelError(f"{source} has no config.json that describes a model. {names()}")
    return config


@contextmanager
def _refusing(source: str) -> Iterator[None]:
    """Damaged files make transformers and its parts raise nearly anything."""
    try:
        yield
    except (RekvError, RuntimeError, MemoryError):  # out of memory is not the checkpoint's fault
        raise
    except Exception as error:
        raise ModelError(
            f"{source} cannot be loaded: {_reason(error)} rekv needs its config, preprocessor config, "
            f"tokenizer and weights as safetensors; if one is missing or damaged, fetch its files again"
        ) from error


def _reason(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}".rstrip(".: \n"), 200, placeholder=" ...") + "."


def _require_all_weights(info: dict[str, Any], source: str) -> None:
    """A foreign or half-fetched checkpoint would otherwise run, its missing weights being random."""
    problems = {
        "missing": sorted(info["missing_keys"]),
        "of another shape": sorted(key for key, *_ in info["mismatched_keys"]),
        "unknown": sorted(key for key in info["unexpected_keys"] if not _SPARE.search(key)),
    }
    told = [f"{len(keys)} {what} (such as {keys[0]})" for what, keys in problems.items() if keys]
    if told := told + list(info.get("error_msgs", ())):
        raise ModelError(
            f"{source}: its weights are not those that its config.json describes: {'; '.join(told)}. "
            f"Fetch its files again, all of them"
        )


def _require_exact_rotary(hf: PreTrainedModel, source: str) -> None:
    for key, buffer in hf.named_buffers():
        if key.endswith("inv_freq") and buffer.dtype != torch.float32:
            raise ModelError(
                f"{source}: {key} was cast to {buffer.dtype}, which shifts every position; load the model "
                f"with from_pretrained(dtype=...), not with .to() or .half()"
            )
