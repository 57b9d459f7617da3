"""What one question read, from which tier."""

from rekv.core import TierRead


class Reads:
    """Adds up blocks, bytes and seconds by tier: "gpu", "ram", "disk"."""

    def __init__(self) -> None:
        self._tiers: dict[str, TierRead] = {}

    def add(self, tier: str, blocks: int, bytes_each: int, seconds: float) -> None:
        old = self._tiers.get(tier, TierRead())
        if blocks:
            self._tiers[tier] = TierRead(old.blocks + blocks, old.bytes + blocks * bytes_each, old.seconds + seconds)

    @property
    def seconds(self) -> float:
        return sum(tier.seconds for tier in self._tiers.values())

    def by_tier(self) -> dict[str, TierRead]:
        return {name: self._tiers[name] for name in ("gpu", "ram", "disk") if name in self._tiers}
