"""`rekv prune`: make room in the whole store."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console

from rekv.cli.options import Duration, Size, json_option, store_option
from rekv.cli.screen import counted, format_bytes, output
from rekv.timecode import format_span

if TYPE_CHECKING:
    from rekv.store.retention import Pruned


@click.command()
@click.option("--disk", type=Size(), help="Remove the oldest until all sessions together take no more, such as 100GiB.")
@click.option("--max-age", type=Duration(), help="Remove what was read longer ago, such as 7d.")
@click.option("--thin-keep", type=int, metavar="N", help="First keep every n-th frame; remove all only for --disk.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@store_option
@json_option
def prune(
    disk: int | None, max_age: float | None, thin_keep: int | None, dry_run: bool, store: str | None, as_json: bool
) -> None:
    """Remove the oldest frames of all sessions, to make room.

    Left alone are sessions that are being written, pinned frames, and the newest frames of each session, with which
    it goes on. The exit code is 1 if more than --disk is left, else 0.
    """
    if disk is None and max_age is None:
        raise click.UsageError("Give --disk SIZE, --max-age DURATION, or both.")

    from rekv.store.retention import prune as remove
    from rekv.store.store import Store

    pruned = remove(Store(store), disk=disk, max_age=max_age, thin_keep=thin_keep, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"dry_run": dry_run} | asdict(pruned), indent=2))
    else:
        _show(pruned, dry_run, output())
    if disk is not None and pruned.bytes > disk:
        raise click.ClickException(
            f"{format_bytes(pruned.bytes)} {'would be' if dry_run else 'are'} left: what remains is pinned, being "
            f"written, or what sessions go on with. Unpin some (`rekv pin --remove`), or delete sessions (`rekv rm`)."
        )


def _show(pruned: "Pruned", dry_run: bool, console: Console) -> None:
    for one in pruned.removals:
        span = format_span(one.start, one.end)
        console.print(f"{one.session:20} {span:20} {one.frames:6} frames  {format_bytes(one.bytes)}")
    for name, why in pruned.skipped.items():
        console.print(f"{name} was left alone: {why}", style="yellow")
    frames, freed = sum(one.frames for one in pruned.removals), sum(one.bytes for one in pruned.removals)
    done = "Would remove" if dry_run else "Removed"
    console.print(
        f"{done} {counted(frames, 'frame')}, {format_bytes(freed)}; the store takes {format_bytes(pruned.bytes)}."
    )
