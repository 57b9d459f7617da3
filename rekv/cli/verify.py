"""`rekv verify`: check a session's files, and mend what can be mended."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rekv.cli.options import json_option, store_option
from rekv.cli.reading import bar
from rekv.cli.screen import counted, format_bytes, notes, output, printable

if TYPE_CHECKING:
    from rekv.store.verify import Report


@click.command()
@click.argument("name")
@click.option("--repair", is_flag=True, help="Mend it: leave out what is damaged, build the catalog again if need be.")
@store_option
@json_option
def verify(name: str, repair: bool, store: str | None, as_json: bool) -> None:
    """Check a session's files, and mend what can be mended.

    Every byte that a question could read is compared with its checksum. The exit code is 1 if there are problems
    left, else 0. Without --repair nothing is written.
    """
    from rekv.store.store import Store
    from rekv.store.verify import verify as check

    sessions = Store(store)
    path = sessions.path(name)
    if not path.is_dir():
        sessions.find(name)  # says which there are
    with bar(notes()) as progress:
        task = progress.add_task(name, total=None, where="", speed="")
        report = check(
            path, repair=repair, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    if as_json:
        click.echo(json.dumps({"name": name} | asdict(report), indent=2))
    else:
        for line in _lines(report, name, repair):
            output().print(printable(line))
    raise SystemExit(0 if report.ok else 1)


def _lines(report: "Report", name: str, repair: bool) -> list[str]:
    lines = [f"{problem.kind}: {problem.file}: {problem.message}" for problem in report.problems]
    lines += [f"mended: {words}" for words in report.repaired]
    checked = f"{counted(report.frames, 'frame')}, {format_bytes(report.bytes)} checked"
    if report.ok and report.damaged:
        left_out = f"{counted(report.damaged, 'frame')} {'is' if report.damaged == 1 else 'are'} damaged and left out"
        rest = f"the rest is whole: {checked}" if report.frames else "none is left; restore it from a copy"
        return [*lines, f"Session {name}: {left_out}; {rest}."]
    if report.ok:
        return [*lines, f"Session {name} is whole: {checked}."]
    advice = f"`rekv verify {name} --repair` saves what is whole"
    if repair or all(problem.kind in ("sink", "orphan") for problem in report.problems):
        advice = f"`rekv ingest VIDEO --session {name}` with the model that made it mends the sink"
    return [*lines, f"Session {name} has problems ({len(report.problems)}): {checked}; {advice}."]
