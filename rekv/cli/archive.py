"""`rekv export`, `rekv import`: a session as one file."""

import json
from pathlib import Path

import click

from rekv.cli.options import json_option, store_option
from rekv.cli.screen import format_bytes, notes


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@store_option
@json_option
def export(name: str, file: Path, force: bool, store: str | None, as_json: bool) -> None:
    """Write a session to one file, to be kept or carried elsewhere.

    It may be written meanwhile: the file holds what was committed when this began.
    """
    from rekv.store.archive import export as write
    from rekv.store.store import Store

    path = Store(store).find(name)
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists; choose another name, or replace it with --force.")
    console = notes()
    with console.status(f"Writing {file} ..."):
        size = write(path, file)
    if as_json:
        click.echo(json.dumps({"name": name, "file": str(file), "bytes": size}))
    else:
        console.print(f"Wrote session {name} to {file}: {format_bytes(size)}.")


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", help="Its name here.  [default: the one it had]")
@store_option
@json_option
def import_(file: Path, name: str | None, store: str | None, as_json: bool) -> None:
    """Add a session from a file that `rekv export` wrote."""
    from rekv.store.archive import import_ as read
    from rekv.store.store import Store

    sessions, console = Store(store), notes()
    with console.status(f"Reading {file} ..."):
        imported = read(file, sessions, name)
    if as_json:
        click.echo(json.dumps({"name": imported, "path": str(sessions.path(imported))}))
    else:
        console.print(f'Added session {imported}; `rekv ask --session {imported} "..."` asks it.')
