"""`rekv doctor` on this machine as it is, and with parts taken away."""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from rekv.cli import main
from rekv.cli.doctor import verdict
from rekv.doctor import Finding, examine
from rekv.doctor.machine import gpus, memory, ram, system
from rekv.doctor.models import disk, model_cache
from rekv.doctor.software import has_codec, package, video
from rekv.models import ALIASES
from rekv.models.aliases import CHECKPOINTS


def doctor_without(module: str) -> tuple[int, dict[str, Any]]:
    """Run `rekv doctor --json` in a Python that cannot import a module."""
    code = f"import sys; sys.modules[{module!r}] = None; from rekv.cli import main; main(['doctor', '--json'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    report = json.loads(result.stdout)
    assert report["ok"] == (result.returncode == 0)
    return result.returncode, {finding["name"]: finding for finding in report["findings"]}


def test_here_nothing_stands_in_the_way() -> None:
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    for text in ("Python", "transformers", version("transformers"), "H.264", "Built-in model", "Model cache"):
        assert text in result.output
    assert "\x1b" not in result.output  # no colours where there is no terminal


def test_json_says_the_same_to_machines() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    report = json.loads(result.stdout)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert report["ok"] is True
    assert found["torch"]["data"]["version"] == version("torch")
    assert found["transformers"]["data"]["wanted"] == "<6,>=5.17"
    assert found["Built-in model"]["data"]["bytes"] > 1e6
    assert {finding["level"] for finding in report["findings"]} <= {"ok", "warning"}
    assert all(finding["advice"] for finding in report["findings"] if finding["level"] != "ok")


def test_a_missing_dependency_is_a_problem_and_stops_no_other_check() -> None:
    code, found = doctor_without("torch")
    assert code == 1
    for name in ("CPU", "GPU", "Built-in model"):
        assert found[name]["level"] == "problem"
        assert "torch" in found[name]["text"]
        assert found[name]["advice"]
    assert found["Video"]["level"] == "ok"
    assert found["Disk"]["level"] in ("ok", "warning")


def test_a_package_is_judged_by_its_range() -> None:
    assert package("click", ">=8.2", "problem").level == "ok"
    old = package("click", ">=99", "problem")
    assert (old.level, old.advice) == ("problem", 'pip install "click>=99"')
    assert version("click") in old.text
    missing = package("no-such-package", ">=1", "warning")
    assert (missing.level, missing.text) == ("warning", "is not installed")
    assert missing.advice == 'pip install "no-such-package>=1"'


def test_a_check_that_breaks_is_a_problem() -> None:
    def breaks() -> Iterator[Finding]:
        yield Finding("half", "ok", "seen")
        raise OSError("the disk is on fire")

    findings = examine({"Smoke": breaks, "System": system})
    assert [finding.name for finding in findings][-2:] == ["Python", "System"]
    (broken,) = [finding for finding in findings if finding.level == "problem"]
    assert broken.name == "Smoke"
    assert "the disk is on fire" in broken.text


def test_codecs() -> None:
    assert has_codec("h264", "r")
    assert has_codec("libx264", "w")
    assert not has_codec("h264", "w") or has_codec("libx264", "w")
    assert not has_codec("no_such_codec", "r")
    assert {finding.level for finding in video()} == {"ok"}


def test_memory_adds_up() -> None:
    total, free = ram()
    assert 0 < free <= total
    (finding,) = memory()
    assert finding.data["total"] == total


def test_the_model_cache_lists_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "not" / "there"))
    (empty,) = model_cache()
    assert empty.data["models"] == []
    alias, repo = next(iter(ALIASES.items()))
    snapshot = tmp_path / f"models--{repo.replace('/', '--')}" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    (finding,) = model_cache()
    assert finding.data["models"] == [alias]
    assert finding.data["bytes"] == 2
    assert "model_zoo" not in finding.text


def test_checkpoints_in_the_model_zoo_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model_zoo" / CHECKPOINTS["longva_7b"].folder).mkdir(parents=True)
    (finding,) = model_cache()
    assert finding.data["models"] == ["longva_7b"]
    assert "./model_zoo have longva_7b of" in finding.text


def test_disk_is_measured_where_models_will_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "not" / "there"))
    (finding,) = disk()
    assert isinstance(finding.data["free"], int)
    assert finding.data["free"] > 0


@pytest.mark.gpu
def test_every_gpu_runs_the_attention_kernel() -> None:
    findings = list(gpus())
    assert findings
    assert all(finding.data["kernel"] for finding in findings)


def test_the_verdict_counts() -> None:
    ok, warning, problem = (Finding("x", level, "") for level in ("ok", "warning", "problem"))
    assert verdict([ok]) == "All is well."
    assert "warnings: 2" in verdict([ok, warning, warning])
    assert "problems: 1, warnings: 1" in verdict([problem, ok, warning])
