"""Codecs: what comes back is what went in, as far as the bits allow, for any shape, dtype and content."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rekv.errors import ConfigError
from rekv.store.codecs import CODECS, Codec, codec

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SHAPES = [(4, 196, 128), (2, 196, 64), (2, 9, 32), (3, 33, 80), (1, 1, 1), (2, 5, 7), (1, 257, 65)]
LOSSY = [name for name in CODECS if name != "raw"]
INTEGERS = {"int8": 255, "int4": 15}
Shape = tuple[int, int, int]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def blocks_of(n: int, shape: Shape, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Blocks with the structure that real ones have: key channels with large means, tokens of unlike size."""
    heads, tokens, dim = shape
    draw = torch.Generator().manual_seed(seed)
    keys = torch.randn(n, heads, tokens, dim, generator=draw) + 20 * torch.randn(heads, 1, dim, generator=draw)
    values = torch.randn(n, heads, tokens, dim, generator=draw) * torch.rand(n, heads, tokens, 1, generator=draw)
    return torch.stack((keys, values), 1).to(dtype)


def group_ranges(made: Codec, blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of the group of each value, found by a loop over runs of the documented length."""
    _, tokens, dim = made.shape
    low, high = torch.empty_like(blocks, dtype=torch.float32), torch.empty_like(blocks, dtype=torch.float32)
    most = {"int4": (32, 64)}.get(made.name, (tokens, dim))
    for i, (axis, length) in enumerate(((2, tokens), (3, dim))):
        step = math.ceil(length / math.ceil(length / most[i]))
        for start in range(0, length, step):
            run = blocks[:, i].narrow(axis, start, min(step, length - start)).float()
            for ends, found in ((low, run.amin(axis, True)), (high, run.amax(axis, True))):
                ends[:, i].narrow(axis, start, run.shape[axis]).copy_(found.expand_as(run))
    return low, high


def bound(made: Codec, blocks: Tensor) -> Tensor:
    """The largest error each value may have: half a quantisation step, and the rounding to `dtype` on top of it."""
    low, high = group_ranges(made, blocks)
    eps, tiny = torch.finfo(made.dtype).eps, torch.finfo(made.dtype).smallest_normal
    largest = torch.maximum(-low, high)
    if made.name == "fp8":
        scale = largest / 448 * (1 + eps) + tiny * eps
        coded = torch.maximum(blocks.float().abs() / 16, scale / 1024)
    else:
        coded = ((high - low) / INTEGERS[made.name] * (1 + eps) + tiny * eps) / 2
    return coded + largest * (eps / 2 + 3e-7) + coded * eps


@each_shape
@each_dtype
def test_raw_gives_back_every_bit(shape: Shape, dtype: torch.dtype) -> None:
    bits = {2: torch.int16, 4: torch.int32}[dtype.itemsize]
    anything = torch.randint(-(2**15), 2**15, (3, 2, *shape), generator=torch.Generator().manual_seed(1))
    blocks = (anything * (1 if bits == torch.int16 else 65537)).to(bits).view(dtype)  # NaN of all kinds among them
    made = codec("raw", shape, dtype)
    packed = made.pack(blocks)
    assert packed.numpy().tobytes() == blocks.view(bits).numpy().tobytes()
    assert torch.equal(made.unpack(packed).view(bits), blocks.view(bits))


@pytest.mark.parametrize("name", LOSSY)
@each_shape
@each_dtype
def test_the_error_is_at_most_half_a_step(name: str, shape: Shape, dtype: torch.dtype) -> None:
    made = codec(name, shape, dtype)
    blocks = blocks_of(3, shape, dtype)
    back = made.unpack(made.pack(blocks))
    assert back.dtype == dtype
    assert back.shape == blocks.shape
    assert ((back.float() - blocks.float()).abs() <= bound(made, blocks)).all()


@pytest.mark.parametrize("name", LOSSY)
def test_all_codes_are_used(name: str) -> None:
    """A codec that used half of its codes, in half-sized groups, would keep the bound above as well."""
    made = codec(name, (1, 16, 64), torch.float32)
    draw = torch.Generator().manual_seed(0)
    even = torch.rand(200, 2, 1, 16, 64, generator=draw) * 2 - 1
    blocks = even.sign() * torch.exp2(-20 * even.abs()) if name == "fp8" else even
    codes = made.pack(blocks)[:, : 16 * 64]  # of keys; in int4 of both
    assert len(codes.unique()) == (254 if name == "fp8" else 256)  # two codes of fp8 are NaN


@pytest.mark.parametrize("name", CODECS)
@each_shape
@each_dtype
def test_each_block_is_packed_by_itself(name: str, shape: Shape, dtype: torch.dtype) -> None:
    made = codec(name, shape, dtype)
    blocks = blocks_of(5, shape, dtype)
    packed = made.pack(blocks)
    assert packed.dtype == torch.uint8
    assert packed.shape == (5, made.nbytes)
    assert packed.is_contiguous()
    assert torch.equal(made.pack(blocks[1:4]), packed[1:4])
    assert torch.equal(made.unpack(packed[[3, 0]]), made.unpack(packed)[[3, 0]])


@pytest.mark.parametrize("name", CODECS)
def test_no_blocks_are_no_bytes(name: str) -> None:
    made = codec(name, (2, 9, 32), torch.float32)
    packed = made.pack(torch.empty(0, 2, 2, 9, 32))
    assert packed.shape == (0, made.nbytes)
    assert made.unpack(packed).shape == (0, 2, 2, 9, 32)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "nbytes"),
    [
        ("raw", (4, 196, 128), torch.bfloat16, 401_408),
        ("fp8", (4, 196, 128), torch.bfloat16, 200_704 + 2 * (4 * 128 + 4 * 196)),
        ("int8", (4, 196, 128), torch.bfloat16, 200_704 + 4 * (4 * 128 + 4 * 196)),
        ("int4", (4, 196, 128), torch.bfloat16, 100_352 + 4 * (4 * 7 * 128 + 4 * 196 * 2)),
        ("int4", (2, 196, 64), torch.float16, 25_088 + 4 * (2 * 7 * 64 + 2 * 196)),
        ("int4", (2, 9, 32), torch.float32, 576 + 8 * (2 * 32 + 2 * 9)),
        ("int4", (1, 33, 65), torch.bfloat16, 33 * 65 + 4 * (2 * 65 + 33 * 2)),
        ("int4", (1, 1, 1), torch.float16, 1 + 4 * 2),
    ],
    ids=str,
)
def test_sizes(name: str, shape: Shape, dtype: torch.dtype, nbytes: int) -> None:
    assert codec(name, shape, dtype).nbytes == nbytes


def test_int4_takes_less_than_a_third_at_the_shape_of_7b() -> None:
    raw, int4 = (codec(name, (4, 196, 128), torch.bfloat16).nbytes for name in ("raw", "int4"))
    assert int4 / raw <= 0.31


# -- contents --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INTEGERS)
@each_dtype
def test_constant_groups_are_exact(name: str, dtype: torch.dtype) -> None:
    shape = (2, 33, 80)
    made = codec(name, shape, dtype)
    blocks = torch.empty(4, 2, *shape, dtype=dtype)
    draw = torch.Generator().manual_seed(0)
    ends = torch.tensor([0.0, 0.1, 3e4, 1e-6])[:, None, None, None]
    blocks[:, 0] = (ends * torch.randn(4, 2, 1, 80, generator=draw)).clamp(-6e4, 6e4).to(dtype)
    blocks[:, 1] = (ends * torch.randn(4, 2, 33, 1, generator=draw)).clamp(-6e4, 6e4).to(dtype)
    assert torch.equal(made.unpack(made.pack(blocks)), blocks)


@pytest.mark.parametrize("name", CODECS)
@each_dtype
def test_zeros_stay_zeros(name: str, dtype: torch.dtype) -> None:
    made = codec(name, (2, 9, 32), dtype)
    blocks = torch.zeros(2, 2, 2, 9, 32, dtype=dtype)
    assert torch.equal(made.unpack(made.pack(blocks)), blocks)


@pytest.mark.parametrize("name", LOSSY)
@each_dtype
def test_the_smallest_numbers_keep_their_bound(name: str, dtype: torch.dtype) -> None:
    made = codec(name, (2, 9, 32), dtype)
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps  # subnormal
    steps = torch.randint(-300, 300, (2, 2, 2, 9, 32), generator=torch.Generator().manual_seed(0))
    blocks = (steps * smallest).to(dtype)
    assert blocks.any()
    back = made.unpack(made.pack(blocks))
    assert ((back.float() - blocks.float()).abs() <= bound(made, blocks) + smallest).all()


@pytest.mark.parametrize("name", LOSSY)
@each_dtype
def test_the_largest_numbers_stay_finite_and_keep_their_sign(name: str, dtype: torch.dtype) -> None:
    made = codec(name, (2, 9, 32), dtype)
    draw = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (2, 2, 2, 9, 32), generator=draw) * 2 - 1
    blocks = (signs * torch.finfo(dtype).max).to(dtype)
    back = made.unpack(made.pack(blocks))
    assert back.isfinite().all()
    assert torch.equal(back.sign(), blocks.sign())
    infinite = made.unpack(made.pack(blocks * torch.inf))
    assert torch.equal(infinite, back)


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@each_dtype
def test_what_is_not_a_number_spoils_its_group_alone(name: str, bad: float, dtype: torch.dtype) -> None:
    shape = (2, 66, 130)
    made = codec(name, shape, dtype)
    blocks = blocks_of(3, shape, dtype)
    clean = made.unpack(made.pack(blocks))
    spoilt = blocks.clone()
    spoilt[1, 0, 1, 40, 7] = bad
    spoilt[1, 1, 0, 12, 129] = bad
    back = made.unpack(made.pack(spoilt))
    differs = (back != clean) | back.isnan()
    most = {"int4": (22, 44)}.get(name, shape[1:])
    keys, values = differs[1, 0, 1, :, 7].nonzero(), differs[1, 1, 0, 12].nonzero()
    assert 0 < len(keys) <= most[0]
    assert 0 < len(values) <= most[1]
    assert differs.sum() == len(keys) + len(values)
    if math.isnan(bad):
        assert back[1, 0, 1, 40, 7].isnan()
        assert back[1, 1, 0, 12, 129].isnan()
    else:
        assert back.isfinite().all()


# -- layout: decoded here by numpy alone, as the documentation says --------------------------------------------


def groups_of(length: int, most: int) -> tuple[int, int]:
    """Size of a group, and how many there are."""
    size = -(-length // -(-length // most))
    return size, -(-length // size)


@pytest.mark.parametrize("name", INTEGERS)
@each_shape
def test_integers_are_laid_out_as_documented(name: str, shape: Shape) -> None:
    heads, tokens, dim = shape
    made = codec(name, shape, torch.float16)
    packed = made.pack(blocks_of(1, shape, torch.float16))
    row = packed[0].numpy().tobytes()
    count = math.prod(shape)
    if name == "int4":
        codes = np.frombuffer(row, np.uint8, count).reshape(shape)
        keys, values, start = codes & 15, codes >> 4, count
    else:
        keys, values = np.frombuffer(row, np.uint8, 2 * count).reshape(2, *shape)
        start = 2 * count
    (run, runs), (span, spans) = groups_of(tokens, 32), groups_of(dim, 64)
    if name == "int8":
        run, runs, span, spans = tokens, 1, dim, 1
    numbers: list[Any] = []
    for of_group in ((heads, runs, dim), (heads, runs, dim), (heads, tokens, spans), (heads, tokens, spans)):
        part = np.frombuffer(row, "<f2", math.prod(of_group), start).reshape(of_group).astype(np.float32)
        numbers.append(part)
        start += 2 * part.size
    assert start == len(row)
    key_scale, key_zero = (np.repeat(x, run, 1)[:, :tokens] for x in numbers[:2])
    value_scale, value_zero = (np.repeat(x, span, 2)[:, :, :dim] for x in numbers[2:])
    decoded = np.stack([keys * key_scale + key_zero, values * value_scale + value_zero]).astype(np.float16)
    assert np.array_equal(decoded, made.unpack(packed)[0].numpy())


@each_shape
def test_fp8_is_laid_out_as_documented(shape: Shape) -> None:
    heads, tokens, dim = shape
    made = codec("fp8", shape, torch.float16)
    packed = made.pack(blocks_of(1, shape, torch.float16))
    row = packed[0].numpy().tobytes()
    count = 2 * math.prod(shape)
    signs, exponents, mantissas = ((np.frombuffer(row, np.uint8, count) >> s) & m for s, m in ((7, 1), (3, 15), (0, 7)))
    size = np.where(exponents == 0, mantissas / 512, (1 + mantissas / 8) * 2.0 ** (exponents.astype(int) - 7))
    keys, values = (np.where(signs == 1, -size, size)).astype(np.float32).reshape(2, *shape)
    scales = np.frombuffer(row, "<f2", offset=count).astype(np.float32)
    key_scale, value_scale = np.split(scales, [heads * dim])
    decoded = np.stack([keys * key_scale.reshape(heads, 1, dim), values * value_scale.reshape(heads, tokens, 1)])
    assert np.array_equal(decoded.astype(np.float16), made.unpack(packed)[0].numpy())


# -- memory ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
@each_dtype
def test_packed_rows_may_lie_anywhere(name: str, dtype: torch.dtype) -> None:
    """As they do in a buffer that a file was read into: unaligned, with other bytes between them."""
    made = codec(name, (2, 5, 7), dtype)
    packed = made.pack(blocks_of(4, (2, 5, 7), dtype))
    wide = torch.full((4, made.nbytes + 6), 255, dtype=torch.uint8)
    for offset in range(4):
        rows = wide[:, offset : offset + made.nbytes]
        rows.copy_(packed)
        assert torch.equal(made.unpack(rows), made.unpack(packed))
        assert torch.equal(made.unpack(rows[2:3]), made.unpack(packed)[2:3])


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("shape", [(2, 9, 32), (2, 33, 80)], ids=str)
def test_unpacks_into_a_buffer_of_the_caller(name: str, shape: Shape) -> None:
    made = codec(name, shape, torch.bfloat16)
    packed = made.pack(blocks_of(3, shape, torch.bfloat16))
    truth = made.unpack(packed)
    heads, tokens, dim = shape
    buffer = torch.zeros(heads, 5, 2, tokens, dim, dtype=torch.bfloat16)
    out = buffer[:, 1:4].permute(1, 2, 0, 3, 4)  # as a context that is put together head by head
    assert made.unpack(packed, out) is out
    assert torch.equal(out, truth)
    assert not buffer[:, [0, 4]].any()
    cast = made.unpack(packed, torch.empty(truth.shape, dtype=torch.float32))
    assert torch.allclose(cast, truth.float(), rtol=2**-7)


@pytest.mark.parametrize("name", CODECS)
@each_dtype
def test_blocks_are_not_changed_nor_need_be_contiguous(name: str, dtype: torch.dtype) -> None:
    made = codec(name, (2, 9, 32), dtype)
    blocks = blocks_of(3, (2, 9, 32), dtype)
    kept = blocks.clone()
    strided = blocks.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    assert not strided.is_contiguous()
    packed = made.pack(blocks)
    assert torch.equal(made.pack(strided), packed)
    made.unpack(packed)
    assert torch.equal(blocks, kept)
    assert torch.equal(made.pack(blocks), packed)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CODECS)
@each_shape
@each_dtype
def test_the_gpu_writes_and_reads_the_same(name: str, shape: Shape, dtype: torch.dtype) -> None:
    made = codec(name, shape, dtype)
    blocks = blocks_of(3, shape, dtype)
    packed = made.pack(blocks)
    assert torch.equal(made.unpack(packed.cuda()).cpu(), made.unpack(packed))
    there = made.pack(blocks.cuda()).cpu()
    back = made.unpack(there)
    if name == "raw":
        assert torch.equal(back, blocks)
    else:
        assert ((back.float() - blocks.float()).abs() <= bound(made, blocks)).all()


# -- refusals --------------------------------------------------------------------------------------------------


def test_an_unknown_codec_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="no codec 'int2'; the codecs are raw, fp8, int8, int4"):
        codec("int2", (2, 9, 32), torch.float32)


@pytest.mark.parametrize("shape", [(0, 9, 32), (2, 0, 32), (2, 9, 0), (9, 32)], ids=str)
def test_empty_shapes_are_refused(shape: Any) -> None:
    with pytest.raises(ConfigError, match="each at least 1"):
        codec("int4", shape, torch.float32)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"float16, bfloat16, float32, not torch\.float64"):
        codec("raw", (2, 9, 32), torch.float64)


@pytest.mark.parametrize("name", CODECS)
def test_what_does_not_fit_is_refused(name: str) -> None:
    made = codec(name, (2, 9, 32), torch.float32)
    with pytest.raises(ConfigError, match="packs blocks"):
        made.pack(torch.zeros(1, 2, 2, 8, 32))
    with pytest.raises(ConfigError, match=r"packs blocks .* torch.float32, not .* torch.float16"):
        made.pack(torch.zeros(1, 2, 2, 9, 32, dtype=torch.float16))
    with pytest.raises(ConfigError, match="packed by another codec"):
        made.unpack(torch.zeros(1, made.nbytes + 1, dtype=torch.uint8))
    with pytest.raises(ConfigError, match="out is of shape"):
        made.unpack(torch.zeros(2, made.nbytes, dtype=torch.uint8), torch.zeros(1, 2, 2, 9, 32))
