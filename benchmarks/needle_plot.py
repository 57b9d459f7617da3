"""Draw what `needle.py` found: accuracy and recall by question type, one bar per method.

python benchmarks/needle_plot.py needle.json needle.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {  # Okabe and Ito's, told apart by everyone
    "internal": "#d55e00",
    "oracle": "#009e73",
    "full": "#0072b2",
    "uniform": "#56b4e9",
    "recent": "#999999",
}
LABELS = {
    "internal": "internal retrieval",
    "oracle": "oracle frames",
    "full": "all frames (stock model)",
    "uniform": "uniform frames",
    "recent": "recent frames",
}
GROUP = 0.84  # width of a group of bars, of 1
BACKGROUND = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # of a number that a line may cross


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="written by needle.py")
    parser.add_argument("picture", type=Path, help="PNG, SVG or PDF")
    args = parser.parse_args()
    draw(json.loads(args.json.read_text()), args.picture)


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of a report of `needle.py`."""
    found = {name: report["methods"][name] for name in COLORS if name in report["methods"]}
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 6.4), layout="constrained", dpi=150)
        above, below = figure.subplots(2, 1, height_ratios=(3, 2))
        _bars(above, found, "accuracy")
        _intervals(above, found)
        _chance(above, found)
        _bars(below, found, "recall")
        above.set_title(_title(report), loc="left", fontsize=11)
        above.legend(loc="lower left", bbox_to_anchor=(0, 1.08), ncols=6, frameon=False, borderaxespad=0)
        figure.savefig(path)


def _title(report: dict[str, Any]) -> str:
    questions = max(one["questions"] for one in report["methods"].values())
    short = {name: one["questions"] for name, one in report["methods"].items() if one["questions"] < questions}
    but = "".join(f" ({name}: {n})" for name, n in short.items())
    return (
        f"{report['set']} set: {report['frames']:,} frames, {questions} questions{but}, "
        f"{report['retrieve_size']} frames read, window of {report['settings']['window_frames']} frames"
    )


def _bars(axes: Axes, found: dict[str, Any], figure: str) -> None:
    """All questions first, then type by type, with the number above each bar; what is not known stays empty."""
    groups = _groups(found)
    for i, (name, one) in enumerate(found.items()):
        values = [one[figure], *(one["per_type"][type][figure] for type in groups[1:])]
        known = [(_place(g, i, len(found)), value) for g, value in enumerate(values) if value is not None]
        places, heights = zip(*known, strict=True)
        axes.bar(places, heights, GROUP / len(found), color=COLORS[name], label=LABELS[name])
        tops = [one["ci95"][1] if figure == "accuracy" else values[0], *(value for _, value in known[1:])]
        for (x, value), top in zip(known, tops, strict=True):
            text = f"{value:.2f}".removeprefix("0") if value < 0.995 else "1"
            axes.text(x, top + 0.012, text, ha="center", va="bottom", fontsize=6.5, bbox=BACKGROUND)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel(figure)
    axes.axvline(0.5, color="#cccccc", linewidth=0.8)


def _intervals(axes: Axes, found: dict[str, Any]) -> None:
    for i, one in enumerate(found.values()):
        axes.vlines(_place(0, i, len(found)), *one["ci95"], color="#333333", linewidth=1)


def _chance(axes: Axes, found: dict[str, Any]) -> None:
    """A dotted line across each group: guessing among the answers that a type may have."""
    one = next(iter(found.values()))
    levels = [one["chance"], *(of_type["chance"] for of_type in one["per_type"].values())]
    for group, level in enumerate(levels):
        label = "guessing" if group == 0 else ""
        axes.hlines(level, group - 0.46, group + 0.46, color="black", linestyle=":", linewidth=1.2, label=label)


def _groups(found: dict[str, Any]) -> list[str]:
    return ["all", *next(iter(found.values()))["per_type"]]


def _place(group: int, bar: int, bars: int) -> float:
    return group + GROUP * ((bar + 0.5) / bars - 0.5)


if __name__ == "__main__":
    main()
