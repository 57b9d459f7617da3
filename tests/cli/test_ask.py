"""`rekv ask`, on a real film with the built-in model."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rekv import load
from rekv.cli.answers import show
from rekv.cli.reading import read
from rekv.cli.stills import reread, shrink
from rekv.core import Frame
from rekv.sources import VideoFile, video
from rekv.world import Story
from tests.cli.conftest import Run
from tests.cli.terminal import stop
from tests.support import pictures, tiny_session

ESCAPE = "\x1b"


def ask_json(run: Run, *args: object) -> list[dict[str, Any]]:
    result = run("ask", *args, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def process(*args: object, **streams: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "rekv", *map(str, args)], **streams)


# -- answers -------------------------------------------------------------------------------------------------------


def test_answers_go_to_stdout_and_all_else_to_stderr(run: Run, film: Path, story: Story) -> None:
    digit, place = (ask.question for ask in story.asks[:2])
    result = run("ask", film, digit.text, place.text)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{digit.answer}\n{place.answer}\n"
    assert ESCAPE not in result.output
    for said in (
        "Loading",
        "(--recent-frames 1)",
        "rekv demo",
        "Read 75 frames",
        digit.text,
        "evidence",
        "first token",
    ):
        assert said in result.stderr


def test_quiet_leaves_the_answers(run: Run, film: Path, story: Story) -> None:
    result = run("ask", film, story.asks[0].question.text, "--quiet")
    assert (result.stdout, result.stderr) == (f"{story.asks[0].question.answer}\n", "")


def test_json_says_everything_and_nothing_else(run: Run, film: Path, story: Story) -> None:
    asked = [ask.question for ask in story.asks[:2]]
    found = ask_json(run, film, *(question.text for question in asked), "--retrieve-size", 4, "--n-local", 128)
    assert [one["question"] for one in found] == [question.text for question in asked]
    assert [one["text"] for one in found] == [question.answer for question in asked]
    for one, question in zip(found, asked, strict=True):
        (start, stop), best = question.evidence[0], one["evidence"][0]
        assert best["start"] < stop
        assert start < best["end"]
        assert one["retrieval"]["candidates"] == [0, 75]
        assert [len(layer) for layer in one["retrieval"]["layers"]] == [5] * 4  # four and the newest
        union = sorted({frame for layer in one["retrieval"]["layers"] for frame in layer})
        assert [frame["frame"] for frame in one["frames"]] == union
        assert all(frame["time"] == frame["frame"] for frame in one["frames"])
        assert one["settings"]["retrieve_size"] == 4
        assert one["settings"]["n_local"] == 128
        assert one["settings"]["recent_frames"] == 1
        assert one["timings"]["total"] > 0
        assert one["reads"].keys() == {"ram"}
        assert one["reads"]["ram"].keys() == {"blocks", "bytes", "seconds"}
        assert one["reads"]["ram"]["blocks"] == sum(map(len, one["retrieval"]["layers"]))
        assert one["reads"]["ram"]["bytes"] > 0
        assert one["model"]["name"] == "tiny"
        assert one["frames_seen"] == one["video"]["frames"] == 75


def test_frames_can_be_chosen_in_other_ways(run: Run, film: Path, story: Story) -> None:
    question = story.asks[0].question
    (external,) = ask_json(run, film, question.text, "--retriever", "external", "--recent-frames", 0)
    assert external["settings"]["retriever"] == external["retrieval"]["by"] == "external"
    assert external["settings"]["encoder"] == "tiny_dual"
    assert len({tuple(layer) for layer in external["retrieval"]["layers"]}) == 1
    start, stop = question.evidence[0]
    spans = ("--span", f"{start}-{stop}", "--span", "0:00:50-0:00:52")
    (oracle,) = ask_json(run, film, question.text, "--retriever", "oracle", *spans, "--recent-frames", 0)
    assert [frame["frame"] for frame in oracle["frames"]] == [*range(start, stop), 50, 51]
    assert oracle["text"] == question.answer
    (many,) = ask_json(
        run,
        film,
        question.text,
        "--query",
        "phrases",
        "--min-gap",
        3,
        "--detrend",
        "--shared-picks",
        "--retrieve-tokens",
        80,
    )
    (frames,) = {tuple(layer[:-1]) for layer in many["retrieval"]["layers"]}
    assert len(frames) == 5
    assert all(b - a >= 3 for a, b in pairwise(frames))
    assert many["margin"] is None, "75 frames are no background"
    assert many["stands_out"] is True


def test_where_nothing_stands_out_it_is_said() -> None:
    session = tiny_session()
    session.append(pictures(200))
    console = Console(file=StringIO(), width=200)
    for settings, doubted in (({"min_margin": 1e9}, True), ({"min_margin": -1.0}, False)):
        show(session.ask("w7", max_new_tokens=2, **settings), (), console)
        told = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("nothing in what was seen stands out" in told) == doubted
        console.file = StringIO()


def test_a_retriever_that_cannot_choose_is_told_before_anything_is_read(run: Run, film: Path) -> None:
    for words, told in (
        (("--retriever", "extrenal"), "did you mean 'external'"),
        (("--retriever", "external", "--encoder", "none"), "--encoder NAME"),
        (("--retriever", "oracle", "--span", "12"), "span of time"),
        (("--retriever", "oracle"), "--span START-END"),
        (("--min-gap", -1), "at least 0"),
    ):
        result = run("ask", film, "What is on screen now?", *words)
        assert result.exit_code != 0
        assert told in " ".join(result.output.split())
        assert "Read 75 frames" not in result.output


def test_as_of_a_time_nothing_later_is_read_or_seen(run: Run, film: Path, story: Story) -> None:
    now = story.asks[2]
    (one,) = ask_json(run, film, now.question.text, "--at", f"0:01:{int(now.time) - 60:02}")
    assert one["text"] == now.question.answer
    assert one["frames_seen"] == one["video"]["frames"] == int(now.time) + 1
    assert one["settings"]["at"] == int(now.time)


def test_a_part_of_the_video_is_read(run: Run, film: Path) -> None:
    (one,) = ask_json(run, film, "What is on screen now?", "--start", "0:20", "--end", "40.5", "--sample-fps", 2)
    assert one["frames_seen"] == 41
    assert min(frame["time"] for frame in one["frames"]) >= 20
    assert max(frame["time"] for frame in one["frames"]) == 40


def test_the_newest_frame_is_read_unless_told_otherwise(run: Run, film: Path) -> None:
    (one,) = ask_json(run, film, "Did you see a red ring?")
    assert all(layer[-1] == 74 for layer in one["retrieval"]["layers"])
    result = run("ask", film, "Did you see a red ring?", "--recent-frames", 0)
    assert result.exit_code == 0
    assert "newest" not in result.stderr


def test_sampling_is_reproducible(run: Run, film: Path) -> None:
    args = ("What happened?", "--temperature", 2, "--top-p", 0.9, "--seed", 7, "--max-new-tokens", 8)
    (one,), (two,) = ask_json(run, film, *args), ask_json(run, film, *args)
    assert one["text"] == two["text"]
    assert one["tokens"] <= 8
    assert one["settings"]["seed"] == 7


def test_choices_are_asked_and_named(run: Run, film: Path) -> None:
    (one,) = ask_json(run, film, "Did you see a red ring?", "--choice", "yes", "--choice", "no")
    assert one["choices"] == ["yes", "no"]
    assert one["choice"] in ("A", "B", None)
    assert "chose" in run("ask", film, "Did you see a red ring?", "--choice", "yes", "--choice", "no").stderr


def test_twenty_questions_of_any_kind(run: Run, film: Path) -> None:
    odd = ["xyzzy plugh", "Größe? 猫はどこ 🎥", "\udcff\udcfe", "?", "<|im_end|>", "[bold]a[/bold]", "w " * 500]
    questions = (odd * 3)[:20]
    result = run("ask", film, *questions, "--end", 20)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("first token") == 20
    assert "[bold]a[/bold]" in result.stderr


# -- the picture ---------------------------------------------------------------------------------------------------


def test_the_evidence_is_saved_as_a_picture(run: Run, film: Path, story: Story, tmp_path: Path) -> None:
    path = tmp_path / "evidence.png"
    one, two = (ask.question.text for ask in story.asks[:2])
    assert run("ask", film, one, "--save-evidence", path).exit_code == 0
    with Image.open(path) as picture:
        low = picture.height
    assert run("ask", film, one, two, "--save-evidence", path, "--json", "--quiet").exit_code == 0
    with Image.open(path) as picture:
        assert picture.height > low


def test_stills_are_the_frames_that_were_read(film: Path) -> None:
    frames = [frame for frame in video(film).frames(2.0) if frame.time in (3.5, 12.0, 70.5)]
    again = list(reread(str(film), [frame.time for frame in frames]))
    assert len(again) == 3
    for frame, still in zip(frames, again, strict=True):
        assert np.array_equal(shrink(frame.image), still)


# -- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Missing argument 'QUESTION...'"),
        (["  "], "question is empty"),
        (["q", "--at", "0:10", "--start", "0:20"], "before --start"),
        (["q", "--at", "0:30", "--end", "0:20"], "after --end"),
        (["q", "--start", "20", "--end", "20"], "not after --start"),
        (["q", "--at", "1:75"], "not a time"),
        (["q", "--at=-1"], "not a time"),
        (["q", "--retrieve-size", "-1"], "retrieve_size is -1"),
        (["q", "--sample-fps", "0"], "sample_fps is 0"),
        (["q", "--n-local", "3"], "n_local is 3"),
        (["q", "--top-p", "2"], "top_p is 2"),
        (["q", "--dtype", "float7"], "float7"),
        (["q", "--choice", "one"], "2 to 26 times"),
        (["q", "--save-evidence", "no-such-folder/x.png"], "no folder"),
        (["q", "--save-evidence", "evidence.mp3"], "picture format"),
        (["q", "--save-evidence", "evidence"], "picture format"),
    ],
)
def test_a_wrong_use_is_told(run: Run, film: Path, args: list[str], message: str) -> None:
    result = run("ask", film, *args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert "Error:" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no-such-file.mp4", "q"], "no such file"),
        ([__file__, "q"], "not a video"),
        ([".", "q"], "is a directory"),
        (["FILM", "q", "--start", "10:00"], "start earlier"),
        (["FILM", "q", "--model", "no-such-model"], "no model 'no-such-model'"),
    ],
)
def test_what_cannot_be_used_is_told(run: Run, film: Path, args: list[str], message: str) -> None:
    result = run("ask", *(film if arg == "FILM" else arg for arg in args))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Error: " in result.stderr
    assert message in result.stderr


def test_a_file_cut_short_is_used_with_one_warning(run: Run, film: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    result = run("ask", cut, "What is on screen now?", "--save-evidence", tmp_path / "evidence.png")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("WARNING: ") == 1
    assert (tmp_path / "evidence.png").stat().st_size > 0


def test_a_pipe_has_no_second_reading(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = run("ask", tmp_path / "pipe", "q", "--save-evidence", tmp_path / "evidence.png")
    assert result.exit_code == 2
    assert "pipe" in result.stderr


# -- a real process ------------------------------------------------------------------------------------------------


def test_nobody_reads_on(film: Path) -> None:
    running = process("ask", film, *["What is on screen now?"] * 5, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    told = running.stderr.read().decode()
    running.stderr.close()
    assert running.wait(60) == 1
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


def test_ctrl_c_ends_the_reading_and_what_was_read_is_answered(film: Path) -> None:
    args = ("ask", film, "What is on screen now?", "--sample-fps", 8, "--n-local", 50_000, "--json")
    for _ in range(5):  # on a machine that stalls, all may have been read before Ctrl-C comes
        stopped = stop(*args, when=rb"(?<!\d)(?<!reads )[1-9]\d* frames")  # of 600
        if b"stopped at" in stopped.told:
            break
    assert stopped.code == 0
    assert b"stopped at" in stopped.told
    assert stopped.said["text"]
    assert 1 <= stopped.said["frames_seen"] < 600


def test_ctrl_c_before_anything_was_read_is_passed_on(film: Path) -> None:
    class Interrupted(VideoFile):
        def frames(self, sample_fps: float) -> Iterator[Frame]:
            raise KeyboardInterrupt

    session = load().session()
    with pytest.raises(KeyboardInterrupt):
        read(session, Interrupted(film), "film", Console(quiet=True))
    assert session.append(video(film)) == 75
