"""Muon: steps along orthogonalised momentum, for the matrices inside a network (Jordan 2024; arXiv 2502.16982).

torch's own multiplies in bfloat16 always, which takes ten times as long on a CPU without instructions for it, and one
matrix after another, which leaves a GPU idle; this one takes all matrices of a shape at once, in the dtype it is told.
"""

from collections.abc import Sequence
from typing import Any

import torch

from training.team import Team

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration: singular values end between 0.7 and 1.2
_ITERATIONS = 5
_MOMENTUM = 0.95
_SIZE = 0.2  # root mean square of a step at learning rate 1: what AdamW's steps have, so one rate serves both


class Muon(torch.optim.Optimizer):
    """Takes groups of matrices with `lr` and `weight_decay`, as AdamW does. Each process of the team does its share."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float, team: Team | None = None) -> None:
        self._team = team or Team()
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        moved = [
            (weight, group) for group in self.param_groups for weight in group["params"] if weight.grad is not None
        ]
        steps = self._orthogonal([self._lean(weight) for weight, _ in moved])
        for (weight, group), step in zip(moved, steps, strict=True):
            size = _SIZE * max(weight.shape) ** 0.5 * group["lr"]
            weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=size)

    def _orthogonal(self, matrices: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        if not matrices:
            return ()
        sizes = [matrix.numel() for matrix in matrices]
        whole = matrices[0].new_zeros(sum(sizes))
        found = [part.view_as(matrix) for part, matrix in zip(torch.split(whole, sizes), matrices, strict=True)]
        by_shape: dict[torch.Size, list[int]] = {}
        for i, matrix in enumerate(matrices):
            by_shape.setdefault(matrix.shape, []).append(i)
        for alike in by_shape.values():
            mine = alike[self._team.rank :: self._team.size]
            if mine:
                together = torch.stack([matrices[i] for i in mine]).to(self._team.fast_dtype)
                for i, matrix in zip(mine, orthogonal(together), strict=True):
                    found[i].copy_(matrix)
        self._team.add_up(whole)
        return found

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
