"""Steps: schedule, curves, and going on after an interruption."""

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from training.muon import Muon
from training.settings import Stage
from training.team import Team

log = logging.getLogger("training")

Batch = TypeVar("Batch")
_CURVE_STEPS = 20  # that a point of a curve is the mean of
_SLOWEST = 0.03  # the last learning rate, as a share of the highest
_LONGEST_GRADIENT = 1.0
_OUTER = re.compile(r"embed|lm_head|heads|probe|in_proj")  # in_proj: three matrices in one
_AHEAD = 4  # batches that each further process draws ahead


class Task(Protocol[Batch]):
    """What a stage trains."""

    @property
    def name(self) -> str: ...

    @property
    def stage(self) -> Stage: ...

    @property
    def module(self) -> nn.Module:
        """Everything that the stage's state is."""

    def groups(self) -> list[dict[str, Any]]:
        """Return groups of weights as `weight_groups` makes them."""

    def pace(self, part: str, done: float) -> float:
        """Return the learning rate of a part of the weights as a share of the stage's, at this share of the steps."""

    def draw(self, rng: np.random.Generator, done: float) -> Batch:
        """Draw a batch of this process."""

    def loss(self, batch: Batch, rng: np.random.Generator, done: float) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss, and figures for the curves: the same names at every step."""


class Interrupted(Exception):
    """A stage was left before its end, by `stop_after`."""


class Run(Generic[Batch]):
    """One stage's training in a folder: `NAME.pt` is the last saved state, `NAME.jsonl` its curves."""

    def __init__(self, task: Task[Batch], team: Team, folder: Path, seed: int, save_seconds: float) -> None:
        self._task, self._team = task, team
        self._state, self._curve = folder / f"{task.name}.pt", folder / f"{task.name}.jsonl"
        self._save_seconds = save_seconds
        self._key = [seed, *task.name.encode()]
        groups = task.groups()
        self._optimizers = (
            Muon([group for group in groups if group["inner"]], task.stage.rate, team),
            torch.optim.AdamW(
                [group for group in groups if not group["inner"]], lr=task.stage.rate, betas=(0.9, 0.98), fused=True
            ),
        )
        self._weights = [weight for group in self._groups() for weight in group["params"]]
        self.step = 0
        self.seconds = 0.0

    def finish(self, stop_after: int | None = None) -> None:
        """Go on from the last saved state to the end, which is saved too.

        `stop_after`: leave by `Interrupted` once this many steps are done and saved.
        """
        self._load()
        steps, before = self._task.stage.steps, self.seconds
        started = saved = monotonic()
        sums: dict[str, float] = {}
        self._task.module.train()
        for batch in self._batches():
            if stop_after is not None and self.step >= stop_after:
                self._save()
                raise Interrupted(f"{self._task.name} stopped after {self.step} of {steps} steps")
            figures = self._take_step(batch)
            self.step += 1
            self.seconds = before + monotonic() - started
            sums = {name: sums.get(name, 0.0) + value for name, value in figures.items()}
            if self.step % _CURVE_STEPS == 0:
                self._note({name: value / _CURVE_STEPS for name, value in sums.items()})
                sums = {}
                if monotonic() - saved > self._save_seconds:
                    self._save()
                    saved = monotonic()
        self._save()
        self._task.module.eval()

    def _batches(self) -> Iterable[Batch]:
        """Return the batches of the steps to come, drawn ahead if there are hands for it."""
        hands = self._team.hands
        return DataLoader(
            _Draws(self._task, self._key, self._team.rank),
            batch_size=None,
            sampler=range(self.step, self._task.stage.steps),
            num_workers=hands,
            prefetch_factor=_AHEAD if hands else None,
            multiprocessing_context="fork" if hands else None,  # they draw, and never touch the GPU
            worker_init_fn=_settle,
        )

    def _groups(self) -> Iterator[dict[str, Any]]:
        """Yield the optimizers' groups as they are now: loading a state replaces them."""
        for optimizer in self._optimizers:
            yield from optimizer.param_groups

    def _take_step(self, batch: Batch) -> dict[str, float]:
        done = self.step / self._task.stage.steps
        together = np.random.default_rng([*self._key, self.step])  # what all processes must decide alike
        rate = self._task.stage.rate * schedule(done, self._task.stage.warmup)
        for group in self._groups():
            group["lr"] = rate * self._task.pace(group["part"], done)
        loss, figures = self._task.loss(batch, together, done)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        means = self._team.average(self._weights, torch.tensor(list(figures.values()), device=loss.device))
        nn.utils.clip_grad_norm_(self._weights, _LONGEST_GRADIENT)
        for optimizer in self._optimizers:
            optimizer.step()
        return dict(zip(figures, means.tolist(), strict=True))

    def _note(self, means: dict[str, float]) -> None:
        if not self._team.leads:
            return
        point = {"step": self.step, "seconds": round(self.seconds, 1)} | {k: round(v, 4) for k, v in means.items()}
        with self._curve.open("a") as file:
            file.write(json.dumps(point) + "\n")
        if self.step % (5 * _CURVE_STEPS) == 0:
            log.info("%s %s", self._task.name, " ".join(f"{name} {value}" for name, value in point.items()))

    def _save(self) -> None:
        if self._team.leads:
            state = {
                "step": self.step,
                "seconds": self.seconds,
                "module": self._task.module.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            }
            fresh = self._state.with_suffix(".new")
            torch.save(state, fresh)
            os.replace(fresh, self._state)
        self._team.wait()

    def _load(self) -> None:
        if not self._state.exists():
            self._curve.unlink(missing_ok=True)
            return
        state = torch.load(self._state, map_location=self._team.device, weights_only=True)
        self._task.module.load_state_dict(state["module"])
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.step, self.seconds = state["step"], state["seconds"]
        self._team.wait()  # nobody saves before all have read
        if self._team.leads:
            log.info("%s goes on after step %d of %d", self._task.name, self.step, self._task.stage.steps)
            self._curve.write_text("".join(_until(self._curve, self.step)))


