"""Which retrievers there are, by name. A new one is one small file and one line here, or an entry point.

An entry point of the group `rekv.retrievers` names a factory: a class or function that takes a `Query` and returns a
`Retriever`. It is imported when it is asked for.
"""

from collections.abc import Sequence

from rekv.errors import ConfigError
from rekv.plugins import brought, hint, installed
from rekv.retrieval.base import Factory

GROUP = "rekv.retrievers"

_KNOWN: dict[str, str | Factory] = {
    "internal": "rekv.retrieval.internal:internal",
    "external": "rekv.retrieval.external:external",
    "fusion": "rekv.retrieval.fusion:fusion",
    "uniform": "rekv.retrieval.simple:uniform",
    "recent": "rekv.retrieval.simple:recent",
    "oracle": "rekv.retrieval.oracle:oracle",
    "auto": "rekv.retrieval.auto:auto",
}
_NEED_PICTURES = {"external", "fusion"}


def register(name: str, factory: Factory) -> None:
    """Let `retriever=name` mean this one."""
    _KNOWN[name] = factory


def names() -> Sequence[str]:
    """The names of all, in the order in which they are told."""
    return tuple(dict.fromkeys((*_KNOWN, *sorted(installed(GROUP)))))


def find(name: str) -> Factory:
    """The factory of this name. Raises `ConfigError` if there is none, or it cannot be imported."""
    known = _KNOWN.get(name)
    if known is None and (entry := installed(GROUP).get(name)) is not None:
        known = entry.value
    if known is None:
        raise ConfigError(f"there is no retriever {name!r}; {hint(name, names())}There are {', '.join(names())}")
    factory: Factory = brought(f"the retriever {name!r}", known) if isinstance(known, str) else known
    return factory


def needs_pictures(name: str) -> bool:
    """Whether it asks for `Query.similarity`, for which a session must have been read with a dual encoder.

    A factory of an entry point says so by an attribute `needs_pictures`.
    """
    return name in _NEED_PICTURES or bool(getattr(find(name), "needs_pictures", False))
