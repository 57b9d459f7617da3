"""`rekv ingest`: read once, stopped anywhere, gone on with; and asked while and after that."""

import errno
import gc
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from click.testing import Result
from PIL import Image

from rekv import load
from rekv.store.catalog import FrameRow
from rekv.store.files import Files
from rekv.store.store import Store
from rekv.world import Story
from tests.cli.conftest import Run
from tests.cli.terminal import stop

ESCAPE = "\x1b"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def ingest_json(run: Run, *args: object) -> dict[str, Any]:
    result = run("ingest", *args, "--json")
    assert result.exit_code == 0, result.output
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def rows(store: Path, name: str) -> list[FrameRow]:
    return Store(store).open(name).catalog.frames()


def contents(store: Path, name: str) -> tuple[list[tuple[float, float]], list[torch.Tensor], dict[str, str]]:
    """Times, blocks and representative keys of all layers, and the state that appending goes on with."""
    folder = Store(store).open(name)
    rows = folder.catalog.frames()
    ids = [row.id for row in rows]
    tensors = []
    for layer, (heads, dim) in enumerate(folder.meta.layers):
        blocks = torch.empty(len(ids), 2, heads, folder.meta.tokens_per_frame, dim, dtype=folder.meta.torch_dtype)
        folder.read(layer, ids, list(blocks))
        tensors += [blocks, torch.from_numpy(folder.index(layer, ids, check=True))]
    state = {key: folder.catalog.get(key) or "" for key in ("frames", "window_first", "window_slots", "duplicates")}
    return [(row.time, row.until) for row in rows], tensors, state


def assert_same(store: Path, one: str, other: str, elsewhere: Path | None = None) -> None:
    (times, tensors, state), (times2, tensors2, state2) = contents(store, one), contents(elsewhere or store, other)
    assert times == times2
    assert state == state2
    assert all(torch.equal(a, b) for a, b in zip(tensors, tensors2, strict=True))


def told(result: Result, code: int, message: str) -> None:
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


# -- reading -------------------------------------------------------------------------------------------------------


def test_a_video_is_read_into_a_session_that_answers(
    run: Run, film: Path, story: Story, store: Path, tmp_path: Path
) -> None:
    said = ingest_json(run, film, "--session", "lobby", "--store", store)
    assert said.pop("bytes") > 0
    assert said.pop("seconds") > 0
    assert said == {
        "session": "lobby",
        "video": str(film),
        "status": "finished",
        "frames": 75,
        "frames_read": 75,
        "start": 0.0,
        "end": 75.0,
    }
    question, answer = story.asks[0].question.text, story.asks[0].question.answer
    picture = tmp_path / "evidence.png"
    result = run("ask", "--session", "lobby", "--store", store, question, "--save-evidence", picture)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{answer}\n"
    assert ESCAPE not in result.output
    assert "has read session lobby" in result.stderr
    assert re.search(r"\((RAM|disk) \d+ blocks, [\d.]+ \w+, [\d.]+ m?s", result.stderr)
    with Image.open(picture) as drawn:
        assert len(drawn.getcolors(1 << 24) or ()) > 1000  # the kept thumbnails, not empty cells


def test_a_session_answers_as_the_video_does(run: Run, film: Path, story: Story, store: Path) -> None:
    ingest_json(run, film, "--session", "lobby", "--store", store)
    question = story.asks[1].question.text
    args = (question, "--start", 5, "--end", 60, "--json")
    of_session = json.loads(run("ask", "--session", "lobby", "--store", store, *args).stdout)
    of_video = json.loads(run("ask", film, question, "--json", "--end", 60).stdout)
    assert of_session["session"] == {"name": "lobby", "frames": 75}
    assert "video" not in of_session
    assert of_session["warnings"] == []
    assert of_session["frames_seen"] == 55
    assert of_session["text"] == of_video["text"]
    assert sum(read["blocks"] for read in of_session["reads"].values()) == 4 * 9


def test_what_was_read_is_not_read_again(run: Run, film: Path, store: Path) -> None:
    ingest_json(run, film, "--session", "lobby", "--store", store)
    result = run("ingest", film, "--session", "lobby", "--store", store)
    told(result, 0, "nothing new")
    assert "Loading" not in result.stderr
    assert ingest_json(run, film, "--session", "lobby", "--store", store)["status"] == "already"
    assert len(rows(store, "lobby")) == 75


