"""One layer's blocks and index when RAM does not hold them all: what comes back is what was written."""

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from rekv.errors import DamagedError, MemoryFullError
from rekv.memory.blocks import Blocks
from rekv.memory.index import Index
from rekv.memory.reads import Reads
from tests.support import shrink_slabs

KV_HEADS, TOKENS, DIM = 2, 3, 4
WIDTH = KV_HEADS * DIM
CPU = torch.device("cpu")


class Disk:
    """Keeps blocks in a dictionary, each from when somebody waits for it."""

    def __init__(self) -> None:
        self.blocks: dict[int, Tensor] = {}
        self.pending: dict[int, Tensor] = {}
        self.damaged: set[int] = set()
        self.written = 0

    def read(self, layer: int, frames: Sequence[int], rows: Sequence[memoryview]) -> None:
        for frame, row in zip(frames, rows, strict=True):
            torch.frombuffer(row, dtype=torch.float32).copy_(self.blocks[frame].flatten())
            if frame in self.damaged:
                raise DamagedError(f"frame {frame}", (frame,))

    def index(self, layer: int, frames: Sequence[int]) -> Tensor:
        return torch.stack([self.blocks[frame][0].mean(1).flatten() for frame in frames])

    def wait_for_room(self) -> bool:
        if not self.pending:
            return False
        frame = min(self.pending)
        self.blocks[frame] = self.pending.pop(frame)
        self.written = frame + 1
        return True


def frame_of(frame: int, version: int = 0) -> Tensor:
    """(2, kv_heads, tokens, head_dim)."""
    return torch.randn(2, KV_HEADS, TOKENS, DIM, generator=torch.Generator().manual_seed(1000 * version + frame))


def write(blocks: Blocks, frames: Sequence[int], disk: Disk | None = None, version: int = 0) -> None:
    content = [frame_of(frame, version) for frame in frames]
    keys, values = (torch.cat([one[i] for one in content], 1).to(blocks.device) for i in range(2))
    blocks.write(frames[0], keys, values)
    for frame, one in zip(frames, content, strict=True):
        if disk is not None:
            disk.pending[frame] = one


def truth(frames: Sequence[int]) -> Tensor:
    return torch.stack([frame_of(frame) for frame in frames]) if frames else torch.empty(0, 2, KV_HEADS, TOKENS, DIM)


def blocks_of(in_ram: int, on_gpu: int = 0, disk: Disk | None = None, device: torch.device = CPU) -> Blocks:
    blocks = Blocks(KV_HEADS, TOKENS, DIM, torch.float32, device, backing=disk)
    blocks.limit(in_ram, on_gpu)
    return blocks


@pytest.mark.parametrize("on_gpu", [0, 1, 5, 100])
@pytest.mark.parametrize("in_ram", [8, 9, 20, 100])
def test_blocks_come_back_from_whatever_tier(in_ram: int, on_gpu: int, device: torch.device) -> None:
    """Random reads, with duplicates, between writes; RAM holds some of them, the GPU fewer or more."""
    draw = random.Random(in_ram * 1000 + on_gpu)
    disk = Disk()
    blocks = blocks_of(in_ram, on_gpu, disk, device)
    done = 0
    for _ in range(25):
        new = draw.randrange(0, 5)
        if new:
            write(blocks, range(done, done + new), disk)
        done += new
        blocks.check_integrity(range(done))
        for _ in range(3 if done else 0):
            frames = [draw.randrange(done) for _ in range(draw.randrange(0, 2 * in_ram))]
            reads = Reads()
            assert torch.equal(blocks.read(frames, reads).cpu(), truth(frames))
            assert sum(tier.blocks for tier in reads.by_tier().values()) == len(frames)
            assert sum(tier.bytes for tier in reads.by_tier().values()) == len(frames) * blocks.bytes_per_frame
            blocks.check_integrity(range(done))
    assert blocks.ram.frames <= in_ram
    assert blocks.gpu is None or 0 < blocks.gpu.frames <= on_gpu


def test_frames_in_ram_are_not_pushed_out_by_those_that_are_read_with_them() -> None:
    """The ones that are there were used longest ago."""
    disk = Disk()
    blocks = blocks_of(8, disk=disk)
    write(blocks, range(8), disk)
    for frame in range(8, 20):
        write(blocks, [frame], disk)
    assert torch.equal(blocks.read([12, 13, 0, 1]), truth([12, 13, 0, 1]))


def test_reads_are_counted_by_tier() -> None:
    disk = Disk()
    blocks = blocks_of(8, 2, disk)
    for frame in range(12):
        write(blocks, [frame], disk)  # 4 to 11 are in RAM
    while disk.wait_for_room():
        pass

    def tiers(frames: Sequence[int]) -> dict[str, int]:
        reads = Reads()
        assert torch.equal(blocks.read(frames, reads), truth(frames))
        return {tier: read.blocks for tier, read in reads.by_tier().items()}

    assert tiers([]) == {}
    assert tiers([10, 11]) == {"ram": 2}
    assert tiers([10, 11, 9]) == {"gpu": 2, "ram": 1}
    assert tiers([0]) == {"disk": 1}
    assert tiers([0, 0]) == {"gpu": 2}
    assert tiers([1, 2, 3]) == {"disk": 3}
    assert tiers([0, 10]) == {"ram": 2}
    blocks.forget([0])
    assert tiers([0]) == {"disk": 1}


