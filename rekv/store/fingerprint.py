"""Which model made a session: enough to refuse another one, cheap enough to be taken of 72 billion parameters."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rekv.errors import SessionError

if TYPE_CHECKING:  # torch and what uses it take seconds to be imported, and are not needed to read a fingerprint
    from torch import Tensor

    from rekv.attention.rotary import Rotary
    from rekv.models.base import VideoLM

_SAMPLES = 64  # bytes' worth of elements per tensor
_PROBES = 4  # of them kept as numbers, to recognise the model in another dtype
_TOLERANCE = 2.0**-6  # relative; bfloat16 rounds to 2^-9


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A model as it is loaded. Two are the same model if their digests are equal."""

    name: str
    architecture: str
    dtype: str
    digest: str  # of names, shapes, dtypes and sampled values of all tensors, and of the rotary angles
    probe: tuple[float, ...]  # sampled values, which survive a change of dtype

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Fingerprint":
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "probe": tuple(values["probe"])})

    def require_same(self, other: "Fingerprint", where: str) -> None:
        """Raise unless `other` is this very model, so that it may append."""
        if self.digest != other.digest:
            raise SessionError(
                f"{where} was made by {self}, and this is {other}: appending needs the same model in the same dtype; "
                f"load that one, or start another session"
            )

    def require_alike(self, other: "Fingerprint", where: str) -> None:
        """Raise unless `other` is this model, perhaps in another dtype, so that it may read."""
        if self.digest == other.digest:
            return
        near = len(self.probe) == len(other.probe) and all(
            abs(a - b) <= _TOLERANCE * max(abs(a), abs(b)) + 1e-6 for a, b in zip(self.probe, other.probe, strict=True)
        )
        if not near or self.architecture != other.architecture:
            raise SessionError(f"{where} was made by {self}, and this is {other}: only that model can read its memory")

    def __str__(self) -> str:
        return f"{self.name} ({self.architecture}, {self.dtype}, {self.digest[:8]})"


def fingerprint(family: "VideoLM", rotary: "Rotary") -> Fingerprint:
    """Take a model's fingerprint: a few values of every tensor are read, not all."""
    import torch

    digest = hashlib.sha256()
    probe: list[float] = []
    for name, tensor in sorted(family.hf.named_parameters()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.device.type == "meta" or not tensor.numel():  # weights that are elsewhere, until they are needed
            continue
        sample = _sample(getattr(tensor, "qdata", tensor).detach())  # packed by torchao: the packed values
        digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
        if sample.is_floating_point():
            probe += sample[:: max(1, len(sample) // _PROBES)][:_PROBES].double().tolist()
    angles = rotary.angles(1000, 1001, torch.device("cpu"))
    digest.update(angles.cos.numpy().tobytes())
    return Fingerprint(
        family.name,
        type(family.hf).__name__,
        str(family.dtype).removeprefix("torch."),
        digest.hexdigest(),
        tuple(probe),
    )


def _sample(tensor: "Tensor") -> "Tensor":
    flat = tensor.reshape(-1) if tensor.is_contiguous() else tensor.contiguous().view(-1)
    step = max(1, flat.numel() // _SAMPLES)
    return flat[::step][:_SAMPLES].cpu()
