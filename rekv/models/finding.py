"""From a name to where its checkpoint is: `./model_zoo`, a local folder, the Hub's cache, the Hub."""

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from rekv.errors import ModelError
from rekv.models.aliases import ALIASES, BUILTIN, CHECKPOINTS

ZOO = Path("model_zoo")  # in the working directory, where the published code's README puts checkpoints


@dataclass(frozen=True, slots=True)
class Place:
    """Where a checkpoint is."""

    source: str  # what transformers takes: a folder that exists, or a name on the Hub
    repo: str  # its name on the Hub; a folder's path if it has none


def find(name: str | Path) -> Place:
    """Turn a name into a place. Raises `ModelError` for one that leads nowhere."""
    if isinstance(name, str) and name in CHECKPOINTS:
        repo = ALIASES[name]
        return Place(str(in_zoo(name) or cached(repo) or repo), repo)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return Place(_checked(path), str(path))
    if name and path.exists():
        raise ModelError(f"{path} is a file; name the folder that holds the checkpoint's config.json and weights")
    if isinstance(name, Path) or name.startswith((".", "/", "~")):
        raise ModelError(f"there is no folder {name}{_near_folder(path)}. {names()}")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        near = get_close_matches(name, [*ALIASES, BUILTIN], n=1)
        meant = f"; did you mean {near[0]}?" if near else "."
        raise ModelError(f"there is no model {name!r}{meant} {names()}")
    return Place(name, name)


def in_zoo(alias: str) -> Path | None:
    """Where a checkpoint lies in `./model_zoo`."""
    folder = ZOO / CHECKPOINTS[alias].folder
    return folder if folder.is_dir() else None


def cached(repo: str) -> Path | None:
    """The newest snapshot of a repository in the Hub's cache, if it is whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        return None
    return folder if is_whole(folder) else None


def is_whole(folder: Path) -> bool:
    """Whether a folder has a config and all of its weights: one file, or every one that the index names."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    try:
        files = set(json.loads(index.read_bytes())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    except (ValueError, LookupError, TypeError, AttributeError):
        return False
    return all((folder / file).is_file() for file in files)


def names() -> str:
    """How models are named, for messages."""
    return (
        f"A model is named by one of {', '.join(ALIASES)}, a local folder, or a name on the Hugging Face Hub "
        f"(owner/model, such as Qwen/Qwen2.5-VL-7B-Instruct); no name at all is the built-in model"
    )


def _checked(path: Path) -> str:
    if not (path / "config.json").is_file():
        inside = sorted(str(file.parent) for file in path.glob("*/config.json"))
        hint = f" It holds folders that do: {', '.join(inside[:3])}." if inside else ""
        raise ModelError(f"{path} has no config.json that describes a model.{hint} {names()}")
    return str(path)


def _near_folder(path: Path) -> str:
    """A folder beside the missing one that may be meant."""
    try:
        beside = [one.name for one in path.parent.iterdir() if (one / "config.json").is_file()]
    except OSError:
        return ""
    near = get_close_matches(path.name, beside, n=1)
    return f"; {path.parent / near[0]} is there" if near else ""
