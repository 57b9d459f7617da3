"""A session's limits are its own: whoever writes on keeps to them, until somebody gives others."""

from pathlib import Path
from typing import Any

import pytest

from rekv.engine import Session
from rekv.store.catalog import Catalog, put
from tests.store.support import kept, small_segments
from tests.support import pictures

FRAMES = pictures(80)
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