def test_what_is_on_the_gpu_is_not_read_from_ram() -> None:
    """Nor is it what it was before it was written again."""
    blocks = blocks_of(100, 4)
    write(blocks, range(6))
    blocks.read([4, 5])
    write(blocks, [5], version=1)
    assert torch.equal(blocks.read([5])[0], frame_of(5, 1))
    row = blocks.ram.row(int(blocks.ram.rows(torch.tensor([4]).numpy())[0]))
    row.zero_()
    assert torch.equal(blocks.read([4])[0], frame_of(4))


def test_full_ram_waits_for_the_disk_and_without_one_is_an_error() -> None:
    disk = Disk()
    blocks = blocks_of(8, disk=disk)
    write(blocks, range(8), disk)
    assert disk.written == 0  # nobody waited
    write(blocks, [8, 9], disk)
    assert disk.written == 2
    alone = blocks_of(8)
    write(alone, range(8))
    with pytest.raises(MemoryFullError):
        write(alone, [8])
    assert torch.equal(alone.read(range(8)), truth(range(8)))
    alone.forget([0, 3])
    write(alone, [8, 9])
    assert torch.equal(alone.read([1, 8, 9, 7]), truth([1, 8, 9, 7]))
    with pytest.raises(MemoryFullError, match=r"\[0, 3\] are no longer in memory"):
        alone.read([3, 0, 5])


@pytest.mark.parametrize("on_gpu", [0, 4])
def test_damage_is_told_and_nothing_of_it_is_kept(on_gpu: int) -> None:
    disk = Disk()
    blocks = blocks_of(8, on_gpu, disk)
    for frame in range(20):
        write(blocks, [frame], disk)
    disk.damaged = {3}
    for _ in range(2):
        with pytest.raises(DamagedError) as caught:
            blocks.read([12, 3, 4])
        assert caught.value.frames == (3,)
        blocks.check_integrity(range(20))
    assert torch.equal(blocks.read([4, 12, 19]), truth([4, 12, 19]))
    disk.damaged = set()
    assert torch.equal(blocks.read([4, 3]), truth([4, 3]))


def test_blocks_that_are_lost_are_named() -> None:
    disk = Disk()
    blocks = blocks_of(8, disk=disk)
    write(blocks, range(6), disk)
    blocks.check_integrity(range(6))
    blocks.forget([2, 4])
    blocks.check_integrity([0, 1, 3, 5])
    with pytest.raises(RuntimeError, match=r"frames \[2, 4\]"):
        blocks.check_integrity(range(6))


# -- the index -----------------------------------------------------------------------------------------------------


def on_disk(means: Tensor, asked: list[range]) -> Callable[[range], Tensor]:
    def load(rows: range) -> Tensor:
        asked.append(rows)
        return means[rows.start : rows.stop]

    return load


@pytest.mark.parametrize("slab_frames", [1, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_index_parts_on_disk_equal_parts_in_ram(seed: int, slab_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, with the oldest on disk from the beginning and others moved there as it grows."""
    shrink_slabs(monkeypatch, block_bytes=1, index_frames=slab_frames)
    draw = random.Random(seed)
    means = torch.randn(60, WIDTH, generator=torch.Generator().manual_seed(seed))
    stored, asked = draw.randrange(1, 20), list[range]()
    ours, plain = (Index(KV_HEADS, DIM, CPU) for _ in range(2))
    ours.put_on_disk(stored, lambda: means[:stored])
    plain.put_on_disk(stored, lambda: means[:stored])
    assert ours.bytes == 0
    query = torch.randn(2 * KV_HEADS, 5, DIM, generator=torch.Generator().manual_seed(9))
    summed = query.mean(1).view(KV_HEADS, 2, DIM).sum(1).flatten()
    rows = stored
    while rows < len(means):
        n = min(draw.randrange(1, 9), len(means) - rows)
        for index in (ours, plain):
            index.put(rows, means[rows : rows + n])
        rows += n
        while draw.random() < 0.6:
            before = draw.randrange(rows + 1)
            held = ours.bytes
            moved = ours.move_to_disk(on_disk(means, asked), before)
            assert held - ours.bytes == (slab_frames * ours.row_bytes if moved else 0)
            if not moved:
                break
            assert before >= stored + slab_frames
        assert (ours.capacity, ours.row_bytes) == (plain.capacity, WIDTH * 4)
        for _ in range(4):
            first = draw.randrange(rows + 1)
            some = range(first, draw.randint(first, rows))
            assert torch.equal(ours.scores(query, some), plain.scores(query, some))
            torch.testing.assert_close(
                ours.scores(query, some), means[some.start : some.stop] @ summed, atol=1e-5, rtol=0
            )
            assert torch.equal(ours.rows(some), means[some.start : some.stop])
    assert all(len(part) == slab_frames for part in asked)
    assert asked, "nothing was read from disk"


def test_index_forgets_whole_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_slabs(monkeypatch, block_bytes=1, index_frames=4)
    means = torch.randn(18, WIDTH, generator=torch.Generator().manual_seed(0))
    index = Index(KV_HEADS, DIM, CPU)
    index.put(0, means)
    whole = index.bytes
    assert whole == 20 * index.row_bytes
    for before, parts in ((3, 0), (4, 1), (11, 2), (12, 3), (12, 3)):
        index.forget(before)
        assert index.bytes == whole - parts * 4 * index.row_bytes
        assert torch.equal(index.rows(range(before, 18)), means[before:])
    assert index.capacity == 20
    index.put(18, means[:9])
    assert torch.equal(index.rows(range(12, 27)), torch.cat((means[12:], means[:9])))
