"""What the work took: seconds, frames, memory."""

import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(slots=True)
class Costs:
    """Of one video in one run. Where runs share an encoding, each is told all of it."""

    frames: int = 0  # encoded
    encode_seconds: float = 0.0  # of that, without waiting for the source
    read_seconds: float = 0.0  # waiting for the source: decoding the video
    bytes_per_frame: int = 0  # keys and values of all layers that memory keeps, on average
    first_token_seconds: tuple[float, ...] = ()  # per question: from asking to the first token
    answer_seconds: tuple[float, ...] = ()  # per question: from asking to the last token
    peak_ram: int = 0  # bytes, of the process so far
    peak_gpu: int | None = None  # bytes, during this video; None without a GPU

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Costs":
        lists = {key: tuple(value) for key, value in data.items() if isinstance(value, list)}
        costs = cls()
        for key, value in {**data, **lists}.items():
            setattr(costs, key, value)
        return costs


def reset_peaks() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_ram() -> int:
    """Bytes that the process has had in RAM at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu() -> int | None:
    """Bytes that tensors took on all GPUs at most, since `reset_peaks`."""
    if not torch.cuda.is_available():
        return None
    return sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
