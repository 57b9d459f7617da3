"""Rotation at positions we choose is the model's own."""

from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from rekv.attention.rotary import Rotary, rotate

POSITIONS = (3, 40)  # start and end
LLAMA: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
SCALED: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
}


def decoder(kind: str, **options: Any) -> Any:
    options = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 50} | options
    config = AutoConfig.for_model(kind, pad_token_id=None, **options)
    return AutoModel.from_config(config).eval()  # type: ignore[no-untyped-call]


def stock_rotation(model: Any, kind: str, x: Tensor, start: int, end: int) -> Tensor:
    """What the family's own code makes of x (heads, n, dim) at these positions."""
    cos, sin = model.rotary_emb(torch.empty(0, dtype=x.dtype), torch.arange(start, end)[None])
    apply = import_module(type(model).__module__).apply_rotary_pos_emb
    turned = x[..., : cos.shape[-1]]  # families with partial rotary embeddings hand only this part over
    out, _ = apply(turned[None], turned[None], cos, sin)
    return torch.cat((out[0], x[..., cos.shape[-1] :]), -1)


CASES: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "llama": ("llama", False, LLAMA),
    "qwen2": ("qwen2", False, LLAMA),
    "partial": ("phi", False, {"num_attention_heads": 2, "partial_rotary_factor": 0.5}),
    "partial_quarter": ("stablelm", False, {"num_attention_heads": 2, "num_key_value_heads": 2}),
    "interleaved": ("cohere", True, {"num_attention_heads": 4, "num_key_value_heads": 2}),
    **{
        f"{name}": ("llama", False, LLAMA | {"rope_parameters": {"rope_theta": 10000.0} | scaling})
        for name, scaling in SCALED.items()
    },
}


@pytest.mark.parametrize("name", CASES)
def test_rotation_equals_the_models_own(name: str) -> None:
    kind, interleaved, options = CASES[name]
    model = decoder(kind, **options)
    start, end = POSITIONS
    dim = (
        options["hidden_size"] // options["num_attention_heads"]
        if "hidden_size" in options
        else 64 // options["num_attention_heads"]
    )
    x = torch.randn(3, end - start, dim, generator=torch.Generator().manual_seed(0))
    angles = Rotary(model, interleaved=interleaved).angles(start, end, torch.device("cpu"))
    stock = stock_rotation(model, kind, x, start, end)
    scaling = getattr(model.rotary_emb, "attention_scaling", 1.0)
    assert name != "yarn" or scaling != 1.0
    # What the method rotates has passed the model's position 0, where the model applied its scaling.
    turned = angles.cos.shape[-1]
    ours = rotate(torch.cat((x[..., :turned] * scaling, x[..., turned:]), -1), angles)
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=0)


def test_rotation_is_computed_in_fp32_whatever_the_type() -> None:
    model = decoder("llama", **LLAMA)
    angles = Rotary(model).angles(900, 1000, torch.device("cpu"))
    x = torch.randn(2, 100, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = rotate(x.float(), angles)
    assert torch.equal(rotate(x, angles), exact.bfloat16())
    out = torch.empty(2, 100, 16, dtype=torch.float16)
    assert rotate(x, angles, out) is out
    assert torch.equal(out, exact.half())


def test_rotation_into_a_slice_of_a_buffer_leaves_the_rest_alone() -> None:
    angles = Rotary(decoder("llama", **LLAMA)).angles(0, 7, torch.device("cpu"))
    x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    buffer = torch.full((2, 20, 16), 5.0)
    rotate(x, angles, buffer[:, 4:11])
    assert torch.equal(buffer[:, 4:11], rotate(x, angles))
    assert bool((buffer[:, :4] == 5).all() and (buffer[:, 11:] == 5).all())


@pytest.mark.parametrize("interleaved", [False, True])
def test_inverse_undoes(interleaved: bool) -> None:
    angles = Rotary(decoder("llama", **LLAMA), interleaved=interleaved).angles(100, 107, torch.device("cpu"))
    x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    if interleaved:  # the table of a model that pairs neighbours
        cohere = decoder("cohere", num_attention_heads=4, num_key_value_heads=2)
        angles = Rotary(cohere, interleaved=True).angles(100, 107, torch.device("cpu"))
    torch.testing.assert_close(rotate(rotate(x, angles), angles.inverse()), x, atol=1e-5, rtol=0)


def test_angles_do_not_depend_on_how_far_the_table_has_grown() -> None:
    """Keys were rotated by the small table, queries are by the grown one."""
    rotary = Rotary(decoder("llama", **LLAMA))
    cpu = torch.device("cpu")
    before = rotary.angles(5, 900, cpu)
    rotary.angles(0, 70_000, cpu)
    after = rotary.angles(5, 900, cpu)
    assert torch.equal(before.cos, after.cos)
    assert torch.equal(before.sin, after.sin)
    assert rotary.angles(1024, 1025, cpu).cos.shape == (1, 16)
    assert rotary.angles(3, 3, cpu).cos.shape == (0, 16)


def test_only_distances_matter() -> None:
    """The window rests on this: slots may count from anywhere."""
    rotary = Rotary(decoder("llama", **LLAMA))
    cpu = torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 16, generator=generator)
    near = rotate(query, rotary.angles(9, 10, cpu)) @ rotate(key, rotary.angles(2, 3, cpu)).mT
    far = rotate(query, rotary.angles(1009, 1010, cpu)) @ rotate(key, rotary.angles(1002, 1003, cpu)).mT
    torch.testing.assert_close(near, far, atol=1e-3, rtol=0)
    other = rotate(query, rotary.angles(9, 10, cpu)) @ rotate(key, rotary.angles(4, 5, cpu)).mT
    assert not torch.allclose(near, other, atol=1e-2)
