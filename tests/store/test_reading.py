"""Reading blocks: what is in the system's memory at once, the rest announced; in one thread or several."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from rekv.errors import DamagedError
from rekv.store.files import Buffer, Files
from rekv.store.folder import SessionFolder
from rekv.store.header import Layer
from rekv.store.segment import WRITTEN, Segment
from tests.store.faults import FailingFiles, made

LAYERS = [Layer((1, 2, 4), 4, 32)] * 2


class HalfCached(Files):
    """A system that holds every other read in memory; notes what it is told will be needed."""

    def __init__(self) -> None:
        self.asked = 0
        self.announced: list[tuple[int, int]] = []

    def read(self, descriptor: int, buffers: Sequence[Buffer], offset: int, *, wait: bool = True) -> int:
        self.asked += not wait
        if not wait and self.asked % 2:
            return 0
        return super().read(descriptor, buffers, offset, wait=wait)

    def announce(self, descriptor: int, offset: int, size: int) -> None:
        self.announced.append((offset, size))
        super().announce(descriptor, offset, size)


def opened(path: Path, files: Files) -> SessionFolder:
    folder = SessionFolder(path, files)
    folder.refresh()
    return folder


@pytest.mark.usefixtures("_small_segments")
@pytest.mark.parametrize("kv", ["raw", "int8"])
@pytest.mark.parametrize("large", [0, 1 << 40], ids=["threads", "alone"])
def test_blocks_are_the_same_in_whatever_way_they_are_read(
    large: int, kv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rekv.store.reading.LARGE_BYTES", large)
    monkeypatch.setattr("rekv.store.reading._THREADS", 4)
    path = made(tmp_path / "session", 40, kv=kv)
    files = HalfCached()
    folder, plain = opened(path, files), opened(path, Files())
    frames = [3, 39, 4, 17, 0, 30, 8]
    (heads, dim), tokens = folder.meta.layers[0], folder.meta.tokens_per_frame
    for layer in range(len(folder.meta.layers)):
        shape = (len(frames), 2, heads, tokens, dim)
        one, other = (torch.empty(shape, dtype=folder.meta.torch_dtype) for _ in range(2))
        folder.read(layer, frames, list(one))
        for frame, row in zip(frames, other, strict=True):
            plain.read(layer, [frame], [row])
        assert torch.equal(one, other)
    assert files.announced
    folder.close()
    plain.close()


def test_damage_in_one_thread_ends_all_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Sequence[torch.Tensor]
) -> None:
    monkeypatch.setattr("rekv.store.reading.LARGE_BYTES", 0)
    monkeypatch.setattr("rekv.store.reading._THREADS", 4)
    path = made(tmp_path / "session", 40)
    folder = opened(path, Files())
    number, slot = folder.place(20)
    segment = folder.segment(number)
    place = segment.places["layer.1.blocks"]
    with (path / "segment-000000.safetensors").open("r+b") as file:
        file.seek(place.start + slot * place.row)
        file.write(b"\xff" * 8)
    frames = list(range(0, 40, 2))
    rows = torch.zeros_like(truth[1][frames])
    with pytest.raises(DamagedError) as error:
        folder.read(1, frames, list(rows))
    assert error.value.frames == (20,)
    before = rows.numpy().tobytes()
    folder.read(0, frames, list(torch.empty_like(rows)))
    assert rows.numpy().tobytes() == before
    folder.close()


def test_the_index_of_the_next_layer_is_announced(tmp_path: Path) -> None:
    path = made(tmp_path / "session", 40)
    files = HalfCached()
    folder = opened(path, files)
    folder.index(0, range(5, 20))
    place = folder.segment(0).places["layer.1.index"]
    assert files.announced == [(place.start + 5 * place.row, 15 * place.row)]
    folder.index(len(folder.meta.layers) - 1, range(5, 20))
    assert len(files.announced) == 1
    folder.close()


# -- tables of a segment that is written -------------------------------------------------------------------------------


def segment_of(path: Path, files: Files) -> Segment:
    metadata = {"session": "{}", "segment": "0"}
    return Segment.create(files, path, slots=8, layers=LAYERS, dtype=torch.float32, codec="raw", metadata=metadata)


def test_tables_are_in_the_file_when_it_is_synced(tmp_path: Path) -> None:
    segment = segment_of(tmp_path / "segment.safetensors", Files())
    segment.write_table("frame", 2, [7, 8, 9])
    segment.write_table("crc", 2, [1, 2, 3], layer=1)
    segment.forget_tables()  # what is not in the file yet stays
    assert segment.table("frame").tolist() == [0, 0, 7, 8, 9, 0, 0, 0]
    assert not Segment(Files(), segment.path).table("frame").any()
    segment.write_table("state", 2, [WRITTEN])
    segment.write_table("frame", 8, [])
    segment.sync()
    segment.write_table("frame", 5, [10])
    again = Segment(Files(), segment.path)
    assert again.table("frame").tolist() == [0, 0, 7, 8, 9, 0, 0, 0]
    assert again.table("crc").tolist() == [[0] * 8, [0, 0, 1, 2, 3, 0, 0, 0]]
    assert again.table("state").tolist() == [0, 0, WRITTEN, 0, 0, 0, 0, 0]
    assert np.array_equal(again.table("offset"), [[32 * slot for slot in range(8)]] * 2)
    segment.write_tables()
    assert again.table("frame").tolist() == [0, 0, 7, 8, 9, 10, 0, 0]


def test_tables_that_could_not_be_written_are_written_again(tmp_path: Path) -> None:
    files = FailingFiles("write")
    segment = segment_of(tmp_path / "segment.safetensors", files)
    segment.write_table("frame", 0, [1, 2, 3])
    for passes in range(3):
        files.failing, files.passes = True, passes
        with pytest.raises(OSError, match="No space left"):
            segment.sync()
    files.failing = False
    segment.sync()
    again = Segment(Files(), segment.path)
    assert again.table("frame").tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert (again.table("size") == 32).all()
