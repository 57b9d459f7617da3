"""What a run was made with: versions, git revision, hardware."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import rekv

_PACKAGES = ("torch", "transformers", "numpy", "av")


def environment() -> dict[str, Any]:
    """Everything besides the settings that figures may depend on."""
    return {
        "rekv": rekv.__version__,
        "git": _revision(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{_processor()}, {len(os.sched_getaffinity(0)) if sys.platform == 'linux' else os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Of the source that runs, if it is a git checkout: the commit, and whether files differ from it."""
    folder = Path(rekv.__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit} (changed)" if _git(folder, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
