"""Training itself: it can be interrupted, processes agree, it learns, and what it writes loads anywhere."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration, SiglipModel

from training import __main__ as training
from training.export import recorded
from training.language import Language
from training.loop import Interrupted, Run, schedule
from training.models import video_llm
from training.scores import load
from training.settings import Course, Settings, Stage
from training.team import Team
from training.vision import Vision
from training.words import tokenizer

SMALL = replace(
    Settings(),
    width=64,
    inner=96,
    layers=2,
    heads=2,
    vision_width=32,
    vision_inner=64,
    vision_layers=1,
    dual_width=32,
    dual_inner=64,
    dual_layers=1,
    vision=Stage(steps=6, rate=2e-3),
    vision_pictures=16,
    language_pictures=8,
    language=Stage(steps=6, rate=1e-3),
    courses=(Course(0.0, 1.0, 4, 4, 4, (2, 4), 0.3), Course(0.5, 1.0, 2, 8, 4, (4,), 1.0, own_choice=1.0)),
    dual=Stage(steps=6, rate=1e-3),
    dual_pairs=16,
)


def language(settings: Settings = SMALL) -> Language:
    words = tokenizer()
    return Language(video_llm(settings, words), words, settings, Team())


def weights(task: Any) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in task.module.parameters()]


@pytest.mark.parametrize("stage", ["vision", "language"])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path: Path, stage: str) -> None:
    def task() -> Any:
        return language() if stage == "language" else Vision(video_llm(SMALL, tokenizer()), SMALL, Team())

    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    straight = task()
    Run(straight, Team(), whole, 0, 60.0).finish()
    with pytest.raises(Interrupted):
        Run(task(), Team(), parted, 0, 60.0).finish(stop_after=3)
    resumed = task()
    Run(resumed, Team(), parted, 0, 60.0).finish()
    for one, other in zip(weights(straight), weights(resumed), strict=True):
        assert torch.equal(one, other)


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    task = language()
    Run(task, Team(), tmp_path, 0, 60.0).finish()
    before = weights(task)
    again = Run(language(), Team(), tmp_path, 0, 60.0)
    again.finish()
    assert again.step == SMALL.language.steps
    assert all(torch.equal(one, other) for one, other in zip(before, weights(task), strict=True))


def test_without_contrast_the_retrieval_is_not_trained(tmp_path: Path) -> None:
    """Its scale is all that only the retrieval loss trains."""
    trained, untrained = language(), language(replace(SMALL, contrast=0.0))
    for name, task in (("with", trained), ("without", untrained)):
        (tmp_path / name).mkdir()
        Run(task, Team(), tmp_path / name, 0, 60.0).finish()
    start = language().module["scale"].log
    assert torch.equal(untrained.module["scale"].log, start)
    assert not torch.equal(trained.module["scale"].log, start)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [schedule(done / 100, 0.05) for done in range(101)]
    top = rates.index(max(rates))
    assert rates[0] < 0.1
    assert 3 <= top <= 6
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 0.05


def test_two_processes_make_both_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Settings", lambda **_: SMALL)
    training.main(["--out", str(tmp_path), "--processes", "2", "--no-scores"])
    for name, stage in (("vision", SMALL.vision), ("language", SMALL.language), ("dual", SMALL.dual)):
        assert torch.load(tmp_path / f"{name}.pt", weights_only=True)["step"] == stage.steps
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "tiny")
    assert model.dtype == torch.bfloat16
    SiglipModel.from_pretrained(tmp_path / "tiny_dual")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "tiny")) == model.config.text_config.vocab_size
    made = json.loads((tmp_path / "tiny" / "training.json").read_text())
    assert made["settings"]["width"] == SMALL.width


def test_a_checkpoint_is_taught_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second stage alone, from its weights; what made it is kept with what made the new one."""
    monkeypatch.setattr(training, "Settings", lambda **_: SMALL)
    training.main(["--out", str(tmp_path / "one"), "--processes", "1", "--no-scores"])
    start = str(tmp_path / "one" / "tiny")
    words = ["--out", str(tmp_path / "two"), "--processes", "1", "--no-scores", "--start", start, "--steps", "2"]
    training.main([*words, "--rate", "1e-6"])
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"language.pt", "tiny"}
    before, after = (load(tmp_path / name / "tiny").state_dict() for name in ("one", "two"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=2e-3, rtol=2e-2)
    made, first = (json.loads((tmp_path / name / "tiny" / "training.json").read_text()) for name in ("two", "one"))
    assert made["start"] == first
    assert made["settings"]["start"] == start
    assert {course["stop"] for course in made["settings"]["courses"]} == {1.0}


def test_a_killed_command_leaves_nobody_at_work(tmp_path: Path) -> None:
    """They would go on, and write into a folder that the next run takes up."""
    words = [sys.executable, "-m", "training", "--quick", "--out", str(tmp_path), "--no-scores"]
    command = psutil.Popen(words, stderr=subprocess.DEVNULL)
    until = monotonic() + 120
    while len(workers := [c for c in command.children() if "spawn_main" in " ".join(c.cmdline())]) < 2:
        assert command.poll() is None
        assert monotonic() < until
        sleep(0.1)
    command.kill()
    command.wait()
    gone, alive = psutil.wait_procs(workers, 60)
    assert len(gone) == 2
    assert not alive


def test_a_start_that_does_not_say_what_made_it_is_a_start_too(tmp_path: Path) -> None:
    assert recorded(tmp_path) == {}
    (tmp_path / "training.json").write_text('{"revision": "abc"}')
    assert recorded(tmp_path) == {"revision": "abc"}


@pytest.mark.slow
def test_the_quick_setting_learns(tmp_path: Path) -> None:
    """Some minutes: colours and kinds are seen, words are learned, frames are found better than by chance."""
    training.main(["--out", str(tmp_path), "--quick", "--no-scores"])

    def last(name: str) -> dict[str, float]:
        return json.loads((tmp_path / f"{name}.jsonl").read_text().splitlines()[-1])

    def first(name: str) -> dict[str, float]:
        return json.loads((tmp_path / f"{name}.jsonl").read_text().splitlines()[0])

    assert last("vision")["color"] > 0.5
    assert last("vision")["clock"] > 0.5
    assert last("language")["answer"] < 0.6 * first("language")["answer"]
    assert last("language")["first"] > 0.3  # a frame drawn by lot is a right one for less than a tenth
    assert last("dual")["loss"] < 0.95 * first("dual")["loss"]
