"""Checkpoints with a short name, those of the paper's command line, and what is known before they are loaded."""

from dataclasses import dataclass, field

from rekv.core import AskConfig, EncodeConfig

BUILTIN = "tiny"  # the model that comes with rekv


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published checkpoint."""

    repo: str  # on the Hugging Face Hub
    architecture: str  # as its config.json names it
    tokens_per_frame: int
    layers: int
    kv_heads: int
    head_dim: int
    encode: EncodeConfig = field(default_factory=EncodeConfig)  # as the paper ran it
    ask: AskConfig = field(default_factory=AskConfig)
    gpus: int = 1  # of 80 GB, in 16 bits, as the published code wants them

    @property
    def folder(self) -> str:
        """What the published code calls it, in `model_zoo`."""
        return self.repo.partition("/")[2]

    @property
    def values_per_frame(self) -> int:
        """Numbers in one frame's keys and values, all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.tokens_per_frame


_ONEVISION = "LlavaOnevisionForConditionalGeneration"

CHECKPOINTS = {
    "llava_ov_0.5b": Checkpoint("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", _ONEVISION, 196, 24, 2, 64),
    "llava_ov_7b": Checkpoint("llava-hf/llava-onevision-qwen2-7b-ov-hf", _ONEVISION, 196, 28, 4, 128),
    "llava_ov_72b": Checkpoint(
        "llava-hf/llava-onevision-qwen2-72b-ov-hf",
        _ONEVISION,
        *(196, 80, 8, 128),
        EncodeConfig(sample_fps=0.1),
        AskConfig(retrieve_size=32),
        gpus=4,
    ),
    "video_llava_7b": Checkpoint(
        "LanguageBind/Video-LLaVA-7B-hf",
        "VideoLlavaForConditionalGeneration",
        *(257, 32, 32, 128),
        ask=AskConfig(retrieve_size=8),
    ),
    "longva_7b": Checkpoint(
        "lmms-lab/LongVA-7B",
        "LlavaQwenForCausalLM",
        *(144, 28, 4, 128),
        EncodeConfig(n_local=8000),
        AskConfig(retrieve_size=32),
    ),
}

ALIASES = {alias: checkpoint.repo for alias, checkpoint in CHECKPOINTS.items()}


def usual_gpus(name: object) -> int:
    """GPUs that a model of this name takes."""
    return CHECKPOINTS[name].gpus if isinstance(name, str) and name in CHECKPOINTS else 1


def settings(repo: str) -> tuple[EncodeConfig | None, AskConfig | None]:
    """How the paper ran a checkpoint; None where that is not known, and its family's settings are right."""
    for checkpoint in CHECKPOINTS.values():
        if checkpoint.repo == repo:
            return checkpoint.encode, checkpoint.ask
    return None, None
