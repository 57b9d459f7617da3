"""Blocks, index, window and context: storage that grows in slabs, against plain tensors."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from rekv.memory.blocks import Blocks
from rekv.memory.context import ContextLayer
from rekv.memory.index import Index
from rekv.memory.window import Window
from tests.support import shrink_slabs

KV_HEADS, TOKENS, DIM = 2, 3, 4
CPU = torch.device("cpu")


def frames_of(n: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Keys and values of n frames as a model hands them over: transposed, not contiguous."""
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(2, n * TOKENS, KV_HEADS, DIM, generator=generator).to(dtype)
    return both[0].transpose(0, 1), both[1].transpose(0, 1)


def stacked(keys: Tensor, values: Tensor) -> Tensor:
    """(frames, 2, kv_heads, tokens, head_dim)."""
    return torch.stack([x.reshape(KV_HEADS, -1, TOKENS, DIM).transpose(0, 1) for x in (keys, values)], 1)


@pytest.mark.parametrize("slab_frames", [1, 2, 5, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_blocks_give_back_what_was_written(
    slab_frames: int, dtype: torch.dtype, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_frame = 2 * KV_HEADS * TOKENS * DIM * dtype.itemsize
    shrink_slabs(monkeypatch, block_bytes=per_frame * slab_frames)
    blocks = Blocks(KV_HEADS, TOKENS, DIM, dtype, device)
    assert (blocks.bytes_per_frame, blocks.ram.rows_per_slab) == (per_frame, slab_frames)
    draw = random.Random(slab_frames)
    truth = torch.empty(0, 2, KV_HEADS, TOKENS, DIM, dtype=dtype)
    for i in range(12):
        keys, values = frames_of(draw.randrange(1, 8), i, dtype)
        blocks.write(len(truth), keys.to(device), values.to(device))
        truth = torch.cat((truth, stacked(keys, values)))
        assert blocks.ram.capacity >= len(truth)
        assert blocks.ram.capacity - len(truth) < max(slab_frames, 1) + slab_frames
    for _ in range(20):
        frames = [draw.randrange(len(truth)) for _ in range(draw.randrange(0, 12))]
        frames += list(range(len(truth)))[draw.randrange(len(truth)) :][: draw.randrange(0, 9)]
        assert torch.equal(blocks.read(frames).cpu(), truth[frames])
    assert torch.equal(blocks.read(range(len(truth))).cpu(), truth)
    assert torch.equal(blocks.read([7, 0]).cpu(), truth[[7, 0]])


def test_what_was_read_is_a_copy_and_rewriting_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed call is retried over what it left."""
    shrink_slabs(monkeypatch, block_bytes=4000)
    blocks = Blocks(KV_HEADS, TOKENS, DIM, torch.float32, CPU)
    first, second, third = (frames_of(4, seed) for seed in (0, 1, 2))
    blocks.write(0, *first)
    blocks.write(4, *second)
    before = blocks.read(range(8))
    blocks.write(4, *third)
    assert torch.equal(before, torch.cat((stacked(*first), stacked(*second))))
    assert torch.equal(blocks.read(range(8)), torch.cat((stacked(*first), stacked(*third))))


def test_slabs_never_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader may hold on to a slab while a writer appends."""
    shrink_slabs(monkeypatch, block_bytes=1)
    blocks = Blocks(KV_HEADS, TOKENS, DIM, torch.float32, CPU)
    blocks.write(0, *frames_of(3, 0))
    places = [slab.data_ptr() for slab in blocks.ram._slabs]
    blocks.write(3, *frames_of(50, 1))
    assert [slab.data_ptr() for slab in blocks.ram._slabs][:3] == places


@pytest.mark.parametrize("slab_frames", [1, 3, 8, 4096])
@pytest.mark.parametrize("group", [1, 3])
def test_index_scores_every_frame_of_a_range(
    slab_frames: int, group: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink_slabs(monkeypatch, block_bytes=1, index_frames=slab_frames)
    index = Index(KV_HEADS, DIM, device)
    draw = random.Random(slab_frames)
    means = torch.empty(0, KV_HEADS, DIM)
    for i in range(8):
        keys, _ = frames_of(draw.randrange(1, 6), i)
        index.write(len(means), keys.to(device), TOKENS)
        means = torch.cat((means, keys.reshape(KV_HEADS, -1, TOKENS, DIM).mean(2).transpose(0, 1)))
        assert index.capacity >= len(means)
    assert index.bytes == index.capacity * KV_HEADS * DIM * 4
    query = torch.randn(KV_HEADS * group, 5, DIM, generator=torch.Generator().manual_seed(9))
    every = torch.einsum("hd,fhd->f", query.mean(1), means.repeat_interleave(group, 1))
    for _ in range(25):
        first = draw.randrange(0, len(means) + 1)
        frames = range(first, draw.randint(first, len(means)))
        ours = index.scores(query.to(device), frames)
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.cpu(), every[frames.start : frames.stop], atol=1e-5, rtol=0)


def test_index_scores_in_fp32_whatever_the_models_type() -> None:
    index = Index(KV_HEADS, DIM, CPU)
    keys, _ = frames_of(6, 0, torch.bfloat16)
    index.write(0, keys, TOKENS)
    query = torch.randn(KV_HEADS, 5, DIM).bfloat16()
    means = keys.double().reshape(KV_HEADS, 6, TOKENS, DIM).mean(2)
    exact = torch.einsum("hd,hfd->f", query.double().mean(1), means)
    torch.testing.assert_close(index.scores(query, range(6)).double(), exact, atol=1e-5, rtol=0)


def test_index_of_no_frames_scores_none() -> None:
    scores = Index(KV_HEADS, DIM, CPU).scores(torch.ones(KV_HEADS, 2, DIM), range(0))
    assert (scores.shape, scores.dtype) == ((0,), torch.float32)


def test_window_grows_up_to_its_limit_and_keeps_what_it_holds() -> None:
    window = Window(KV_HEADS, DIM, torch.float32, CPU)
    truth = torch.empty(KV_HEADS, 0, DIM)
    limit = 50
    while window.reserve(truth.shape[1] + 7, limit, truth.shape[1]):
        end = truth.shape[1] + 7
        new = torch.randn(KV_HEADS, 7, DIM)
        keys, values = window.slots(end - 7, end)
        keys.copy_(new)
        values.copy_(-new)
        truth = torch.cat((truth, new), 1)
        assert window.capacity <= limit
        keys, values = window.slots(0, end)
        assert torch.equal(keys, truth)
        assert torch.equal(values, -truth)
    assert truth.shape[1] == 49
    assert window.reserve(50, limit, 49)
    assert torch.equal(window.slots(0, 49)[0], truth)


def layer_of(tokens: int, room: int, offset: int = 0) -> ContextLayer:
    return ContextLayer(KV_HEADS, tokens, room, offset, DIM, torch.float32, CPU)


def test_context_continues_in_place() -> None:
    """What transformers appends lands behind what was gathered, with nothing copied."""
    layer = layer_of(4, 5)
    start = torch.randn(KV_HEADS, 4, DIM)
    keys, values = layer.slots(0, 4)
    keys.copy_(start)
    values.copy_(2 * start)
    place = layer.upto(4)[0].data_ptr()
    assert layer.get_seq_length() == 4
    one, two = torch.randn(1, KV_HEADS, 2, DIM), torch.randn(1, KV_HEADS, 3, DIM)
    for new in (one, two):
        shown: tuple[Any, Any] = layer.update(new, -new)
    assert layer.get_seq_length() == 9
    assert shown[0].data_ptr() == place
    assert torch.equal(shown[0], torch.cat((start[None], one, two), 2))
    assert torch.equal(shown[1], torch.cat((2 * start[None], -one, -two), 2))


def test_what_is_not_kept_is_overwritten() -> None:
    layer = layer_of(1, 3)
    keys, _ = layer.slots(1, 3)
    keys.fill_(7)
    assert layer.upto(4)[0][:, 1:].eq(7).all()
    assert layer.get_seq_length() == 1
    new = torch.ones(1, KV_HEADS, 2, DIM)
    assert torch.equal(layer.update(new, new)[0][:, :, 1:], new)
