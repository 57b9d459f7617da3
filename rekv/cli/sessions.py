"""`rekv ls`, `rekv show`, `rekv rm`: which sessions there are, what is in one, and away with them."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console

from rekv.cli.options import json_option, store_option
from rekv.cli.screen import aligned, counted, format_bytes, format_duration, format_rate, notes, output, printable
from rekv.timecode import format_span

if TYPE_CHECKING:
    from rekv.store.info import SessionInfo


@click.command()
@store_option
@json_option
def ls(store: str | None, as_json: bool) -> None:
    """List the sessions."""
    from rekv.errors import StoreError
    from rekv.store.info import info
    from rekv.store.store import Store

    sessions = Store(store)
    found: list[SessionInfo] = []
    broken: dict[str, str] = {}
    for name in sessions.names():
        try:
            found.append(info(sessions, name))
        except StoreError as error:
            broken[name] = str(error)
    if as_json:
        known = {one.name: one.as_dict() for one in found}
        listed = [known.get(name) or {"name": name, "error": broken[name]} for name in sorted({*known, *broken})]
        click.echo(json.dumps({"store": str(sessions.folder), "sessions": listed}, indent=2))
        return
    if not found and not broken:
        notes().print(f"There are no sessions in {sessions.folder}; `rekv ingest VIDEO --session NAME` makes one.")
        return
    _list(found, output())
    for name, message in broken.items():
        notes().print(f"{name} cannot be opened: {message}", style="yellow")


@click.command()
@click.argument("name")
@store_option
@json_option
def show(name: str, store: str | None, as_json: bool) -> None:
    """Say what is in a session."""
    from rekv.store.info import info
    from rekv.store.store import Store

    session = info(Store(store), name)
    if as_json:
        click.echo(json.dumps(session.as_dict(), indent=2))
        return
    console = output()
    for word, text in _lines(session):
        console.print(f"{word:12} {printable(text)}")


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_option
@json_option
def rm(names: Sequence[str], yes: bool, store: str | None, as_json: bool) -> None:
    """Delete sessions.

    One that is being written is left alone: end that first.
    """
    from rekv.store.info import taken
    from rekv.store.store import Store

    sessions = Store(store)
    sizes = {name: taken(sessions.find(name, damaged=True)) for name in names}
    if not yes:
        listed = ", ".join(f"{name} ({format_bytes(size)})" for name, size in sizes.items())
        click.confirm(f"Delete {listed}? It cannot be undone.", abort=True, err=True)
    for name in sizes:
        sessions.remove(name)
    if as_json:
        click.echo(json.dumps({"removed": [{"name": name, "bytes": size} for name, size in sizes.items()]}))
    else:
        notes().print(f"Deleted {', '.join(sizes)}: {format_bytes(sum(sizes.values()))}.")


def _list(sessions: Sequence["SessionInfo"], console: Console) -> None:
    rows = [("NAME", "FRAMES", "TIME", "ON DISK", "MODEL", "WRITTEN")]
    rows += [
        (
            one.name,
            str(one.frames - one.gone - one.damaged),
            _span(one),
            format_bytes(one.bytes),
            printable(one.meta.model.name),
            "now" if one.writing else _date(one.last_commit),
        )
        for one in sessions
    ]
    for i, line in enumerate(aligned(rows)):
        console.print(line, style="" if i else "bold")


def _lines(session: "SessionInfo") -> list[tuple[str, str]]:
    meta, encode = session.meta, session.meta.encode
    lost = [f"{n} {word}" for n, word in ((session.gone, "removed"), (session.damaged, "damaged")) if n]
    settings = [format_rate(encode.sample_fps), f"a window of {encode.n_local} tokens"]
    if encode.skip_duplicates is not None:
        settings.append(f"near-duplicates below {encode.skip_duplicates:g} levels left out")
    if encode.policy is not None:
        settings.append(f"of each frame what {encode.policy} keeps")
    lines = [
        ("session", session.name),
        ("folder", str(session.path)),
        ("model", f"{meta.model.name} ({meta.model.architecture}, {meta.model.dtype})"),
        ("settings", ", ".join(settings)),
        ("frames", ", ".join([str(session.frames - session.gone - session.damaged), *lost])),
        ("time", _span(session)),
        ("on disk", f"{format_bytes(session.bytes)}; --kv {meta.codec}"),
    ]
    lines += [
        ("", f"{name}: {counted(use.frames, 'frame')}, {format_bytes(use.bytes)}, {counted(use.segments, 'file')}")
        for name, use in session.codecs.items()
    ]
    lines += [("" if i else "limits", text) for i, text in enumerate(_limits(session))]
    for i, source in enumerate(session.sources):
        end = "read to its end" if source.finished else "not read to its end"
        lines.append(("" if i else "sources", f"{source.path}, from frame {source.first} on, {end}"))
    for i, span in enumerate(session.pins):
        lines.append(("" if i else "pinned", format_span(*span)))
    writing = {True: "yes, at this moment", False: "no", None: "unknown: its lock cannot be tried"}
    lines += [
        ("written", writing[session.writing]),
        ("created", _date(meta.created)),
        ("last commit", _date(session.last_commit)),
    ]
    return lines


def _limits(session: "SessionInfo") -> list[str]:
    limits, lines = session.limits, list[str]()
    if limits.disk is not None:
        lines.append(f"{format_bytes(limits.disk)} on disk; beyond it the oldest frames are removed")
    if limits.max_age is not None:
        lines.append(f"frames older than {format_duration(limits.max_age)} are removed")
    if limits.thin_after is not None:
        after = format_duration(limits.thin_after)
        lines.append(f"of frames older than {after} one in {limits.thin_keep} is kept")
    return lines


def _span(session: "SessionInfo") -> str:
    if session.start is None or session.end is None:
        return "-"
    return format_span(session.start, session.end + 1 / session.meta.encode.sample_fps)


def _date(seconds: float | None) -> str:
    return "never" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