class _Draws(Dataset[Batch], Generic[Batch]):
    """The batch of each step, drawn from a seed of its own: it is the same whether or not the run was interrupted."""

    def __init__(self, task: Task[Batch], key: Sequence[int], rank: int) -> None:
        self._task, self._key, self._rank = task, key, rank

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([*self._key, step, self._rank])
        return self._task.draw(rng, step / self._task.stage.steps)


def _settle(_: int) -> None:
    """One thread is enough for a process that draws."""
    torch.set_num_threads(1)


def schedule(done: float, warmup: float) -> float:
    """Return the learning rate as a share of the highest: up in a line, down in a cosine."""
    return min(1.0, (done + 1e-3) / warmup) * (_SLOWEST + (1 - _SLOWEST) * 0.5 * (1 + math.cos(math.pi * done)))


def weight_groups(module: nn.Module, decay: float, part: str = "") -> list[dict[str, Any]]:
    """Return a module's weights in groups, named `part`: matrices between layers, other matrices, vectors.

    The first are for Muon. Embeddings and what follows the last layer are not: their rows are things apart.
    """
    outer = {id(weight) for name, weight in module.named_parameters() if _OUTER.search(name) or weight.dim() != 2}
    weights = list(module.parameters())
    inner = [weight for weight in weights if id(weight) not in outer]
    edge = [weight for weight in weights if id(weight) in outer and weight.dim() >= 2]
    vectors = [weight for weight in weights if weight.dim() < 2]
    return [
        {"params": inner, "weight_decay": decay, "inner": True, "part": part},
        {"params": edge, "weight_decay": decay, "inner": False, "part": part},
        {"params": vectors, "weight_decay": 0.0, "inner": False, "part": part},
    ]


def curve(path: Path) -> list[dict[str, float]]:
    """Read a stage's curve: points of step, seconds and the stage's figures."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def _until(curve: Path, step: int) -> list[str]:
    lines = curve.read_text().splitlines(keepends=True) if curve.exists() else []
    return [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
