"""Tables of runs: Markdown for people, CSV for programs, what was published beside ours."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rekv.evaluation.cell import Cell
from rekv.evaluation.published import figures_of
from rekv.evaluation.run import Run
from rekv.evaluation.statistics import Estimate, compare
from rekv.evaluation.summary import Summary, keyed, published_tasks

_SHOWN_FAILURES = 5

METRICS = {
    "accuracy": "multiple-choice accuracy",
    "judge": "share that the judge calls right",
    "exact": "share of answers whose words are those of the truth",
    "contains": "share of answers that contain the truth",
    "count": "share of answers with the right number, or word",
    "token_f1": "word overlap with the truth (F1), a fallback without a judge; not comparable with judged figures",
}


def markdown(found: Sequence[Summary], baseline: Run | None = None) -> str:
    """The whole report. `baseline`: what the other runs on the same data are compared with."""
    parts = [
        ("Runs", _overview(found)),
        ("Groups", _breakdown(found, "groups")),
        ("Tasks", _breakdown(found, "tasks")),
        ("Published figures beside ours", _beside(found)),
        ("Compared question by question", _paired(found, baseline)),
        ("What is missing", _missing(found)),
        ("Made with", _environments(found)),
    ]
    metrics = [f"- {name}: {METRICS[name]}" for name in dict.fromkeys(s.metric for s in found) if name in METRICS]
    notes = [
        "Intervals are 95 %, clustered by video. Failed questions count as wrong.",
        *metrics,
        *dict.fromkeys(f"- judge: {judge}" for s in found for judge in s.judges),
    ]
    body = [f"## {title}\n\n{text}" for title, text in parts if text]
    return "\n\n".join(["# Evaluation", "\n".join(notes), *body]) + "\n"


def rows(found: Sequence[Summary]) -> list[dict[str, Any]]:
    """One flat row per run: settings, scores, costs. Shares are 0..1."""
    return [_row(summary) for summary in found]


def as_csv(found: Sequence[Summary]) -> str:
    table = rows(found)
    columns = list(dict.fromkeys(name for row in table for name in row))
    out = StringIO()
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _row(summary: Summary) -> dict[str, Any]:
    cost, estimates = summary.cost, {"score": summary.score, "answered": summary.answered}
    estimates |= {"by_likelihood": summary.by_likelihood}
    row = {**summary.run.cell.as_json(), "metric": summary.metric}
    for name, estimate in {**estimates, "judge_score": summary.judged, **summary.grounding}.items():
        if estimate is not None:
            row |= {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row | {
        "questions": summary.asked,
        "videos": len(summary.run.records),
        "failed": len(summary.failed),
        "lost_videos": len(summary.lost),
        "unread": summary.unread,
        "cut": summary.cut,
        "first_token_ms": cost.first_token_ms,
        "answer_ms": cost.answer_ms,
        "encode_fps": cost.encode_fps,
        "peak_ram": cost.peak_ram,
        "peak_gpu": cost.peak_gpu,
        "bytes_per_hour": cost.bytes_per_hour,
        "run": str(summary.run.folder),
    }


def label(cell: Cell) -> str:
    """What tells a run from others of its model and data set."""
    size = f"{cell.retrieve_tokens} tokens" if cell.retrieve_tokens else str(cell.retrieve_size or "")
    parts = [cell.retriever, *([size] if size else [])]
    parts += [f"chunk {cell.chunk_size}"] if cell.chunk_size > 1 else []
    parts += [f"recent {cell.recent_frames}"] if cell.recent_frames else []
    parts += [f"{cell.frame_tokens} a frame"] if cell.frame_tokens else []
    parts += [cell.policy] if cell.policy else []
    parts += [cell.weights] if cell.weights else []
    parts += ["paper"] if cell.paper else []
    return " ".join(parts)


def _overview(found: Sequence[Summary]) -> str:
    table = []
    for s in found:
        cell, cost = s.run.cell, s.cost
        table.append(
            {
                "model": cell.model,
                "dataset": cell.dataset,
                "frames": label(cell),
                "fps": f"{cell.sample_fps:g}",
                "mode": cell.mode,
                "metric": s.metric,
                "score": percent(s.score),
                "of those answered": percent(s.answered),
                "likeliest letter": percent(s.by_likelihood),
                "judge 0-5": f"{s.judged.mean:.2f}" if s.judged else "",
                **{name: f"{100 * estimate.mean:.1f}" for name, estimate in s.grounding.items()},
                "n": str(s.score.n if s.score else s.asked),
                "failed": str(len(s.failed)) if s.failed else "",
                "TTFT": f"{cost.first_token_ms:.0f} ms" if cost.first_token_ms is not None else "",
                "encode": f"{cost.encode_fps:.0f} frames/s" if cost.encode_fps is not None else "",
                "RAM": _gib(cost.peak_ram),
                "GPU": _gib(cost.peak_gpu),
                "per hour": _gib(cost.bytes_per_hour),
            }
        )
    return _table(table)


def _breakdown(found: Sequence[Summary], which: str) -> str:
    """One table per data set: tasks down, runs across."""
    tables = []
    for dataset in dict.fromkeys(s.run.cell.dataset for s in found):
        here = [s for s in found if s.run.cell.dataset == dataset]
        parts: list[Mapping[str, Estimate]] = [getattr(s, which) for s in here]
        names = sorted({name for part in parts for name in part})
        if len(names) < 2:
            continue
        table = []
        for name in names:
            n = max(part[name].n for part in parts if name in part)
            row = {dataset: name, "n": str(n)}
            for s, part in zip(here, parts, strict=True):
                row[f"{s.run.cell.model} {label(s.run.cell)}"] = percent(part.get(name), short=True)
            table.append(row)
        tables.append(_table(table))
        tables += [_as_published(s.run) for s in here if which == "tasks" and s.run.cell.paper and dataset == "mlvu"]
    return "\n\n".join(tables)


def _as_published(run: Run) -> str:
    figures = ", ".join(f"{task} {value:.2f}" for task, value in published_tasks(run).items())
    return f"As the published script prints them (right answers of the task in percent of all questions): {figures}."


def _beside(found: Sequence[Summary]) -> str:
    table = []
    for s in found:
        cell = s.run.cell
        ours = {
            s.metric: s.score and 100 * s.score.mean,
            "score": s.judged and s.judged.mean,
            **{name: 100 * estimate.mean for name, estimate in s.grounding.items()},
        }
        for figure in figures_of(cell.model, cell.dataset):
            if figure.retriever == cell.retriever and ours.get(figure.metric) is not None:
                table.append(
                    {
                        "model": cell.model,
                        "dataset": cell.dataset,
                        "frames": label(cell),
                        "metric": figure.metric,
                        "ours": f"{ours[figure.metric]:.1f}",
                        "published": f"{figure.value:g}",
                        "source": figure.source,
                    }
                )
    return _table(table)


def _paired(found: Sequence[Summary], baseline: Run | None) -> str:
    """Every run against the baseline, or against the first one on the same data."""
    table = []
    first: dict[Any, Run] = {}
    for s in found:
        run = s.run
        against = first.setdefault(run.head["data"]["sha256"], run)
        if baseline is not None and baseline.head["data"]["sha256"] == run.head["data"]["sha256"]:
            against = baseline
        if against.folder == run.folder:
            continue
        comparison = compare(keyed(against), keyed(run))
        if comparison is not None:
            change = comparison.difference
            table.append(
                {
                    "run": f"{run.cell.model} {run.cell.dataset} {label(run.cell)}",
                    "against": f"{against.cell.model} {label(against.cell)}",
                    "difference": f"{100 * change.mean:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]",
                    "p": f"{comparison.p:.3f}",
                    "better": str(comparison.better),
                    "worse": str(comparison.worse),
                    "n": str(change.n),
                }
            )
    return _table(table)


def _missing(found: Sequence[Summary]) -> str:
    lines = []
    for s in found:
        where = f"{s.run.cell.model} {s.run.cell.dataset} {label(s.run.cell)}"
        unasked = s.run.head["data"]["videos"] - len(s.run.records)
        if unasked:
            lines.append(f"- {where}: not finished, {unasked} of {s.run.head['data']['videos']} videos are missing")
        if s.unread:
            lines.append(f"- {where}: no choice could be read from {s.unread} answers; they count as wrong")
        if s.cut:
            told = f"{s.cut} open-ended answers were cut at {s.run.cell.max_new_tokens} tokens"
            lines.append(f"- {where}: {told} (--max-new-tokens)")
        single = [(f"{f.video}, question {f.key[1]}", f.failed or "") for f in s.failed if f.video not in s.lost]
        wrong = [*s.lost.items(), *single]
        lines += [f"- {where}: {place}: {' '.join(why.split())}" for place, why in wrong[:_SHOWN_FAILURES]]
        if len(wrong) > _SHOWN_FAILURES:
            lines.append(f"- {where}: and {len(wrong) - _SHOWN_FAILURES} more failures")
    return "\n".join(lines)


def _environments(found: Sequence[Summary]) -> str:
    """Settings that differ between runs are in the tables; what should be equal is listed once, with its exceptions."""
    lines: dict[str, list[str]] = {}
    for s in found:
        made = s.run.processes or [s.run.head["environment"]]
        for process in made:
            text = ", ".join(
                f"{key} {value}" for key, value in process.items() if value and key not in ("started", "argv")
            )
            runs = lines.setdefault(text, [])
            if (name := str(s.run.folder)) not in runs:
                runs.append(name)
    if len(lines) == 1:
        return next(iter(lines))
    return "\n".join(f"- {text}: {', '.join(runs)}" for text, runs in lines.items())


def percent(estimate: Estimate | None, *, short: bool = False) -> str:
    if estimate is None:
        return ""
    mean = f"{100 * estimate.mean:.1f}"
    return mean if short else f"{mean} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _gib(n: float | None) -> str:
    return "" if n is None else f"{n / 2**30:.2f} GiB"


def _table(table: Sequence[Mapping[str, str]]) -> str:
    """Markdown; columns that are empty throughout are left out."""
    names = [
        name for name in dict.fromkeys(name for row in table for name in row) if any(row.get(name) for row in table)
    ]
    if not names:
        return ""
    lines = [names, ["---"] * len(names), *([_cell(row.get(name, "")) for name in names] for row in table)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
