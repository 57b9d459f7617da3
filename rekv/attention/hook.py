"""The one attention function that rekv registers with transformers, and how a pass is run through a model.

A pass calls the stock model with all positions 0, so that RoPE is the identity and the function receives
un-rotated queries, keys and values; the extra keyword `rekv` carries the pass down to it. Without the keyword
the function is plain SDPA, so the same loaded model stays a stock model, `generate()` included.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rekv.errors import ModelError

NAME = "rekv"


class AttentionPass(Protocol):
    """What one forward pass does in each attention layer."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Take un-rotated (heads, n, head_dim) tensors of the new tokens; return (n, heads, head_dim)."""


def run(model: nn.Module, attention: AttentionPass, **inputs: Any) -> Any:
    """Run a stock model (or its decoder) once, its attention layers done by `attention`.

    `inputs` holds `input_ids` (1, n) or `inputs_embeds` (1, n, dim), and anything else the model takes.
    """
    tokens = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
    shape, device = tokens.shape[:2], tokens.device
    return model(
        position_ids=torch.zeros(shape, dtype=torch.long, device=device),
        # Without a mask of ones transformers reads the zero positions as packed sequences of one token each.
        attention_mask=torch.ones(shape, dtype=torch.long, device=device),
        use_cache=False,
        rekv=attention,
        **inputs,
    )


def rekv_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    rekv: AttentionPass | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer over (batch, heads, tokens, head_dim); returns (batch, tokens, heads, head_dim)."""
    if rekv is None:
        mask = _own_length(attention_mask, query, key)
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs)
    if kwargs.get("softcap") is not None or kwargs.get("sliding_window") is not None:
        raise ModelError("this model's attention is capped or already a sliding window, which rekv does not reproduce")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: int = module.layer_idx  # type: ignore[assignment]
    return rekv.attend(layer, query[0], key[0], value[0], scale)[None], None


def _own_length(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """Transformers builds one mask from layer 0's length; layers that retrieved fewer tokens need their own."""
    n, length = query.shape[2], key.shape[2]
    if mask is None or mask.shape[-1] == length:
        return mask
    if n == 1:
        return None
    return torch.ones(n, length, dtype=torch.bool, device=query.device).tril(length - n)[None, None]


AttentionInterface.register(NAME, rekv_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
