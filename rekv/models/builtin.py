"""The model that comes with rekv: a LLaVA-OneVision of 3.3 M parameters, trained on rekv's own drawn world.

It makes everything work on a CPU with no network, and proves the pipeline. It knows nothing of real video.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from rekv.core import AskConfig, EncodeConfig, Turn
from rekv.errors import ModelError
from rekv.models.aliases import BUILTIN
from rekv.models.dual import BUILTIN as DUAL
from rekv.models.llava_onevision import LlavaOnevision
from rekv.models.loading import assemble
from rekv.models.quiet import quietly

FOLDER = Path(__file__).parent / "tiny"


class Tiny(LlavaOnevision):
    """The built-in model: 16 tokens per frame of 64 x 64, one frame per second, a window of 32 frames."""

    encode_defaults = EncodeConfig(sample_fps=1.0, n_local=512, frames_per_call=16, encoder=DUAL)
    ask_defaults = AskConfig(retrieve_size=8, max_new_tokens=24)

    @property
    def init_prompt(self) -> str:
        return "<|im_start|>system\nYou are a helpful assistant.<|im_end|><|im_start|>user\n"

    def dialogue(self, turns: Sequence[Turn], question: str) -> str:
        """The question alone: it was never trained on a second one, and earlier turns would only confuse it."""
        return self.prompt(question)


def load(*, device: str | None = None, dtype: str | torch.dtype | None = None) -> Tiny:
    """Load it, in float32 unless `dtype` says otherwise, without progress bars."""
    if not FOLDER.is_dir():
        raise ModelError(f"the built-in model's folder {FOLDER} is gone; reinstall rekv")
    with quietly():
        return assemble(
            Tiny,
            Tiny.architectures[0],
            str(FOLDER),
            name=BUILTIN,
            device=device,
            dtype=dtype or torch.float32,
        )
