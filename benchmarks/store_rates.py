"""Write and read rate of the store beside plain system calls of the same sizes, in the same run."""

import os
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from store_blocks import SHAPES, BlockShape, RandomBlocks, create, drop_pages, write
from zlib_ng import zlib_ng

from rekv.memory.pool import as_bytes
from rekv.store.catalog import Catalog
from rekv.store.files import Buffer, Files
from rekv.store.folder import SessionFolder
from rekv.store.names import SEGMENT
from rekv.store.segment import Segment

THREADS = 8  # as the store
FRAMES = {"llava_ov_7b": (48, 16), "llava_ov_0.5b": (192, 64), "builtin": (8192, 8)}  # written; read per question
WAYS = ("parallel", "serial", "checked")
QUESTIONS = {"llava_ov_7b": 1, "llava_ov_0.5b": 1, "builtin": 64}


@dataclass(frozen=True, slots=True)
class Call:
    """A read or write, or a sync (no buffers)."""

    path: Path
    offset: int
    buffers: Sequence[Buffer]
    seconds: float


@dataclass
class Recorder(Files):
    """Does what `Files` does, and notes what was moved and synced, and how long that took."""

    calls: list[Call] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._paths: dict[int, Path] = {}
        self._lock = threading.Lock()

    def take(self) -> list[Call]:
        calls, self.calls = self.calls, []
        return calls

    def open(self, path: Path, *, writable: bool = False) -> int:
        descriptor = super().open(path, writable=writable)
        self._paths[descriptor] = path
        return descriptor

    def create(self, path: Path, size: int) -> int:
        with self._timed("create"):
            descriptor = super().create(path, size)
        self._paths[descriptor] = path
        return descriptor

    def write(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> None:
        begun = perf_counter()
        super().write(descriptor, buffers, offset)
        self.calls.append(Call(self._paths[descriptor], offset, buffers, perf_counter() - begun))

    def read(self, descriptor: int, buffers: Sequence[Buffer], offset: int, *, wait: bool = True) -> int:
        begun = perf_counter()
        done = super().read(descriptor, buffers, offset, wait=wait)
        self.calls.append(Call(self._paths[descriptor], offset, buffers, perf_counter() - begun))
        return done

    def sync(self, descriptor: int) -> None:
        begun = perf_counter()
        super().sync(descriptor)
        self.calls.append(Call(self._paths[descriptor], 0, (), perf_counter() - begun))

    def sync_folder(self, path: Path) -> None:
        with self._timed("create"):
            super().sync_folder(path)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        begun = perf_counter()
        yield
        with self._lock:
            self.seconds[what] = self.seconds.get(what, 0.0) + perf_counter() - begun


class TimedCatalog(Catalog):
    """Adds up the seconds of its transactions."""

    seconds = 0.0

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        begun = perf_counter()
        with super().transaction() as connection:
            yield connection
        self.seconds += perf_counter() - begun


def rates(place: Path, rounds: int, names: Sequence[str] = tuple(SHAPES), share: float = 1.0) -> dict[str, Any]:
    """Median over rounds, plain and store taking turns; `share` of the frames."""
    return {name: _rates(place / name, name, rounds, share) for name in names}


def _rates(place: Path, name: str, rounds: int, share: float) -> dict[str, Any]:
    shape, (n, wanted) = SHAPES[name], FRAMES[name]
    n = max(2 * wanted, int(n * share))
    blocks = RandomBlocks(shape)
    crc = crc_rate(shape)
    writes = [write_round(place / f"round-{i}", shape, blocks, n, crc) for i in range(rounds + 1)][1:]
    path = place / "read"
    write(folder := create(path, shape), blocks, n)
    folder.close()
    reads = [read_round(path, shape, n, wanted, QUESTIONS[name], seed) for seed in range(rounds + 1)][1:]
    return {
        "block_bytes": shape.block_bytes,
        "frames_written": n,
        "frames_read": wanted * QUESTIONS[name],
        "crc32_gb_per_s": round(crc / 1e9, 2),
        "write": _summary(writes),
        **{state: _summary([each[state] for each in reads]) for state in ("cold", "warm")},
    }


def write_round(path: Path, shape: BlockShape, blocks: RandomBlocks, n: int, crc: float) -> dict[str, float]:
    """Seconds of the store, and of plain writes of the same blocks with as many syncs at the same points."""
    files = Recorder()
    folder = create(path, shape, files=files)
    folder.catalog.close()
    folder.catalog = catalog = TimedCatalog(path, writable=True)
    files.take()
    files.seconds.clear()
    begun = perf_counter()
    write(folder, blocks, n)
    store = perf_counter() - begun
    folder.close()
    calls = files.take()
    blocks_only, rest = apart(calls)
    require_all(blocks_only, n * shape.frame_bytes)
    seconds = {
        "blocks": sum(call.seconds for call in blocks_only if call.buffers),
        "sync": sum(call.seconds for call in blocks_only if not call.buffers),
        "tables": sum(call.seconds for call in rest),
    }
    sizes = {call.path: call.path.stat().st_size for call in calls}
    _remove(path)
    path.mkdir()
    plain = plain_write(path, blocks_only, sizes)
    _remove(path)
    data = n * shape.frame_bytes
    parts = {**seconds, **files.seconds, "catalog": catalog.seconds, "checksums": data / crc}
    return {
        "bytes": data,
        "store": store,
        "plain": plain,
        "syncs": sum(not call.buffers for call in blocks_only),
        **{f"share_{name}": seconds / store for name, seconds in parts.items()},
        "share_rest": 1 - sum(parts.values()) / store,
    }


def plain_write(path: Path, calls: Sequence[Call], sizes: dict[Path, int]) -> float:
    """Repeat writes and syncs on preallocated files; return the seconds."""
    files = Files()
    begun = perf_counter()
    descriptors = {}
    for old, size in sizes.items():
        descriptors[old] = os.open(path / old.name, os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(descriptors[old], 0, size)
    for call in calls:
        if call.buffers:
            files.write(descriptors[call.path], call.buffers, call.offset)
        else:
            files.sync(descriptors[call.path])
    seconds = perf_counter() - begun
    for descriptor in descriptors.values():
        os.close(descriptor)
    return seconds


def read_round(
    path: Path, shape: BlockShape, n: int, wanted: int, questions: int, seed: int
) -> dict[str, dict[str, float]]:
    """Seconds of questions' blocks, layer by layer: through the store, and with the same preads on the same files."""
    rng = np.random.default_rng(seed)
    rows = [as_bytes(row) for row in torch.empty(wanted, shape.block_bytes, dtype=torch.uint8)]
    requests = [
        (layer, sorted(rng.choice(n, wanted, replace=False).tolist()))
        for _ in range(questions)
        for layer in range(shape.layers)
    ]
    recorder = Recorder()
    folders = [SessionFolder(path, recorder), SessionFolder(path)]
    for folder in folders:
        folder.refresh()
        for request in requests:  # opens the files and makes the threads
            folder.read(*request, rows)
    recorder.take()
    calls: list[list[Call]] = []
    for request in requests:
        folders[0].read(*request, rows)
        calls.append(apart(recorder.take())[0])
    nbytes = len(requests) * wanted * shape.block_bytes
    require_all([call for each in calls for call in each], nbytes)

    def store() -> None:
        for request in requests:
            folders[1].read(*request, rows)

    found = {}
    for state in ("cold", "warm"):
        cold = state == "cold"
        first = _seconds(store, path, cold)
        ways = {way: _seconds(partial(plain_read, calls, way), path, cold) for way in WAYS}
        found[state] = {
            "bytes": nbytes,
            "store": min(first, _seconds(store, path, cold)),  # the better of two, as of the plain ones
            "plain": min(ways["parallel"], ways["serial"]),
            "checked": ways["checked"],
        }
    for folder in folders:
        folder.close()
    return found


def plain_read(requests: Sequence[Sequence[Call]], way: str) -> None:
    """Repeat reads, in as many threads as the store has at most, or one after the other, also with checksums."""
    paths = {call.path for calls in requests for call in calls}
    descriptors = {path: os.open(path, os.O_RDONLY) for path in paths}

    def one(call: Call) -> None:
        os.preadv(descriptors[call.path], call.buffers, call.offset)
        if way == "checked":
            for buffer in call.buffers:
                zlib_ng.crc32(buffer)

    with ThreadPoolExecutor(THREADS) as pool:
        for calls in requests:
            for _ in pool.map(one, calls) if way == "parallel" else map(one, calls):
                pass
    for descriptor in descriptors.values():
        os.close(descriptor)


def apart(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """Calls on blocks, and syncs of them, apart from those on what else a segment holds, and on other files."""
    begin, end = {}, {}
    for path in {call.path for call in calls if SEGMENT.fullmatch(call.path.name)}:
        places = Segment(Files(), path).places
        begin[path], end[path] = places["layer.0.blocks"].start, places["state"].start
    blocks: list[Call] = []
    rest: list[Call] = []
    for call in calls:
        known = call.path in begin
        (blocks if known and (not call.buffers or begin[call.path] <= call.offset < end[call.path]) else rest).append(
            call
        )
    return blocks, rest


def require_all(calls: Sequence[Call], nbytes: int) -> None:
    """Raise unless the recorded calls moved `nbytes`: plain calls must do the same work."""
    moved = sum(buffer.nbytes for call in calls for buffer in call.buffers)
    if moved != nbytes:
        raise RuntimeError(f"{moved} bytes of blocks were recorded, and {nbytes} moved")


def crc_rate(shape: BlockShape) -> float:
    """Bytes per second of the store's checksum on blocks of this size, in one thread."""
    blocks = [as_bytes(x) for x in torch.randint(255, (64, shape.block_bytes), dtype=torch.uint8)]
    best = min(_elapsed(lambda: [zlib_ng.crc32(block) for block in blocks]) for _ in range(5))
    return 64 * shape.block_bytes / best


def _seconds(work: Callable[[], object], path: Path, cold: bool) -> float:
    if cold:
        drop_pages(path)
    return _elapsed(work)


def _elapsed(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def _summary(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Medians; `ratio` of the store's rate to the plain one, within rounds."""
    ratios = sorted(each["plain"] / each["store"] for each in rounds)
    checked = {"ratio_checked": sorted(x["checked"] / x["store"] for x in rounds)} if "checked" in rounds[0] else {}
    others = [key for key in rounds[0] if key.startswith("share_") or key == "syncs"]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        **{key: round(statistics.median(values), 3) for key, values in checked.items()},
        **{
            f"{name}_gb_per_s": round(statistics.median(each["bytes"] / each[name] for each in rounds) / 1e9, 3)
            for name in ("store", "plain")
        },
        **{key: round(statistics.median(each.get(key, 0.0) for each in rounds), 3) for key in others},
    }


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
