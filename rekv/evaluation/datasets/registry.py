"""Which benchmarks there are, by name. A new one is one small file and one line here."""

from collections.abc import Sequence

from rekv.errors import ConfigError
from rekv.evaluation.datasets.base import Dataset
from rekv.plugins import hint, imported

_KNOWN: dict[str, str | type[Dataset]] = {
    "mlvu": "mlvu:MLVU",
    "qaego4d": "qaego4d:QAEgo4D",
    "egoschema": "egoschema:EgoSchema",
    "activitynet_qa": "activitynet_qa:ActivityNetQA",
    "cgbench": "cgbench:CGBench",
    "rvs_ego": "rvs:RVSEgo",
    "rvs_movie": "rvs:RVSMovie",
    "streamingbench": "streamingbench:StreamingBench",
    "ovobench": "ovobench:OVOBench",
    "videomme": "videomme:VideoMME",
    "lvbench": "lvbench:LVBench",
    "longvideobench": "longvideobench:LongVideoBench",
    "egotempo": "egotempo:EgoTempo",
    "needle": "needle:Needle",
}


def register(dataset: type[Dataset]) -> type[Dataset]:
    """Teach `find` another benchmark; can be used as a decorator."""
    _KNOWN[dataset.name] = dataset
    return dataset


def names() -> Sequence[str]:
    return tuple(_KNOWN)


def find(name: str) -> Dataset:
    """The benchmark of this name. Raises `ConfigError` if there is none."""
    known = _KNOWN.get(name)
    if known is None:
        raise ConfigError(f"there is no dataset {name!r}; {hint(name, _KNOWN)}There are {', '.join(_KNOWN)}")
    if isinstance(known, str):
        known = imported(f"rekv.evaluation.datasets.{known}")
    return known()
