"""The Video-LLMs: `load` one by name, `register` a family of your own."""

from rekv.models.base import VideoLM
from rekv.models.loading import load
from rekv.models.pixels import Preprocessor
from rekv.models.registry import ALIASES, register

__all__ = ["ALIASES", "Preprocessor", "VideoLM", "load", "register"]
