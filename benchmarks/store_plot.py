"""Draw what `store.py` found: memory while a long stream is read, and the first token against the length."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BOUNDED, UNLIMITED, COLD, WARM = "#d55e00", "#0072b2", "#0072b2", "#d55e00"  # Okabe and Ito's


def draw(report: dict[str, Any], path: Path) -> None:
    """Write a picture of the parts "memory" and "length" of a report, whichever it has."""
    panels = [(part, panel) for part, panel in (("memory", _memory), ("length", _length)) if part in report]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(5.5 * len(panels), 3.8), layout="constrained", dpi=150)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for one, (part, panel) in zip(axes, panels, strict=True):
            panel(one, report[part])
        figure.savefig(path)


def _memory(axes: Axes, found: dict[str, Any]) -> None:
    for name, color in (("unlimited", UNLIMITED), ("bounded", BOUNDED)):
        run = found[name]
        frames, mb = zip(*run["curve"], strict=True)
        label = "no limit" if name == "unlimited" else f"budget of {run['budget_mb']:.0f} MB"
        axes.plot(frames, mb, color=color, label=label)
    run = found["bounded"]
    axes.axhline(run["start_mb"] + run["budget_mb"], color="black", linestyle=":", linewidth=1.2)
    axes.text(0, run["start_mb"] + run["budget_mb"], "start + budget", va="bottom", fontsize=7.5)
    axes.set_ylim(0)
    axes.set_xlabel("frames read")
    axes.set_ylabel("MB of the process (anonymous and shared)")
    axes.set_title("Memory while reading and asking", loc="left", fontsize=10)
    axes.legend(frameon=False, loc="upper left")


def _length(axes: Axes, found: dict[str, Any]) -> None:
    for state, color in (("cold", COLD), ("warm", WARM)):
        for budget, style in (("index_in_ram", "-"), ("index_on_disk", "--")):
            line = found[budget][state]
            label = f"{state}, {budget.replace('_', ' ')}"
            axes.plot(
                [int(n) for n in line],
                [one["first_token_ms"] for one in line.values()],
                style,
                color=color,
                marker="o",
                label=label,
            )
    axes.set_xscale("log")
    axes.set_ylim(0)
    axes.set_xlabel("frames in the session")
    axes.set_ylabel("ms to the first token")
    axes.set_title("Blocks on disk", loc="left", fontsize=10)
    axes.legend(frameon=False)
