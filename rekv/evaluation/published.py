"""Figures that others published, each with where it is from, to be put beside ours.

They were measured on other hardware, and open-ended ones by judges that are no longer there: they are a reference, not
a target to the last digit.
"""

from dataclasses import dataclass

_PAPER = "arXiv 2503.00540 (ICLR 2025)"
_NOTES = f"{_PAPER}, ablations on QAEgo4D"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a table."""

    model: str  # an alias
    dataset: str
    retriever: str  # as `rekv eval` calls it
    metric: str  # "accuracy", "judge", "score" (0..5), "recall"; but for the score in percent
    value: float
    source: str


def _offline() -> list[Figure]:
    """Accuracy of the stock model on uniform frames, and with internal retrieval."""
    rows: dict[str, dict[str, tuple[float, float]]] = {
        "llava_ov_0.5b": {
            "mlvu": (53.2, 56.1),
            "qaego4d": (42.6, 50.0),
            "egoschema": (29.6, 31.0),
            "activitynet_qa": (50.5, 52.1),
            "cgbench": (21.4, 21.7),
        },
        "llava_ov_7b": {
            "mlvu": (64.7, 68.5),
            "qaego4d": (52.8, 56.0),
            "egoschema": (59.8, 60.7),
            "activitynet_qa": (56.6, 60.4),
            "cgbench": (31.1, 33.9),
        },
        "llava_ov_72b": {
            "mlvu": (71.9, 72.6),
            "qaego4d": (53.6, 57.0),
            "egoschema": (59.6, 62.0),
            "cgbench": (37.2, 40.5),
        },
        "video_llava_7b": {
            "mlvu": (46.5, 47.2),
            "qaego4d": (37.0, 37.9),
            "egoschema": (41.4, 42.2),
            "cgbench": (18.7, 19.2),
        },
        "longva_7b": {
            "mlvu": (57.3, 58.6),
            "qaego4d": (42.8, 45.6),
            "egoschema": (42.5, 42.7),
            "cgbench": (26.1, 26.4),
        },
    }
    return [
        Figure(model, dataset, retriever, "judge" if dataset == "activitynet_qa" else "accuracy", value, _PAPER)
        for model, found in rows.items()
        for dataset, pair in found.items()
        for retriever, value in zip(("stock", "internal"), pair, strict=True)
    ]


def _streaming() -> list[Figure]:
    """Share right and mean score by the judge gpt-3.5-turbo-0613, which has been withdrawn."""
    rows = {
        ("llava_ov_7b", "stock"): ((56.2, 3.7), (43.0, 3.3)),
        ("llava_ov_7b", "external"): ((62.4, 3.9), (53.6, 3.5)),
        ("llava_ov_7b", "internal"): ((63.7, 4.0), (54.4, 3.6)),
        ("llava_ov_0.5b", "stock"): ((51.8, 3.7), (37.2, 3.2)),
        ("llava_ov_0.5b", "external"): ((54.1, 3.8), (44.7, 3.4)),
        ("llava_ov_0.5b", "internal"): ((54.7, 3.9), (44.6, 3.4)),
    }
    source = f"{_PAPER}, table 5, judge gpt-3.5-turbo-0613"
    return [
        Figure(model, dataset, retriever, metric, value, source)
        for (model, retriever), pairs in rows.items()
        for dataset, pair in zip(("rvs_ego", "rvs_movie"), pairs, strict=True)
        for metric, value in zip(("judge", "score"), pair, strict=True)
    ]


def _ablation() -> list[Figure]:
    """QAEgo4D: accuracy and recall by the way of choosing frames; MLVU with an external retriever."""
    rows = {
        ("llava_ov_0.5b", "external"): (48.0, 58.1),
        ("llava_ov_0.5b", "internal"): (None, 63.4),
        ("llava_ov_0.5b", "oracle"): (52.0, 100.0),
        ("llava_ov_7b", "external"): (54.2, 58.1),
        ("llava_ov_7b", "internal"): (None, 70.5),
        ("llava_ov_7b", "oracle"): (64.4, 100.0),
        ("llava_ov_0.5b", "stock"): (None, 6.1),
        ("llava_ov_7b", "stock"): (None, 6.1),
    }
    found = [
        Figure(model, "qaego4d", retriever, metric, value, _NOTES)
        for (model, retriever), pair in rows.items()
        for metric, value in zip(("accuracy", "recall"), pair, strict=True)
        if value is not None
    ]
    return [*found, Figure("llava_ov_7b", "mlvu", "external", "accuracy", 66.3, f"{_PAPER}, ablation")]


def _reruns() -> list[Figure]:
    """What others got who ran it again: how far a judge moves the figures of open-ended questions."""
    return [
        Figure("llava_ov_7b", "rvs_ego", "internal", "judge", 56.2, "MuKV (arXiv 2605.22269), a newer GPT-3.5"),
        Figure(
            "llava_ov_7b", "rvs_ego", "internal", "judge", 48.6, "github.com/Becomebright/ReKV/issues/17, gpt-4o-mini"
        ),
        Figure("llava_ov_0.5b", "rvs_ego", "internal", "judge", 51.5, "github.com/Becomebright/ReKV/issues/8"),
        Figure("llava_ov_0.5b", "rvs_movie", "internal", "judge", 42.3, "github.com/Becomebright/ReKV/issues/8"),
    ]


FIGURES: tuple[Figure, ...] = (*_offline(), *_streaming(), *_ablation(), *_reruns())


def figures_of(model: str, dataset: str) -> list[Figure]:
    """What was published of a model on a data set."""
    return [figure for figure in FIGURES if (figure.model, figure.dataset) == (model, dataset)]
