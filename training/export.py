"""Plain files that `from_pretrained` loads, and what made them."""

import json
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerBase

from rekv.world.shapes import INPUT
from training.models import DUAL_WORDS, Model
from training.settings import Settings

_PICTURES = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": INPUT, "width": INPUT},
}


def export_video_llm(folder: Path, model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the Video-LLM in bfloat16, its tokenizer and its image processor's configuration."""
    model.model.vision_tower.config._attn_implementation = "sdpa"  # noqa: SLF001
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    extra = {
        "do_pad": True,
        "image_grid_pinpoints": [[INPUT, INPUT]],
        "image_processor_type": "LlavaOnevisionImageProcessor",
    }
    _write(folder / "preprocessor_config.json", _PICTURES | extra)


def export_dual_encoder(folder: Path, model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the dual encoder in bfloat16, with a tokenizer that knows how long its questions are."""
    model.text_model.config._attn_implementation = "sdpa"  # noqa: SLF001
    model.vision_model.config._attn_implementation = "sdpa"  # noqa: SLF001
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.model_max_length = DUAL_WORDS
    tokenizer.save_pretrained(folder)
    _write(folder / "preprocessor_config.json", _PICTURES | {"image_processor_type": "SiglipImageProcessor"})


def record(
    folder: Path, settings: Settings, minutes: dict[str, float], device: torch.device, start: dict[str, Any] | None
) -> None:
    """Write what made the checkpoint: revision, settings, seeds, versions, minutes, on what; `start`: from what."""
    made = {
        "revision": revision(),
        "settings": asdict(settings),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "minutes": minutes,
    }
    if start is not None:
        made["start"] = start
    _write(folder / "training.json", made)


def recorded(folder: Path) -> dict[str, Any]:
    """Return what made a checkpoint; nothing, if it does not say."""
    path = folder / "training.json"
    made: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return made


def revision() -> str:
    """Return the git revision, "+" after it if files differ from it, or "unknown" outside a checkout."""

    def git(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "../rekv", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
