"""Sessions of the built-in model on long streams: first token against length, memory against a budget."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from store_blocks import drop_pages

import rekv
from rekv.core import Frame
from rekv.engine import Model, Session
from rekv.retrieval import Internal, Top
from rekv.world import Scene, frames
from rekv.world.shapes import SHAPES

MB = 1e6
QUESTIONS = [f"What {what} is the {shape}?" for what in ("color", "size") for shape in SHAPES]
FRAMES_PER_CALL = 64
SCENE = 1000  # frames
WARM_UP = 5  # questions
UNLIMITED = 1 << 40  # bytes of RAM
# Bytes. Blocks are let go before each question in any case; the second holds the index of 4,096 frames.
BUDGETS = {"index_in_ram": 128 << 20, "index_on_disk": 8 << 20}


def stream(n: int, seed: int = 0) -> Iterator[Frame]:
    """Frames of one scene after the other, one a second."""
    rng = np.random.default_rng(seed)
    for start in range(0, n, SCENE):
        for frame in frames(Scene.draw(rng, min(SCENE, n - start))):
            yield replace(frame, time=frame.time + start)


def lengths(place: Path, counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """First token at each length, blocks on disk: cold (no page of the session in memory) and warm."""
    model = rekv.load()
    begun = perf_counter()
    for n in counts:
        settings = {"ram": BUDGETS["index_in_ram"], "frames_per_call": FRAMES_PER_CALL}
        with model.session(f"frames-{n}", store=place, **settings) as session:
            session.append(stream(n))
    encode = perf_counter() - begun
    found = {name: _lengths(model, place, counts, rounds, ram) for name, ram in BUDGETS.items()}
    return {"encode_s": round(encode, 1), "questions": rounds, "budgets": BUDGETS, **found}


def _lengths(model: Model, place: Path, counts: Sequence[int], rounds: int, ram: int) -> dict[str, Any]:
    sessions = {n: model.session(f"frames-{n}", store=place, ram=ram) for n in counts}
    asked: dict[tuple[str, int], list[dict[str, float]]] = {}
    for turn in range(-WARM_UP, rounds):
        for n, session in sessions.items():
            for state in ("cold", "warm"):
                figures = _ask(session, place, QUESTIONS[turn % len(QUESTIONS)], cold=state == "cold")
                if turn >= 0:
                    asked.setdefault((state, n), []).append(figures)
    return {
        **{
            state: {str(n): _medians(asked[state, n], asked[state, counts[0]]) for n in counts}
            for state in ("cold", "warm")
        },
        "scan_ms": {str(n): round(_scan(session) * 1e3, 3) for n, session in sessions.items()},
        "pick_ms": {str(n): round(_pick(session) * 1e3, 3) for n, session in sessions.items()},
    }


def _ask(session: Session, place: Path, question: str, *, cold: bool) -> dict[str, float]:
    """Milliseconds. Blocks are not in RAM; in the cold case nor are the pages of the session's files."""
    for layer in session.memory.layers.values():
        layer.blocks.forget(range(session.memory.frames))
    if cold:
        drop_pages(place / str(session.name))
    answer = session.ask(question, max_new_tokens=1)
    if set(answer.reads) != {"disk"}:
        raise RuntimeError(f"blocks came from {', '.join(answer.reads)}, not from disk")
    timings = answer.timings
    return {
        "first_token_ms": (timings.question + timings.first_token) * 1e3,
        "question_ms": timings.question * 1e3,
        "load_ms": timings.load * 1e3,
    }


def _medians(asked: Sequence[dict[str, float]], shortest: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians, and that of the ratios to the shortest session, question by question."""
    key = "first_token_ms"
    ratios = [one[key] / other[key] for one, other in zip(asked, shortest, strict=True)]
    return {
        **{name: round(statistics.median(one[name] for one in asked), 2) for name in asked[0]},
        "ratio": round(statistics.median(ratios), 3),
    }


@torch.inference_mode()
def _scan(session: Session) -> float:
    """Seconds to score all frames in all layers."""
    memory = session.memory
    rows, _ = memory.table.rows(range(memory.frames))
    queries = {i: torch.randn(layer.blocks.shape[1], 8, layer.blocks.shape[3]) for i, layer in memory.layers.items()}
    return _median_seconds(lambda: [layer.index.scores(queries[i], rows) for i, layer in memory.layers.items()])


@torch.inference_mode()
def _pick(session: Session) -> float:
    """Seconds to choose among all frames in all layers."""
    candidates = range(session.memory.frames)
    retriever = Internal(Top(session.model.family.ask_config.retrieve_size))
    scores = torch.randn(len(candidates))
    return _median_seconds(lambda: [retriever.pick(i, scores, candidates) for i in session.memory.layers])


def _median_seconds(work: Callable[[], object], rounds: int = 15) -> float:
    seconds = []
    for _ in range(rounds):
        begun = perf_counter()
        work()
        seconds.append(perf_counter() - begun)
    return statistics.median(seconds)


def memory_child(place: Path, n: int, ram: int) -> dict[str, Any]:
    """In a process of its own: encode n frames and ask in between; what the process takes, in MB, as it goes."""
    bounded = ram < UNLIMITED
    model = rekv.load()
    session = model.session("memory", store=place, ram=ram)
    start = anonymous()
    curve: list[tuple[int, float]] = []

    def look(session: Session) -> None:
        seen = session.memory.frames
        if seen // SCENE > (curve[-1][0] // SCENE if curve else 0):
            for i in range(3):
                session.ask(QUESTIONS[(seen // SCENE * 3 + i) % len(QUESTIONS)])
        curve.append((seen, round(anonymous(), 2)))

    session.append(stream(n), look)
    session.close()
    settled = [mb for seen, mb in curve if seen >= n / 4]
    most = max(mb for _, mb in curve)
    return {
        "budget_mb": round(ram / MB, 1) if bounded else None,
        "kv_mb": round(session.memory.bytes / MB, 1),
        "start_mb": round(start, 1),
        "most_mb": round(most, 1),
        "beyond_start_and_budget_mb": round(most - start - ram / MB, 1) if bounded else None,
        "growth_mb": round(max(settled) - settled[0], 1),
        "vm_hwm_mb": round(_status("VmHWM"), 1),
        "curve": curve[:: max(1, len(curve) // 200)],
    }


def anonymous() -> float:
    """MB that only this process holds: what files back may be taken away at any time."""
    return _status("RssAnon") + _status("RssShmem")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name + ":")).split()[1]) * 1024 / MB
