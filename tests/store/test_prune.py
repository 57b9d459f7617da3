"""Room made in a whole store: the oldest of all sessions go first, or are thinned."""

import os
from pathlib import Path

import pytest

from rekv.errors import ConfigError
from rekv.store.retention import prune
from rekv.store.store import Store
from tests.store.support import answer_of, kept, small_segments
from tests.support import pictures

FRAMES = pictures(80)
HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two sessions of segments of six frames: `old` was written two hours ago."""
    small_segments(monkeypatch, 6)
    for name in ("old", "new"):
        with kept(tmp_path, name=name) as session:
            session.append(FRAMES)
    for path in (tmp_path / "old").glob("segment-*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 2 * HOUR))
    return Store(tmp_path)


def there(store: Store, name: str) -> list[int]:
    session = kept(store.folder, name=name)
    return list(session.memory.table.there(range(session.memory.frames)))


def test_what_is_too_old_is_thinned(store: Store) -> None:
    trial = prune(store, max_age=HOUR, thin_keep=4, dry_run=True)
    before = there(store, "old")
    pruned = prune(store, max_age=HOUR, thin_keep=4)
    left = there(store, "old")
    whole = next(frame for frame in range(80) if set(range(frame, 80)) <= set(left))
    assert before == list(range(80))
    assert 48 <= whole < 80
    assert left == [*range(0, whole, 4), *range(whole, 80)]
    assert there(store, "new") == list(range(80))
    assert [(one.session, one.frames) for one in trial.removals] == [
        (one.session, one.frames) for one in pruned.removals
    ]
    assert sum(one.frames for one in pruned.removals) == 80 - len(left)
    assert not prune(store, max_age=HOUR, thin_keep=4).removals, "what was thinned is not thinned again"
    answer = answer_of(kept(store.folder, name="old"), retrieve_size=9, end=float(whole))
    assert all(frame % 4 == 0 for layer in answer[1] for frame in layer)


def test_what_does_not_fit_is_thinned_before_it_is_removed(store: Store) -> None:
    full = prune(store, disk=1 << 40).bytes
    pruned = prune(store, disk=full * 19 // 20, thin_keep=2)
    assert pruned.bytes <= full * 19 // 20
    assert there(store, "old")[:4] == [0, 2, 4, 6]
    assert there(store, "new") == list(range(80)), "the oldest of all sessions go first"
    pruned = prune(store, disk=1, thin_keep=2)
    assert pruned.bytes > 1
    assert there(store, "old")[0] > 40, "thinned ones go if that is not enough"
    assert there(store, "new")[0] > 40
    assert kept(store.folder, name="new").ask("w1", max_new_tokens=2).warnings == ()


def test_keeping_every_frame_is_no_thinning(store: Store) -> None:
    with pytest.raises(ConfigError, match="thin_keep is 1"):
        prune(store, max_age=HOUR, thin_keep=1)
