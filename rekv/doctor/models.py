"""The models: the built-in one, and those of the Hub that lie in its cache."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from rekv.doctor.finding import GIB, Finding, gib
from rekv.errors import RekvError


def builtin_model() -> Iterator[Finding]:
    """Load it for real: the shortest proof that the parts fit together."""
    import rekv
    from rekv.models.builtin import FOLDER

    try:
        content = (FOLDER / "model.safetensors").read_bytes()
        rekv.load()
    except (OSError, RekvError) as error:
        yield Finding("Built-in model", "problem", f"does not load: {error}", "reinstall rekv")
        return
    digest = hashlib.sha256(content).hexdigest()
    text = f"loads; {len(content) / 1e6:.1f} MB, sha256 {digest[:12]}"
    yield Finding("Built-in model", "ok", text, data={"bytes": len(content), "sha256": digest})


def model_cache() -> Iterator[Finding]:
    """Which of the models that have a short name lie in the Hub's cache."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    from rekv.models.aliases import ALIASES
    from rekv.models.finding import in_zoo

    size, cached = 0, set()
    try:
        cache = scan_cache_dir(constants.HF_HUB_CACHE)
        size, cached = cache.size_on_disk, {repo.repo_id for repo in cache.repos}
    except CacheNotFound:
        pass
    zoo = {alias for alias in ALIASES if in_zoo(alias)}
    here = [alias for alias, repo in ALIASES.items() if repo in cached or alias in zoo]
    places = f"{constants.HF_HUB_CACHE} ({gib(size)}){' and ./model_zoo have' if zoo else ' has'}"
    text = f"{places} {', '.join(here) or 'none'} of {', '.join(ALIASES)}"
    if constants.HF_HUB_OFFLINE:
        text += "; HF_HUB_OFFLINE is set, so nothing is downloaded"
    data = {
        "folder": constants.HF_HUB_CACHE,
        "bytes": size,
        "models": here,
        "offline": constants.HF_HUB_OFFLINE,
    }
    yield Finding("Model cache", "ok", text, data=data)


def disk() -> Iterator[Finding]:
    """Room for models."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE).absolute()
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    text, data = f"{gib(free)} free for models", {"free": free}
    if free < 20 * GIB:
        advice = "a 7B model takes 16 GB: make room, or let HF_HOME name a folder on a larger disk"
        yield Finding("Disk", "warning", text, advice, data)
    else:
        yield Finding("Disk", "ok", text, data=data)
