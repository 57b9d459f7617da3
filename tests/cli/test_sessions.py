"""The commands that look after sessions: ls, show, rm, verify, export, import, pin, prune."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from rekv.cli import main
from rekv.cli.options import Duration, Size
from rekv.store import codecs, meta, writer
from rekv.store.catalog import FILE
from rekv.store.store import Store
from tests.cli.conftest import Run

ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def made(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the sessions `hall`, 75 frames, and then `lobby`, 150 frames, in segments of 16 frames."""
    folder = tmp_path_factory.mktemp("made") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "SEGMENT_BYTES", 1)
        for name, fps in (("hall", 1), ("lobby", 2)):
            args = ("ingest", film, "--session", name, "--store", folder, "--sample-fps", fps, "--kv", "auto")
            result = CliRunner().invoke(main, [str(arg) for arg in args])
            assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy of it, ages included."""
    return Path(shutil.copytree(made, tmp_path / "store"))


def say(run: Run, *args: object, code: int = 0) -> dict[str, Any]:
    result = run(*args, "--json")
    assert result.exit_code == code, result.output
    said: dict[str, Any] = json.loads(result.stdout)
    return said


def frames(store: Path, name: str) -> list[int]:
    folder = Store(store).open(name)
    ids = [row.id for row in folder.catalog.frames()]
    folder.close()
    return ids


# -- ls, show, rm --------------------------------------------------------------------------------------------------


def test_sessions_are_listed(run: Run, store: Path) -> None:
    result = run("ls", "--store", store)
    assert result.exit_code == 0
    head, hall, lobby = result.stdout.splitlines()
    assert head.split()[:3] == ["NAME", "FRAMES", "TIME"]
    assert hall.split()[:3] == ["hall", "75", "0:00-1:15"]
    assert lobby.split()[:3] == ["lobby", "150", "0:00-1:15"]
    assert ESCAPE not in result.output
    said = say(run, "ls", "--store", store)
    assert said["store"] == str(store)
    assert [one["name"] for one in said["sessions"]] == ["hall", "lobby"]


def test_an_empty_store_says_how_to_begin(run: Run, tmp_path: Path) -> None:
    result = run("ls", "--store", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "rekv ingest VIDEO" in result.stderr
    assert not (tmp_path / "none").exists()


def test_the_store_may_be_named_by_the_environment(store: Path) -> None:
    result = CliRunner(env={"REKV_STORE": str(store)}).invoke(main, ["ls"])
    assert "lobby" in result.stdout


def test_a_session_that_cannot_be_opened_does_not_hide_the_others(run: Run, store: Path) -> None:
    (store / "hall" / FILE).write_bytes(b"no database" * 500)
    result = run("ls", "--store", store)
    assert result.exit_code == 0
    assert "lobby" in result.stdout
    assert "hall cannot be opened" in result.stderr
    hall, lobby = say(run, "ls", "--store", store)["sessions"]
    assert "rekv verify --repair" in hall["error"]
    assert lobby["frames"]["there"] == 150


def test_a_session_is_shown(run: Run, store: Path, film: Path) -> None:
    said = say(run, "show", "hall", "--store", store)
    assert said["model"] == {
        "name": "tiny",
        "architecture": "LlavaOnevisionForConditionalGeneration",
        "dtype": "float32",
    }
    assert said["settings"]["n_local"] == 512
    assert said["frames"] == {"there": 75, "gone": 0, "damaged": 0, "appended": 75}
    assert (said["start"], said["end"]) == (0, 74)
    assert said["kv"] == "int4"
    assert sum(use["frames"] for use in said["codecs"].values()) == 75
    assert said["codecs"].keys() == {"int4", "raw"}
    assert 0 < sum(use["bytes"] for use in said["codecs"].values()) < said["bytes"]
    assert sum(use["segments"] for use in said["codecs"].values()) == said["segments"] == 5
    (source,) = said["sources"]
    assert (source["path"], source["bytes"], source["finished"]) == (str(film), film.stat().st_size, True)
    assert said["writing"] is False
    assert said["created"] < said["last_commit"]
    text = run("show", "hall", "--store", store).stdout
    for words in ("tiny (Llava", "75", "0:00-1:15", "read to its end", "--kv int4"):
        assert words in text


@pytest.mark.parametrize("args", [("ls",), ("show", "hall"), ("rm", "hall", "--yes")])
def test_what_needs_no_model_does_not_import_torch(store: Path, args: tuple[str, ...]) -> None:
    """It takes seconds."""
    code = (
        "import sys; from rekv.cli import main; main(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'torch', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code, *args, "--store", store], check=True, stdout=subprocess.DEVNULL)


def test_dtypes_and_codecs_are_those_there_are() -> None:
    assert meta.CODECS == tuple(codecs.CODECS)
    assert {name: getattr(torch, name).itemsize for name in meta.ITEMSIZES} == meta.ITEMSIZES
    for name in meta.ITEMSIZES:
        codecs.codec("raw", (1, 1, 1), getattr(torch, name))


def test_limits_are_shown(run: Run, film: Path, store: Path) -> None:
    said = say(run, "show", "hall", "--store", store)
    assert said["limits"] == {"disk": None, "max_age": None, "thin_after": None, "thin_keep": 10}
    assert "\nlimits " not in run("show", "hall", "--store", store).stdout
    limits = ("--disk", "2GiB", "--max-age", "7d", "--thin-after", "90m", "--thin-keep", 5)
    assert run("ingest", film, "--session", "den", "--end", 1, "--store", store, *limits).exit_code == 0
    said = say(run, "show", "den", "--store", store)
    assert said["limits"] == {"disk": 2 << 30, "max_age": 604_800, "thin_after": 5400, "thin_keep": 5}
    text = run("show", "den", "--store", store).stdout
    for words in ("2 GiB on disk", "older than 7d are removed", "older than 90m one in 5", "1 frame per second"):
        assert words in text
    assert "1 frame," in text


def test_it_is_shown_who_is_written(run: Run, store: Path) -> None:
    with Store(store).lock("hall"):
        assert say(run, "show", "hall", "--store", store)["writing"] is True
        assert "now" in run("ls", "--store", store).stdout.splitlines()[1]


def test_sessions_are_deleted_when_that_is_meant(run: Run, store: Path) -> None:
    result = run("rm", "hall", "lobby", "--store", store)
    assert result.exit_code == 1
    assert "Delete hall (" in result.stderr
    assert Store(store).names() == ["hall", "lobby"]
    with Store(store).lock("lobby"):
        result = run("rm", "lobby", "--yes", "--store", store)
        assert result.exit_code == 1
        assert "is being written" in result.stderr
    assert [one["name"] for one in say(run, "rm", "hall", "--yes", "--store", store)["removed"]] == ["hall"]
    assert Store(store).names() == ["lobby"]
    assert run("rm", "hall", "--yes", "--store", store).exit_code == 1


@pytest.mark.parametrize("verb", ["show", "rm", "verify", "export", "pin"])
def test_an_unknown_session_is_told_with_those_there_are(run: Run, store: Path, verb: str, tmp_path: Path) -> None:
    more = {"export": [tmp_path / "x.rekv"], "pin": ["--start", 1, "--end", 2]}.get(verb, [])
    result = run(verb, "attic", *more, "--store", store)
    assert result.exit_code == 1
    assert "no session 'attic'" in result.stderr
    assert "hall, lobby" in result.stderr


# -- verify, export, import ----------------------------------------------------------------------------------------


def test_a_damaged_session_is_found_and_mended(run: Run, store: Path) -> None:
    assert say(run, "verify", "hall", "--store", store)["ok"] is True
    folder = Store(store).open("hall")
    segment = folder.segment(4)
    at = segment.places["layer.1.blocks"]
    folder.close()
    with open(segment.path, "r+b") as file:
        file.seek(at.start + 2 * at.row + 8)
        file.write(b"\xff\x13")
    said = say(run, "verify", "hall", "--store", store, code=1)
    assert [problem["frames"] for problem in said["problems"]] == [[66]]
    result = run("verify", "hall", "--store", store)
    assert result.exit_code == 1
    assert "--repair" in result.stdout
    assert run("verify", "hall", "--repair", "--store", store).exit_code == 0
    assert say(run, "verify", "hall", "--store", store)["ok"] is True
    assert say(run, "show", "hall", "--store", store)["frames"]["damaged"] == 1


def test_a_session_travels_as_a_file(run: Run, store: Path, tmp_path: Path) -> None:
    file = tmp_path / "hall.rekv"
    assert say(run, "export", "hall", file, "--store", store)["bytes"] == file.stat().st_size
    result = run("export", "hall", file, "--store", store)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert run("export", "hall", file, "--force", "--store", store).exit_code == 0
    elsewhere = tmp_path / "elsewhere"
    assert say(run, "import", file, "--store", elsewhere)["name"] == "hall"
    assert say(run, "import", file, "--name", "copy", "--store", elsewhere)["name"] == "copy"
    assert run("import", file, "--store", elsewhere).exit_code == 1
    assert Store(elsewhere).names() == ["copy", "hall"]
    question = ("What is on screen now?", "--json", "--store")
    one, two = (json.loads(run("ask", "--session", "hall", *question, where).stdout) for where in (store, elsewhere))
    assert one["text"] == two["text"]
    assert one["retrieval"] == two["retrieval"]


# -- pin, prune ----------------------------------------------------------------------------------------------------


def test_spans_are_pinned_and_unpinned(run: Run, store: Path) -> None:
    def pins(*args: object) -> list[tuple[float, float]]:
        return [(one["start"], one["end"]) for one in say(run, "pin", "hall", "--store", store, *args)["pins"]]

    assert pins("--start", 10, "--end", 20) == [(10, 20)]
    assert pins("--start", 30, "--end", 40) == [(10, 20), (30, 40)]
    assert pins("--start", 15, "--end", 32) == [(10, 40)]
    assert pins("--start", 20, "--end", "0:25", "--remove") == [(10, 20), (25, 40)]
    assert "0:10-0:20" in run("show", "hall", "--store", store).stdout
    assert pins("--start", 0, "--end", 100, "--remove") == []
    assert run("pin", "hall", "--store", store, "--start", 5, "--end", 5).exit_code == 2


def test_a_pin_says_how_many_frames_it_keeps(run: Run, store: Path) -> None:
    args = ("pin", "hall", "--store", store, "--start")
    assert "11 frames of 0:10-0:20.5" in run(*args, 10, "--end", 20.5).stderr
    assert "1 frame of" in run(*args, 30, "--end", 31).stderr
    result = run(*args, 100, "--end", 120)
    assert result.exit_code == 0
    assert "There are no frames of 1:40-2:00" in result.stderr
    assert say(run, *args, 100, "--end", 120)["frames"] == 0


def test_a_store_is_pruned_oldest_first_but_for_pinned_frames(run: Run, store: Path) -> None:
    say(run, "pin", "hall", "--store", store, "--start", 3, "--end", 5)
    say(run, "pin", "hall", "--store", store, "--start", 16, "--end", 32)  # a whole segment
    before = sum(one["bytes"] for one in say(run, "ls", "--store", store)["sessions"])
    planned = say(run, "prune", "--disk", before - 1, "--dry-run", "--store", store)
    assert [one["session"] for one in planned["removals"]] == ["hall"]
    assert frames(store, "hall") == list(range(75))
    done = say(run, "prune", "--disk", before - 1, "--store", store)
    (removal,) = done["removals"]
    assert (removal["session"], removal["frames"], removal["start"], removal["end"]) == ("hall", 14, 0, 15)
    assert frames(store, "hall") == [3, 4, *range(16, 75)]
    assert frames(store, "lobby") == list(range(150))
    after = sum(one["bytes"] for one in say(run, "ls", "--store", store)["sessions"])
    assert done["bytes"] == after < before
    said = say(run, "show", "hall", "--store", store)
    assert said["frames"] == {"there": 61, "gone": 14, "damaged": 0, "appended": 75}


def test_what_sessions_go_on_with_is_never_pruned(run: Run, store: Path, film: Path) -> None:
    result = run("prune", "--disk", 1, "--store", store)
    assert result.exit_code == 1
    assert "are left" in result.stderr
    for name, appended, fps in (("hall", 75, 1), ("lobby", 150, 2)):
        left = frames(store, name)
        assert left == list(range(left[0], appended))
        assert 32 <= len(left) < 64  # its window
        assert run("ask", "--session", name, "What is on screen now?", "--store", store).exit_code == 0
        assert say(run, "verify", name, "--store", store)["ok"] is True
        told = run("ingest", film, "--session", name, "--store", store, "--start", 60, "--sample-fps", fps)
        assert told.exit_code == 0, told.output
        assert len(frames(store, name)) == len(left) + 15 * fps


def test_a_store_is_pruned_by_age(run: Run, store: Path) -> None:
    assert say(run, "prune", "--max-age", "1h", "--store", store)["removals"] == []
    with Store(store).lock("hall"):
        said = say(run, "prune", "--max-age", "0s", "--store", store)
        assert said["skipped"].keys() == {"hall"}
        assert {one["session"] for one in said["removals"]} == {"lobby"}
    assert frames(store, "hall") == list(range(75))
    result = run("prune", "--max-age", "0s", "--store", store)
    assert result.exit_code == 0
    assert "Removed" in result.stdout
    assert frames(store, "hall")[0] > 0


def test_prune_needs_a_goal(run: Run, store: Path) -> None:
    assert run("prune", "--store", store).exit_code == 2


# -- how much, how long --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("512MB", 512_000_000), ("512mb", 512_000_000), ("1.5k", 1500), ("2 KiB", 2048), ("77", 77)],
)
def test_sizes(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("7d", 604_800), ("12h", 43_200), ("90m", 5400), ("30s", 30), ("1.5", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds
