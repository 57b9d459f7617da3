"""Where to go on in a file that is read into a session, perhaps not for the first time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rekv.sources.sampling import TOLERANCE

if TYPE_CHECKING:
    from rekv.sources import Identity
    from rekv.store.catalog import Catalog, FrameRow, SourceRow


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be read into a session."""

    shift: float = 0.0  # seconds to be added to the file's times, for a session is one stream
    after: float | None = None  # seconds in the file: what is later has not been read yet; None = all of it
    source: int | None = None  # its row in the catalog, if this goes on with it


def find_source(sources: "list[SourceRow]", identity: "Identity | None", start: float) -> "SourceRow | None":
    """What was last read of a file from this start on. One that is shorter now is another file."""
    if identity is None:  # a pipe: nobody knows whether it is the one of before
        return None
    for row in reversed(sources):
        if (
            (row.path, row.start) == (text(identity.path), start)
            and row.bytes is not None
            and row.bytes <= identity.size
        ):
            return row
    return None


def text(path: str) -> str:
    """A path as the catalog holds it: also one whose bytes are no valid text."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_done(row: "SourceRow | None", identity: "Identity | None") -> bool:
    """Whether a file was read to its end and has not grown since."""
    return row is not None and identity is not None and row.finished and row.bytes == identity.size


def plan(catalog: "Catalog", identity: "Identity | None", start: float, period: float) -> Reading:
    """Where to go on; `period` is the seconds between two frames. Of a session that nobody else writes."""
    sources, rows = catalog.sources(), catalog.frames()
    mine = find_source(sources, identity, start)
    if not rows:  # perhaps interrupted before the first commit
        return Reading(source=mine.id if mine is not None and mine.id == sources[-1].id else None)
    behind = Reading(shift=_seen(rows[-1]) + period - start)
    if mine is None:
        return behind
    at = sources.index(mine)
    newest = at == len(sources) - 1
    stop = rows[-1].id + 1 if newest else sources[at + 1].first
    read = [row for row in rows if mine.first <= row.id < stop]
    if not read:  # interrupted before its first frame, or retention has removed all of it
        return Reading(mine.shift, None, mine.id) if newest and not mine.finished else behind
    after = _seen(read[-1]) - mine.shift
    shift = mine.shift if newest else _seen(rows[-1]) - after
    # Adding and subtracting the shift may have rounded the time: the frame must not be taken once more.
    return Reading(shift, after + (TOLERANCE if mine.shift else 0.0), mine.id if newest and not mine.finished else None)


def _seen(row: "FrameRow") -> float:
    """When a frame, or the last one that it stands for, was shown: seconds."""
    return max(row.time, row.until)
