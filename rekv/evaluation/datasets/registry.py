"""Which benchmarks there are, by name. A new one is one small file and one line here, or an entry point."""

from collections.abc import Sequence

from rekv.errors import ConfigError
from rekv.evaluation.datasets.base import Dataset
from rekv.plugins import brought, hint, installed

GROUP = "rekv.datasets"  # entry points of other packages: name = "module:Class"

_KNOWN: dict[str, str | type[Dataset]] = {
    "mlvu": "rekv.evaluation.datasets.mlvu:MLVU",
    "qaego4d": "rekv.evaluation.datasets.qaego4d:QAEgo4D",
    "egoschema": "rekv.evaluation.datasets.egoschema:EgoSchema",
    "activitynet_qa": "rekv.evaluation.datasets.activitynet_qa:ActivityNetQA",
    "cgbench": "rekv.evaluation.datasets.cgbench:CGBench",
    "rvs_ego": "rekv.evaluation.datasets.rvs:RVSEgo",
    "rvs_movie": "rekv.evaluation.datasets.rvs:RVSMovie",
    "streamingbench": "rekv.evaluation.datasets.streamingbench:StreamingBench",
    "ovobench": "rekv.evaluation.datasets.ovobench:OVOBench",
    "videomme": "rekv.evaluation.datasets.videomme:VideoMME",
    "lvbench": "rekv.evaluation.datasets.lvbench:LVBench",
    "longvideobench": "rekv.evaluation.datasets.longvideobench:LongVideoBench",
    "egotempo": "rekv.evaluation.datasets.egotempo:EgoTempo",
    "needle": "rekv.evaluation.datasets.needle:Needle",
}


def register(dataset: type[Dataset]) -> type[Dataset]:
    """Teach `find` another benchmark; can be used as a decorator."""
    _KNOWN[dataset.name] = dataset
    return dataset


def names() -> Sequence[str]:
    return tuple(dict.fromkeys((*_KNOWN, *sorted(installed(GROUP)))))


def find(name: str) -> Dataset:
    """The benchmark of this name. Raises `ConfigError` if there is none, or it cannot be imported."""
    known = _KNOWN.get(name)
    if known is None and (entry := installed(GROUP).get(name)) is not None:
        known = entry.value
    if known is None:
        raise ConfigError(f"there is no dataset {name!r}; {hint(name, names())}There are {', '.join(names())}")
    dataset: type[Dataset] = brought(f"the dataset {name!r}", known, Dataset) if isinstance(known, str) else known
    return dataset()
