"""A run on disk: one folder, two files of JSON lines.

`results.jsonl` is what was answered: a line that says how (the cell, the data, what it was made with), then one per
video. Repeated, or killed and resumed, a run gives the same file to the byte. `costs.jsonl` is what it took: a line
per process, with its environment, and one per video, with times and memory, which differ each time.
"""

import hashlib
import logging
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rekv.errors import ConfigError, DataError
from rekv.evaluation.cell import Cell
from rekv.evaluation.costs import Costs
from rekv.evaluation.environment import environment
from rekv.evaluation.lines import append_line, read_lines, replace_lines
from rekv.evaluation.unit import Record

logger = logging.getLogger(__name__)

RESULTS = "results.jsonl"
COSTS = "costs.jsonl"
FORMAT = 1


class Run:
    """A run that is being made, or was."""

    def __init__(self, folder: Path, head: dict[str, Any], records: dict[int, Record], costs: dict[int, Costs]) -> None:
        self.folder = folder
        self.head = head
        self.cell = Cell.from_json(head["cell"])
        self.records = records  # by the video's index
        self.costs = costs
        self.processes: list[dict[str, Any]] = []

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Raises `DataError` if there is none. What a killed process left of its last line is left out."""
        lines = read_lines(folder / RESULTS)
        if not lines or lines[0].get("format") != FORMAT:
            raise DataError(f"{folder} holds no {RESULTS} of this version; name a folder that `rekv eval` wrote")
        records = {line["index"]: Record(**line) for line in lines[1:]}
        try:
            run = cls(folder, lines[0], records, {})
        except ConfigError as error:
            raise DataError(f"{folder}: {error}; make it anew with --fresh, or leave the folder out") from error
        for line in read_lines(folder / COSTS):
            if "process" in line:
                run.processes.append(line["process"])
            else:
                run.costs[line["index"]] = Costs.from_json(line["costs"])
        return run

    @classmethod
    def begin(
        cls,
        folder: Path,
        cell: Cell,
        annotations: Path,
        videos: int,
        *,
        fresh: bool = False,
        made_with: dict[str, Any] | None = None,
    ) -> "Run":
        """Start a run, or go on with the one that is there. `fresh` begins anew.

        `made_with` is the `environment` of the processes that answer; None: of this one.
        Raises `ConfigError` if the one that is there has other settings, or other data.
        """
        head = _head(cell, annotations, videos, made_with or environment())
        new = fresh or not (folder / RESULTS).exists()
        if new:
            folder.mkdir(parents=True, exist_ok=True)
            replace_lines(folder / COSTS, ())
        run = cls(folder, head, {}, {}) if new else cls.read(folder)
        run.resume(head)
        return run

    def resume(self, head: dict[str, Any]) -> None:
        """Go on where it stopped, if that was with the same settings and data; failures are tried again."""
        self._require_same(head)
        self.records = {index: record for index, record in self.records.items() if not record.failed}
        self.finish()  # drops failures, and half a line
        replace_lines(self.folder / COSTS, read_lines(self.folder / COSTS))
        append_line(self.folder / COSTS, {"process": _process(head["environment"])})

    def missing(self, videos: int) -> list[int]:
        """Videos that have not been answered, or failed."""
        return [i for i in range(videos) if i not in self.records or self.records[i].failed]

    def add(self, record: Record, costs: Costs) -> None:
        """Write what came of a video; on disk when this returns."""
        append_line(self.folder / COSTS, {"index": record.index, "costs": costs.as_json()})
        append_line(self.folder / RESULTS, record.as_json())
        self.records[record.index], self.costs[record.index] = record, costs

    def finish(self) -> None:
        """Put the videos in order, in whatever order they were done."""
        self.records = dict(sorted(self.records.items()))
        replace_lines(self.folder / RESULTS, [self.head, *(record.as_json() for record in self.records.values())])

    def _require_same(self, head: dict[str, Any]) -> None:
        for part, remedy in (("cell", "another --out"), ("data", "--fresh, which begins it anew")):
            differing = sorted(key for key in head[part] if head[part][key] != self.head[part].get(key))
            if differing:
                key = differing[0]
                raise ConfigError(
                    f"{self.folder} is a run with {key} {self.head[part].get(key)!r}, not {head[part][key]!r}: "
                    f"choose {remedy}"
                )
        if self.head["environment"] != head["environment"]:
            logger.warning(
                "%s was begun with other versions or hardware; both are noted in %s. --fresh begins it anew",
                self.folder,
                COSTS,
            )


def _head(cell: Cell, annotations: Path, videos: int, made_with: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(annotations.read_bytes()).hexdigest()
    data = {"annotations": annotations.name, "sha256": digest, "videos": videos}
    return {"format": FORMAT, "cell": cell.as_json(), "data": data, "environment": made_with}


def _process(made_with: dict[str, Any]) -> dict[str, Any]:
    return {"started": datetime.now(UTC).isoformat(timespec="seconds"), "argv": sys.argv[1:], **made_with}


def find_runs(folders: Sequence[Path]) -> list[Run]:
    """All runs in these folders and below, by path. Raises `DataError` if there are none."""
    found = sorted({file.parent for folder in folders for file in folder.rglob(RESULTS)})
    if not found:
        raise DataError(f"there is no run in {', '.join(map(str, folders))}; `rekv eval` writes them")
    return [Run.read(folder) for folder in found]
