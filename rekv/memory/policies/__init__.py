"""What is kept of a frame for questions. A new idea is one small file with a `Policy` in it."""

from rekv.memory.policies.base import Policy
from rekv.memory.policies.redundancy import Redundancy
from rekv.memory.policies.registry import find, names, register
from rekv.memory.policies.value_norm import ValueNorm

__all__ = ["Policy", "Redundancy", "ValueNorm", "find", "names", "register"]
