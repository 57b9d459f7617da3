"""What a session is: the model that made it, how its stream was encoded, what it stores per frame."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from rekv.core import EncodeConfig, Kv
from rekv.errors import SessionError, StoreError
from rekv.store.catalog import Catalog
from rekv.store.fingerprint import Fingerprint

if TYPE_CHECKING:
    import torch

ITEMSIZES = {"float16": 2, "bfloat16": 2, "float32": 4}  # torch knows them, but takes seconds to import
CODECS = tuple(name for name in get_args(Kv) if name != "auto")  # that a session may be made with


@dataclass(frozen=True, slots=True)
class SessionMeta:
    """Written once, when the session is made: in its catalog, its sink and every segment."""

    model: Fingerprint
    encode: EncodeConfig
    init_ids: tuple[int, ...]  # tokens of the init prompt
    tokens_per_frame: int
    layers: tuple[tuple[int, int], ...]  # kv_heads and head_dim of each
    dtype: str  # in which blocks are computed
    codec: str  # of sealed segments; open ones are raw
    created: float  # seconds since the epoch
    grid: tuple[int, int] | None = (
        None  # rows and columns of tokens in a frame, where the model's are not always the same
    )

    @property
    def torch_dtype(self) -> "torch.dtype":
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def bytes_per_frame(self) -> int:
        """Bytes of one frame's blocks as computed, all layers."""
        tokens = self.tokens_per_frame * ITEMSIZES[self.dtype]
        return sum(2 * kv_heads * tokens * dim for kv_heads, dim in self.layers)

    @property
    def mask_bytes(self) -> int:
        """Bytes that say which tokens of a block are kept; 0 without a memory policy, which keeps all."""
        return 0 if self.encode.policy is None else 4 * -(-self.tokens_per_frame // 32)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, catalog: Catalog) -> "SessionMeta":
        """What a session's catalog says. Raises `StoreError` if it does not, or is damaged."""
        text = catalog.get("session")
        if text is None:
            raise StoreError(f"{catalog.path.parent} was never finished being made; remove it")
        return cls.loads(text)

    @classmethod
    def loads(cls, text: str) -> "SessionMeta":
        """Raises `StoreError` if this is not what `dumps` wrote."""
        try:
            values: dict[str, Any] = json.loads(text)
            values["model"] = Fingerprint.loads(json.dumps(values["model"]))
            values["encode"] = EncodeConfig(**values["encode"])
            values["init_ids"] = tuple(values["init_ids"])
            values["grid"] = tuple(values["grid"]) if values.get("grid") else None
            values["layers"] = tuple((heads, dim) for heads, dim in values["layers"])
            meta = cls(**values)
            if meta.bytes_per_frame < 1 or meta.codec not in CODECS:
                raise ValueError("sizes or codec")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"what says which model and settings made the session is damaged ({error}); "
                f"`rekv verify --repair` takes it from the segments"
            ) from error
        return meta

    def require_same_encoding(
        self, other: EncodeConfig, init_ids: Sequence[int], where: str, grid: tuple[int, int] | None
    ) -> None:
        """Raise unless frames encoded with `other`, on this `grid`, continue this session."""
        ours, theirs = (_shown(config) for config in (self.encode, other))
        wrong = [f"{name} {ours[name]} (now {theirs[name]})" for name in ours if ours[name] != theirs[name]]
        if not wrong and tuple(init_ids) != self.init_ids:
            wrong = ["another init prompt"]
        if not wrong and grid != self.grid:
            wrong = ["frames of another shape"]
        if wrong:
            raise SessionError(
                f"{where} was encoded with {', '.join(wrong)}: appending needs the same settings; leave them out, "
                f"or start another session"
            )


def _shown(config: EncodeConfig) -> Mapping[str, object]:
    """The settings that shape a memory; the init prompt counts by its tokens."""
    return {name: value for name, value in asdict(config).items() if name not in ("frames_per_call", "init_prompt")}
