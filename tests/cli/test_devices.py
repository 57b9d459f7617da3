"""Encoding on one device, answering on another, in processes of their own, while the stream is still being read."""

import json
import os
import subprocess
import sys
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from rekv.store.store import Store
from tests.cli.conftest import Run

QUESTION = "What is on screen now?"


def ask(store: Path, name: str, device: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "rekv", "ask", "--session", name, "--store", store, QUESTION, "--json"]
    asked = subprocess.run([*command, "--device", device], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    answer: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return answer


@pytest.mark.gpu
@pytest.mark.parametrize(("encoder", "reader"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
def test_one_device_encodes_and_another_answers(
    run: Run, film: Path, tmp_path: Path, encoder: str, reader: str
) -> None:
    store, pipe, data = tmp_path / "store", tmp_path / "pipe", film.read_bytes()
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "rekv", "ingest", pipe, "--session", "live", "--store", store, "--device", encoder]
    with subprocess.Popen([*command, "--dtype", "float32"], stderr=subprocess.DEVNULL) as running:
        with open(pipe, "wb") as feed:
            feed.write(data[: len(data) * 3 // 4])
            feed.flush()
            while "live" not in Store(store).names() or not Store(store).open("live").catalog.frames():
                assert running.poll() is None
                sleep(0.05)
            early = ask(store, "live", reader)
            assert 0 < early["frames_seen"] < 75
            feed.write(data[len(data) * 3 // 4 :])
        assert running.wait(60) == 0
    late = ask(store, "live", reader)
    assert late["frames_seen"] == 75
    here = run("ingest", film, "--session", "here", "--store", store, "--device", "cpu", "--dtype", "float32")
    assert here.exit_code == 0, here.output
    assert late["text"] == ask(store, "here", "cpu")["text"]
