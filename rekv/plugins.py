"""Things that have names: where they are, what other packages add to them, which one may have been meant."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rekv.errors import ConfigError


def installed(group: str) -> Mapping[str, EntryPoint]:
    """What installed packages offer under an entry point group, by name; none of it is imported."""
    return {point.name: point for point in entry_points(group=group)}


def imported(where: str) -> Any:
    """Import "module:attribute"."""
    module, _, attribute = where.partition(":")
    return getattr(import_module(module), attribute)


def brought(what: str, where: str, kind: type | None = None) -> Any:
    """Import "module:attribute", which `what` is the name of for people, from whatever package offers it.

    Raises `ConfigError` if it cannot be imported, or is not a subclass of `kind`.
    """
    mend = "mend or uninstall the package that offers it"
    try:
        found = imported(where)
    except Exception as error:  # whatever another package's import raises
        raise ConfigError(
            f"{what} cannot be imported from {where} ({type(error).__name__}: {error}); {mend}"
        ) from error
    if kind is not None and not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigError(f"{what}, {where}, is not a subclass of {kind.__name__}; {mend}")
    return found


def hint(name: str, known: Iterable[str]) -> str:
    """Words for a message: the known name that is nearest to one that is not, if any is near."""
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}? " if near else ""
