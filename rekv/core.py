"""The nouns of rekv. Everything else is verbs over these.

A *frame* is one sampled picture, or the few neighbours that a model's vision tower takes together (Qwen-VL: two).
A *block* is that frame's un-rotated keys and values in one layer, a tensor of shape (2, kv_heads, tokens, head_dim).
A block's *representative key* is the mean of its keys.
The *sink* is the init prompt's keys and values, always in context. The *window* is the last `n_local` tokens
a new frame attends to while it is encoded. Names are those of ReKV (ICLR 2025, arXiv 2503.00540).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from rekv.errors import ConfigError

if TYPE_CHECKING:  # importing torch takes seconds, which commands that need no model do without
    import torch

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
    frame_tokens: int | None = None  # a frame's picture tokens at most, where resolution is dynamic; None = the model's
    frames_per_call: int = field(default=16, compare=False)  # pictures per forward pass; no influence on results
    skip_duplicates: float | None = (
        None  # leave out frames that differ by less from the last (8-bit levels); None = none
    )
    max_span: float = 10.0  # seconds that one frame may stand for its near-duplicates
    encoder: str | None = None  # dual encoder (SigLIP, CLIP) that embeds every frame besides; None = none does
    policy: str | None = None  # what is kept of a frame for questions, such as "value-norm:0.5"; None = all (the paper)

    def __post_init__(self) -> None:
        _require(self.sample_fps > 0, "sample_fps", self.sample_fps, "above 0 (frames per second)")
        _require(self.n_local >= 1, "n_local", self.n_local, "at least 1 (tokens)")
        tokens = self.frame_tokens
        _require(tokens is None or tokens >= 1, "frame_tokens", tokens, "at least 1")
        _require(self.frames_per_call >= 1, "frames_per_call", self.frames_per_call, "at least 1")
        skip = self.skip_duplicates
        _require(skip is None or 0 < skip <= 255, "skip_duplicates", skip, "above 0 and at most 255 (8-bit levels)")
        _require(self.max_span > 0, "max_span", self.max_span, "above 0 (seconds)")


Kv = Literal["raw", "fp8", "int8", "int4", "auto"]


@dataclass(frozen=True, slots=True)
class StorageConfig(_Config):
    """Where a session's memory may lie, and how much of it. None of it changes what is computed, but for `kv`.

    `kv` names how blocks are stored once they have left the window and their segment is full: "raw" as computed,
    "fp8", "int8", "int4", or "auto", the smallest of them that costs nothing measurable.
    """

    ram: int | None = None  # bytes of blocks and index in RAM; None = all without a store, a quarter of RAM with one
    gpu_cache: int = 0  # bytes of blocks kept on the GPU besides
    disk: int | None = None  # bytes on disk; beyond it the oldest frames are removed
    max_age: float | None = None  # seconds of stream; older frames are removed
    thin_after: float | None = None  # seconds of stream; of older frames, only every `thin_keep`-th is kept
    thin_keep: int = 10
    kv: Kv = "raw"
    when_full: Literal["error", "forget"] = "error"  # without a store, what a full RAM means

    def __post_init__(self) -> None:
        for name in ("ram", "disk", "max_age", "thin_after"):
            value = getattr(self, name)
            _require(value is None or value > 0, name, value, "above 0")
        _require(self.gpu_cache >= 0, "gpu_cache", self.gpu_cache, "at least 0 (bytes)")
        _require(self.thin_keep >= 2, "thin_keep", self.thin_keep, "at least 2: every n-th frame is kept")
        _require(self.when_full in ("error", "forget"), "when_full", self.when_full, '"error" or "forget"')
        _require(self.kv in get_args(Kv), "kv", self.kv, " or ".join(map(repr, get_args(Kv))))


QueryForm = Literal["mean", "phrases", "tokens"]


@dataclass(frozen=True, slots=True)
class AskConfig(_Config):
    """What may differ from question to question. None of it changes the session."""

    retriever: str = "internal"  # who chooses frames: a name of `rekv.retrieval.registry`; "internal" = the paper
    retrieve_size: int = 64  # frames put into attention, per layer (paper: r)
    retrieve_tokens: int | None = None  # instead of retrieve_size: as many frames as have so many tokens
    chunk_size: int = 1  # neighbouring frames retrieved together (paper: block size ablation)
    query: QueryForm = "mean"  # what frames are scored by: the question as a whole (paper), or the best of its parts
    detrend: bool = False  # take out a drift of the scores with time
    min_gap: float = 0.0  # seconds between any two frames that are picked; 0 = the paper
    shared_picks: bool = False  # all layers read the same frames, found in a pass before; False = the paper
    spans: Sequence[tuple[float, float]] = ()  # what the retriever "oracle" reads: [start, end) in seconds
    min_margin: float = 1.1  # of evidence that stands out from the session's background, in standard deviations
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
        tokens = self.retrieve_tokens
        _require(tokens is None or tokens >= 1, "retrieve_tokens", tokens, "at least 1")
        _require(self.query in get_args(QueryForm), "query", self.query, " or ".join(map(repr, get_args(QueryForm))))
        _require(self.min_gap >= 0, "min_gap", self.min_gap, "at least 0 (seconds)")
        apart = self.min_gap == 0 or self.chunk_size == 1
        _require(apart, "chunk_size", self.chunk_size, "1 where min_gap is given: frames of a chunk are neighbours")
        for start, end in self.spans:
            _require(start < end, "spans", (start, end), "spans (start, end) in seconds, start before end")
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


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of a conversation and what it was answered."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """Which frames a question put into attention."""

    frames: tuple[tuple[int, ...], ...]  # per layer, frame ids in context order
    scores: "torch.Tensor"  # (layers, candidates) fp32: <mean query, representative key>; on the CPU
    candidates: Sequence[int]  # frame ids that the time scope leaves, ascending: the columns of `scores`
    by: str = "internal"  # who chose: the retriever's name, and what it decided

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
class TierRead:
    """What a question read from one tier: "gpu", "ram" or "disk"."""

    blocks: int = 0  # one frame in one layer each; with a memory policy, pieces of a sixteenth of that
    bytes: int = 0  # as the model reads them, unpacked
    seconds: float = 0.0


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
    reads: Mapping[str, TierRead]  # by tier: where the blocks were found
    frames_seen: int  # frames of the session that the question could see
    warnings: tuple[str, ...] = ()  # frames that had to be left out, and why
    choice_logprobs: tuple[float, ...] = ()  # of each choice's letter as the answer's first token; () without choices
    margin: float | None = None  # how far the best moment stands out from the session's background; None: none yet
    stands_out: bool = True  # that is at least `min_margin`; if not, the answer is likely to be made up

    @property
    def bytes_read(self) -> dict[str, int]:
        """Bytes by tier."""
        return {tier: read.bytes for tier, read in self.reads.items()}

    def __str__(self) -> str:
        return self.text
