"""Loading the model that was asked for."""

import logging
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
    # torchao, where it is installed, tells at every start which of its kernels this machine does not have.
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    console.print(f"Loading {name or 'the built-in model'} ...", style="dim")

    import torch

    from rekv import load
    from rekv.models.aliases import BUILTIN

    if name in (None, BUILTIN) and "OMP_NUM_THREADS" not in os.environ:
        # Its matrices are too small to share; on a busy machine threads would only wait for each other.
        torch.set_num_threads(1)
    return load(name, device=device, dtype=dtype, weights=weights)
