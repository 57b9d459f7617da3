"""What a device reaches at the sizes of a model: its matrix products, flash attention, copies from host memory."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from onevision import Product, Sizes
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.utils.benchmark import Timer


@torch.inference_mode()
def device_rates(sizes: Sizes, frames: int, device: torch.device) -> dict[str, float]:
    """FLOP/s of the model's matrix products and of attention, at the sizes of an encode call of `frames`."""
    tokens, patches = frames * sizes.tokens_per_frame, frames * sizes.patches
    language = (1, sizes.heads, tokens, sizes.n_local, sizes.head_dim)
    width = sizes.vision_hidden // sizes.vision_heads
    vision = (frames, sizes.vision_heads, sizes.patches, sizes.patches, width)
    return {
        "language_products": product_rate(sizes.language_products(), tokens, device),
        "language_attention": flash_rate(*language, device=device),
        "vision_products": product_rate(sizes.vision_products(), patches, device),
        "vision_attention": flash_rate(*vision, device=device),
    }


def frames_per_s(sizes: Sizes, rates: dict[str, float], *, vision: bool) -> float:
    """The limit: encoding behind a full window, if the device did nothing but products and attention."""
    work = sizes.tokens_per_frame * flop_per_row(sizes.language_products()) / rates["language_products"]
    work += sizes.language_attention_flop() / rates["language_attention"]
    if vision:
        work += sizes.patches * flop_per_row(sizes.vision_products()) / rates["vision_products"]
        work += sizes.vision_attention_flop() / rates["vision_attention"]
    return 1 / work


def flop_per_row(products: Sequence[Product]) -> float:
    return sum(2.0 * i * o * n for i, o, n in products)


def product_rate(products: Sequence[Product], rows: int, device: torch.device) -> float:
    took = 0.0
    for width, out, count in products:
        x = torch.randn(rows, width, dtype=torch.bfloat16, device=device)
        weight = torch.randn(out, width, dtype=torch.bfloat16, device=device)
        took += count * seconds(partial(linear, x, weight))
    return rows * flop_per_row(products) / took


def flash_rate(batch: int, heads: int, rows: int, keys: int, dim: int, *, device: torch.device) -> float:
    """Of torch's flash attention, unmasked."""
    q = torch.randn(batch, heads, rows, dim, dtype=torch.bfloat16, device=device)
    k, v = torch.randn(2, batch, heads, keys, dim, dtype=torch.bfloat16, device=device)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        took = seconds(partial(scaled_dot_product_attention, q, k, v))
    return 4.0 * batch * heads * rows * keys * dim / took


def copy_rate(device: torch.device, size: int = 1 << 28) -> float:
    """Bytes/s of one large copy from (pinned) host memory to the device."""
    source = torch.zeros(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    target = torch.empty(size, dtype=torch.uint8, device=device)
    return size / seconds(partial(target.copy_, source, non_blocking=True))


def seconds(work: Callable[[], object]) -> float:
    """Median; warms up, and waits for the device before the clock is read."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return float(timer.blocked_autorange(min_run_time=0.1).median)
