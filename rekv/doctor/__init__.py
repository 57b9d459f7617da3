"""What this machine has for rekv, and what to do about what is missing.

Nothing here needs the packages that it looks for: a missing or broken one is a finding, not an exception.
"""

from collections.abc import Callable, Iterable, Mapping

from rekv.doctor.finding import Finding
from rekv.doctor.machine import gpus, memory, processor, system
from rekv.doctor.models import builtin_model, disk, model_cache
from rekv.doctor.software import packages, video

__all__ = ["CHECKS", "Finding", "examine"]

CHECKS: Mapping[str, Callable[[], Iterable[Finding]]] = {
    "System": system,
    "Packages": packages,
    "CPU": processor,
    "Memory": memory,
    "GPU": gpus,
    "Video": video,
    "Built-in model": builtin_model,
    "Model cache": model_cache,
    "Disk": disk,
}


def examine(checks: Mapping[str, Callable[[], Iterable[Finding]]] = CHECKS) -> list[Finding]:
    """Make every check. One that breaks is a problem of its own and stops no other."""
    findings: list[Finding] = []
    for name, check in checks.items():
        try:
            findings.extend(check())
        except Exception as error:
            text = f"cannot be looked at: {type(error).__name__}: {error}"
            advice = "first mend the problems listed above; if there are none, reinstall rekv"
            findings.append(Finding(name, "problem", text, advice))
    return findings
