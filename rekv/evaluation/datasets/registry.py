"""Which benchmarks there are, by name. A new one is one small file and one line here, or an entry point."""

from collections.abc import Sequence

from rekv.errors import ConfigError
from rekv.evaluation.datasets.base import Dataset
from rekv.plugins import hint, imported, installed

GROUP = "rekv.datasets"  # entry points of other packages: name = "module:Class"

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
    return tuple(dict.fromkeys((*_KNOWN, *sorted(installed(GROUP)))))


def find(name: str) -> Dataset:
    """The benchmark of this name. Raises `ConfigError` if there is none, or it cannot be imported."""
    known = _KNOWN.get(name)
    if known is None and (entry := installed(GROUP).get(name)) is not None:
        return _foreign(name, entry.value)
    if known is None:
        raise ConfigError(f"there is no dataset {name!r}; {hint(name, names())}There are {', '.join(names())}")
    if isinstance(known, str):
        known = imported(f"rekv.evaluation.datasets.{known}")
    return known()


def _foreign(name: str, where: str) -> Dataset:
    try:
        dataset: type[Dataset] = imported(where)
        if dataset.name != name:
            raise TypeError(f"it calls itself {dataset.name!r}")
        return dataset()
    except Exception as error:  # whatever another package's import raises
        raise ConfigError(
            f"the dataset {name!r} cannot be had from {where} ({type(error).__name__}: {error}); mend or uninstall the "
            f"package that offers it"
        ) from error
