"""Which memory policies there are. A new one is one line here, a call of `register`, or an entry point."""

from typing import TYPE_CHECKING

from rekv.errors import ConfigError
from rekv.plugins import brought, hint, installed

if TYPE_CHECKING:  # importing torch takes seconds, which looking for a name does without
    from rekv.memory.policies.base import Policy

GROUP = "rekv.policies"  # entry points of other packages: name = "module:Class"

_POLICIES: "dict[str, str | type[Policy]]" = {  # the class, or where it is
    "redundancy": "rekv.memory.policies.redundancy:Redundancy",
    "value-norm": "rekv.memory.policies.value_norm:ValueNorm",
}


def register(policy: "type[Policy]") -> "type[Policy]":
    """Teach `find` another policy, by its `name`; can be used as a decorator."""
    _POLICIES[policy.name] = policy
    return policy


def names() -> list[str]:
    """All names that `find` knows."""
    return sorted(_POLICIES.keys() | installed(GROUP).keys())


def find(text: str | None) -> "Policy | None":
    """Make the policy that "name" or "name:number" says, such as "value-norm:0.5"; None for None.

    Raises `ConfigError` for a name that nobody offers, and for a number that the policy does not take.
    """
    if text is None:
        return None
    name, colon, number = text.partition(":")
    if name not in _POLICIES and name not in installed(GROUP):
        raise ConfigError(
            f"no memory policy {name!r}; {hint(name, names())}The policies are {', '.join(names())}; a session that "
            f"another package's policy made needs that package"
        )
    policy = _load(name)
    try:
        return policy(float(number)) if colon else policy()
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"policy {text!r}: write {name}, or {name}:NUMBER ({error})") from error


def _load(name: str) -> "type[Policy]":
    from rekv.memory.policies.base import Policy

    policy = _POLICIES[name] if name in _POLICIES else installed(GROUP)[name].value
    if isinstance(policy, str):
        found: type[Policy] = brought(f"the memory policy {name!r}", policy, Policy)
        return found
    return policy
