"""Many videos, each read into a session of its own: what is to be done, and the unit of work."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rekv.errors import ConfigError, RekvError, StoreError, VideoError
from rekv.ingestion.unit import Found, Report, look, read
from rekv.sources import VideoFile
from rekv.sources import video as open_video
from rekv.store.store import Store

if TYPE_CHECKING:
    from rekv.cluster import Progress
    from rekv.engine import Model, Session

logger = logging.getLogger(__name__)

_SHOWN = 5  # problems that a message lists


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list: a video, and the name of its session."""

    name: str
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Task:
    """One video that has not been read to its end; `settings` are those of `Model.session`."""

    entry: Entry
    store: Path
    settings: Mapping[str, Any]
    seconds: float | None  # of the video, as it says


def read_list(file: Path, store: Store) -> list[Entry]:
    """The videos that a file lists, one a line: a path, "name<TAB>path", or {"name": ..., "source": ...}.

    Without a name, the session is called as the file, without its ending. Empty lines and those that begin with # are
    left out. Raises `ConfigError` that lists what cannot be read, and names that occur twice or cannot be.
    """
    try:
        lines = file.read_bytes().decode("utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); name a file that lists videos") from error
    entries, problems = [], []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                entries.append(_entry(line, number))
                store.path(entries[-1].name)
            except (StoreError, ValueError) as error:
                problems.append(f"line {number}: {error}")
    _refuse(file, [*problems, *_clashes(entries)])
    if not entries:
        raise ConfigError(f"{file} lists no video; it has one path a line")
    return entries


def _entry(line: str, number: int) -> Entry:
    """Raises ValueError for what is none."""
    name = None
    if line.lstrip().startswith("{"):
        data = json.loads(line)
        name, path = data.get("name"), data.get("source")
        if not isinstance(path, str) or not isinstance(name, str | None):
            raise ValueError('needs "source", the path of a video; "name" is optional; both are text')
    else:
        name, tab, path = line.rpartition("\t")
        name, path = (name.strip() if tab else None), path.strip()
    return Entry(Path(path).stem if name is None else name, path, number)


def _clashes(entries: Sequence[Entry]) -> list[str]:
    """Names that several videos have; the case of letters, which not every file system tells apart, aside."""
    by_name: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_name[entry.name.casefold()].append(entry)
    return [
        f"lines {', '.join(str(entry.line) for entry in same)}: all are to be session {same[0].name!r}"
        for same in by_name.values()
        if len(same) > 1
    ]


def _refuse(file: Path, problems: Sequence[str]) -> None:
    if problems:
        more = f"\n... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ConfigError(
            f"{file} cannot be read into sessions as it is:\n" + "\n".join(problems[:_SHOWN]) + more + "\n"
            "Nothing was begun. Give a video another name by a line of name, tab, path."
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """What is to be read, and by what; reports of what is not: already read, or cannot be."""

    tasks: list[Task]
    reports: list[Report]
    model: str | None
    dtype: str | None


def survey(
    entries: Sequence[Entry],
    file: Path,
    store: Store,
    encode: Mapping[str, Any],
    limits: Mapping[str, Any],
    model: str | None,
    dtype: str | None,
) -> Survey:
    """Look what there is. Where no `model` or `dtype` is named, it is that of the list's sessions.

    Raises `ConfigError` if a session of that name has another video, or sessions differ in what is not named.
    """
    tasks: list[Task] = []
    reports: list[Report] = []
    problems: list[str] = []
    models: set[str] = set()
    dtypes: set[str] = set()
    for entry in entries:
        try:
            video = _open(entry)
            found = look(store, entry.name, video)
            if found is not None and found.begun:  # noted even of one that cannot go on so: others are read alike
                models.add(found.model)
                dtypes.add(found.dtype)
                found.require(encode, kv=limits.get("kv"), dtype=dtype)
        except (RekvError, OSError, ValueError) as error:
            reports.append(failed(entry, error))
            continue
        if found is not None and not found.begun:
            problems.append(f"line {entry.line}: the store has a session {entry.name!r}, of another video")
        elif found is not None and _is_done(found, model):
            reports.append(Report(entry.name, entry.path, "already", found.frames))
        else:
            tasks.append(Task(entry, store.folder, {**encode, **limits}, video.duration))
    _refuse(file, problems)
    if tasks:
        model = _agreed(model, models, file, "--model")
        dtype = _agreed(dtype, dtypes, file, "--dtype")
    return Survey(tasks, reports, model, dtype)


def _agreed(named: str | None, found: set[str], file: Path, option: str) -> str | None:
    """What was named, or else what all sessions have. Raises `ConfigError` if they differ."""
    if named is None and len(found) > 1:
        raise ConfigError(
            f"sessions of the videos in {file} were made in different ways ({', '.join(sorted(found))}), and nothing "
            f"was begun: say by {option} how the others are to be read, or give them a list of their own"
        )
    return named or next(iter(found), None)


def _is_done(found: Found, model: str | None) -> bool:
    return found.done and model in (None, found.model)


def ingest(model: "Model", task: Task, progress: "Progress") -> Report:
    """Read one video. What fails is reported; `ConfigError`, for settings that cannot be, is raised."""
    try:
        video = _open(task.entry)
        return read(model, video, task.entry.name, task.store, task.settings, lambda: False, _told(progress))
    except ConfigError:
        raise
    except Exception as error:  # whatever a damaged video may raise: the others are read all the same
        logger.debug("%s", task.entry.path, exc_info=True)
        return failed(task.entry, error)


def failed(entry: Entry, error: Exception) -> Report:
    return Report(entry.name, entry.path, "failed", error=f"{type(error).__name__}: {error}")


def _open(entry: Entry) -> VideoFile:
    video = open_video(entry.path)
    if video.identity is None:
        raise VideoError(f"{entry.path} is no file that can be read twice; `rekv ingest` reads it by itself")
    return video


def _told(progress: "Progress") -> Any:
    """Tells the seconds of video that each encode call adds."""

    @contextmanager
    def show(session: "Session", video: VideoFile, shift: float) -> Iterator[Any]:
        done = video.after or video.start
        if done:
            progress(done)

        def told(_: object) -> None:
            nonlocal done
            now = session.memory.times[-1] - shift
            progress(now - done)
            done = now

        yield told

    return show
