"""What a check comes back with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "warning", "problem"]

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    level: Level  # warning: something works less well; problem: rekv cannot work
    text: str  # what was found
    advice: str = ""  # what to do about it; empty if nothing
    data: Mapping[str, object] = field(default_factory=dict)  # the same for machines; sizes in bytes


def gib(size: float) -> str:
    """A size in bytes, for people."""
    return f"{size / GIB:.1f} GiB"
