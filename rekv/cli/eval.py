"""`rekv eval`: ask models the questions of benchmarks, by the command line of the published harness."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rekv.cli.data import data_option
from rekv.cli.interrupt import Interrupt
from rekv.cli.loading import load_here, load_model
from rekv.cli.options import Command, Size
from rekv.cli.progress import Shown
from rekv.cli.retrieval import ENCODER_HELP
from rekv.cli.screen import counted, notes, output
from rekv.cli.workers import device_of, starting, wanted, workers_options

if TYPE_CHECKING:
    from rekv.cluster import Cluster
    from rekv.evaluation.cell import Cell, Grid
    from rekv.evaluation.judge import Judge
    from rekv.evaluation.run import Run
    from rekv.evaluation.runner import Plan

INCOMPLETE = 3  # exit code: something failed; it is recorded
_ALL = "all"  # the memory policy of keeping everything


def _several(*names: str, of: Callable[[str], Any] = str, **options: Any) -> Callable[[Command], Command]:
    """An option that takes several values, which make a grid: repeated or separated by commas."""

    def parse(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> list[Any]:
        try:
            parts = [of(part.strip()) for value in values for part in value.split(",") if part.strip()]
        except ValueError as error:
            raise click.BadParameter(f"{', '.join(values)} is not a list of whole numbers", ctx, param) from error
        return list(dict.fromkeys(parts))

    return click.option(*names, multiple=True, callback=parse, **options)


# The published spelling (--num_chunks) means the same.
@click.command("eval", context_settings={"token_normalize_func": lambda name: name.replace("_", "-")})
@_several(
    "--model",
    "models",
    help="Alias, folder or Hub name; several make a grid.  [default: built-in]",
)
@_several(
    "--dataset",
    "datasets",
    required=True,
    help="See `rekv data list`; several make a grid.",
)
@_several(
    "--retriever",
    "retrievers",
    metavar="NAME",
    help="Who chooses frames: as in `rekv ask` (oracle: the true windows), or a baseline: stock (the stock model on "
    "evenly spaced frames) or full (full attention); several make a grid.  [default: internal]",
)
@_several(
    "--retrieve-size",
    "sizes",
    of=int,
    metavar="FRAMES",
    help="Frames to read, per layer; several make a grid.  [default: the model's]",
)
@_several(
    "--retrieve-chunk-size",
    "--chunk-size",
    "chunks",
    of=int,
    metavar="FRAMES",
    help="Neighbouring frames retrieved together; several make a grid.  [default: 1]",
)
@click.option("--sample-fps", type=float, help="Frames to read per second of video.  [default: the model's]")
@click.option("--n-local", type=int, help="Tokens of the local window.  [default: the model's]")
@click.option("--frame-tokens", type=int, help="Tokens of a frame at most, for Qwen-VL.  [default: the model's]")
@click.option("--retrieve-tokens", type=int, help="Instead of --retrieve-size: as many frames as have so many tokens.")
@_several(
    "--policy",
    "policies",
    metavar="POLICY",
    help="What memory keeps of a frame, such as value-norm:0.5; several make a grid.  [default: all]",
)
@click.option("--recent-frames", type=int, help="The newest frames that are read besides.  [default: the model's]")
@click.option("--query", type=click.Choice(["mean", "phrases", "tokens"]), help="As in `rekv ask`.  [default: mean]")
@click.option("--min-gap", type=float, metavar="SECONDS", help="Least distance of any two frames retrieved.")
@click.option("--detrend", is_flag=True, default=None, help="Take a drift of the scores with time out.")
@click.option("--shared-picks", is_flag=True, default=None, help="Let all layers read the same frames.")
@click.option("--encoder", metavar="NAME", help=ENCODER_HELP)
@click.option("--max-new-tokens", type=int, help="Length at which open-ended answers are cut.  [default: the model's]")
@click.option(
    "--mode",
    type=click.Choice(["offline", "streaming"]),
    help="streaming: each question is asked at its time, and sees nothing later.  [default: the dataset's]",
)
@click.option(
    "--choose",
    type=click.Choice(["text", "likelihood"]),
    default="text",
    show_default=True,
    help="How a choice is read: from the answer's text, or the likeliest letter. Both are recorded.",
)
@click.option("--paper", is_flag=True, help="Do all as the published harness does, its quirks included.")
@click.option("--limit", type=int, metavar="VIDEOS", help="Only the first videos of each dataset.")
@workers_options
@data_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
    help="Results go to DIR/MODEL/DATASET/RETRIEVE_SIZE-SAMPLE_FPS.",
)
@click.option("--device", help="cpu, cuda, cuda:1 or auto (all devices).  [default: cuda if there is one]")
@click.option("--dtype", help="float32, float16 or bfloat16.  [default: what suits model and device]")
@click.option("--weights", type=click.Choice(["int8", "int4"]), help="Pack the language model's weights.")
@click.option(
    "--ram", type=Size(), help="Memory for blocks, such as 8GiB; the rest lies on disk.  [default: all in RAM]"
)
@click.option("--fresh", is_flag=True, help="Begin anew, instead of going on with what is there.")
@click.option("--only-eval", is_flag=True, help="Ask nothing: judge and report what was answered.")
@click.option("--judge-model", help="Judge open-ended answers by this model.  [default: compare words]")
@click.option("--judge-url", help="Of an OpenAI-compatible API.  [default: $OPENAI_BASE_URL, else OpenAI's]")
@click.option(
    "--judge-prompt",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Another prompt, with {question}, {answer} and {prediction}.",
)
@click.option("--judge-workers", type=int, default=4, show_default=True, help="Questions judged at once.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the table and errors.")
def eval_(
    models: Sequence[str],
    datasets: Sequence[str],
    retrievers: Sequence[str],
    sizes: Sequence[int],
    chunks: Sequence[int],
    policies: Sequence[str],
    num_chunks: int,
    gpus_per_worker: float | None,
    ray_address: str | None,
    data: Path,
    out: Path,
    device: str | None,
    dtype: str | None,
    ram: int | None,
    fresh: bool,
    only_eval: bool,
    judge_model: str | None,
    judge_url: str | None,
    judge_prompt: Path | None,
    judge_workers: int,
    quiet: bool,
    **settings: Any,
) -> None:
    """Ask models the questions of benchmarks, and report scores and costs.

    Each video is encoded once, for all retrievers and sizes. Results are JSON lines; the same command goes on with
    what was interrupted, and tries again what failed. `rekv report` compares runs.

    Exits with 3 if something failed: it is recorded, listed, and counted as wrong.
    """
    from rekv.evaluation.cell import Grid
    from rekv.evaluation.folder import require
    from rekv.evaluation.runner import Plan

    console = notes(quiet)
    datasets = [name.replace("-", "_") for name in datasets]
    require(data, datasets)
    judge = _judge(judge_model, judge_url, judge_prompt, judge_workers)
    kept = [None if policy == _ALL else policy for policy in policies or (_ALL,)]
    grid = Grid(datasets, retrievers or ("internal",), sizes or (None,), chunks or (1,), kept, **settings)
    grid.check()  # before a model is loaded
    runs: list[Run] = []
    try:
        for name in models or ("tiny",):
            if only_eval:
                runs += _finished(grid, name, out)
            else:
                plan = Plan(data, out, ram, fresh)
                cluster = wanted(name, device, num_chunks, gpus_per_worker, ray_address)
                loading = {"device": device, "dtype": dtype, "weights": grid.weights}
                runs += _made(grid, name, plan, cluster, console, loading)
    except KeyboardInterrupt:
        notes().print("Interrupted. What was answered is kept; the same command goes on from there.", style="yellow")
        raise SystemExit(130) from None
    for run in runs:
        _judged(run, judge, console)
    _report(runs, console)


def _made(
    grid: "Grid",
    name: str,
    plan: "Plan",
    cluster: "Cluster | None",
    console: Console,
    loading: Mapping[str, str | None],
) -> list["Run"]:
    """In this process, or by workers."""
    if cluster is None:
        from rekv.evaluation.runner import make

        model = load_model(console, name, **loading)
        cells = grid.cells(model, name)
        with Interrupt() as interrupt, Shown(console, interrupt) as watcher:
            return make(model, cells, plan, watcher)
    from rekv.cluster import workers
    from rekv.evaluation.workers import describe, make_by

    console.print(starting(cluster, name), style="dim")
    load = partial(load_here, name, **{**loading, "device": device_of(loading["device"], cluster)})
    with Interrupt() as interrupt, workers(cluster, load) as crew:
        cells, environment = crew.one(describe, (grid, name), interrupt.check)
        with Shown(console, interrupt) as watcher:
            return make_by(crew, cells, replace(plan, environment=environment), watcher)


def _finished(grid: "Grid", name: str, out: Path) -> list["Run"]:
    """The runs of a model that are there, as far as the grid's settings say which."""
    from rekv.errors import DataError
    from rekv.evaluation.run import find_runs

    folders = [out / name.strip("/").replace("/", "--") / dataset for dataset in grid.datasets]
    runs = find_runs(folders)
    found = [run for run in runs if _asked_for(run.cell, grid)]
    if not found:
        there = ", ".join(str(run.folder) for run in runs)
        raise DataError(f"no run of {name} is of these settings; there are {there}: give the options that made one")
    return found


