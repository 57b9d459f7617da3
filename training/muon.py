"""Muon: steps along orthogonalised momentum, for the matrices inside a network (Jordan 2024; arXiv 2502.16982).

torch's own multiplies in bfloat16 always, which takes ten times as long on a CPU without instructions for it, and one
matrix after another, which leaves a GPU idle; this one takes all matrices of a shape at once, in the dtype it is told.
"""

from collections.abc import Sequence
from typing import Any

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration: singular values end between 0.7 and 1.2
_ITERATIONS = 5
_MOMENTUM = 0.95
_SIZE = 0.2  # root mean square of a step at learning rate 1: what AdamW's steps have, so one rate serves both


class Muon(torch.optim.Optimizer):
    """Takes groups of matrices with `lr` and `weight_decay`, as AdamW does."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float, dtype: torch.dtype = torch.float32) -> None:
        self._dtype = dtype
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    by_shape.setdefault(weight.shape, []).append(weight)
            for shape, weights in by_shape.items():
                steps = orthogonal(torch.stack([self._lean(weight) for weight in weights]).to(self._dtype))
                size = _SIZE * max(shape) ** 0.5 * group["lr"]
                for weight, step in zip(weights, steps, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=size)

    def _lean(self, weight: torch.nn.Parameter) -> torch.Tensor:
        """Return the gradient mixed with its momentum (Nesterov's), which is brought up to date."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum: torch.Tensor = state["momentum"].lerp_(weight.grad, 1 - _MOMENTUM)
        return weight.grad.lerp(momentum, _MOMENTUM)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return the nearest matrices (b, m, n) whose singular values are all about 1."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    found: torch.Tensor = x.mT if tall else x
    return found
