"""Clocks, two writers, a folder that goes, the wrong model or settings: each is borne, or says what is wrong."""

import copy
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rekv.core import Frame
from rekv.engine import Model, Session
from rekv.errors import SessionError, StoreError
from rekv.store.store import Store
from tests.store.faults import (
    ENCODE,
    FRAMES,
    append_rest,
    ask,
    assert_intact,
    frames_of,
    made,
    open_session,
)
from tests.support import decoder_lm, in_time, randomise, tiny_model

pytestmark = pytest.mark.usefixtures("_small_segments")


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_clock_goes_backwards(tmp_path: Path, truth: Sequence[torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a run, and from one to the next."""
    clock = iter(range(2_000_000_000, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    for until in (8, 16, 24):
        with open_session(tmp_path / "session", max_age=1000.0) as session:
            while session.memory.frames < until:
                i = session.memory.frames
                session.append(Frame(frame.image, frame.time, time.time()) for frame in FRAMES[i : i + 4])
                session.flush()
    assert assert_intact(tmp_path / "session", truth) == 24
    assert ask(open_session(tmp_path / "session")).frames_seen == 24


# -- who may write -----------------------------------------------------------------------------------------------------


def test_two_objects_cannot_write(tmp_path: Path) -> None:
    with open_session(tmp_path / "session") as first:
        append_rest(first, 8)
        second = open_session(tmp_path / "session")
        with pytest.raises(SessionError, match="being written"):
            second.append(FRAMES[8:12])
        assert ask(second).frames_seen == 8
        append_rest(first, 12)
    assert ask(second).frames_seen == 12
    append_rest(second, 16)
    second.close()
    assert frames_of(tmp_path / "session") == list(range(16))


def test_of_two_threads_that_begin_at_once_one_writes(tmp_path: Path) -> None:
    model = tiny_model()
    sessions = [open_session(tmp_path / "session", model) for _ in range(4)]
    refused: list[SessionError] = []

    def write(session: Session) -> None:
        try:
            session.append(FRAMES[:4])
        except SessionError as error:
            refused.append(error)

    threads = [threading.Thread(target=write, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for session in sessions:
        session.close()
    assert len(refused) == 3
    assert frames_of(tmp_path / "session") == list(range(4))


HOLDER = """
import sys, time
from pathlib import Path
from tests.store.faults import append_rest, open_session
session = open_session(Path(sys.argv[1]))
append_rest(session, 12)
print("writing", flush=True)
time.sleep(600)
"""


def test_lock_of_a_killed_process_is_free_at_once(tmp_path: Path, truth: Sequence[torch.Tensor]) -> None:
    path = made(tmp_path / "session", 8)
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, cwd=root)
    with process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"writing\n"
            session = open_session(path)
            assert ask(session).frames_seen == 12
            with pytest.raises(SessionError, match="another process"):
                session.append(FRAMES[12:16])
        finally:
            process.kill()
    append_rest(session, 16)
    session.close()
    assert assert_intact(path, truth) == 16


# -- a place that is not what it was -----------------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True])
def test_folder_goes_while_it_is_written(replaced: bool, tmp_path: Path) -> None:
    path = tmp_path / "session"
    session = open_session(path)
    append_rest(session, 12)
    shutil.rmtree(path)
    if replaced:
        made(path, 4)
    with pytest.raises(StoreError, match="removed or replaced" if replaced else "is gone|No such file"):
        append_rest(session, 32)
    assert ask(session).frames_seen == session.memory.frames
    with pytest.raises(StoreError):
        session.close()
    if replaced:
        assert frames_of(path) == list(range(4))


def test_folder_goes_while_it_is_read(tmp_path: Path) -> None:
    """What is open stays readable; what is not cannot be, and says so."""
    path = made(tmp_path / "session", 24)
    session = open_session(path)
    shutil.rmtree(path)
    assert len(ask(session, frames=[3]).retrieval.candidates) == 24
    assert session.keeper is not None
    session.keeper.folder._open.clear()
    with pytest.raises(StoreError, match="is gone"):
        in_time(lambda: ask(session))


def test_folder_is_gone_before_it_is_written(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 8)
    session = open_session(path)
    shutil.rmtree(path)
    with pytest.raises(StoreError):
        session.append(FRAMES[8:12])
    assert not path.exists(), "something that is no session is in its place"


def test_path_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        Store(tmp_path / "file")
    session = open_session(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot be made"):
        session.append(FRAMES[:4])
    with pytest.raises(StoreError, match="cannot be made"):
        open_session(tmp_path / "file" / "session").append(FRAMES[:4])


# -- the wrong model, the wrong settings -------------------------------------------------------------------------------


def cast(dtype: torch.dtype) -> Model:
    return tiny_model(copy.deepcopy(decoder_lm()).to(dtype))


def test_foreign_model(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 8)
    other = tiny_model(randomise(copy.deepcopy(decoder_lm()), seed=1))
    with pytest.raises(SessionError, match=r"made by tiny .*, and this is tiny"):
        open_session(path, other)
    with pytest.raises(SessionError, match=r"made by tiny .*, and this is tiny"):
        open_session(path, tiny_model(decoder_lm(layers=2)))


def test_other_dtype_reads_but_does_not_append(tmp_path: Path) -> None:
    path = tmp_path / "session"
    narrow = cast(torch.bfloat16)
    with open_session(path, narrow) as session:
        append_rest(session, 24)
    narrow_hf: Any = narrow.family.hf
    wide = tiny_model(copy.deepcopy(narrow_hf).float())
    reader = open_session(path, wide)
    assert len(ask(reader).retrieval.union) == 24
    with pytest.raises(SessionError, match=r"bfloat16.* this is .*float32"):
        reader.append(FRAMES[24:28])
    assert len(ask(reader).retrieval.union) == 24
    with open_session(path, narrow) as session:
        append_rest(session, 28)
    assert frames_of(path) == list(range(28))


@pytest.mark.parametrize(
    ("setting", "message"), [("n_local", r"n_local 40 \(now 80\)"), ("sample_fps", r"sample_fps 1.0 \(now 80\)")]
)
def test_other_settings(setting: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "session", 8)
    monkeypatch.setitem(ENCODE, setting, 80)
    session = open_session(path)
    with pytest.raises(SessionError, match=message):
        session.append(FRAMES[8:12])
    assert ask(session).frames_seen == 8
