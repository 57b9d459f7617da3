"""Plots of runs. They need matplotlib, which comes with the extra `report`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rekv.errors import ConfigError
from rekv.evaluation.report import label
from rekv.evaluation.summary import Summary

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ConfigError("plots need matplotlib: pip install 'rekv[report]', or leave out --plots") from error

# Okabe and Ito's, told apart by everyone.
_COLORS = ("#d55e00", "#009e73", "#0072b2", "#56b4e9", "#cc79a7", "#e69f00", "#f0e442", "#000000", "#999999")
_BESIDE: dict[str, Any] = {"frameon": False, "loc": "center left", "bbox_to_anchor": (1, 0.5)}
_ASIDE = 0.05  # octaves between lines

_Line = tuple[str, str, str]  # model, data set, retriever


def draw(found: Sequence[Summary], folder: Path) -> list[Path]:
    """Write every plot that the runs have points for, as PNG; return where. Raises `ConfigError` without any."""
    folder.mkdir(parents=True, exist_ok=True)
    scored = [summary for summary in found if summary.score is not None]
    written = []
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        for dataset in dict.fromkeys(s.run.cell.dataset for s in scored):
            here = [s for s in scored if s.run.cell.dataset == dataset]
            plots = {
                f"{dataset}-frames.png": _against_frames(here),
                f"{dataset}-latency.png": _scatter(here, "time to first token (ms)", lambda s: s.cost.first_token_ms),
                f"{dataset}-memory.png": _scatter(here, "keys and values (GiB per hour of video)", _gib_per_hour),
                **{f"{dataset}-recall-{name}.png": plot for name, plot in _recalls(here)},
            }
            for name, figure in plots.items():
                if figure is not None:
                    figure.savefig(folder / name, dpi=150)
                    written.append(folder / name)
    if not written:
        raise ConfigError("these runs have no answers with a known truth: there is nothing to plot")
    return written


def _figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10)
    return figure, axes


def _lines(found: Sequence[Summary]) -> dict[_Line, list[Summary]]:
    lines: dict[_Line, list[Summary]] = {}
    for s in sorted(found, key=lambda s: s.run.cell.retrieve_size):
        cell = s.run.cell
        if cell.chunk_size == 1 and cell.retrieve_size:
            lines.setdefault((cell.model, cell.dataset, cell.retriever), []).append(s)
    return lines


def _title(found: Sequence[Summary]) -> str:
    cell = found[0].run.cell
    return f"{cell.dataset}, {cell.mode}, {cell.sample_fps:g} frames/s: {found[0].metric}"


def _against_frames(found: Sequence[Summary]) -> Figure | None:
    """Score against the number of frames read, a line per model and retriever, with intervals."""
    lines = _lines(found)
    if not lines:
        return None
    figure, axes = _figure(_title(found))
    models = {model for model, _, _ in lines}
    for i, (color, ((model, _, retriever), points)) in enumerate(zip(_cycle(len(lines)), lines.items(), strict=True)):
        estimates = [point.score for point in points if point.score is not None]
        aside = 2 ** (_ASIDE * (i - (len(lines) - 1) / 2))  # so that intervals do not hide each other
        sizes = [point.run.cell.retrieve_size * aside for point in points]
        means = [100 * estimate.mean for estimate in estimates]
        below = [100 * (estimate.mean - estimate.low) for estimate in estimates]
        above = [100 * (estimate.high - estimate.mean) for estimate in estimates]
        name = retriever if len(models) == 1 else f"{model}, {retriever}"
        axes.errorbar(sizes, means, (below, above), marker="o", capsize=2, color=color, label=name, linewidth=1.3)
    for s in found:
        if not s.run.cell.retrieve_size and s.score is not None:  # it reads everything
            axes.axhline(100 * s.score.mean, color="#999999", linestyle="--", linewidth=1, label=label(s.run.cell))
    axes.set_xlabel("frames read")
    axes.set_ylabel("score (%)")
    axes.set_xscale("log", base=2)
    ticks = sorted({s.run.cell.retrieve_size for line in lines.values() for s in line})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(**_BESIDE)
    return figure


def _scatter(found: Sequence[Summary], what: str, cost: Callable[[Summary], float | None]) -> Figure | None:
    """Score against a cost."""
    points = [(s, x, s.score.mean) for s in found if (x := cost(s)) is not None and s.score is not None]
    if not points:
        return None
    figure, axes = _figure(_title(found))
    names = list(dict.fromkeys(s.run.cell.retriever for s, _, _ in points))
    colors = dict(zip(names, _cycle(len(names)), strict=True))
    for name in names:
        mine = [(s, x, y) for s, x, y in points if s.run.cell.retriever == name]
        axes.scatter([x for _, x, _ in mine], [100 * y for _, _, y in mine], color=colors[name], label=name)
        for s, x, y in mine:
            axes.annotate(str(s.run.cell.retrieve_size), (x, 100 * y), (4, 3), textcoords="offset points", fontsize=7)
    axes.set_xlabel(what)
    axes.set_ylabel("score (%)")
    axes.legend(**_BESIDE, title="numbers: frames read", title_fontsize=7)
    return figure


def _recalls(found: Sequence[Summary]) -> list[tuple[str, Figure]]:
    """Per model and retriever with several chunk sizes: recall by frames read and chunk size."""
    drawn = []
    grounded = [s for s in found if "recall" in s.grounding]
    for model, retriever in dict.fromkeys((s.run.cell.model, s.run.cell.retriever) for s in grounded):
        here = [s for s in grounded if (s.run.cell.model, s.run.cell.retriever) == (model, retriever)]
        cells = {(s.run.cell.chunk_size, s.run.cell.retrieve_size): 100 * s.grounding["recall"].mean for s in here}
        chunks, sizes = (sorted({key[i] for key in cells}) for i in range(2))
        if len(chunks) > 1 and len(sizes) > 1:
            title = f"{model}, {retriever}, {here[0].run.cell.dataset}: recall (%)"
            drawn.append((f"{model.replace('/', '--')}-{retriever}", _heat_map(title, cells, chunks, sizes)))
    return drawn


def _heat_map(title: str, cells: dict[tuple[int, int], float], chunks: Sequence[int], sizes: Sequence[int]) -> Figure:
    figure, axes = _figure(title)
    grid = [[cells.get((chunk, size), float("nan")) for size in sizes] for chunk in chunks]
    image = axes.imshow(grid, cmap="viridis", vmin=0, vmax=100, aspect="auto", origin="lower")
    for row, chunk in enumerate(chunks):
        for column, size in enumerate(sizes):
            if (value := cells.get((chunk, size))) is not None:
                color = "black" if value > 60 else "white"
                axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_yticks(range(len(chunks)), [str(chunk) for chunk in chunks])
    axes.set_xlabel("frames read")
    axes.set_ylabel("chunk size (frames)")
    figure.colorbar(image)
    return figure


def _gib_per_hour(s: Summary) -> float | None:
    return None if s.cost.bytes_per_hour is None else s.cost.bytes_per_hour / 2**30


def _cycle(n: int) -> list[str]:
    return [_COLORS[i % len(_COLORS)] for i in range(n)]
