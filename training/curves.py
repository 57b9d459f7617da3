"""Draw a run's curves: what each stage's figures did, step by step.

python -m training.curves out/training curves.png
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.loop import curve

_LOSSES = frozenset({"loss", "answer", "retrieval"})
_TITLES = {
    "vision": "1 · what each token sees",
    "language": "2 · questions, answers, retrieval",
    "dual": "dual encoder",
}


def draw(folder: Path, picture: Path) -> None:
    """Write a picture of the curves in a run's folder: losses above, shares of right ones below."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 5), layout="constrained", dpi=150)
        above, below = figure.subplots(2, len(_TITLES))
        for name, losses, shares in zip(_TITLES, above, below, strict=True):
            points = curve(folder / f"{name}.jsonl")
            losses.set_title(f"{_TITLES[name]} ({points[-1]['seconds'] / 60:.0f} min)")
            figures = [figure for figure in points[0] if figure not in ("step", "seconds")]
            _lines(losses, points, [figure for figure in figures if figure in _LOSSES])
            _lines(shares, points, [figure for figure in figures if figure not in _LOSSES])
            losses.set_yscale("log")
            shares.set_ylim(0, 1.02)
            shares.set_xlabel("steps")
        above[0].set_ylabel("loss")
        below[0].set_ylabel("share right")
        figure.savefig(picture)


def _lines(axes: Axes, points: list[dict[str, float]], figures: list[str]) -> None:
    for figure in figures:
        axes.plot([point["step"] for point in points], [point[figure] for point in points], label=figure, linewidth=1)
    axes.legend(frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.curves", description=__doc__)
    parser.add_argument("folder", type=Path, help="of a run")
    parser.add_argument("picture", type=Path, help="PNG, SVG or PDF")
    args = parser.parse_args()
    draw(args.folder, args.picture)


if __name__ == "__main__":
    main()
