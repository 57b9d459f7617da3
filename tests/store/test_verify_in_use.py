"""Verify beside a writer: a sound session is never found unsound, whatever happens to its files meanwhile."""

import threading
from pathlib import Path
from typing import Any

import pytest

from rekv.engine import Model, Session
from rekv.errors import SessionError
from rekv.store.store import Store
from rekv.store.verify import _require_fit, verify
from tests.store.faults import append_rest, open_session
from tests.support import pictures, tiny_model

SLOTS = 8


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def session(model: Model, store: Path, **settings: Any) -> Session:
    return model.session("lobby", store=store, n_local=40, frames_per_call=4, sample_fps=1.0, **settings)


def test_a_session_that_is_written_can_be_checked_but_not_repaired(model: Model, tmp_path: Path) -> None:
    with session(model, tmp_path) as writing:
        writing.append(pictures(8))
        writing.flush()
        assert verify(tmp_path / "lobby").ok
        with pytest.raises(SessionError, match="is being written"):
            verify(tmp_path / "lobby", repair=True)
    assert verify(tmp_path / "lobby", repair=True).ok
    with Store(tmp_path).lock("lobby"):
        pass  # it was given back


@pytest.mark.usefixtures("_small_segments")
@pytest.mark.parametrize("storage", [{"kv": "int8"}, {"max_age": 5.0}], ids=["pack", "remove"])
@pytest.mark.parametrize("segments", [1, 3])
def test_files_are_replaced_while_they_are_read(
    segments: int, storage: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there when the check began is packed or removed just after a segment was opened."""
    path = tmp_path / "session"
    opened: list[Any] = []
    with open_session(path, **storage) as writing:
        append_rest(writing, 24)

        def require_then_much_happens(*arguments: Any) -> None:
            _require_fit(*arguments)
            opened.append(arguments)
            if len(opened) == segments:
                append_rest(writing, 80)

        with monkeypatch.context() as patch:
            patch.setattr("rekv.store.verify._require_fit", require_then_much_happens)
            report = verify(path)
        assert writing.memory.frames == 80
        assert (report.ok, [problem for problem in report.problems if problem.kind != "orphan"]) == (True, [])
    assert verify(path).problems == []


def test_a_session_is_sound_at_every_moment_of_its_making(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While segments are added, packed and removed under the one who checks."""
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (SLOTS, SLOTS))
    monkeypatch.setattr("rekv.store.writer.COMMIT_SECONDS", 0.0)
    with session(model, tmp_path, kv="int8", max_age=60.0) as writing:
        writing.append(pictures(4))
        writing.flush()
        thread = threading.Thread(target=lambda: writing.append(pictures(200)[4:]))
        thread.start()
        seen = set()
        while thread.is_alive():
            report = verify(tmp_path / "lobby")
            assert report.ok, report
            seen.add(report.frames)
        thread.join()
    assert len(seen) > 3
    assert verify(tmp_path / "lobby").problems == []
