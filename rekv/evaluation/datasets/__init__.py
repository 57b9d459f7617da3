"""Benchmarks by name: one small file each, behind one protocol."""

from rekv.evaluation.datasets.base import Dataset, Mode
from rekv.evaluation.datasets.registry import find, names, register

__all__ = ["Dataset", "Mode", "find", "names", "register"]