def test_a_file_name_need_not_be_text(run: Run, film: Path, store: Path, tmp_path: Path) -> None:
    odd = shutil.copy(film, os.fsencode(tmp_path) + b"/caf\xe9.mkv")
    args = (os.fsdecode(odd), "--session", "a", "--store", store, "--end", 10.5)
    assert ingest_json(run, *args)["status"] == "finished"
    assert ingest_json(run, *args)["status"] == "already"
    assert "caf\\xe9.mkv" in run("show", "a", "--store", store).stdout


def test_a_file_that_has_grown_is_read_on(run: Run, film: Path, store: Path, tmp_path: Path) -> None:
    growing, data = tmp_path / "growing.mkv", film.read_bytes()
    growing.write_bytes(data[: len(data) // 2])
    first = ingest_json(run, growing, "--session", "a", "--store", store)
    growing.write_bytes(data)
    second = ingest_json(run, growing, "--session", "a", "--store", store)
    assert 0 < first["frames"] < 75
    assert second["frames"] == 75
    assert [row.time for row in rows(store, "a")] == list(range(75))


def test_a_part_can_be_read_on(run: Run, film: Path, store: Path) -> None:
    for end, status in ((20, "finished"), (20, "already"), (40, "finished")):
        assert ingest_json(run, film, "--session", "a", "--store", store, "--end", end)["status"] == status
    ingest_json(run, film, "--session", "a", "--store", store)
    assert [row.time for row in rows(store, "a")] == list(range(75))


def test_another_file_continues_the_time(run: Run, film: Path, store: Path, tmp_path: Path) -> None:
    other = shutil.copy(film, tmp_path / "other.mkv")
    common = ("--session", "a", "--store", store)
    ingest_json(run, film, *common, "--end", 10.5)  # frames 0 to 10
    said = ingest_json(run, other, *common, "--start", 30, "--end", 40)
    assert (said["frames_read"], said["start"], said["end"]) == (10, 11.0, 21.0)
    # The first one again: it goes on behind all that is there.
    said = ingest_json(run, film, *common, "--end", 20.5)
    assert (said["frames_read"], said["start"], said["end"]) == (10, 21.0, 31.0)
    assert [row.time for row in rows(store, "a")] == list(range(31))
    shown = json.loads(run("show", "a", "--store", store, "--json").stdout)
    assert [(row["first"], row["shift"]) for row in shown["sources"]] == [(0, 0.0), (11, -19.0), (21, 10.0)]


def test_no_frame_is_read_twice_because_a_time_was_rounded(run: Run, film: Path, store: Path, tmp_path: Path) -> None:
    other = shutil.copy(film, tmp_path / "other.mkv")
    common = ("--session", "a", "--store", store, "--sample-fps", 7)
    ingest_json(run, film, *common, "--end", 3.1)
    for end in range(1, 12):
        ingest_json(run, other, *common, "--end", end)
    times = [row.time for row in rows(store, "a")]
    assert len(times) == 22 + 77
    assert min(b - a for a, b in pairwise(times)) > 0.1


def test_near_duplicates_are_left_out_and_the_next_video_comes_after_them(run: Run, film: Path, store: Path) -> None:
    common = (film, "--session", "a", "--store", store, "--skip-duplicates=255")
    said = ingest_json(run, *common, "--end", 30)
    assert said["frames"] == 3  # one for each ten seconds and a bit
    assert [(row.time, row.until) for row in rows(store, "a")] == [(0, 10), (11, 21), (22, 29)]
    ingest_json(run, *common, "--end", 35)
    assert [(row.time, row.until) for row in rows(store, "a")] == [(0, 10), (11, 21), (22, 32), (33, 34)]


def test_a_policy_keeps_a_part_of_each_frame(run: Run, film: Path, store: Path) -> None:
    for name, policy in (("all", ()), ("half", ("--policy", "value-norm:0.5"))):
        ingest_json(run, film, "--session", name, "--store", store, "--n-local", 160, "--end", 35, *policy)
    ingest_json(run, film, "--session", "half", "--store", store, "--end", 40)  # the session keeps its policy
    assert "of each frame what value-norm:0.5 keeps" in run("show", "half", "--store", store).stdout
    answers = [
        json.loads(run("ask", "--session", name, "--store", store, "Is there a ring?", "--json").stdout)
        for name in ("all", "half")
    ]
    read = [sum(tier["bytes"] for tier in answer["reads"].values()) for answer in answers]
    assert read[1] == read[0] / 2


# -- interrupted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [(), ("--skip-duplicates=4",)])
def test_ctrl_c_and_the_same_command_again_is_as_if_nothing_had_been(
    run: Run, film: Path, store: Path, skip: tuple[str, ...]
) -> None:
    args = ("ingest", film, "--sample-fps", 5, "--n-local", 2000, "--store", store, *skip)
    whole = run(*args, "--session", "whole")
    assert whole.exit_code == 0, whole.output
    stopped = stop(*args, "--session", "cut", "--json", when=rb"(?<!\d)[1-9]\d* frames")
    assert stopped.code == 130
    assert b"the same command goes on from there" in stopped.told
    assert b"Traceback" not in stopped.told
    total = len(rows(store, "whole"))
    assert (total == 375) == (not skip)
    assert stopped.said["status"] == "interrupted"
    assert 0 < stopped.said["frames"] == len(rows(store, "cut")) < total
    again = run(*args, "--session", "cut")
    assert again.exit_code == 0, again.output
    assert_same(store, "whole", "cut")
    shown = json.loads(run("show", "cut", "--store", store, "--json").stdout)
    assert [(row["first"], row["finished"]) for row in shown["sources"]] == [(0, True)]


def test_a_reading_that_died_before_its_first_commit_is_begun_again(run: Run, film: Path, store: Path) -> None:
    session = load().session("a", store=store)
    session.append(())
    assert session.keeper is not None
    session.keeper.folder.catalog.begin_source(str(film), film.stat().st_size, 0.0, 0.0, 0)
    session.close()
    assert ingest_json(run, film, "--session", "a", "--store", store)["frames_read"] == 75
    shown = json.loads(run("show", "a", "--store", store, "--json").stdout)
    assert [(row["first"], row["finished"]) for row in shown["sources"]] == [(0, True)]


# -- in another process --------------------------------------------------------------------------------------------


def test_a_session_is_asked_while_another_process_reads(run: Run, film: Path, store: Path, tmp_path: Path) -> None:
    def frames_seen() -> int:
        result = run("ask", "--session", "a", "--store", store, "What is on screen now?", "--json")
        assert result.exit_code == 0, result.output
        seen: int = json.loads(result.stdout)["frames_seen"]
        return seen

    pipe, data = tmp_path / "pipe", film.read_bytes()
    os.mkfifo(pipe)
    running = subprocess.Popen(
        [sys.executable, "-m", "rekv", "ingest", pipe, "--session", "a", "--store", store], stderr=subprocess.DEVNULL
    )
    with open(pipe, "wb") as feed:
        feed.write(data[: len(data) * 3 // 4])
        feed.flush()
        while "a" not in Store(store).names() or not rows(store, "a"):
            assert running.poll() is None
            sleep(0.05)
        assert 0 < frames_seen() < 75
        told(run("ingest", film, "--session", "a", "--store", store), 1, "is being written by another")
        feed.write(data[len(data) * 3 // 4 :])
    assert running.wait(60) == 0
    assert frames_seen() == 75


# -- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["FILM", "--session", "no/name"], 1, "cannot name a session"),
        (["FILM"], 2, "Missing option '--session'"),
        (["no-such-file.mp4", "--session", "b"], 1, "no such file"),
        (["FILM", "--session", "b", "--start", "10:00"], 1, "start earlier"),
        (["FILM", "--session", "b", "--ram", "4Gibi"], 2, "is not a size"),
        (["FILM", "--session", "b", "--max-age", "7w"], 2, "is not a duration"),
        (["FILM", "--session", "b", "--thin-keep", "1"], 2, "thin_keep is 1"),
        (["FILM", "--session", "b", "--ram", "1KB"], 2, "ram is 1000 bytes"),
        (["FILM", "--session", "b", "--kv", "int5"], 2, "int5"),
        (["FILM", "--session", "b", "--policy", "value-nom:0.5"], 2, "did you mean 'value-norm'"),
        (["FILM", "--session", "b", "--policy", "value-norm:2"], 2, "above 0 and at most 1"),
        (["FILM", "--session", "a", "--policy", "redundancy"], 1, "policy None (now redundancy)"),
        (["--session", "b", "--skip-duplicates", "FILM"], 2, "give the option last"),
        (["FILM", "--session", "a", "--sample-fps", "2"], 1, "sample_fps 1.0 (now 2.0)"),
        (["FILM", "--session", "a", "--kv", "int8"], 1, "stored as int4"),
        (["FILM", "--session", "a", "--dtype", "bfloat16", "--end", "20"], 1, "appending needs the same model"),
    ],
)
def test_a_wrong_use_is_told_and_makes_no_session(
    run: Run, film: Path, store: Path, args: list[str], code: int, message: str
) -> None:
    ingest_json(run, film, "--session", "a", "--store", store, "--end", 10, "--kv", "auto")
    told(run("ingest", *(film if arg == "FILM" else arg for arg in args), "--store", store), code, message)
    assert Store(store).names() == ["a"]
    assert len(rows(store, "a")) == 10


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["FILM", "q"], 2, "either the one or the other"),
        ([], 2, "Missing argument 'QUESTION...'"),
        (["q", "--sample-fps", "1"], 2, "a session has been read"),
        (["q", "--session", "b"], 1, "no session 'b'"),
        (["q", "--ram", "1KB"], 2, "ram is 1000 bytes"),
    ],
)
def test_a_wrong_question_is_told(run: Run, film: Path, store: Path, args: list[str], code: int, message: str) -> None:
    ingest_json(run, film, "--session", "a", "--store", store, "--end", 10)
    given = [film if arg == "FILM" else arg for arg in args]
    told(run("ask", "--session", "a", "--store", store, *given), code, message)


def test_a_store_needs_a_session(run: Run, film: Path, store: Path) -> None:
    told(run("ask", film, "q", "--store", store), 2, "with --session")


def test_a_session_that_is_being_written_is_left_alone(run: Run, film: Path, store: Path) -> None:
    ingest_json(run, film, "--session", "a", "--store", store, "--end", 10)
    with Store(store).lock("a"):
        told(run("ingest", film, "--session", "a", "--store", store), 1, "is being written by another")
        assert run("ask", "--session", "a", "--store", store, "What is on screen now?").exit_code == 0
    assert len(rows(store, "a")) == 10


def test_a_damaged_frame_is_told_and_the_rest_answers(run: Run, film: Path, store: Path) -> None:
    ingest_json(run, film, "--session", "a", "--store", store)
    folder = Store(store).open("a")
    segment = folder.segment(0)
    at = segment.places["layer.2.blocks"]
    folder.close()
    with open(segment.path, "r+b") as file:
        file.seek(at.start + 74 * at.row + 8)
        file.write(b"\xff\x13")
    result = run("ask", "--session", "a", "--store", store, "What is on screen now?")
    assert result.exit_code == 0, result.output
    assert "Warning: segment-000000.safetensors: the bytes of frames [74] in layer 2" in result.stderr
    assert "74 frames seen" in result.stderr
    quiet = run("ask", "--session", "a", "--store", store, "What is on screen now?", "-q")
    assert quiet.stdout == result.stdout
    (warning,) = quiet.stderr.splitlines()
    assert warning.startswith("Warning: segment-000000.safetensors: the bytes of frames [74] in layer 2")


def test_a_full_disk_is_told_once_and_the_same_command_goes_on(
    run: Run, film: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("ingest", film, "--session", "a", "--store", store)
    write, left = Files.write, 1 << 20

    def fills_up(self: Files, descriptor: int, buffers: Sequence[memoryview], offset: int) -> None:
        nonlocal left
        left -= sum(buffer.nbytes for buffer in buffers)
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, descriptor, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(Files, "write", fills_up)
        result = run(*args)
        told(result, 1, "No space left on device. ")
        assert result.stderr.count("No space left") == 1
        assert "are safe; mend this, and the same command goes on from there" in result.stderr
    del result
    gc.collect()  # as at the end of a process
    assert run(*args).exit_code == 0
    assert [row.time for row in rows(store, "a")] == list(range(75))


def test_a_second_ctrl_c_says_how_to_go_on(run: Run, film: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rekv.ingestion.unit._read", interrupted)
    told(run("ingest", film, "--session", "a", "--store", store, "-q"), 130, "the same command goes on from there")


def test_a_video_that_was_read_is_not_gone_on_with_in_another_dtype(run: Run, film: Path, store: Path) -> None:
    args = ("ingest", film, "--session", "a", "--store", store)
    assert run(*args).exit_code == 0
    told(run(*args, "--dtype", "bfloat16"), 1, "was made in float32, not bfloat16")
    told(run(*args, "--dtype", "float32", "--model", "tiny"), 0, "nothing new")
    told(run(*args, "--model", "no-such-model"), 1, "no model 'no-such-model'")


# -- frames that are lost ------------------------------------------------------------------------------------------


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 frames: 75 frames are five files."""
    monkeypatch.setattr("rekv.store.writer.SEGMENT_BYTES", 1)


@pytest.mark.usefixtures("small_segments")
def test_a_lost_file_is_told_once(run: Run, film: Path, store: Path, tmp_path: Path) -> None:
    ingest_json(run, film, "--session", "a", "--store", store)
    (store / "a" / "segment-000001.safetensors").unlink()
    question = ("ask", "--session", "a", "--store", store, "What is on screen now?")
    result = run(*question)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("segment-000001.safetensors cannot be read") == 1
    assert "59 frames seen" in result.stderr
    assert run("verify", "a", "--repair", "--store", store).exit_code == 0
    result = run("verify", "a", "--store", store)
    assert result.exit_code == 0
    assert "Session a: 16 frames are damaged and left out; the rest is whole: 59 frames" in result.stdout
    result = run(*question)
    assert result.stderr.count("segment-000001.safetensors") == 1
    other = shutil.copy(film, tmp_path / "other.mkv")
    result = run("ingest", other, "--session", "a", "--store", store)
    assert result.exit_code == 0
    assert "segment-000001.safetensors" not in result.stderr


def test_a_damaged_key_of_the_index_costs_only_its_frame(run: Run, film: Path, store: Path) -> None:
    ingest_json(run, film, "--session", "a", "--store", store, "--end", 10)
    whole = load().session("a", store=store).memory
    folder = Store(store).open("a")
    segment = folder.segment(0)
    at = segment.places["layer.1.index"]
    folder.close()
    with open(segment.path, "r+b") as file:
        file.seek(at.start + 3 * at.row + 8)
        file.write(b"\xff\x13\x55")
    memory = load().session("a", store=store).memory
    assert list(memory.table.there(range(10))) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    for layer in (0, 1, 3):
        for rows in (range(3), range(4, 10)):
            assert torch.equal(memory.layers[layer].index.rows(rows), whole.layers[layer].index.rows(rows))


@pytest.mark.usefixtures("small_segments")
def test_a_session_without_a_frame_left_answers_nothing(run: Run, film: Path, store: Path, tmp_path: Path) -> None:
    ingest_json(run, film, "--session", "a", "--store", store)
    for segment in (store / "a").glob("segment-*"):
        segment.unlink()
    question = ("ask", "--session", "a", "--store", store, "What is on screen now?")
    told(run(*question), 1, "no frame that this question could see is readable")
    assert run("verify", "a", "--repair", "--store", store).exit_code == 0
    result = run("verify", "a", "--store", store)
    assert "Session a: 75 frames are damaged and left out; none is left" in result.stdout
    assert json.loads(run("verify", "a", "--store", store, "--json").stdout)["damaged"] == 75
    result = run(*question)
    told(result, 1, "no frame left that can be read: 0 of its frames were removed, 75 are damaged")
    assert result.stdout == ""
    assert "Loading" not in result.stderr
    other = shutil.copy(film, tmp_path / "other.mkv")
    told(run("ingest", other, "--session", "a", "--store", store), 1, "start another session, or delete this one")


def test_damage_that_shows_while_a_question_reads_leaves_no_answer(run: Run, film: Path, store: Path) -> None:
    ingest_json(run, film, "--session", "a", "--store", store, "--end", 5)
    folder = Store(store).open("a")
    segment = folder.segment(0)
    at = segment.places["layer.1.blocks"]
    folder.close()
    with open(segment.path, "r+b") as file:
        for slot in range(5):
            file.seek(at.start + slot * at.row + 8)
            file.write(b"\xff\x13")
    for more in ((), ("--json",)):
        result = run("ask", "--session", "a", "--store", store, "What is on screen now?", *more)
        told(result, 1, "no frame that this question could see is readable")
        assert result.stdout == ""


def test_a_time_without_frames_is_told(run: Run, film: Path, store: Path) -> None:
    ingest_json(run, film, "--session", "a", "--store", store, "--end", 10)
    result = run("ask", "--session", "a", "--store", store, "What is on screen now?", "--start", "10:00")
    told(result, 1, "Session a has no frames of that time: it has 0:00-0:09")
