"""Without rekv's keyword a model loaded through rekv is the stock model, `generate()` included."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig, StaticCache

from rekv.attention.hook import NAME, run
from rekv.errors import ModelError
from tests.golden.cases import DATA, golden_model
from tests.support import decoder_lm

MODELS = ("llava_onevision_tiny", "video_llava_tiny")


def stock(name: str) -> Any:
    """The same checkpoint, loaded with no word of rekv."""
    path: Path = DATA / "models" / name
    model = AutoModelForImageTextToText.from_pretrained(
        path, config=AutoConfig.from_pretrained(path), dtype=torch.float32, attn_implementation="sdpa"
    )
    model.generation_config.eos_token_id = None
    return model.eval()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Ours and the stock model."""
    return golden_model(request.param), stock(request.param)


def ids(n: int, batch: int = 1) -> Tensor:
    return torch.randint(5, 200, (batch, n), generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", [1, 2, 40, 300])
@torch.inference_mode()
def test_logits_are_bit_equal_to_sdpa(pair: tuple[Any, Any], n: int) -> None:
    ours, theirs = pair
    assert torch.equal(ours(input_ids=ids(n)).logits, theirs(input_ids=ids(n)).logits)


@torch.inference_mode()
def test_padded_batches_are_bit_equal_to_sdpa(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    mask = torch.ones(3, 30, dtype=torch.long)
    mask[0, :11] = mask[2, :4] = 0
    both = [m(input_ids=ids(30, 3), attention_mask=mask).logits for m in (ours, theirs)]
    assert torch.equal(*both)


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_sample": True, "temperature": 0.8, "top_k": 20}, {"num_beams": 3}, {"static": True}, {"padded": True}],
    ids=["greedy", "sampling", "beams", "static-cache", "padded-batch"],
)
@torch.inference_mode()
def test_generate_is_the_stock_generate(pair: tuple[Any, Any], settings: dict[str, Any]) -> None:
    settings = dict(settings)
    static, padded = settings.pop("static", False), settings.pop("padded", False)
    prompt = ids(20, 2 if padded else 1)
    mask = torch.ones_like(prompt)
    mask[0, : 7 if padded else 0] = 0
    told = []
    for model in pair:
        torch.manual_seed(3)
        cache = StaticCache(model.config.get_text_config(), max_cache_len=64) if static else None
        told.append(
            model.generate(
                input_ids=prompt,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=GenerationConfig(  # type: ignore[no-untyped-call]
                    max_new_tokens=12, pad_token_id=0, **settings
                ),
            )
        )
    assert torch.equal(*told)


def test_run_leaves_no_trace_in_the_model() -> None:
    """A pass that fails in the middle, too."""

    class Failing:
        def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
            if layer == 1:
                raise ArithmeticError
            return query.transpose(0, 1).contiguous()

    model = decoder_lm()
    with torch.inference_mode():
        before = model(input_ids=ids(20) % 101).logits
        with pytest.raises(ArithmeticError):
            run(model, Failing(), input_ids=ids(5) % 101)
        assert torch.equal(model(input_ids=ids(20) % 101).logits, before)


def test_pass_receives_what_the_model_did_not_rotate() -> None:
    """Two calls with the same tokens give the same queries, wherever the tokens stand."""
    seen: list[Tensor] = []

    class Watching:
        def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
            if layer == 0:
                seen.append(key.clone())
            return torch.zeros_like(query.transpose(0, 1))

    model = decoder_lm()
    with torch.inference_mode():
        run(model, Watching(), input_ids=torch.tensor([[7, 7, 9, 7]]))
    keys = seen[0]
    torch.testing.assert_close(keys[:, 0], keys[:, 3], atol=1e-6, rtol=0)
    assert not torch.allclose(keys[:, 0], keys[:, 2], atol=1e-2)
    weights = model.get_decoder().layers[0].self_attn
    token = model.get_decoder().layers[0].input_layernorm(model.get_input_embeddings()(torch.tensor([7])))
    plain = weights.k_proj(token).view(-1, weights.head_dim)
    torch.testing.assert_close(keys[:, 0], plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("option", [{"softcap": 30.0}, {"sliding_window": 8}])
def test_attention_that_is_more_than_softmax_is_refused(option: dict[str, Any]) -> None:
    from rekv.attention.hook import rekv_attention

    x = torch.zeros(1, 2, 3, 8)
    with pytest.raises(ModelError):
        rekv_attention(torch.nn.Identity(), x, x, x, None, rekv=object(), **option)  # type: ignore[arg-type]


def test_name_is_one_that_transformers_treats_as_any_other() -> None:
    """Names with "flash" or "paged|" in them are handled apart."""
    assert "flash" not in NAME
    assert "|" not in NAME