def _asked_for(cell: "Cell", grid: "Grid") -> bool:
    from rekv.evaluation.cell import BASELINES

    names = ["sample_fps", "n_local", "frame_tokens", "mode", "limit"]
    remembers = cell.retriever not in BASELINES
    if remembers:
        names.append("retrieve_tokens")
    exact = {name: value for name in names if (value := getattr(grid, name)) is not None}
    sizes = grid.retrieve_sizes if cell.retrieve_tokens is None else [None]
    return (
        cell.retriever in grid.retrievers
        and cell.chunk_size in grid.chunk_sizes
        and (None in sizes or cell.retrieve_size in sizes)
        and (cell.policy in grid.policies or not remembers)
        and (cell.paper, cell.weights) == (grid.paper, grid.weights)
        and all(getattr(cell, name) == value for name, value in exact.items())
    )


def _judge(model: str | None, url: str | None, prompt: Path | None, workers: int) -> "Judge | None":
    from rekv.evaluation.judge import Judge, with_prompt

    if model is None:
        if url or prompt:
            raise click.UsageError("--judge-url and --judge-prompt go with --judge-model.")
        return None
    url = url or os.environ.get("OPENAI_BASE_URL") or Judge(model).url
    judge = Judge(model, url, os.environ.get("OPENAI_API_KEY"), workers=workers)
    return with_prompt(judge, prompt.read_text(encoding="utf-8")) if prompt else judge


