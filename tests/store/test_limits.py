"""A session's limits are its own: whoever writes on keeps to them, until somebody gives others."""

from pathlib import Path
from typing import Any

import pytest

from rekv.engine import Session
from rekv.errors import ConfigError, SessionError
from rekv.store.catalog import Catalog, put
from rekv.store.codecs import AUTO
from rekv.store.store import Store
from tests.store.support import kept, small_segments
from tests.support import pictures, tiny_model

FRAMES = pictures(80)
FRAME = 3 * 2 * 2 * 3 * 16 * 4  # bytes: the tiny model's blocks of one frame
NAMES = ("disk", "max_age", "thin_after", "thin_keep")


def limits(session: Session) -> dict[str, Any]:
    return {name: getattr(session.storage, name) for name in NAMES}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_segments(monkeypatch, 6)
    with kept(tmp_path, max_age=30.0, disk=10**9) as session:
        session.append(FRAMES[:20])
    return tmp_path


def test_they_hold_for_the_next_writer(folder: Path) -> None:
    with kept(folder) as session:
        assert limits(session) == {"disk": 10**9, "max_age": 30.0, "thin_after": None, "thin_keep": 10}
        session.append(FRAMES[20:])
    with kept(folder) as session:
        table = session.memory.table
        assert not list(table.there(range(20)))  # what is older than 30 seconds went
        assert list(table.there(range(50, 80))) == list(range(50, 80))


def test_given_ones_replace_them_for_good(folder: Path) -> None:
    with kept(folder, max_age=50.0) as session:
        session.append(FRAMES[20:24])
    assert limits(kept(folder)) == {"disk": 10**9, "max_age": 50.0, "thin_after": None, "thin_keep": 10}


def test_none_takes_one_away(folder: Path) -> None:
    with kept(folder, max_age=None) as session:
        session.append(FRAMES[20:24])
    assert limits(kept(folder))["max_age"] is None


def test_a_reader_changes_nothing(folder: Path) -> None:
    with kept(folder, max_age=1.0) as session:
        session.ask("what")
    assert limits(kept(folder))["max_age"] == 30.0


@pytest.mark.parametrize("text", ["", "nonsense", '{"max_age": -1}', '{"colour": 1}', "[1]"])
def test_unreadable_ones_remove_nothing(folder: Path, text: str) -> None:
    catalog = Catalog(folder / "cam", writable=True)
    with catalog.transaction() as sql:
        put(sql, limits=text)
    catalog.close()
    with kept(folder) as session:
        assert limits(session) == {"disk": None, "max_age": None, "thin_after": None, "thin_keep": 10}
        session.append(FRAMES[20:])
        assert list(session.memory.table.there(range(80))) == list(range(80))


def test_the_smallest_codec_that_costs_nothing_can_be_asked_for(tmp_path: Path) -> None:
    with kept(tmp_path, kv="auto") as session:
        session.append(FRAMES[:4])
    assert Store(tmp_path).open("cam").meta.codec == AUTO
    with kept(tmp_path, kv="auto") as session:
        session.append(FRAMES[4:8])
    with kept(tmp_path, kv="int8") as session, pytest.raises(SessionError, match="stored as int4, not as int8"):
        session.append(FRAMES[8:12])


@pytest.mark.parametrize("limit", [{"disk": 40 * FRAME * 8}, {"max_age": 640.0}, {"thin_after": 640.0}], ids=str)
def test_a_small_limit_makes_small_segments(tmp_path: Path, limit: dict[str, Any]) -> None:
    """Limits act on whole segments: of one of the usual size, 4,096 frames, nothing would ever go."""
    with kept(tmp_path, **limit) as session:
        session.append(FRAMES)
    assert [row.slots for row in Store(tmp_path).open("cam").catalog.segments()] == [40, 40]


def test_what_only_a_store_can_do_is_refused_without_one() -> None:
    with pytest.raises(ConfigError, match="disk, kv: of a session in a store"):
        tiny_model().session(disk=10**9, kv="int8")
