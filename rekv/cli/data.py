"""`rekv data`: the benchmarks' files, below one folder: what is there, what is wrong with it, how to get it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rekv.cli.screen import counted, notes, output
from rekv.errors import ConfigError

if TYPE_CHECKING:
    from rekv.evaluation.datasets import Dataset

_SHOWN = 20  # problems

data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data"),
    show_default=True,
    metavar="DIR",
    help="Folder of the benchmarks, as the published README arranges it.",
)


@click.group("data")
def commands() -> None:
    """List, check, convert and generate benchmarks."""


@commands.command("list")
@data_option
def list_(data: Path) -> None:
    """Say which benchmarks there are, and which of them are here."""
    from rekv.evaluation.datasets import find, names

    for name in names():
        try:
            dataset = find(name)
        except ConfigError as error:  # another package's
            notes().print(str(error), style="yellow")
            continue
        there = "here" if (data / dataset.annotations).is_file() else "    "
        output().print(f"{name:15} {there}  {dataset.title} ({dataset.mode}); {data / dataset.annotations}")


@commands.command()
@click.argument("name")
@data_option
@click.option("--open", "opened", is_flag=True, help="Also open every video and read its first frame.")
def check(name: str, data: Path, opened: bool) -> None:
    """Validate the files of a benchmark, and say what is missing. Exits with 1 if anything is."""
    from rekv.evaluation.datasets import find
    from rekv.evaluation.folder import check_videos, require
    from rekv.evaluation.rows import read_json
    from rekv.evaluation.schema import parse

    require(data, [name])
    dataset = find(name)
    path = data / dataset.annotations
    videos, problems = parse(read_json(path), str(path))
    problems += check_videos(videos, data, dataset.annotations, opened=opened)
    questions = sum(len(video.questions) for video in videos)
    output().print(f"{path}: {counted(len(videos), 'video')}, {counted(questions, 'question')}")
    for problem in problems[:_SHOWN]:
        output().print(problem)
    if len(problems) > _SHOWN:
        output().print(f"... and {len(problems) - _SHOWN} more")
    if problems:
        notes().print(
            f"{counted(len(problems), 'problem')}. `rekv eval` fails on malformed entries, and records videos "
            f"that are missing as failures.",
            style="yellow",
        )
        raise SystemExit(1)
    output().print("All is there.")


@commands.command()
@click.argument("name")
@click.argument("release", type=click.Path(exists=True, path_type=Path), required=False)
@data_option
def prepare(name: str, release: Path | None, data: Path) -> None:
    """Convert a benchmark's original annotations, which lie in RELEASE.

    Without RELEASE they are fetched from the Hugging Face Hub, where they are to be had there. Videos are not: put
    them, or a link to them, into `videos/` beside the annotations.
    """
    from rekv.evaluation.datasets import find
    from rekv.evaluation.folder import check_videos
    from rekv.evaluation.schema import write

    dataset = find(name)
    videos = dataset.convert(release or _fetched(dataset))
    path = data / dataset.annotations
    write(videos, path)
    questions = sum(len(video.questions) for video in videos)
    output().print(f"Wrote {path}: {counted(len(videos), 'video')}, {counted(questions, 'question')}.")
    if missing := check_videos(videos, data, dataset.annotations):
        notes().print(
            f"{counted(len(missing), 'video')} of {len(videos)} are not there yet; `rekv data check {name}` "
            f"lists them. They belong into {path.parent / 'videos'}.",
            style="yellow",
        )


def _fetched(dataset: "Dataset") -> Path:
    from rekv.errors import DataError

    if dataset.hub is None:
        raise DataError(f"{dataset.title} is not fetched: {dataset.advice()}")
    repository, patterns = dataset.hub
    notes().print(f"Fetching {', '.join(patterns)} of {repository} from the Hugging Face Hub ...", style="dim")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, repo_type="dataset", allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"{repository} could not be fetched: {' '.join(str(error).split())} Check the network and the data set's "
            f"conditions, or get {dataset.release} from {dataset.source} and name the folder"
        ) from error


@commands.command()
@data_option
@click.option("--videos", type=int, default=40, show_default=True, help="How many.")
@click.option(
    "--set",
    "needles",
    type=click.Choice(["base", "hard"]),
    default="base",
    show_default=True,
    help="hard: needles among things that they can be mistaken for.",
)
@click.option("--frames", type=int, default=600, show_default=True, help="Length of each, in seconds.")
@click.option("--width", type=int, default=320, show_default=True, help="Pixels.")
@click.option("--height", type=int, default=240, show_default=True, help="Pixels.")
@click.option("--fps", type=int, default=4, show_default=True, help="Pictures per second of the files.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
def needle(data: Path, videos: int, needles: str, frames: int, width: int, height: int, fps: int, quiet: bool) -> None:
    """Generate needle videos of the built-in world as H.264 files, with their questions and the truth."""
    from rich.progress import track

    from rekv.evaluation.datasets.needle import Film, make

    console = notes(quiet)
    film = Film("hard" if needles == "hard" else "base", frames, width, height, fps)
    made = make(data, videos, film)
    for _ in track(made, "Drawing videos", videos, console=console, transient=True, disable=not console.is_terminal):
        pass
    console.print(f"Wrote {counted(videos, 'video')} and their questions below {data / 'needle'}.", style="dim")
