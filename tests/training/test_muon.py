"""Muon: what its steps are, and that it goes downhill."""

import pytest
import torch
from torch import nn

from training.loop import weight_groups
from training.muon import Muon, orthogonal
from training.team import Team


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_singular_values_become_about_one_and_directions_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    found = orthogonal(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    for matrix, u, v in zip(found, left, right, strict=True):
        values = u.T @ matrix @ v.T  # diagonal, if the directions are those of the matrix
        assert values.diagonal().min() > 0.6
        assert values.diagonal().max() < 1.3
        assert (values - values.diagonal().diag()).abs().max() < 1e-3


def test_equal_shapes_taken_together_move_as_they_do_alone() -> None:
    torch.manual_seed(0)
    start = [torch.randn(6, 10), torch.randn(6, 10), torch.randn(10, 6)]
    gradients = [torch.randn_like(weight) for weight in start]

    def moved(which: list[int]) -> list[torch.Tensor]:
        weights = [nn.Parameter(start[i].clone()) for i in which]
        optimizer = Muon([{"params": weights, "weight_decay": 0.1}], lr=0.02)
        for _ in range(2):
            for weight, i in zip(weights, which, strict=True):
                weight.grad = gradients[i].clone()
            optimizer.step()
        return [weight.detach() for weight in weights]

    together = moved([0, 1, 2])
    for i, weight in enumerate(together):
        torch.testing.assert_close(weight, moved([i])[0])


def test_processes_that_share_the_work_take_the_steps_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each leaves the others' matrices at zero; the sum is what one process makes."""
    torch.manual_seed(0)
    start = [torch.randn(6, 10), torch.randn(6, 10), torch.randn(10, 6), torch.randn(4, 4), torch.randn(6, 10)]
    gradients = [torch.randn_like(weight) for weight in start]
    shares: list[torch.Tensor] = []

    def moved(team: Team) -> list[torch.Tensor]:
        weights = [nn.Parameter(weight.clone()) for weight in start]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.clone()
        Muon([{"params": weights, "weight_decay": 0.0}], 0.02, team).step()
        return [weight.detach() - before for weight, before in zip(weights, start, strict=True)]

    whole = moved(Team())
    monkeypatch.setattr(Team, "add_up", lambda team, numbers: shares.append(numbers.clone()))
    parts = [moved(Team(rank, 3)) for rank in range(3)]
    assert all(float(share.abs().sum()) > 0 for share in shares)
    for one, *others in zip(whole, *parts, strict=True):
        assert sum(float(other.abs().sum()) > 0 for other in others) == 1
        torch.testing.assert_close(sum(others), one)


def test_it_learns_a_product() -> None:
    torch.manual_seed(0)
    wanted, x = torch.randn(12, 20) / 20**0.5, torch.randn(256, 20)
    weight = nn.Parameter(torch.zeros(12, 20))
    optimizer = Muon([{"params": [weight], "weight_decay": 0.0}], lr=0.1)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimizer.zero_grad()
        loss = (x @ (weight - wanted).T).pow(2).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) < 0.01


def test_matrices_between_layers_are_told_from_the_rest() -> None:
    module = nn.ModuleDict({"embed_tokens": nn.Embedding(5, 4), "proj": nn.Linear(4, 4), "lm_head": nn.Linear(4, 5)})
    inner, edge, vectors = weight_groups(module, 0.1, "part")
    assert [inner["inner"], edge["inner"], vectors["inner"]] == [True, False, False]
    assert inner["params"] == [module["proj"].weight]
    assert {id(weight) for weight in edge["params"]} == {id(module[n].weight) for n in ("embed_tokens", "lm_head")}
    assert vectors["weight_decay"] == 0.0
