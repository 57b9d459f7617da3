"""Ask questions of live and recorded video, and get an answer at once, with the moments that prove it.

    import rekv

    model = rekv.load()                       # built in; or "llava_ov_7b", a Hub name, a local folder
    session = model.session()
    session.append(rekv.video("lobby.mp4", sample_fps=0.5))
    answer = session.ask("Where did the red bag go?")

Method: ReKV (ICLR 2025, arXiv 2503.00540).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rekv.core import Answer, AskConfig, EncodeConfig, Frame, Retrieval, Span, StorageConfig, Timings, Turn
    from rekv.engine import Model, Session, load
    from rekv.errors import (
        ConfigError,
        MemoryFullError,
        ModelError,
        RekvError,
        SessionError,
        StoreError,
        VideoError,
    )
    from rekv.sources import video

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AskConfig",
    "ConfigError",
    "EncodeConfig",
    "Frame",
    "MemoryFullError",
    "Model",
    "ModelError",
    "RekvError",
    "Retrieval",
    "Session",
    "SessionError",
    "Span",
    "StorageConfig",
    "StoreError",
    "Timings",
    "Turn",
    "VideoError",
    "load",
    "video",
]

_HOME = {
    **dict.fromkeys(("Model", "Session", "load"), "rekv.engine"),
    **dict.fromkeys(
        ("ConfigError", "MemoryFullError", "ModelError", "RekvError", "SessionError", "StoreError", "VideoError"),
        "rekv.errors",
    ),
    "video": "rekv.sources",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: torch and transformers take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "rekv.core")), name)
