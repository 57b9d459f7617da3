"""Did a question read what shows its answer? Overlap in time of the frames that were read with the true windows."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

Span = tuple[float, float]  # [start, end), seconds


@dataclass(frozen=True, slots=True)
class Grounding:
    """Means over layers, which read different frames."""

    recall: float  # share of the windows' time that was read
    precision: float  # share of the time read that is in the windows
    f1: float
    hit: float  # share of the windows of which anything was read


def ground(layers: Sequence[Sequence[Span]], windows: Sequence[Span]) -> Grounding | None:
    """`layers`: per layer, the time spans that its frames stand for; windows may overlap. None without windows.

    A frame stands for the time until the next one. The published harness counts whole seconds, at one frame a second;
    for frames of one second both are the same.
    """
    if not windows or not layers:
        return None
    wanted = merged(windows)
    found = [_layer(merged(read), wanted, windows) for read in layers]
    return Grounding(*(fmean(part) for part in zip(*found, strict=True)))


def _layer(read: Sequence[Span], wanted: Sequence[Span], windows: Sequence[Span]) -> tuple[float, float, float, float]:
    common = sum(_overlap(a, b) for a in read for b in wanted)
    recall = _share(common, sum(end - start for start, end in wanted))
    precision = _share(common, sum(end - start for start, end in read))
    f1 = _share(2 * precision * recall, precision + recall)
    return recall, precision, f1, fmean(any(_touch(span, window) for span in read) for window in windows)


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same time, in spans that are apart."""
    apart: list[Span] = []
    for start, end in sorted(spans):
        if apart and start <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(apart[-1][1], end))
        else:
            apart.append((start, end))
    return apart


def _overlap(a: Span, b: Span) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def _touch(read: Span, window: Span) -> bool:
    """A window may be a single moment."""
    return (read[0] < window[1] and window[0] < read[1]) or read[0] <= window[0] < read[1]


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
