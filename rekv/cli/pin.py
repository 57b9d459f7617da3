"""`rekv pin`: keep a time span of a session, whatever is removed."""

import json

import click

from rekv.cli.options import Time, json_option, store_option
from rekv.cli.screen import counted, notes
from rekv.timecode import format_span


@click.command()
@click.argument("name")
@click.option("--start", type=Time(), required=True, help="From this time on.")
@click.option("--end", type=Time(), required=True, help="Up to this time.")
@click.option("--remove", is_flag=True, help="Let the span be removed again.")
@store_option
@json_option
def pin(name: str, start: float, end: float, remove: bool, store: str | None, as_json: bool) -> None:
    """Keep a time span of a session from being removed.

    It may be written meanwhile. `rekv show NAME` lists what is pinned.
    """
    if end <= start:
        raise click.UsageError(f"The span {format_span(start, end)} has no length: --end comes after --start.")

    from rekv.store.retention import frames_within, unpin
    from rekv.store.retention import pin as keep
    from rekv.store.store import Store

    path = Store(store).find(name)
    pins = (unpin if remove else keep)(path, start, end)
    frames = frames_within(path, start, end)
    if as_json:
        spans = [{"start": first, "end": last} for first, last in pins]
        click.echo(json.dumps({"name": name, "pins": spans, "frames": frames}))
        return
    listed, console = ", ".join(format_span(*span) for span in pins), notes()
    console.print(f"Pinned in {name}: {listed}." if pins else f"Nothing is pinned in {name}.")
    if not remove and frames:
        console.print(f"{counted(frames, 'frame')} of {format_span(start, end)}: kept, whatever is removed.")
    elif not remove:
        console.print(
            f"There are no frames of {format_span(start, end)}: what is gone does not come back, and what is "
            f"still to be read will be kept. `rekv show {name}` says what there is.",
            style="yellow",
        )
