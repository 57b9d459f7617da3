"""Which benchmarks there are, by name. A new one is one small file and one line here."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from rekv.errors import ConfigError
from rekv.evaluation.datasets.base import Dataset

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
        near = get_close_matches(name, _KNOWN, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no dataset {name!r}; {hint}There are {', '.join(_KNOWN)}")
    if isinstance(known, str):
        module, _, attribute = known.partition(":")
        known = getattr(import_module(f"rekv.evaluation.datasets.{module}"), attribute)
    return known()
