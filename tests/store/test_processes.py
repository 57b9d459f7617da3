"""One process writes a session, others ask: new frames are seen at once, none is torn, and readers change nothing."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import rekv.store.writer
from rekv.engine import Session
from rekv.store.catalog import FILE, Catalog
from rekv.store.writer import Writer
from tests.store.faults import FRAMES, append_rest, made, open_session, true_blocks

ROOT = Path(__file__).parents[2]
FRAMES_WRITTEN = 48


def ingest(path: str) -> None:
    """In a process of its own: a call every 50 ms, and a line when its frames are durable."""
    rekv.store.writer.COMMIT_SECONDS = 0.1
    rekv.store.writer.SEGMENT_SLOTS = (6, 6)
    commit = Writer._commit

    def told(self: Writer) -> None:
        commit(self)
        print(self.durable, flush=True)

    Writer._commit = told  # type: ignore[method-assign]
    with open_session(Path(path)) as session:
        append_rest(session, 4)
        sys.stdin.readline()  # until everybody is there
        for frames in range(8, FRAMES_WRITTEN + 1, 4):
            append_rest(session, frames, flush=False)
            time.sleep(0.05)


def follow(path: str) -> None:
    """In a process of its own: ask until all frames are there; say what was seen each time."""
    truth = true_blocks(FRAMES_WRITTEN)
    session = open_session(Path(path))
    print("ready", flush=True)
    while session.memory.frames < FRAMES_WRITTEN:
        print(checked(session, truth), flush=True)


def checked(session: Session, truth: Sequence[torch.Tensor]) -> int:
    """Ask about all frames, and compare all that is visible with the truth; return how many frames the answer saw."""
    answer = session.ask("w7 w8", retrieve_size=80, max_new_tokens=2)
    assert answer.warnings == ()
    assert answer.retrieval.union == tuple(range(answer.frames_seen))
    for layer, blocks in zip(session.memory.layers.values(), truth, strict=True):
        assert torch.equal(layer.blocks.read(answer.retrieval.union), blocks[: answer.frames_seen])
    return answer.frames_seen


def start(function: str, path: Path) -> "subprocess.Popen[str]":
    code = f"import sys; from tests.store.test_processes import {function}; {function}(sys.argv[1])"
    command = [sys.executable, "-c", code, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_readers_see_what_is_committed_and_nothing_torn(tmp_path: Path) -> None:
    path = tmp_path / "session"
    truth = true_blocks(FRAMES_WRITTEN)
    with start("ingest", path) as writer:
        try:
            assert writer.stdin is not None
            assert writer.stdout is not None
            assert writer.stdout.readline() == "4\n"
            reader = open_session(path)
            with start("follow", path) as other:
                try:
                    assert other.stdout is not None
                    assert other.stdout.readline() == "ready\n"
                    writer.stdin.write("go\n")
                    writer.stdin.flush()
                    durable = [4]
                    for line in writer.stdout:
                        durable.append(int(line))
                        assert checked(reader, truth) >= durable[-1], "a question does not see what is committed"
                    seen = [int(line) for line in other.stdout]
                    assert other.wait(60) == 0
                finally:
                    other.kill()
            assert writer.wait(60) == 0
        finally:
            writer.kill()
    assert len(durable) > 3
    assert durable[-1] == seen[-1] == checked(reader, truth) == FRAMES_WRITTEN
    assert seen == sorted(seen)
    assert len(set(seen)) > 2, "the other reader came too late to see it grow"


# -- readers write nothing ---------------------------------------------------------------------------------------------


def content(path: Path) -> dict[str, Any]:
    """Every file of a session but the catalog, whose rows count: SQLite's bookkeeping is its own."""
    catalog = Catalog(path, writable=False)
    rows = {
        "meta": catalog.meta(),
        "segments": catalog.segments(),
        "frames": catalog.frames(),
        "sources": catalog.sources(),
        "pins": catalog.pins(),
        "thumbnails": [catalog.thumbnail(row.id) for row in catalog.frames()],
    }
    catalog.close()
    files = {
        entry.name: (hashlib.sha256(entry.read_bytes()).hexdigest(), entry.stat().st_mtime_ns)
        for entry in path.iterdir()
        if not entry.name.startswith(FILE)
    }
    return {**rows, **files}


def test_readers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (6, 6))
    path = made(tmp_path / "session", 40, kv="int8")
    segment = sorted(path.glob("segment-*"))[1]
    data = bytearray(segment.read_bytes())
    data[-200] ^= 1  # not even if they find damage
    segment.write_bytes(data)
    before = content(path)
    warned = []
    for storage in ({}, {"kv": "raw", "max_age": 5.0}, {"ram": 100_000, "thin_after": 5.0}):
        reader = open_session(path, **storage)
        warned += [reader.ask("w7", retrieve_size=size, max_new_tokens=2).warnings for size in (1, 80)]
        reader.flush()
        reader.close()
    assert any(warned)
    assert content(path) == before


# -- retention ---------------------------------------------------------------------------------------------------------


def test_frames_are_removed_while_a_reader_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that has begun is answered; the next one knows that they are gone."""
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (6, 6))
    path = tmp_path / "session"
    truth = true_blocks(len(FRAMES))
    with open_session(path, max_age=20.0) as writer:
        append_rest(writer, 24)
        reader = open_session(path)
        assert reader.keeper is not None
        refresh = reader.keeper.refresh
        until = iter((80,))

        def refresh_then_much_happens(memory: Any) -> None:
            refresh(memory)
            if more := next(until, None):
                append_rest(writer, more)

        monkeypatch.setattr(reader.keeper, "refresh", refresh_then_much_happens)
        answer = reader.ask("w7", retrieve_size=80, max_new_tokens=2)
        assert answer.frames_seen == 24
        assert answer.retrieval.union == tuple(range(24))
        for layer, blocks in zip(reader.memory.layers.values(), truth, strict=True):
            assert torch.equal(layer.blocks.read(range(24)), blocks[:24])
        after = reader.ask("w7", retrieve_size=80, max_new_tokens=2)
        assert after.warnings == ()
        assert 30 < after.retrieval.union[0] <= 60
        assert after.retrieval.union[-1] == 79


def test_segments_are_packed_while_a_reader_has_closed_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their old files are gone, their frames are not."""
    monkeypatch.setattr("rekv.store.writer.SEGMENT_SLOTS", (6, 6))
    monkeypatch.setattr("rekv.store.folder.OPEN_SEGMENTS", 1)
    path = tmp_path / "session"
    with open_session(path, kv="int8") as writer:
        append_rest(writer, 24)
        reader = open_session(path)
        assert reader.keeper is not None
        refresh = reader.keeper.refresh
        until = iter((60,))

        def refresh_then_much_happens(memory: Any) -> None:
            refresh(memory)
            if more := next(until, None):
                append_rest(writer, more)

        monkeypatch.setattr(reader.keeper, "refresh", refresh_then_much_happens)
        assert reader.ask("w7", retrieve_size=80, max_new_tokens=2).frames_seen > 0
        after = reader.ask("w7", retrieve_size=80, max_new_tokens=2)
        assert after.retrieval.union == tuple(range(60))
        assert after.warnings == ()
