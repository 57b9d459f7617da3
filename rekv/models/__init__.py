"""The Video-LLMs: `load` one by name, `register` a family of your own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rekv.models.aliases import ALIASES
    from rekv.models.base import VideoLM
    from rekv.models.loading import load
    from rekv.models.pixels import Preprocessor
    from rekv.models.registry import register

__all__ = ["ALIASES", "Preprocessor", "VideoLM", "load", "register"]

_HOME = {
    "ALIASES": "aliases",
    "Preprocessor": "pixels",
    "VideoLM": "base",
    "load": "loading",
    "register": "registry",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `rekv models` does without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"rekv.models.{_HOME[name]}"), name)