def _judged(run: "Run", judge: "Judge | None", console: Console) -> None:
    """Judge what is open-ended, and write the files that others read."""
    from rekv.evaluation.datasets import find
    from rekv.evaluation.export import published_csv, submission
    from rekv.evaluation.judge import judge_run

    if judge is not None and find(run.cell.dataset).open_metric == "judge":
        with console.status("Judging ...") as status:
            tally = judge_run(run, judge, lambda done, total: status.update(f"Judging: {done} of {total}"))
        unread = f"; {counted(tally.unread, 'answer')} without a verdict" if tally.unread else ""
        console.print(f"Judged {run.folder} with {counted(tally.requests, 'request')}{unread}.", style="dim")
    if any(record.error is None for record in run.records.values()):
        if run.cell.paper:
            published_csv(run)
        if find(run.cell.dataset).submission:
            console.print(f"Wrote {submission(run)}, for the benchmark's server.", style="dim")


def _report(runs: Sequence["Run"], console: Console) -> None:
    from rekv.evaluation.report import markdown
    from rekv.evaluation.summary import summarize

    found = [summarize(run) for run in runs]
    output().print(markdown(found), end="")
    for run in runs:
        console.print(str(run.folder), style="dim")
    failed = sum(len(summary.failed) for summary in found)
    if failed:
        notes().print(
            f"{counted(failed, 'question')} failed and count as wrong; the same command tries them again.",
            style="yellow",
        )
        raise SystemExit(INCOMPLETE)
