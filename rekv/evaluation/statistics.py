"""Means of questions that come in videos: intervals clustered by video, and two runs compared question by question.

Questions about one video share its encoding and its difficulty, so a video counts for less than as many questions of
as many videos.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi, sqrt, tan
from statistics import fmean

import numpy as np

_Z = 1.959964  # 95 %, two-sided
_FLIPS = 10_000
_SEED = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int  # questions
    clusters: int  # videos


@dataclass(frozen=True, slots=True)
class Comparison:
    """Run B minus run A, over the questions of both."""

    difference: Estimate
    p: float  # of a difference at least as large, if for each video it were a toss-up which run is which
    better: int  # questions that B got better
    worse: int


Values = Sequence[tuple[str, float]]  # (video, value)


def share(values: Values) -> Estimate:
    """The mean of values in 0..1: Wilson's interval, with as many questions as the clusters leave independent.

    If all videos are alike, their spread says nothing, and each counts as one question.
    """
    n, clusters = len(values), len({video for video, _ in values})
    mean = fmean(value for _, value in values)
    spread = _standard_error(values) if clusters > 1 else None
    independent, z = float(clusters), _Z
    if spread:
        independent, z = min(float(n), max(mean * (1 - mean) / spread**2, 1.0)), t_quantile(clusters - 1)
    weight = z * z / independent
    centre = (mean + weight / 2) / (1 + weight)
    reach = z * sqrt(mean * (1 - mean) / independent + weight / (4 * independent)) / (1 + weight)
    return Estimate(mean, min(mean, max(0.0, centre - reach)), max(mean, min(1.0, centre + reach)), n, clusters)


def average(values: Values) -> Estimate:
    """The mean of values of any size, with a t interval; as wide as can be where there is only one video."""
    n, clusters = len(values), len({video for video, _ in values})
    mean = fmean(value for _, value in values)
    reach = t_quantile(clusters - 1) * _standard_error(values) if clusters > 1 else float("inf")
    return Estimate(mean, mean - reach, mean + reach, n, clusters)


def compare(
    a: Mapping[tuple[int, int], tuple[str, float]], b: Mapping[tuple[int, int], tuple[str, float]]
) -> Comparison | None:
    """Two runs on the same data, by question: (video, value). None if they have no question in common."""
    common = [key for key in a if key in b]
    if not common:
        return None
    differences = [(a[key][0], b[key][1] - a[key][1]) for key in common]
    better = sum(difference > 0 for _, difference in differences)
    worse = sum(difference < 0 for _, difference in differences)
    return Comparison(average(differences), _sign_flip(differences), better, worse)


def _standard_error(values: Values) -> float:
    """Of the mean, clustered: the sum over videos of squared sums of residuals, with the small-sample factor."""
    mean = fmean(value for _, value in values)
    sums: dict[str, float] = defaultdict(float)
    for video, value in values:
        sums[video] += value - mean
    clusters = len(sums)
    return sqrt(clusters / (clusters - 1) * sum(one * one for one in sums.values())) / len(values)


def _sign_flip(differences: Values) -> float:
    """Permutation test with whole videos exchanged between the runs: exact for few videos, else drawn."""
    sums: dict[str, float] = defaultdict(float)
    for video, difference in differences:
        sums[video] += difference
    effects = np.array([one for one in sums.values() if one])
    if not len(effects):
        return 1.0
    if 2 ** len(effects) <= _FLIPS:
        signs = (np.arange(2 ** len(effects))[:, None] >> np.arange(len(effects))) & 1
    else:
        signs = np.random.default_rng(_SEED).integers(0, 2, (_FLIPS, len(effects)))
    totals = np.abs((2 * signs - 1) @ effects)
    extreme = int((totals >= abs(effects.sum()) - 1e-9).sum())
    return extreme / len(totals) if 2 ** len(effects) <= _FLIPS else (extreme + 1) / (len(totals) + 1)


def t_quantile(df: int) -> float:
    """Student's t at 97.5 %: for 1 and 2 degrees of freedom as it is, else by Cornish and Fisher, within 0.2 %."""
    if df == 1:
        return tan(pi * 0.475)
    if df == 2:
        return 4.302653
    z = _Z
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(df**power) for power, term in enumerate(terms, 1))
