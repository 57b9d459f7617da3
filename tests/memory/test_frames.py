"""The table of frames, against plain lists of what is there."""

import random
from collections.abc import Sequence

import pytest

from rekv.core import AskConfig
from rekv.memory.frames import FrameTable
from rekv.retrieval import in_scope


class Plain:
    """Frames that are there, by id; and the index rows, one for each that was there when loaded or came since."""

    def __init__(self, table: FrameTable, frames: int, ids: Sequence[int], times: Sequence[float]) -> None:
        self.frames = frames
        self.times = dict(zip(ids, times, strict=True))
        self.row_of = {frame: row for row, frame in enumerate(ids)}
        table.load(frames, ids, times)

    def add(self, times: Sequence[float]) -> None:
        for time in times:
            self.times[self.frames] = time
            self.row_of[self.frames] = len(self.row_of)
            self.frames += 1

    def leave_out(self, frames: Sequence[int]) -> None:
        for frame in frames:
            self.times.pop(frame, None)

    def in_scope(self, seen: int, ask: AskConfig) -> list[int]:
        return [
            frame
            for frame, time in self.times.items()
            if frame < seen
            and (ask.start is None or time >= ask.start)
            and (ask.end is None or time < ask.end)
            and (ask.at is None or time <= ask.at)
        ]


def visible(table: FrameTable, frames: int, ask: AskConfig) -> Sequence[int]:
    """What a question sees."""
    return table.there(in_scope(table.times, frames, ask))


def scope(draw: random.Random) -> AskConfig:
    start, at = (draw.choice((None, round(draw.uniform(-1, 41), 1))) for _ in range(2))
    end = None if draw.random() < 0.5 else round((start or 0) + draw.uniform(0.1, 25), 1)
    return AskConfig(start=start, end=end, at=at)


def assert_same(table: FrameTable, plain: Plain, draw: random.Random) -> None:
    there = list(plain.times)
    assert list(table.there(range(plain.frames))) == there
    assert table.oldest == (there[0] if there else plain.frames)
    assert [table.times[frame] for frame in there] == list(plain.times.values())
    assert list(table.times) == sorted(table.times)
    assert plain.frames - table.oldest - len(table.gone) == len(there)
    some = range(a := draw.randrange(plain.frames + 1), draw.randint(a, plain.frames))
    assert list(table.there(some)) == [frame for frame in there if frame in some]
    assert [frame for frame in some if table.is_there(frame)] == list(table.there(some))
    seen = draw.randint(0, plain.frames)
    ask = scope(draw)
    found = visible(table, seen, ask)
    assert list(found) == plain.in_scope(seen, ask)
    assert_rows(table, plain, found)
    assert_rows(table, plain, sorted(draw.sample(there, draw.randint(0, len(there)))))


def assert_rows(table: FrameTable, plain: Plain, frames: Sequence[int]) -> None:
    rows, kept = table.rows(frames)
    chosen = list(rows) if kept is None else [rows[i] for i in kept.tolist()]
    assert chosen == [plain.row_of[frame] for frame in frames]
    assert [table.row(frame) for frame in frames] == chosen
    assert kept is None or len(rows) > len(frames)
    names = {row: frame for frame, row in plain.row_of.items()}
    assert table.frames_of(rows).tolist() == [names[row] for row in rows]


def rising(draw: random.Random, n: int, first: float = 0.0) -> list[float]:
    return sorted(round(draw.uniform(first, first + 20), 1) for _ in range(n))


@pytest.mark.parametrize("seed", range(60))
def test_table_equals_plain_lists(seed: int) -> None:
    """Opened with gaps, then frames come and go."""
    draw = random.Random(seed)
    frames = draw.choice((0, 1, 20))
    ids = sorted(draw.sample(range(frames), draw.randint(0, frames)))
    table = FrameTable()
    plain = Plain(table, frames, ids, rising(draw, len(ids)))
    assert_same(table, plain, draw)
    for _ in range(8):
        if draw.random() < 0.5:
            last = table.times[-1] if len(table.times) else 0.0
            times = rising(draw, draw.randrange(0, 6), last)
            table.add(plain.frames, times)
            plain.add(times)
        elif plain.frames:
            gone = [draw.randrange(plain.frames) for _ in range(draw.randrange(0, 4))]
            if draw.random() < 0.5:
                gone += range(table.oldest, min(table.oldest + draw.randrange(0, 4), plain.frames))
            table.leave_out(gone)
            plain.leave_out(gone)
        assert_same(table, plain, draw)


