"""Weights in fewer bits, so that a model fits: the options for `from_pretrained`.

Only the language model's layers are packed; the vision tower, the projector, embeddings and the head stay as they are.
Weights are unpacked for each product, so a token's result does not depend on the call that it is in. bitsandbytes' int8
packs activations, too, by what else is in the call, and is not offered: cut in two, its hidden states were 1.2 % apart.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from rekv.errors import ConfigError, ModelError

_PACKAGES = {"int8": "torchao", "int4": "bitsandbytes"}
_KEPT = r"(?!.*(language_model|text_model)\.).+"  # modules whose weights stay as they are, as a regular expression


def quantization(weights: str, dtype: torch.dtype) -> Any:
    """The quantization config for "int8" (torchao) or "int4" (NF4 of bitsandbytes), products being done in `dtype`.

    Raises `ConfigError` for another name, `ModelError` if the package is not installed.
    """
    if weights not in _PACKAGES:
        raise ConfigError(f"weights is {weights!r}; it must be one of {', '.join(_PACKAGES)}, or be left out")
    for package in (_PACKAGES[weights], "accelerate"):
        if find_spec(package) is None:
            raise ModelError(
                f'weights="{weights}" needs {package}, which is not installed: pip install "rekv[quantized]", or leave '
                f"weights out"
            )
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if weights == "int4":
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=[_KEPT]
        )
    int8 = import_module("torchao.quantization").Int8WeightOnlyConfig()
    return TorchAoConfig(int8, modules_to_not_convert=[_KEPT])
