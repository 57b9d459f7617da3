"""A close that fails, a Ctrl-C between two steps: the session keeps what it has, and goes on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from rekv.engine import Session
from rekv.errors import SessionError, StoreError
from rekv.store.writer import Writer
from tests.store.faults import FRAMES, FailingFiles, append_rest, ask, assert_intact, open_session
from tests.store.support import keeper_of

pytestmark = pytest.mark.usefixtures("_small_segments")


@pytest.mark.parametrize("ends", [Session.flush, Session.close], ids=["flush", "close"])
@pytest.mark.parametrize("kind", ["create", "write", "sync"])
def test_a_close_that_fails_changes_nothing(
    kind: str, ends: Callable[[Session], None], tmp_path: Path, truth: Sequence[torch.Tensor]
) -> None:
    """The writer is still there, nobody else may write, and it can be closed once there is room."""
    path = tmp_path / "session"
    files = FailingFiles(kind)
    session = open_session(path, files=files)
    append_rest(session, 4)
    files.failing = True
    with pytest.raises(StoreError, match="No space left"):
        append_rest(session, 12)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"No space left.*nothing is lost"):
            session.close()
        with pytest.raises(SessionError, match="being written"):
            open_session(path).append(FRAMES[4:8])
    assert ask(session).frames_seen == session.memory.frames > 4
    files.failing = False
    frames = session.memory.frames
    ends(session)
    assert assert_intact(path, truth) == frames
    append_rest(session, 20)
    session.close()
    with open_session(path) as other:
        append_rest(other, 24)
    assert assert_intact(path, truth) == 24


def go_on(session: Session) -> None:
    append_rest(session, 12)


@pytest.mark.parametrize("then", [go_on, Session.flush, Session.close], ids=["append", "flush", "close"])
@pytest.mark.parametrize("step", ["commit", "submit"])
def test_ctrl_c_between_a_commit_in_memory_and_the_one_on_disk(
    step: str,
    then: Callable[[Session], None],
    tmp_path: Path,
    truth: Sequence[torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Frames that questions see already are handed over with whatever comes next."""
    path = tmp_path / "session"
    session = open_session(path)
    append_rest(session, 4)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if step == "commit":
            patch.setattr(keeper_of(session), "commit", interrupted)
        else:
            patch.setattr(Writer, "submit", interrupted)
        session.append(FRAMES[4:8])
    assert ask(session).frames_seen == 8
    then(session)
    frames = session.memory.frames
    session.close()
    assert assert_intact(path, truth) == frames >= 8
    reader = open_session(path)
    assert list(reader.memory.times) == [frame.time for frame in FRAMES[:frames]]
    assert ask(reader).token_ids == ask(session).token_ids
