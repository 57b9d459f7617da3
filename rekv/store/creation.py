"""Making a session's folder, and making one ready that another process has left."""

import logging
import os
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rekv.core import EncodeConfig
from rekv.errors import DamagedError, SessionError, StoreError
from rekv.memory.memory import Memory
from rekv.store.catalog import FILE, Catalog, put
from rekv.store.committed import lost_frames, note_committed, noted_frames
from rekv.store.files import Files
from rekv.store.fingerprint import Fingerprint
from rekv.store.folder import SessionFolder
from rekv.store.meta import SessionMeta
from rekv.store.names import SEGMENT, SINK, holds_session, segment_files
from rekv.store.sink import Sink, save_sink

logger = logging.getLogger(__name__)


def describe(
    memory: Memory, model: Fingerprint, config: EncodeConfig, init_ids: Sequence[int], codec: str
) -> SessionMeta:
    """What a new session is."""
    layers = [memory.layers[i] for i in sorted(memory.layers)]
    return SessionMeta(
        model=model,
        encode=config,
        init_ids=tuple(init_ids),
        tokens_per_frame=memory.tokens_per_frame,
        layers=tuple((layer.blocks.shape[1], layer.blocks.shape[3]) for layer in layers),
        dtype=str(layers[0].blocks.dtype).removeprefix("torch."),
        codec=codec,
        created=time.time(),
        grid=memory.grid,
    )


def sink_of(memory: Memory) -> list[tuple[Tensor, Tensor]]:
    """The init prompt's keys and values, layer by layer."""
    return [(memory.layers[i].sink_keys, memory.layers[i].sink_values) for i in sorted(memory.layers)]


def create_folder(path: Path, meta: SessionMeta, sink: Sink, files: Files) -> None:
    """Make a session without frames: whole, or not at all.

    Raises `OSError`, and `StoreError` if what is left of another session is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    making.mkdir()
    try:
        save_sink(making / SINK, sink, meta)
        files.sync_path(making / SINK)
        catalog = Catalog(making, writable=True)
        with catalog.transaction() as sql:
            put(sql, session=meta.dumps(), frames=0)
        catalog.close()
        note_committed(making, 0, files)
        files.sync_folder(making)
        try:
            os.rename(making, path)  # fails if somebody else made it meanwhile, which is as good
        except OSError as error:
            if not (path / FILE).exists():
                if holds_session(path):
                    raise StoreError(
                        f"{path} holds a session whose {FILE} is lost; `rekv verify {path.name} --repair` makes it anew"
                    ) from error
                raise
        files.sync_folder(path.parent)
    finally:
        if making.exists():
            for entry in making.iterdir():
                entry.unlink()
            making.rmdir()


def create(
    path: Path,
    memory: Memory,
    model: Fingerprint,
    config: EncodeConfig,
    init_ids: Sequence[int],
    codec: str,
    files: Files,
) -> None:
    """Make the folder of a session under another name, and give it its own when it is whole. Raises `StoreError`."""
    try:
        create_folder(path, describe(memory, model, config, init_ids, codec), sink_of(memory), files)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be made ({error.strerror}); check the disk and the permissions, or choose another place "
            f"(store)"
        ) from error


def cannot_go_on(name: str, error: DamagedError, *, nothing_left: bool) -> SessionError:
    """What to say of a session whose window cannot be built again."""
    if nothing_left:
        return SessionError(
            f"session {name!r} cannot go on: none of its frames can be read any more. Restore it from a copy, start "
            f"another session, or delete this one: `rekv rm {name}`"
        )
    return SessionError(
        f"session {name!r} cannot go on: its window needs frames that are damaged ({error}). "
        f"`rekv verify --repair {name}` lets it go on without them"
    )


def remove_orphans(folder: SessionFolder) -> None:
    """Remove segments that no catalog row names: a crash came between making them and committing them.

    Raises `StoreError` if frames that were committed are not in the catalog: what comes next would take their place.
    """
    path, noted = folder.path, noted_frames(folder.path)  # nobody else writes now
    frames, segments = int(folder.catalog.get("frames") or 0), folder.catalog.segments()
    lost = lost_frames(path, folder.meta, frames, segments, noted)
    if lost or (noted or 0) > frames:
        count = max(len(lost), (noted or 0) - frames)
        raise StoreError(
            f"{path} cannot be written: {count} frames in it are not in its catalog, which has lost what was committed "
            f"last; `rekv verify {path.name} --repair` takes them in again"
        )
    if noted != frames:
        note_committed(path, frames, folder.files)
    by_number = {row.id: row.file for row in segments}
    for file in segment_files(path):
        named = SEGMENT.fullmatch(file)
        current = by_number.get(int(named[1])) if named else None
        if file == current:
            continue
        if current is not None and not (path / current).exists():
            logger.warning("%s is gone, and %s may be what took its place: run rekv verify", path / current, file)
            continue
        logger.info("%s was never committed; it is removed", path / file)
        folder.files.unlink(path / file)


def mend_sink(folder: SessionFolder, sink: Sink) -> None:
    """Write the sink anew if it is damaged; `sink` is what the session's own model makes of its init prompt."""
    try:
        folder.sink()
        return
    except DamagedError:
        making = folder.path / f".{SINK}.{uuid.uuid4().hex[:8]}"
    try:
        save_sink(making, sink, folder.meta)
        folder.files.sync_path(making)
        os.replace(making, folder.path / SINK)
        folder.files.sync_folder(folder.path)
        logger.warning("%s was damaged, and has been made anew", folder.path / SINK)
    except OSError as error:
        logger.warning("%s is damaged, and cannot be made anew (%s)", folder.path / SINK, error.strerror)
    finally:
        making.unlink(missing_ok=True)
