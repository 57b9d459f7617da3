"""What lies in a session's folder beside its catalog, by name."""

import os
import re
from pathlib import Path

from rekv.store.catalog import FILE

SINK = "sink.safetensors"
COMMITTED = "committed"
SEGMENT = re.compile(r"segment-(\d+)(?:-(\d+))?\.safetensors")  # its number, and its version if it was rewritten


def segment_files(path: Path) -> list[str]:
    return sorted(name for name in os.listdir(path) if SEGMENT.fullmatch(name))


def holds_session(path: Path) -> bool:
    """Whether the folder is a session's, or what is left of one: its catalog may be lost."""
    try:
        return any(name in (FILE, SINK) or SEGMENT.fullmatch(name) for name in os.listdir(path))
    except OSError:
        return False
