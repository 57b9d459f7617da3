"""One cell of a grid: everything that the answers of a run depend on. And the grid."""

from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from rekv import retrieval
from rekv.core import AskConfig, EncodeConfig, QueryForm
from rekv.errors import ConfigError
from rekv.evaluation.datasets import Mode, find
from rekv.memory.policies import find as find_policy

if TYPE_CHECKING:
    from rekv.engine import Model

STOCK = "stock"  # baseline: the stock model, given evenly spaced frames of the video and nothing else
FULL = "full"  # baseline: full attention while encoding and answering
BASELINES = (STOCK, FULL)
Choose = Literal["text", "likelihood"]

_PAPER = AskConfig()
PAPER_MAX_NEW_TOKENS = {"choices": 16, "offline": 1024, "streaming": 256}  # of the published harness


@dataclass(frozen=True, slots=True)
class Cell:
    """Settings of one run. Two runs of equal cells on the same data, versions and hardware give equal answers."""

    model: str
    dataset: str
    mode: Mode
    retriever: str
    retrieve_size: int  # frames; 0 with the retriever full, which reads all
    chunk_size: int  # frames
    recent_frames: int
    query: QueryForm  # this and the next three as in `AskConfig`
    detrend: bool
    min_gap: float  # seconds
    shared_picks: bool
    encoder: str | None  # dual encoder, with the retrievers that need one
    sample_fps: float
    n_local: int  # tokens
    max_new_tokens: int  # of answers without choices
    choice_tokens: int  # of answers with choices
    choose: Choose  # how a choice is read: from the text, or the likeliest letter
    paper: bool  # the published harness's arithmetic and quirks
    limit: int | None  # only the first videos
    dtype: str
    device: str  # "cpu" or "cuda"
    weights: str | None = None  # how the language model's are packed: "int8", "int4"
    frame_tokens: int | None = None  # a frame's at most; None: the model's
    policy: str | None = None  # what memory keeps of a frame, as in `EncodeConfig`; None: all
    retrieve_tokens: int | None = None  # read as many frames as have so many tokens, instead of retrieve_size

    @property
    def encoding(self) -> tuple[Any, ...]:
        """Cells that agree on this are asked of one and the same encoding of a video."""
        return (
            self.model,
            self.dataset,
            self.mode,
            self.sample_fps,
            self.n_local,
            self.paper,
            self.dtype,
            self.device,
            self.weights,
            self.frame_tokens,
            self.policy,
        )

    @property
    def folder(self) -> str:
        """Where its results lie, below the results folder: as published, with what differs from the paper's method."""
        name = f"{self.retrieve_size}-{self.sample_fps}"
        extra = [self.retriever] if self.retriever != "internal" else []
        for field in ("chunk_size", "recent_frames", "query", "detrend", "min_gap", "shared_picks"):
            value = getattr(self, field)
            if value != getattr(_PAPER, field):
                extra.append(field if value is True else f"{field}{value}")
        if self.mode != find(self.dataset).mode:
            extra.append(self.mode)
        for field in ("frame_tokens", "retrieve_tokens", "policy"):
            value = getattr(self, field)
            if value is not None:
                extra.append(f"{field}{value}".replace(":", "-"))
        if self.weights is not None:
            extra.append(f"weights-{self.weights}")
        if self.limit is not None:
            extra.append(f"limit{self.limit}")
        if self.paper:
            extra.append("paper")
        model = self.model.strip("/").replace("/", "--")
        return "/".join((model, self.dataset, "-".join((name, *extra))))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Cell":
        """Raises `ConfigError` if it is not what `as_json` gives."""
        names = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}  # others were added later
        if not needed <= set(data) <= names:
            differing = ", ".join(sorted((needed - set(data)) | (set(data) - names)))
            raise ConfigError(f"the run was made by another version of rekv: it differs in {differing}")
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Grid:
    """What to compare. None is the model's default, or the dataset's."""

    datasets: Sequence[str]
    retrievers: Sequence[str] = ("internal",)
    retrieve_sizes: Sequence[int | None] = (None,)
    chunk_sizes: Sequence[int] = (1,)
    policies: Sequence[str | None] = (None,)
    sample_fps: float | None = None
    n_local: int | None = None
    frame_tokens: int | None = None
    retrieve_tokens: int | None = None
    recent_frames: int | None = None
    query: QueryForm | None = None
    detrend: bool | None = None
    min_gap: float | None = None
    shared_picks: bool | None = None
    encoder: str | None = None  # "none": do without
    max_new_tokens: int | None = None
    mode: Mode | None = None
    choose: Choose = "text"
    paper: bool = False
    limit: int | None = None
    weights: str | None = None

    def cells(self, model: "Model", name: str) -> list[Cell]:
        """The cells of one model, which is called `name`. Raises `ConfigError` for settings out of range."""
        self.check()
        choices = product(self.datasets, self.retrievers, self.retrieve_sizes, self.chunk_sizes, self.policies)
        return list(dict.fromkeys(self._cell(model, name, *choice) for choice in choices))

    def check(self) -> None:
        """Raise `ConfigError` for names that nobody offers. No model is needed for that."""
        for name in self.retrievers:
            if name not in BASELINES:
                retrieval.find(name)
        for policy in self.policies:
            find_policy(policy)

    def _cell(
        self,
        model: "Model",
        name: str,
        dataset: str,
        retriever: str,
        retrieve_size: int | None,
        chunk_size: int,
        policy: str | None,
    ) -> Cell:
        tokens = self.retrieve_tokens
        if retriever in BASELINES:
            policy = tokens = None  # they have no memory, and read what they are given
        if tokens is not None:
            retrieve_size = None  # it says nothing then
        if retriever == FULL:
            retrieve_size = 0  # it reads everything
        if retriever != "internal":
            chunk_size = 1
        family = model.family
        mode = self.mode or find(dataset).mode
        how = {name: getattr(self, name) for name in ("recent_frames", "query", "detrend", "min_gap", "shared_picks")}
        size = {"retrieve_size": retrieve_size, "retrieve_tokens": tokens, "chunk_size": chunk_size}
        ask = _but(family.ask_config, **size, **how)
        shape = {name: getattr(self, name) for name in ("sample_fps", "n_local", "frame_tokens")}
        encode = _but(family.encode_config, **shape, policy=policy)
        length = self.max_new_tokens or (PAPER_MAX_NEW_TOKENS[mode] if self.paper else ask.max_new_tokens)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit is {self.limit}; it must be at least 1 (videos)")
        return Cell(
            model=name,
            dataset=dataset,
            mode=mode,
            retriever=retriever,
            retrieve_size=ask.retrieve_size,
            chunk_size=ask.chunk_size,
            recent_frames=ask.recent_frames,
            query=ask.query,
            detrend=ask.detrend,
            min_gap=ask.min_gap,
            shared_picks=ask.shared_picks,
            encoder=self._encoder(retriever, family.encode_config.encoder),
            sample_fps=float(encode.sample_fps),
            n_local=encode.n_local,
            max_new_tokens=length,
            choice_tokens=PAPER_MAX_NEW_TOKENS["choices"],
            choose=self.choose,
            paper=self.paper,
            limit=self.limit,
            dtype=str(family.dtype).removeprefix("torch."),
            device=family.device.type,
            weights=self.weights,
            frame_tokens=self.frame_tokens,
            policy=policy,
            retrieve_tokens=tokens,
        )

    def _encoder(self, retriever: str, usual: str | None) -> str | None:
        """The dual encoder of a retriever that needs one. Raises `ConfigError` if none is named."""
        if retriever in BASELINES or not retrieval.needs_pictures(retriever):
            return None
        encoder = usual if self.encoder is None else None if self.encoder == "none" else self.encoder
        if encoder is None:
            raise ConfigError(
                f"the retriever {retriever!r} chooses by a dual encoder that has seen the frames: name a SigLIP or "
                f"CLIP checkpoint, --encoder google/siglip-so400m-patch14-384 (the paper's)"
            )
        return encoder


def _but(config: Any, **settings: Any) -> Any:
    """The configuration with those settings that are not None."""
    given: AskConfig | EncodeConfig = config.but(**{key: value for key, value in settings.items() if value is not None})
    return given
