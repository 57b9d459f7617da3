"""Dual encoders: a picture and a text become vectors of one space. SigLIP, SigLIP 2 and CLIP, through transformers.

Retrieval by a model beside the Video-LLM: `rekv.retrieval.external`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rekv.core import Image
from rekv.errors import ModelError
from rekv.models.pixels import Preprocessor
from rekv.models.quiet import quietly

BUILTIN = "tiny_dual"  # the one that comes with rekv
FOLDER = Path(__file__).parent / BUILTIN

_PADDING = {"siglip": "max_length", "clip": "longest"}  # by model type: how it was trained to see texts
_AT_ONCE = 64  # pictures in one call


class DualEncoder:
    """A loaded dual encoder. Holds no state."""

    def __init__(self, hf: Any, tokenizer: Any, preprocessor: Preprocessor, *, name: str) -> None:
        self.name = name
        self._hf, self._tokenizer, self._preprocessor = hf, tokenizer, preprocessor

    @torch.inference_mode()
    def pictures(self, images: Sequence[Image]) -> Tensor:
        """Unit vectors of pictures (height, width, 3) uint8: (n, dim) fp32 on the CPU."""
        parts = []
        for start in range(0, len(images), _AT_ONCE):
            pixels = self._preprocessor(images[start : start + _AT_ONCE])
            parts.append(self._vectors(self._hf.get_image_features(pixels.to(self._hf.device, self._hf.dtype))))
        return torch.cat(parts)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts: (n, dim) fp32 on the CPU. What is too long for the encoder is cut off."""
        kind = self._hf.config.model_type
        inputs = self._tokenizer(
            [text.lower() for text in texts],  # as SigLIP 2 was trained; the others' tokenizers do so themselves
            padding=_PADDING[kind],
            truncation=True,
            max_length=self._hf.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._hf.device)
        # SigLIP has learned to read the padding, CLIP not to.
        mask = {"attention_mask": inputs["attention_mask"]} if kind == "clip" else {}
        return self._vectors(self._hf.get_text_features(inputs["input_ids"], **mask))

    def _vectors(self, output: Any) -> Tensor:
        return F.normalize(output.pooler_output.float(), dim=-1).cpu()


def load_dual(name: str, *, device: torch.device | None = None) -> DualEncoder:
    """Load a dual encoder: "tiny_dual", the built-in one; a local folder; or a name on the Hugging Face Hub.

    In fp32. Raises `ModelError` if it cannot be found, is of another kind, or is not complete.
    """
    from transformers import AutoModel, AutoTokenizer

    source = str(FOLDER) if name == BUILTIN else name
    try:
        with quietly():
            hf, info = AutoModel.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, output_loading_info=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"the dual encoder {name!r} cannot be loaded ({str(error).splitlines()[0]}); name the folder or Hub name "
            f"of a SigLIP, SigLIP 2 or CLIP checkpoint, such as google/siglip2-base-patch16-224, or {BUILTIN!r}, the "
            f"built-in one, which knows nothing of real video"
        ) from error
    if hf.config.model_type not in _PADDING:
        raise ModelError(
            f"{name} is a {hf.config.model_type} model, not a dual encoder that rekv knows: it takes "
            f"{' and '.join(_PADDING)}, and SigLIP 2 of a fixed size of picture, which is a siglip"
        )
    if missing := sorted(info["missing_keys"]):
        raise ModelError(f"{name} lacks weights of a dual encoder (such as {missing[0]}); fetch its files again")
    hf.eval().requires_grad_(False).to(device or torch.device("cpu"))
    return DualEncoder(hf, tokenizer, Preprocessor.from_pretrained(source), name=name)
