"""Loading the model that was asked for."""

import os
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rekv.engine import Model


def load_model(
    console: Console,
    name: str | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    weights: str | None = None,
) -> "Model":
    """Load a model by name, or the built-in one, and say so first: importing PyTorch alone takes seconds."""
    console.print(f"Loading {name or 'the built-in model'} ...", style="dim")

    import torch

    if (threads := threads_for(name)) is not None:
        torch.set_num_threads(threads)
    return load_here(name, device=device, dtype=dtype, weights=weights)


def load_here(
    name: str | None = None, *, device: str | None = None, dtype: str | None = None, weights: str | None = None
) -> "Model":
    """Load a model without a word, with the threads that there are: what workers do."""
    from rekv import load

    return load(name, device=device, dtype=dtype, weights=weights)


def threads_for(name: str | None) -> int | None:
    """How many threads a model should have on a CPU; None: as many as there are cores."""
    from rekv.models.aliases import BUILTIN

    wish = os.environ.get("OMP_NUM_THREADS")
    if wish is not None:
        return int(wish) if wish.isdigit() and int(wish) else None
    # The built-in model's matrices are too small to share: on a busy machine threads would only wait for each other.
    return 1 if name in (None, BUILTIN) else None
