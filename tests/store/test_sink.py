"""The sink's file: its checksums, its permissions, and how it is made anew."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save_file

from rekv.errors import StoreError
from rekv.store.archive import export
from rekv.store.catalog import FILE
from rekv.store.names import SINK
from rekv.store.verify import verify
from tests.store.faults import append_rest, ask, made, open_session

pytestmark = pytest.mark.usefixtures("_small_segments")


def other_bytes(sink: Path) -> None:
    data = bytearray(sink.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    middle = (begin + len(data)) // 2
    data[middle : middle + 64] = bytes(byte ^ 0x5A for byte in data[middle : middle + 64])
    sink.write_bytes(data)


def cut(sink: Path) -> None:
    os.truncate(sink, sink.stat().st_size // 2)


def of_another_session(sink: Path) -> None:
    save_file({name: tensor[:, :-1].contiguous() for name, tensor in load(sink.read_bytes()).items()}, sink)


@pytest.mark.parametrize("damage", [other_bytes, cut, of_another_session, Path.unlink], ids=lambda d: d.__name__)
def test_a_damaged_sink_is_noticed_and_made_anew(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path / "session", 24)
    before, answer = load((path / SINK).read_bytes()), ask(open_session(path))
    damage(path / SINK)
    found = verify(path, repair=True)
    assert (found.ok, [problem.kind for problem in found.problems]) == (False, ["sink"])
    assert "makes it anew" in found.problems[0].message
    with pytest.raises(StoreError, match=r"sink\.safetensors is damaged"):
        export(path, tmp_path / "archive")
    reader = open_session(path)
    assert "sink.safetensors is damaged" in caplog.text
    assert ask(reader).token_ids == answer.token_ids
    with open_session(path) as session:
        append_rest(session, 28)
    after = load((path / SINK).read_bytes())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert verify(path).problems == []


def test_a_sink_of_an_older_rekv_is_read(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 8)
    with safe_open(path / SINK, "pt") as file:
        metadata = file.metadata()
        assert len(json.loads(metadata.pop("crc"))) == len(file.keys())
        save_file({name: file.get_tensor(name) for name in file.keys()}, path / SINK, metadata)
    assert verify(path).problems == []
    assert ask(open_session(path)).frames_seen == 8


def test_who_may_read_the_catalog_may_read_the_sink(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 8)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.iterdir() if file.name != "lock"}
    assert set(modes.values()) == {modes[FILE]}


def test_what_the_system_says_is_passed_on(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 8)
    (path / SINK).unlink()
    (path / SINK).mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        open_session(path)
