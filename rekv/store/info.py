"""What there is to say about a session, without reading its blocks."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rekv.errors import SessionError, StoreError
from rekv.store.catalog import FrameRow, SegmentRow, SourceRow
from rekv.store.meta import SessionMeta
from rekv.store.store import Store


@dataclass(frozen=True, slots=True)
class CodecUse:
    """What of a session is stored with one codec."""

    segments: int
    frames: int
    bytes: int  # on disk


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as its catalog and the sizes of its files tell it."""

    name: str
    path: Path
    meta: SessionMeta
    frames: int  # ever appended
    gone: int  # of them, removed by retention
    damaged: int  # of them, that cannot be read
    start: float | None  # seconds: the first frame that is there; None = there are none
    end: float | None  # seconds: until the last was seen
    bytes: int  # on disk: what the files take, holes left out
    codecs: dict[str, CodecUse]
    segments: int
    sources: tuple[SourceRow, ...]
    pins: tuple[tuple[float, float], ...]
    writing: bool | None  # by another process or object; None = this user cannot tell
    last_commit: float | None  # seconds since the epoch, about; None = no frame was ever written

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        meta = self.meta
        return {
            "name": self.name,
            "path": str(self.path),
            "model": {"name": meta.model.name, "architecture": meta.model.architecture, "dtype": meta.model.dtype},
            "settings": asdict(meta.encode),
            "kv": meta.codec,
            "dtype": meta.dtype,
            "layers": len(meta.layers),
            "tokens_per_frame": meta.tokens_per_frame,
            "frames": {
                "there": self.frames - self.gone - self.damaged,
                "gone": self.gone,
                "damaged": self.damaged,
                "appended": self.frames,
            },
            "start": self.start,
            "end": self.end,
            "bytes": self.bytes,
            "codecs": {name: asdict(use) for name, use in self.codecs.items()},
            "segments": self.segments,
            "sources": [asdict(source) for source in self.sources],
            "pins": [{"start": start, "end": end} for start, end in self.pins],
            "writing": self.writing,
            "created": meta.created,
            "last_commit": self.last_commit,
        }


def info(store: Store, name: str) -> SessionInfo:
    """Look at a session. Raises `StoreError` if there is none of this name, or it cannot be opened."""
    folder = store.open(name)
    try:
        _, segments, rows = folder.catalog.snapshot(0, 0)
        return SessionInfo(
            name=name,
            path=folder.path,
            meta=folder.meta,
            frames=folder.frames,
            gone=folder.frames - len(rows),
            damaged=sum(row.damaged is not None for row in rows),
            start=rows[0].time if rows else None,
            end=max(rows[-1].time, rows[-1].until) if rows else None,
            bytes=taken(folder.path),
            codecs=_codecs(folder.path, segments, rows),
            segments=len(segments),
            sources=tuple(folder.catalog.sources()),
            pins=tuple(folder.catalog.pins()),
            writing=is_written(store, name),
            last_commit=_last_change(folder.path / segments[-1].file) if segments else None,
        )
    finally:
        folder.close()


def is_written(store: Store, name: str) -> bool | None:
    """Whether somebody writes a session now; None if this user may not find out."""
    try:
        with store.lock(name):
            return False
    except SessionError:
        return True
    except StoreError:
        return None


def allocated(path: Path) -> int:
    """Bytes that a file takes on disk; 0 if it is not there."""
    try:
        return path.stat().st_blocks * 512
    except OSError:
        return 0


def taken(path: Path) -> int:
    """Bytes that a session takes on disk, whatever state it is in; not what SQLite shares between processes."""
    return sum(allocated(entry) for entry in path.iterdir() if not entry.name.endswith("-shm"))


def _codecs(path: Path, segments: list[SegmentRow], rows: list[FrameRow]) -> dict[str, CodecUse]:
    frames: dict[int, int] = {}
    for row in rows:
        frames[row.segment] = frames.get(row.segment, 0) + 1
    found: dict[str, CodecUse] = {}
    for segment in segments:
        old = found.get(segment.codec, CodecUse(0, 0, 0))
        found[segment.codec] = CodecUse(
            old.segments + 1,
            old.frames + frames.get(segment.id, 0),
            old.bytes + allocated(path / segment.file),
        )
    return found


def _last_change(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
