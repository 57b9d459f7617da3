"""`rekv report`: tables and plots of runs that `rekv eval` made."""

from collections.abc import Sequence
from pathlib import Path

import click

from rekv.cli.screen import notes, output


@click.command()
@click.argument("folders", metavar="RUN...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--baseline",
    type=click.Path(exists=True, path_type=Path),
    metavar="RUN",
    help="Compare the others with this run, question by question.  [default: the first on the same data]",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also write one row per run.",
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also draw score against frames, latency and memory, and recall by frames and chunk size.",
)
@click.option(
    "--lmms-eval",
    "logs",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Also write the runs as lmms-eval logs its own, for its tools.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the Markdown here.  [default: print it]",
)
def report(
    folders: Sequence[Path],
    baseline: Path | None,
    csv_file: Path | None,
    plots: Path | None,
    logs: Path | None,
    out: Path | None,
) -> None:
    """Compare runs of `rekv eval` in tables and plots.

    Scores have intervals, also by task; beside them stand their costs, and what was published. Each RUN is a folder
    that `rekv eval` wrote, or one that holds some, such as results/.
    """
    from rekv.evaluation.report import as_csv, markdown
    from rekv.evaluation.run import Run, find_runs
    from rekv.evaluation.summary import summarize

    found = [summarize(run) for run in find_runs(folders)]
    text = markdown(found, Run.read(baseline) if baseline else None)
    if out is None:
        output().print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
        notes().print(f"Wrote {out}.", style="dim")
    if csv_file is not None:
        csv_file.write_text(as_csv(found), encoding="utf-8")
        notes().print(f"Wrote {csv_file}.", style="dim")
    if logs is not None:
        from rekv.evaluation.lmms_logs import lmms_logs

        for path in lmms_logs([summary.run for summary in found], logs):
            notes().print(f"Wrote {path}.", style="dim")
    if plots is not None:
        from rekv.evaluation.plots import draw

        for path in draw(found, plots):
            notes().print(f"Wrote {path}.", style="dim")