@pytest.mark.parametrize("seed", range(20))
def test_table_that_was_never_loaded_has_a_row_for_every_frame(seed: int) -> None:
    draw = random.Random(seed)
    table, frames = FrameTable(), draw.randrange(1, 30)
    table.add(0, rising(draw, frames))
    gone = draw.sample(range(frames), draw.randint(0, frames))
    table.leave_out(gone)
    there = [frame for frame in range(frames) if frame not in gone]
    assert list(table.there(range(frames))) == there
    assert [table.row(frame) for frame in range(frames)] == list(range(frames))
    rows, kept = table.rows(there)
    assert (list(rows) if kept is None else [rows[i] for i in kept.tolist()]) == there


def test_frames_without_gaps_are_a_range() -> None:
    """A day of video has 43,200 frames: no question lists them all."""
    table = FrameTable()
    table.add(0, [float(i) for i in range(10)])
    assert visible(table, 10, AskConfig(start=2.0, at=7.0)) == range(2, 8)
    table.leave_out([0, 1, 2])
    assert (table.oldest, table.gone) == (3, set())
    assert visible(table, 10, AskConfig()) == range(3, 10)
    table.leave_out([8])
    assert visible(table, 10, AskConfig(end=8.0)) == range(3, 8)
    assert visible(table, 10, AskConfig()) == (3, 4, 5, 6, 7, 9)
    assert table.there(range(0, 2)) == range(0)


def test_oldest_moves_over_those_that_went_before() -> None:
    table = FrameTable()
    table.add(0, [float(i) for i in range(10)])
    table.leave_out([3, 1, 4])
    assert (table.oldest, table.gone) == (0, {1, 3, 4})
    table.leave_out([0, 0])
    assert (table.oldest, table.gone) == (2, {3, 4})
    table.leave_out([0, 1, 2])
    assert (table.oldest, table.gone) == (5, set())
    table.leave_out(range(5, 10))
    assert (table.oldest, table.gone) == (10, set())
    table.add(10, [20.0])
    assert table.there(range(11)) == range(10, 11)


def test_thinned_stream() -> None:
    """Of the first sixty frames every tenth was kept, and one more is gone at the end."""
    ids = [*range(0, 60, 10), *range(60, 99)]
    table = FrameTable()
    table.load(100, ids, [float(i) for i in ids])
    assert (table.oldest, len(table.gone)) == (0, 54 + 1)
    assert visible(table, 100, AskConfig(start=15.0, end=62.0)) == (20, 30, 40, 50, 60, 61)
    assert table.rows((20, 30, 40, 50, 60, 61)) == (range(2, 8), None)  # neighbours in the index
    assert table.row(99 + 1) == len(ids)  # the next frame that comes
    table.add(100, [100.0, 101.0])
    assert table.frames_of(range(4, 8)).tolist() == [40, 50, 60, 61]
    assert table.frames_of(range(43, 47)).tolist() == [97, 98, 100, 101]
    table.leave_out([30])
    rows, kept = table.rows(visible(table, 102, AskConfig(start=15.0, end=62.0)))
    assert kept is not None
    assert [rows[i] for i in kept.tolist()] == [2, 4, 5, 6, 7]


def test_what_was_not_committed_is_replaced() -> None:
    table = FrameTable()
    table.add(0, [0.0, 1.0, 2.0])
    table.add(2, [5.0, 6.0])
    assert list(table.times) == [0.0, 1.0, 5.0, 6.0]


def test_frame_ends_with_the_next_one_or_a_period_after_it_was_last_seen() -> None:
    table = FrameTable()
    table.add(0, [0.0, 1.0, 7.0])
    table.until = {1: 4.0, 2: 9.5}
    assert [table.end(frame, 3, 0.5) for frame in range(3)] == [1.0, 7.0, 10.0]
    assert [table.end(frame, 2, 0.5) for frame in range(2)] == [1.0, 4.5]
    assert table.end(0, 1, 0.5) == 0.5
