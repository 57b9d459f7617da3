"""The load-time probe: a model whose attention rekv cannot reproduce is refused before it sees a frame."""

import torch
from torch import Tensor, nn

from rekv.attention.devices import input_device
from rekv.attention.hook import run
from rekv.attention.passes import EncodePass
from rekv.attention.rotary import Rotary
from rekv.errors import ModelError
from rekv.memory.memory import Memory

_TOKENS = 24
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}


@torch.inference_mode()
def probe(decoder: nn.Module, name: str) -> Rotary:
    """Compare the decoder run through rekv, in two calls, with its stock forward; return how it rotates.

    Raises `ModelError` if neither style of rotary embedding reproduces the stock hidden states, or if the decoder
    is built in a way that the method cannot enter.
    """
    if not hasattr(decoder, "rotary_emb"):
        raise _refusal(
            name, "its decoder has no rotary embedding of its own (`rotary_emb`), by which frames are placed"
        )
    try:
        changing = Rotary(decoder).depends_on_length(1 << 24)
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        raise _refusal(name, f"its rotary embedding does not take one position per token ({error})") from error
    if changing:
        raise _refusal(name, "its rotary angles change with the length of the sequence")
    embedding: nn.Embedding = decoder.get_input_embeddings()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, embedding.num_embeddings, (1, _TOKENS), generator=generator)
    ids = ids.to(input_device(embedding))
    errors: dict[bool, float] = {}
    try:
        stock = decoder(input_ids=ids, use_cache=False).last_hidden_state.float()
        for interleaved in (False, True):
            rotary = Rotary(decoder, interleaved=interleaved)
            errors[interleaved] = _distance(_through_rekv(decoder, rotary, ids, name), stock)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _refusal(name, f"its decoder cannot be run ({error})") from error
    best = min(errors, key=lambda style: errors[style])
    limit = _TOLERANCE.get(embedding.weight.dtype, max(_TOLERANCE.values()))
    if not errors[best] <= limit:  # also refuses NaN
        raise _refusal(
            name,
            f"its hidden states come out {errors[best]:.1e} apart (relative; at most {limit:.0e} is accepted): its "
            f"attention keeps state that frames cannot be retrieved from, or places tokens in a way unknown here",
        )
    return Rotary(decoder, interleaved=best)


def _refusal(name: str, reason: str) -> ModelError:
    return ModelError(f"{name}: rekv does not reproduce this model: {reason}. Use a model of a supported family")


def _through_rekv(decoder: nn.Module, rotary: Rotary, ids: Tensor, name: str) -> Tensor:
    """The same tokens as an init prompt and one frame, so that window, sink store and blocks all take part."""
    half = ids.shape[1] // 2
    memory = Memory(rotary, n_init=half, tokens_per_frame=half, n_local=ids.shape[1])
    outputs = []
    for chunk, times in ((ids[:, :half], ()), (ids[:, half:], (0.0,))):
        memory.make_room(half)
        outputs.append(run(decoder, EncodePass(memory, half), input_ids=chunk).last_hidden_state)
        if not memory.layers:
            raise ModelError(
                f"{name}: its attention layers never reached rekv. Load it with rekv.load(), or call "
                f'set_attn_implementation({{"text_config": "rekv"}}) on it'
            )
        memory.commit(times)
    return torch.cat(outputs, 1).float()


def _distance(ours: Tensor, stock: Tensor) -> float:
    return float((ours - stock).norm() / stock.norm())
