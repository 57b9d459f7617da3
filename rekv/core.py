"""The nouns of rekv. Everything else is verbs over these.

A *frame* is one sampled picture. A *block* is that frame's un-rotated keys and values in one layer,
a tensor of shape (2, kv_heads, tokens, head_dim). A block's *representative key* is the mean of its keys.
The *sink* is the init prompt's keys and values, always in context. The *window* is the last `n_local` tokens
a new frame attends to while it is encoded. Names are those of ReKV (ICLR 2025, arXiv 2503.00540).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from rekv.errors import ConfigError

Image = NDArray[np.uint8]
FinishReason = Literal["stop", "length", "stop_string", "cancelled"]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One sampled picture of a stream."""

    image: Image  # (height, width, 3), RGB
    time: float  # seconds from the stream's start, from the video's own timestamps
    wall: float | None = None  # seconds since the epoch, if the source is live

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3 or not self.image.size:
            raise ConfigError(
                f"a frame's image is uint8 RGB of shape (height, width, 3), "
                f"not {self.image.dtype} of shape {self.image.shape}"
            )
        if not (np.isfinite(self.time) and self.time >= 0):
            raise ConfigError(f"a frame's time is in seconds from the stream's start, not {self.time}")


class _Config:
    """Shared by the two configurations: changing a copy by field names, with unknown names refused."""

    def but(self, **changes: Any) -> Self:
        """Return a copy with these fields changed; a name that is not a field is an error."""
        known = [f.name for f in fields(self)]  # type: ignore[arg-type]
        for name in changes:
            if name not in known:
                raise ConfigError(f"no setting {name!r} here; the settings are {', '.join(known)}")
        return replace(self, **changes)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class EncodeConfig(_Config):
    """What shapes a session's memory. Appending to a session with another one is an error."""

    sample_fps: float = 0.5  # frames per second of video
    n_local: int = 15000  # tokens of the local window (paper, section 3.2)
    init_prompt: str | None = None  # text before the first frame; None = the model's own
    frames_per_call: int = field(default=16, compare=False)  # frames per forward pass; no influence on results

    def __post_init__(self) -> None:
        _require(self.sample_fps > 0, "sample_fps", self.sample_fps, "above 0 (frames per second)")
        _require(self.n_local >= 1, "n_local", self.n_local, "at least 1 (tokens)")
        _require(self.frames_per_call >= 1, "frames_per_call", self.frames_per_call, "at least 1")


@dataclass(frozen=True, slots=True)
class AskConfig(_Config):
    """What may differ from question to question. None of it changes the session."""

    retrieve_size: int = 64  # frames put into attention, per layer (paper: r)
    chunk_size: int = 1  # neighbouring frames retrieved together (paper: block size ablation)
    recent_frames: int = 0  # the newest frames that are always in context besides; 0 = the paper
    start: float | None = None  # only frames at or after this time, in seconds
    end: float | None = None  # only frames before this time, in seconds
    at: float | None = None  # as of this time: nothing later is seen, in seconds
    max_new_tokens: int = 128
    temperature: float = 0.0  # 0 = greedy
    top_p: float = 1.0
    seed: int | None = None  # of sampling; None = a new one each time
    stop: Sequence[str] = ()  # the answer ends before the first of these; one string will do

    def __post_init__(self) -> None:
        _require(self.retrieve_size >= 0, "retrieve_size", self.retrieve_size, "at least 0 (frames)")
        _require(self.chunk_size >= 1, "chunk_size", self.chunk_size, "at least 1 (frames)")
        _require(
            self.retrieve_size % self.chunk_size == 0,
            "chunk_size",
            self.chunk_size,
            f"a divisor of retrieve_size ({self.retrieve_size}): whole chunks are retrieved",
        )
        _require(self.recent_frames >= 0, "recent_frames", self.recent_frames, "at least 0 (frames)")
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "at least 1")
        _require(self.temperature >= 0, "temperature", self.temperature, "at least 0 (0 = greedy)")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        for name in ("start", "end", "at"):
            time = getattr(self, name)
            _require(time is None or time == time, name, time, "a time in seconds")
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        _require(all(self.stop), "stop", self.stop, "strings that are not empty")
        if self.start is not None and self.end is not None:
            _require(self.start < self.end, "start", self.start, f"before end ({self.end})")


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {value}; it must be {rule}")


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """Which frames a question put into attention."""

    frames: tuple[tuple[int, ...], ...]  # per layer, frame ids in context order
    scores: torch.Tensor  # (layers, candidates) fp32: <mean query, representative key>; on the CPU
    candidates: range  # frame ids that the time scope leaves: the columns of `scores`

    @property
    def union(self) -> tuple[int, ...]:
        """Every frame that at least one layer read, ascending."""
        return tuple(sorted({frame for layer in self.frames for frame in layer}))


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring frames that were put into attention: the evidence of an answer."""

    start: float  # seconds
    end: float  # seconds, exclusive
    score: float  # its best frame: mean over layers of the z-score among the session's frames
    frames: tuple[int, ...]  # frame ids
    votes: float  # share of layers that read at least one of these frames, 0..1


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one question went, in seconds."""

    wait: float  # for the encode call under way
    question: float  # question pass: scoring, retrieval, attention
    load: float  # of that, copying blocks to the model's device
    first_token: float  # from the end of the question pass to the first token of the answer
    decode: float  # the tokens after the first
    total: float


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What `ask` returns."""

    question: str
    text: str
    evidence: tuple[Span, ...]  # best score first
    retrieval: Retrieval
    token_ids: tuple[int, ...]  # of the answer, the end token included
    finish_reason: FinishReason
    timings: Timings
    bytes_read: Mapping[str, int]  # by tier
    frames_seen: int  # frames of the session that the question could see

    def __str__(self) -> str:
        return self.text
