"""Which frame lies in which row, against a dictionary and a list in order of use."""

import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch

from rekv.errors import MemoryFullError
from rekv.memory.pool import Ints, Pool
from tests.support import shrink_slabs

CPU = torch.device("cpu")
SHAPE = (2, 3)
ROW_BYTES = 2 * 3 * 4


def pool_of(rows_per_slab: int, limit: int | None, monkeypatch: pytest.MonkeyPatch) -> Pool:
    shrink_slabs(monkeypatch, block_bytes=rows_per_slab * ROW_BYTES)
    pool = Pool(SHAPE, torch.float32, CPU, pinned=False, limit=None)
    if limit is not None:
        pool.set_limit(limit)
    return pool


def ids(frames: Iterable[int]) -> Ints:
    return np.array(list(frames), np.int64)


def fill(pool: Pool, rows: Ints, frames: Iterable[int], version: int = 0) -> None:
    for row, frame in zip(rows, frames, strict=True):
        pool.row(int(row)).fill_(1000 * version + frame)


class Model:
    """What a pool is expected to hold, and in which order it would let it go."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.held: dict[int, int] = {}  # frame -> the version of its content
        self.order: list[set[int]] = []  # frames by use, least recently first; those of one call together

    def use(self, frames: Iterable[int]) -> None:
        used = set(frames)
        self.order = [left for group in self.order if (left := group - used)] + ([used] if used else [])

    def fits(self, frames: set[int], keep: int) -> bool:
        """Whether those that may not leave leave enough room."""
        stay = {f for f in self.held if f >= keep} | frames
        return self.limit is None or len(stay) <= self.limit

    def evicted(self, now_held: set[int], frames: set[int], keep: int) -> None:
        """Check that no more left than had to, those used longest ago; and forget them."""
        gone = set(self.held) - now_held
        assert len(gone) == (0 if self.limit is None else max(0, len(set(self.held) | frames) - self.limit))
        may_leave = [{f for f in group if f < keep} - frames for group in self.order]
        assert gone <= set().union(*may_leave)
        touched = [bool(group & gone) for group in may_leave]
        assert all(group <= gone for group in may_leave[: max((i for i, t in enumerate(touched) if t), default=0)])
        self.forget(gone)

    def forget(self, frames: Iterable[int]) -> None:
        for frame in frames:
            self.held.pop(frame, None)
        self.order = [left for group in self.order if (left := group - set(frames))]


def held_by(pool: Pool, universe: int) -> set[int]:
    everything = ids(range(universe))
    return set(everything[pool.rows(everything) >= 0].tolist())


def assert_content(pool: Pool, model: Model, universe: int) -> None:
    pool.check_integrity()
    assert held_by(pool, universe) == set(model.held)
    assert pool.frames == len(model.held)
    for frame, version in model.held.items():
        (row,) = pool.rows(ids([frame]))
        assert pool.row(int(row)).eq(1000 * version + frame).all()


@pytest.mark.parametrize("seed", range(40))
def test_pool_equals_a_dictionary_and_a_list(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random frames are placed, used and dropped; ids reach beyond the first map from frames to rows."""
    draw = random.Random(seed)
    limit = draw.choice((None, 1, 2, 7, 16, 33))
    pool, model = pool_of(draw.choice((1, 2, 3, 8)), limit, monkeypatch), Model(limit)
    universe, refused = draw.choice((40, 3000)), 0
    near = [draw.randrange(universe) for _ in range(50)]
    for step in range(120):
        frames = list(dict.fromkeys(draw.choices(near, k=draw.randrange(0, 9))))
        what = draw.random()
        if what < 0.6:
            keep = draw.choice((0, universe, universe // 2, draw.randrange(universe)))
            if not model.fits(set(frames), keep):
                refused += 1
                with pytest.raises(MemoryFullError):
                    pool.place(ids(frames), keep)
                # Some may have left that were allowed to, none else.
                gone = set(model.held) - held_by(pool, universe)
                assert all(f < keep and f not in frames for f in gone)
                model.forget(gone)
                model.use(set(frames) & set(model.held))
            else:
                rows = pool.place(ids(frames), keep)
                assert rows.tolist() == pool.rows(ids(frames)).tolist()
                model.evicted(held_by(pool, universe), set(frames), keep)
                fill(pool, rows, frames, step)
                model.held.update(dict.fromkeys(frames, step))
                model.use(frames)
        elif what < 0.8:
            known = [f for f in frames if f in model.held]
            pool.use(pool.rows(ids(known)))
            model.use(known)
        else:
            pool.drop(ids(frames))
            model.forget(frames)
        if limit is not None:
            assert pool.frames <= limit
        assert_content(pool, model, universe)
    if limit is None:
        assert refused == 0


@pytest.mark.parametrize("rows_per_slab", [1, 3, 8])
def test_least_recently_used_leaves(rows_per_slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(rows_per_slab, 6, monkeypatch)
    for frame in range(6):
        pool.place(ids([frame]), 100)
    pool.use(pool.rows(ids([0, 2])))
    pool.place(ids([6, 7]), 100)
    assert held_by(pool, 10) == {0, 2, 4, 5, 6, 7}
    pool.place(ids([4]), 100)  # its own row, and a use of it
    pool.place(ids([8, 9, 10]), 100)
    assert held_by(pool, 12) == {4, 6, 7, 8, 9, 10}


def test_frames_that_are_nowhere_else_never_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(2, 5, monkeypatch)
    fill(pool, pool.place(ids(range(5)), 0), range(5))
    with pytest.raises(MemoryFullError, match="no room for 1 more"):
        pool.place(ids([5]), 0)
    assert held_by(pool, 9) == set(range(5))
    pool.place(ids([5, 6]), 2)
    assert held_by(pool, 9) == {2, 3, 4, 5, 6}
    with pytest.raises(MemoryFullError):
        pool.place(ids([7]), 2)


def test_one_call_does_not_push_out_its_own_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that it found there were used longest ago."""
    pool = pool_of(2, 4, monkeypatch)
    for frame in range(4):
        fill(pool, pool.place(ids([frame]), 100), [frame])
    rows = pool.place(ids([0, 10, 1, 11]), 100)
    assert (rows >= 0).all()
    assert held_by(pool, 20) == {0, 1, 10, 11}
    assert [float(pool.row(int(rows[i])).max()) for i in (0, 2)] == [0.0, 1.0]
    with pytest.raises(MemoryFullError):
        pool.place(ids(range(20, 25)), 100)


@pytest.mark.parametrize("limit", [1, 2, 7, 8, 9, 100])
def test_limit_is_used_up_and_hardly_exceeded(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs are so small that the memory allocated is not much more than what was allowed."""
    pool = pool_of(1000, limit, monkeypatch)
    for frame in range(3 * limit):
        pool.place(ids([frame]), 1000)
    assert pool.frames == limit
    assert limit <= pool.capacity < limit + max(1, limit // 8)
    assert pool.bytes == limit * ROW_BYTES


@pytest.mark.parametrize("seed", range(20))
def test_shrinking_keeps_what_must_stay(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    pool = pool_of(draw.choice((1, 2, 3)), 40, monkeypatch)
    frames = draw.sample(range(100), 40)
    for frame in frames:
        fill(pool, pool.place(ids([frame]), 200), [frame])
    limit, keep = draw.randrange(1, 40), draw.choice((0, 50, 90, 200))
    pool.shrink(limit, keep)
    after = held_by(pool, 100)
    assert {f for f in frames if f >= keep} <= after <= set(frames)
    for frame in after:
        assert pool.row(int(pool.rows(ids([frame]))[0])).eq(frame).all()
    if keep == 200:
        assert pool.frames <= limit
        assert pool.capacity < limit + pool.rows_per_slab
        pool.check_integrity()
    new = pool.place(ids([300]), 200)
    fill(pool, new, [300])
    assert pool.frames <= max(limit, len(after))
    for frame in held_by(pool, 100):
        assert pool.row(int(pool.rows(ids([frame]))[0])).eq(frame).all()


def test_runs_and_gather_follow_the_order_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(3, None, monkeypatch)
    fill(pool, pool.place(ids(range(10)), 0), range(10))
    draw = random.Random(0)
    for _ in range(30):
        frames = [draw.randrange(10) for _ in range(draw.randrange(0, 8))] + list(range(draw.randrange(1, 10)))
        rows = pool.rows(ids(frames))
        out = torch.empty(len(frames), *SHAPE)
        pool.gather(rows, out)
        assert out[:, 0, 0].tolist() == frames
        seen: list[float] = []
        for memory, at in pool.runs(rows):
            assert at.start == len(seen)
            seen += memory[:, 0, 0].tolist()
            assert at.stop == len(seen)
        assert seen == frames
    assert list(pool.runs(ids([]))) == []


def test_slabs_never_move(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(2, None, monkeypatch)
    places = [pool.row(int(row)).data_ptr() for row in pool.place(ids(range(5)), 0)]
    pool.place(ids(range(5, 3000)), 0)
    assert [pool.row(int(row)).data_ptr() for row in pool.rows(ids(range(5)))] == places
    assert len(set(pool.rows(ids(range(3000))).tolist())) == 3000


def test_rows_of_frames_it_never_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(2, 4, monkeypatch)
    assert pool.rows(ids([0, 5, 10**9])).tolist() == [-1, -1, -1]
    pool.drop(ids([7, 10**9]))
    pool.place(ids([3]), 0)
    assert pool.rows(ids([3, 4, 10**9])).tolist() == [0, -1, -1]


def too_many(pool: Pool) -> None:
    pool.limit = 2


def slabs_gone(pool: Pool) -> None:
    pool._slabs.clear()


@pytest.mark.parametrize("damage", [too_many, slabs_gone])
def test_check_integrity_sees_damage(damage: Callable[[Pool], None], monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(2, 5, monkeypatch)
    pool.place(ids(range(4)), 0)
    pool.check_integrity()
    damage(pool)
    with pytest.raises(RuntimeError):
        pool.check_integrity()


def test_buffers_are_the_memory_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.memory.pool._SLAB_BYTES", 64)
    pool = Pool((2, 2), torch.float32, torch.device("cpu"), pinned=False, limit=None)
    rows = pool.place(ids(range(11)), 0)[[9, 0, 3, 10]]
    for i, buffer in enumerate(pool.buffers(rows)):
        torch.frombuffer(buffer, dtype=torch.float32).fill_(i)
    assert [pool.row(int(row)).unique().tolist() for row in rows] == [[0.0], [1.0], [2.0], [3.0]]
