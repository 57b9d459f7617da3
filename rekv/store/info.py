"""What there is to say about a session, without reading its blocks, and without importing torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rekv.core import StorageConfig
from rekv.errors import SessionError, StoreError
from rekv.store.catalog import LOCK, Catalog, FrameRow, SegmentRow, SourceRow
from rekv.store.limits import kept_limits
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
    limits: StorageConfig  # of its disk, max_age, thin_after and thin_keep
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
            "limits": {name: getattr(self.limits, name) for name in ("disk", "max_age", "thin_after", "thin_keep")},
            "writing": self.writing,
            "created": meta.created,
            "last_commit": self.last_commit,
        }


def info(store: Store, name: str) -> SessionInfo:
    """Look at a session. Raises `StoreError` if there is none of this name, or it cannot be opened."""
    path = store.find(name)
    catalog = Catalog(path, writable=False)
    try:
        kept, segments, rows = catalog.snapshot(0, 0)
        frames = int(kept.get("frames", 0))
        there = [row for row in rows if row.damaged is None]
        return SessionInfo(
            name=name,
            path=path,
            meta=SessionMeta.of(catalog),
            frames=frames,
            gone=frames - len(rows),
            damaged=len(rows) - len(there),
            start=there[0].time if there else None,
            end=max(there[-1].time, there[-1].until) if there else None,
            bytes=taken(path),
            codecs=_codecs(path, segments, rows),
            segments=len(segments),
            sources=tuple(catalog.sources()),
            pins=tuple(catalog.pins()),
            limits=StorageConfig().but(**kept_limits(catalog)),
            writing=is_written(store, name),
            last_commit=_last_change(path / segments[-1].file) if segments else None,
        )
    finally:
        catalog.close()


def is_written(store: Store, name: str) -> bool | None:
    """Whether somebody writes a session now; None if this user may not find out."""
    if not (store.path(name) / LOCK).exists():  # nobody has yet, and looking leaves no trace
        return False
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
