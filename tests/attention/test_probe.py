"""The load-time probe: what it accepts is reproduced, what it cannot be is refused with a ModelError."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rekv.attention.hook import NAME, run
from rekv.attention.passes import EncodePass
from rekv.attention.probe import probe
from rekv.attention.rotary import Rotary
from rekv.engine import Model
from rekv.errors import ModelError
from rekv.memory.memory import Memory
from tests.golden.cases import golden_model
from tests.support import TinyLM, decoder_lm, randomise

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
LINEAR = {
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
ROPE = {"rope_theta": 10000.0, "factor": 4.0}


def tiny(kind: str, **options: Any) -> Any:
    config = AutoConfig.for_model(kind, **SIZES | options)
    return randomise(AutoModelForCausalLM.from_config(config))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("mistral", {"sliding_window": None}),
        ("gemma", {"head_dim": 16}),
        ("phi", {"num_key_value_heads": 4}),
        ("cohere", {}),
        ("llama", {"rope_parameters": ROPE | {"rope_type": "yarn", "original_max_position_embeddings": 512}}),
    ],
    ids=["llama", "qwen2", "qwen3", "mistral", "gemma", "phi-partial", "cohere-interleaved", "llama-yarn"],
)
def test_accepted_decoder_is_reproduced(kind: str, options: dict[str, Any]) -> None:
    """Also at other lengths and other cuts than the probe's own, against plain eager attention."""
    model = tiny(kind, **options)
    check_reproduces(model, probe(model.get_decoder(), kind))


@torch.inference_mode()
def check_reproduces(model: Any, rotary: Rotary) -> None:
    decoder = model.get_decoder()
    ids = torch.randint(0, 101, (1, 70), generator=torch.Generator().manual_seed(1))
    memory = Memory(rotary, n_init=10, tokens_per_frame=10, n_local=100)
    ours = []
    for first, last in ((0, 10), (10, 40), (40, 70)):
        memory.make_room(last - first)
        ours.append(run(decoder, EncodePass(memory, last - first), input_ids=ids[:, first:last]).last_hidden_state)
        memory.commit([float(first)] * ((last - first) // 10) if first else ())
    model.set_attn_implementation("eager")
    stock = decoder(input_ids=ids, use_cache=False).last_hidden_state
    model.set_attn_implementation(NAME)
    torch.testing.assert_close(torch.cat(ours, 1), stock, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["llava_onevision_tiny", "video_llava_tiny"])
def test_supported_families_are_accepted_in_every_type(name: str, dtype: torch.dtype) -> None:
    probe(copy.deepcopy(golden_model(name)).to(dtype).get_decoder(), name)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("qwen3_next", LINEAR | EXPERTS),
        ("qwen3_5_text", LINEAR),
        ("lfm2", {"layer_types": ["conv", "full_attention"] * 2}),
        ("jamba", {"num_experts": 2, "mamba_d_state": 8}),
        ("mamba", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_that_keep_another_state_are_refused(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=kind):
        probe(tiny(kind, **options).get_decoder(), kind)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", {"n_embd": 64, "n_head": 4, "n_layer": 4}),  # learned positions
        ("bloom", {}),  # ALiBi
        ("smollm3", {}),  # some layers do not rotate
        (
            "deepseek_v3",
            {
                "kv_lora_rank": 16,
                "q_lora_rank": 16,
                "qk_rope_head_dim": 8,
                "qk_nope_head_dim": 8,
                "v_head_dim": 16,
                "first_k_dense_replace": 4,
                "n_routed_experts": 4,
                "n_group": 1,
                "topk_group": 1,
                "num_experts_per_tok": 2,
            },
        ),  # latent attention
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_positions_that_rekv_does_not_know_are_refused(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=kind):
        probe(tiny(kind, **options).get_decoder(), kind)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
        ("gemma2", {"head_dim": 16}),  # soft-capped, which SDPA itself refuses
        ("gemma2", {"head_dim": 16, "attn_logit_softcapping": None}),
        (
            "gpt_oss",
            {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ["full_attention"] * 4},
        ),  # learned attention sinks
    ],
    ids=["mistral-window", "qwen2-window", "gemma2-softcap", "gemma2-window", "gpt_oss-sinks"],
)
def test_other_attention_is_refused(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        probe(tiny(kind, **options).get_decoder(), kind)


@pytest.mark.parametrize(
    ("kind", "rope"),
    [
        ("llama", {"rope_type": "dynamic"}),
        (
            "phi3",
            {
                "rope_type": "longrope",
                "short_factor": [1.0] * 8,
                "long_factor": [4.0] * 8,
                "original_max_position_embeddings": 2048,
            },
        ),
    ],
    ids=["dynamic", "longrope"],
)
def test_angles_that_depend_on_the_length_are_refused(kind: str, rope: dict[str, Any]) -> None:
    """Frames are rotated as they come; what was rotated would be wrong once the stream is longer."""
    model = tiny(kind, max_position_embeddings=2048, rope_parameters=ROPE | rope)
    with pytest.raises(ModelError):
        probe(model.get_decoder(), kind)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_model_loaded_without_rekv_is_refused_with_what_to_do(implementation: str) -> None:
    model = tiny("qwen2")
    model.set_attn_implementation(implementation)
    with pytest.raises(ModelError, match=r"rekv\.load"):
        Model(TinyLM(model))


def test_broken_weights_are_refused() -> None:
    model = tiny("llama")
    with torch.no_grad():
        model.get_decoder().layers[0].self_attn.q_proj.weight.fill_(torch.nan)
    with pytest.raises(ModelError):
        probe(model.get_decoder(), "llama")


def test_probe_leaves_the_model_as_it_was() -> None:
    model = decoder_lm()
    ids = torch.arange(1, 20)[None]
    before = model(input_ids=ids).logits
    probe(model.get_decoder(), "qwen2")
    assert torch.equal(model(input_ids=ids).logits, before)
