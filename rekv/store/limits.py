"""What a session's stream may take up, kept with it: whoever writes on without saying otherwise keeps to it."""

import json
import os
from collections.abc import Mapping
from typing import Any

from rekv.core import StorageConfig
from rekv.errors import ConfigError
from rekv.store.catalog import Catalog, put
from rekv.store.meta import SessionMeta

# The other fields of `StorageConfig` are a machine's, not a session's; `kv` is fixed when the session is made.
_KEPT = ("disk", "max_age", "thin_after", "thin_keep")
_SEGMENTS_PER_LIMIT = 8


def kept_limits(catalog: Catalog) -> Mapping[str, Any]:
    """Return the limits stored with a session, by field of `StorageConfig`; none if they cannot be read.

    Without a limit nothing is removed: that is the side to err on.
    """
    try:
        found = json.loads(catalog.get("limits") or "{}")
        StorageConfig().but(**found)
    except (ValueError, TypeError, ConfigError):
        return {}
    return {name: found[name] for name in _KEPT if name in found}


def keep_limits(catalog: Catalog, storage: StorageConfig) -> None:
    """Store a writer's limits with the session, unless they are stored already."""
    text = json.dumps({name: getattr(storage, name) for name in _KEPT})
    if catalog.get("limits") != text:
        with catalog.transaction() as sql:
            put(sql, limits=text)


def segment_bytes(storage: StorageConfig, meta: SessionMeta) -> int | None:
    """Return how many bytes of blocks a segment may have at most: limits act on whole segments, so they are smaller
    where a limit is small. None: there is no limit."""
    per_second = meta.encode.sample_fps * meta.bytes_per_frame
    limits = [storage.disk, *(age and age * per_second for age in (storage.max_age, storage.thin_after))]
    found = [int(limit) // _SEGMENTS_PER_LIMIT for limit in limits if limit is not None]
    return min(found, default=None)


def default_ram() -> int:
    """A quarter of this machine's memory, in bytes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (ValueError, OSError):
        return 4 << 30
