"""`rekv ingest --from-list`: an archive, each video into a session of its own."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rekv.cli.interrupt import Interrupt
from rekv.cli.loading import load_here, load_model, threads_for
from rekv.cli.progress import Videos
from rekv.cli.screen import counted, notes
from rekv.cli.workers import device_of, starting

if TYPE_CHECKING:
    from rekv.cluster import Cluster
    from rekv.ingestion.archive import Task
    from rekv.ingestion.unit import Report

_LEAST_RAM = 1 << 30  # bytes that each of several workers has for blocks in any case


def ingest_list(
    file: Path,
    store: str | None,
    encode: dict[str, Any],
    limits: dict[str, Any],
    model: str | None,
    loading: dict[str, str | None],
    cluster: "Cluster | None",
    *,
    as_json: bool,
    console: Console,
) -> None:
    """Read what has not been read yet; report, whatever ends it. Exits with 1 if a video failed, 130 after Ctrl-C."""
    from rekv.ingestion.archive import read_list, survey
    from rekv.store.limits import default_ram
    from rekv.store.store import Store

    sessions = Store(store)
    if cluster is not None:  # they may all be on this machine
        limits = {"ram": max(default_ram() // cluster.workers, _LEAST_RAM), **limits}
    entries = read_list(file, sessions)
    found = survey(entries, file, sessions, encode, limits, model, loading["dtype"])
    tasks, reports = found.tasks, found.reports
    known = len(reports)
    interrupted = False
    try:
        if tasks:
            for report in _made(tasks, found.model, {**loading, "dtype": found.dtype}, cluster, console):
                reports.append(report)
    except KeyboardInterrupt:
        interrupted = True
    finally:  # whatever else ends it, what was done is told
        order = {entry.name: entry.line for entry in entries}
        reports.sort(key=lambda report: order[report.session])
        if as_json:
            click.echo(json.dumps([report.as_json() for report in reports]))
        _tell(reports, len(entries), console)
    if interrupted:
        left = len(tasks) - (len(reports) - known)
        notes().print(
            f"Interrupted with {counted(left, 'video')} to go. What was read is safe; the same command goes on there.",
            style="yellow",
        )
        raise SystemExit(130)
    if any(report.error for report in reports):
        raise SystemExit(1)


def _made(
    tasks: Sequence["Task"],
    model: str | None,
    loading: dict[str, str | None],
    cluster: "Cluster | None",
    console: Console,
) -> "Iterator[Report]":
    """In this process, or by workers: the longest first, so that none begins it when the others have nothing to do."""
    from rekv.errors import ClusterError
    from rekv.ingestion.archive import failed, ingest

    def shown(videos: Videos) -> None:
        console.print(f"{counted(len(tasks), 'video')} to read.", style="dim")
        videos.start("", len(tasks), sum(task.seconds or 0.0 for task in tasks))

    if cluster is None:
        loaded = load_model(console, model, **loading)
        with Interrupt() as interrupt, Videos(console, interrupt) as videos:
            shown(videos)
            for task in tasks:
                report = ingest(loaded, task, videos.encoded)
                yield report
                videos.finished(failed=report.error is not None)
        return
    from rekv.cluster import workers

    with Interrupt() as interrupt:
        cluster = replace(cluster, threads=threads_for(model))
        console.print(starting(cluster, model), style="dim")
        load = partial(load_here, model, **{**loading, "device": device_of(loading["device"], cluster)})
        with workers(cluster, load) as crew, Videos(console, interrupt) as videos:
            shown(videos)
            for task, result in crew.run(
                ingest, sorted(tasks, key=lambda task: -(task.seconds or 0.0)), videos.encoded
            ):
                report = failed(task.entry, result) if isinstance(result, ClusterError) else result
                yield report
                videos.finished(failed=report.error is not None)


def _tell(reports: Sequence["Report"], videos: int, console: Console) -> None:
    frames = sum(report.frames_read for report in reports)
    read = sum(report.status == "finished" for report in reports)
    there = sum(report.status == "already" for report in reports)
    console.print(
        f"{counted(videos, 'video')}: {read} read now ({counted(frames, 'frame')}), {there} already there.", style="dim"
    )
    if lost := [report for report in reports if report.error]:
        told = notes()
        told.print(f"{counted(len(lost), 'video')} failed; the same command tries again:", style="yellow")
        for report in lost:
            told.print(f"  {report.video}: {report.error}")
