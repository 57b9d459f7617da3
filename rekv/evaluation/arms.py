"""How a question is asked under a cell: a retriever by name, or a baseline that reads everything it has."""

from collections.abc import Sequence
from typing import Any

from rekv.engine import Session
from rekv.evaluation.cell import BASELINES, Cell
from rekv.evaluation.schema import Question
from rekv.retrieval import in_scope

_MOMENT = 1e-6  # seconds


def settings(session: Session, question: Question, cell: Cell, at: float | None) -> dict[str, Any]:
    """The keywords of `Session.ask`, by which it sees nothing later than `at`."""
    length = cell.choice_tokens if question.choices else cell.max_new_tokens
    common = {"choices": question.choices, "max_new_tokens": length, "at": at}
    if cell.retriever in BASELINES:
        memory = session.memory
        scope = in_scope(memory.times, memory.frames, session.model.family.ask_config.but(at=at), memory.last_pictures)
        return {**common, "frames": scope, "recent_frames": 0}
    if cell.retriever == "oracle":
        spans = shown(question.windows, session)
        common |= {"retriever": "oracle", "spans": spans} if spans else {"retriever": "uniform"}
    else:
        common |= {"retriever": cell.retriever}
    return {
        **common,
        "retrieve_size": cell.retrieve_size,
        "retrieve_tokens": cell.retrieve_tokens,
        "chunk_size": cell.chunk_size,
        "recent_frames": cell.recent_frames,
        "query": cell.query,
        "detrend": cell.detrend,
        "min_gap": cell.min_gap,
        "shared_picks": cell.shared_picks,
    }


def shown(windows: Sequence[tuple[float, float]], session: Session) -> list[tuple[float, float]]:
    """Spans of the frames that were on screen during these windows: one shown before a window may last into it."""
    lasts = session.model.family.frames_per_block / session.config.sample_fps
    return [(max(0.0, start - lasts + _MOMENT), max(end, start + _MOMENT)) for start, end in windows]
