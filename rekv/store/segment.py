"""A segment: the blocks of some frames in one file, a legal safetensors file from the moment it exists.

The file is made at its full size, sparse, with a slot for each frame; what is not written reads as zeros.
docs/store-format.md specifies it.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from rekv.errors import DamagedError, StoreError
from rekv.store.files import Files, room
from rekv.store.header import NUMPY, PER_LAYER, Layer, read_header, write_header

_RESERVE_BYTES = 1 << 20, 64 << 20  # at least and at most, ahead of what is written
EMPTY, WRITTEN = 0, 1


class Segment:
    """An open segment. Reads may run in many threads; one thread writes.

    What is written to its tables stays in memory until `write_tables` or `sync`: readers of this object see it at
    once, and the file is written in a few pieces for many frames, not in many for each call.
    """

    def __init__(self, files: Files, path: Path, *, writable: bool = False) -> None:
        """Open an existing segment. Raises `StoreError` if it is not one, and `OSError` if it cannot be opened."""
        self._files, self.path = files, path
        self._tables: dict[str, NDArray[Any]] = {}  # kept in memory
        self._unwritten: dict[
            str, tuple[int, int]
        ] = {}  # slots (first, behind the last) of tables, not yet in the file
        self._using_tables = threading.RLock()
        self._descriptor = files.open(path, writable=writable)
        try:
            self.metadata, self.places = read_header(files, self._descriptor, path)
        except BaseException:
            self.close()
            raise
        self.slots = self.places["frame"].shape[0]
        self.layers = self.places["crc"].shape[0]
        self._reserved = 0  # slots whose blocks have room on disk

    @classmethod
    def create(
        cls,
        files: Files,
        path: Path,
        *,
        slots: int,
        layers: Sequence[Layer],
        dtype: torch.dtype,
        codec: str,
        metadata: Mapping[str, str],
        mask_bytes: int = 0,
        sizes: NDArray[np.int64] | None = None,
    ) -> "Segment":
        """Make the file, durably but for its content. `metadata` comes beside the format's own.

        `mask_bytes`: of what says which tokens of a frame are kept, if a policy chooses them. `sizes`: bytes of each
        block (layers, slots), if only these tokens are stored.
        """
        header, size = write_header(slots, layers, dtype, codec, metadata, mask_bytes, sizes)
        descriptor = files.create(path, size)
        try:
            files.write(descriptor, [memoryview(header)], 0)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.sync_folder(path.parent)
        segment = cls(files, path, writable=True)
        if sizes is None:
            sizes = np.repeat([[layer.nbytes] for layer in layers], slots, 1)
        segment.write_table("size", 0, sizes)
        segment.write_table("offset", 0, np.cumsum(sizes, 1) - sizes)
        return segment

    @property
    def is_reduced(self) -> bool:
        """Whether only those tokens are stored that a policy keeps."""
        return len(self.places["layer.0.blocks"].shape) == 1

    @property
    def codec(self) -> str:
        return self.metadata["codec"]

    @property
    def dtype(self) -> torch.dtype:
        """In which blocks were computed."""
        dtype: torch.dtype = getattr(torch, self.metadata["dtype"])
        return dtype

    @cached_property
    def layout(self) -> list[Layer]:
        return [Layer(tuple(x["shape"]), x["width"], x["nbytes"]) for x in json.loads(self.metadata["layers"])]

    # -- writing -----------------------------------------------------------------------------------------------

    def write_blocks(self, layer: int, slot: int, runs: Sequence[memoryview]) -> None:
        """Write blocks into slots slot, slot + 1, ... of a layer, with their checksums; a run is one or more blocks."""
        if self.is_reduced:
            self._write_reduced(layer, slot, runs)
            return
        place = self.places[f"layer.{layer}.blocks"]
        size = place.row
        if any(run.nbytes % size for run in runs):
            raise StoreError(f"{self.path.name} takes blocks of {size} bytes, not {[run.nbytes for run in runs]}")
        crcs = [zlib_ng.crc32(run[i : i + size]) for run in runs for i in range(0, run.nbytes, size)]
        self._reserve(slot + len(crcs))
        self._files.write(self._descriptor, runs, place.start + slot * size)
        self.write_table("crc", slot, crcs, layer)

    def _write_reduced(self, layer: int, slot: int, blocks: Sequence[memoryview]) -> None:
        offset, size, _ = (table[slot : slot + len(blocks)] for table in self.blocks_table(layer))
        if [block.nbytes for block in blocks] != size.tolist():
            raise StoreError(f"{self.path.name} takes blocks of {size} bytes, not {[b.nbytes for b in blocks]}")
        place = self.places[f"layer.{layer}.blocks"]
        self._files.write(self._descriptor, blocks, place.start + int(offset[0]))
        self.write_table("crc", slot, [zlib_ng.crc32(block) for block in blocks], layer)

    def _reserve(self, slots: int) -> None:
        """Let the disk find room for the blocks of the first `slots` slots, and ahead of them: writes are faster."""
        if slots <= self._reserved:
            return
        places = [self.places[f"layer.{layer}.blocks"] for layer in range(self.layers)]
        frame = sum(place.row for place in places)
        while self._reserved < slots:
            least, most = (max(1, size // frame) for size in _RESERVE_BYTES)
            end = min(self.slots, self._reserved + min(most, max(least, self._reserved)))
            for place in places:
                start = place.start + self._reserved * place.row
                self._files.reserve(self._descriptor, start, (end - self._reserved) * place.row)
            self._reserved = end

    def write_index(
        self, layer: int, slot: int, rows: NDArray[np.float32], masks: NDArray[np.uint8] | None = None
    ) -> None:
        """Write representative keys (n, width), and which tokens are kept (n, mask_bytes), if a policy chose them."""
        place = self.places[f"layer.{layer}.index"]
        rows = np.ascontiguousarray(rows, "<f4")
        self._files.write(self._descriptor, [rows.data.cast("B")], place.start + slot * place.row)
        if masks is not None:
            self.write_table("kept", slot, masks, layer)
        each = [None] * len(rows) if masks is None else masks
        self.write_table("index_crc", slot, [index_crc(*one) for one in zip(rows, each, strict=True)], layer)

    def write_table(self, name: str, slot: int, values: Any, layer: int | slice = slice(None)) -> None:
        """Set entries of a table from `slot` on: one per slot, or per layer and slot (in one layer: one per slot)."""
        values = np.asarray(values, NUMPY[self.places[name].type])
        n = values.shape[1 if name in PER_LAYER and isinstance(layer, slice) else 0]
        if not n:
            return
        with self._using_tables:
            table = self._keep(name)
            if name in PER_LAYER:
                table[layer, slot : slot + n] = values
            else:
                table[slot : slot + n] = values
            first, last = self._unwritten.get(name, (slot, slot))
            self._unwritten[name] = min(first, slot), max(last, slot + n)

    def write_tables(self) -> None:
        """Put what was written to the tables into the file."""
        for name, (first, last) in self._unwritten.items():
            table = self._tables[name]
            for i, rows in enumerate(table if name in PER_LAYER else [table]):
                start = self.places[name].start + i * rows.nbytes + first * rows.strides[0]
                self._files.write(self._descriptor, [rows[first:last].data.cast("B")], start)
        self._unwritten = {}

    def sync(self) -> None:
        """Return when all that was written is durable."""
        self.write_tables()
        self._files.sync(self._descriptor)

    # -- reading -----------------------------------------------------------------------------------------------

    def table(self, name: str) -> NDArray[Any]:
        """A whole table: per slot, or (layers, slots)."""
        with self._using_tables:
            table = self._tables.get(name)
            return self._load(name) if table is None else table

    @property
    def size(self) -> int:
        """Bytes of the file, which may have lost its name meanwhile."""
        return os.fstat(self._descriptor).st_size

    def blocks_table(self, layer: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Offset, size and checksum of each slot's block in a layer; kept until `forget_tables`."""
        with self._using_tables:
            offset, size, crc = (self._keep(name)[layer] for name in ("offset", "size", "crc"))
        return offset, size, crc

    def stored_bytes(self, slots: Sequence[int]) -> int:
        """Bytes of the blocks and representative keys of these slots."""
        keys = sum(4 * layer.width for layer in self.layout)
        return int(self.table("size")[:, slots].sum()) + len(slots) * keys

    def require_places(self, frames: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Raise `DamagedError` for frames that are not in the slots where the catalog says they are."""
        try:
            with self._using_tables:
                wrong = self._keep("frame")[slots] != frames
        except IndexError as error:
            words = f"the catalog names slots that {self.path.name} does not have"
            raise DamagedError(words, tuple(frames.tolist())) from error
        if wrong.any():
            others = frames[wrong].tolist()
            raise DamagedError(f"{self.path.name} has other frames where {others} should lie", tuple(others))

    def forget_tables(self) -> None:
        """Somebody else has written to the segment: its tables are read again when they are needed."""
        with self._using_tables:  # so that what is being loaded, and is old already, is not kept
            self._tables = {name: self._tables[name] for name in self._unwritten}

    def _keep(self, name: str) -> NDArray[Any]:
        """A table that stays in memory."""
        if name not in self._tables:
            self._tables[name] = self._load(name)
        return self._tables[name]

    def _load(self, name: str) -> NDArray[Any]:
        place = self.places[name]
        data = np.empty(place.shape, NUMPY[place.type])
        self._read(data.data.cast("B"), place.start)
        return data

    def index(self, layer: int, start: int, stop: int) -> NDArray[np.float32]:
        """Representative keys of slots start..stop-1: (slots, width)."""
        place = self.places[f"layer.{layer}.index"]
        data = np.frombuffer(room((stop - start) * place.row), "<f4").reshape(-1, place.shape[1])
        if stop > start:
            self._read(data.data.cast("B"), place.start + start * place.row)
        return data

    def masks(self, layer: int) -> NDArray[np.uint8] | None:
        """By slot: which tokens are kept, packed bits (slots, mask_bytes); None without a policy."""
        if "kept" not in self.places:
            return None
        with self._using_tables:
            masks: NDArray[np.uint8] = self._keep("kept")[layer]
        return masks

    def announce_index(self, layer: int, start: int, stop: int) -> None:
        """Say that `index` will be called soon."""
        place = self.places[f"layer.{layer}.index"]
        self._files.announce(self._descriptor, place.start + start * place.row, (stop - start) * place.row)

    def read_at(self, layer: int, offset: int, buffers: Sequence[memoryview], *, wait: bool = True) -> int:
        """Fill buffers from a layer's blocks, one behind the other; return the bytes read.

        They are fewer at the file's end, and without `wait` if the system does not have the rest in memory.
        """
        place = self.places[f"layer.{layer}.blocks"]
        return self._files.read(self._descriptor, buffers, place.start + offset, wait=wait)

    def block(self, layer: int, slot: int) -> memoryview | None:
        """A block as it is stored; None if its checksum is not that of what was written."""
        offset, size, crc = (int(table[slot]) for table in self.blocks_table(layer))
        if not self.holds(layer, offset, size):
            return None
        block = room(size)
        whole = self.read_at(layer, offset, [block]) == size and zlib_ng.crc32(block) == crc
        return block if whole else None

    def holds(self, layer: int, offset: int, size: int) -> bool:
        """Whether a block can lie there at all."""
        return 0 <= offset < offset + size <= self.places[f"layer.{layer}.blocks"].nbytes

    def announce(self, layer: int, offset: int, size: int) -> None:
        """Say what will be read soon."""
        self._files.announce(self._descriptor, self.places[f"layer.{layer}.blocks"].start + offset, size)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._files.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()

    def _read(self, buffer: memoryview, offset: int) -> None:
        done = self._files.read(self._descriptor, [buffer], offset)
        if done < buffer.nbytes:
            raise StoreError(f"{self.path} ends early; it was cut: `rekv verify --repair` saves what is whole")


def index_crc(row: NDArray[np.float32], mask: NDArray[np.uint8] | None) -> int:
    """The checksum of a representative key, and of which tokens are kept, if a policy chose them."""
    crc = zlib_ng.crc32(row)
    return crc if mask is None else zlib_ng.crc32(mask, crc)
