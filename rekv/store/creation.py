"""Making a session's folder, and clearing what a crash left in one."""

import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rekv.store.catalog import FILE, Catalog, put
from rekv.store.files import Files
from rekv.store.folder import SINK, SessionFolder
from rekv.store.meta import SessionMeta

logger = logging.getLogger(__name__)


def create_folder(path: Path, meta: SessionMeta, sink: Sequence[tuple[Tensor, Tensor]], files: Files) -> None:
    """Make a session without frames: whole, or not at all. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    making.mkdir()
    try:
        _save_sink(making / SINK, sink, meta)
        files.sync_path(making / SINK)
        catalog = Catalog(making, writable=True)
        with catalog.transaction() as sql:
            put(sql, session=meta.dumps(), frames=0)
        catalog.close()
        files.sync_folder(making)
        try:
            os.rename(making, path)  # fails if somebody else made it meanwhile, which is as good
        except OSError:
            if not (path / FILE).exists():
                raise
        files.sync_folder(path.parent)
    finally:
        if making.exists():
            for entry in making.iterdir():
                entry.unlink()
            making.rmdir()


def remove_orphans(folder: SessionFolder) -> None:
    """Remove segments that no catalog row names: a crash came between making them and committing them."""
    known = {row.file for row in folder.catalog.segments()}
    for path in folder.path.glob("segment-*.safetensors"):
        if path.name not in known:
            logger.info("%s was never committed; it is removed", path)
            folder.files.unlink(path)


def _save_sink(path: Path, sink: Sequence[tuple[Tensor, Tensor]], meta: SessionMeta) -> None:
    """Write the init prompt's keys and values."""
    tensors = {}
    for i, (keys, values) in enumerate(sink):
        tensors[f"layer.{i}.keys"] = keys.cpu().contiguous()
        tensors[f"layer.{i}.values"] = values.cpu().contiguous()
    save_file(tensors, path, {"format": "rekv-sink", "session": meta.dumps()})
