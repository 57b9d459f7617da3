"""A segment: the blocks of some frames in one file, a legal safetensors file from the moment it exists.

The file is made at its full size, sparse, with a slot for each frame; what is not written reads as zeros.
docs/store-format.md specifies it.
"""

import json
import math
import os
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from rekv.errors import DamagedError, StoreError
from rekv.store.files import Files, room

FORMAT = "rekv-segment"
VERSION = 1
PAGE = 4096
_NO_CRC = "0" * 8
_RESERVE_BYTES = 1 << 20, 64 << 20  # at least and at most, ahead of what is written
EMPTY, WRITTEN = 0, 1

_NUMPY = {"I64": "<i8", "F64": "<f8", "U32": "<u4", "I32": "<i4", "F32": "<f4", "U8": "u1"}
_TORCH = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8"}
_BITS = {"I64": 64, "F64": 64, "U32": 32, "I32": 32, "F32": 32, "F16": 16, "BF16": 16, "U8": 8}

# Per slot, one value or a few: (name, type, layers first, further dimensions).
_TABLES = (
    ("frame", "I64", False, ()),  # id
    ("time", "F64", False, ()),  # seconds
    ("until", "F64", False, ()),  # seconds: the last near-duplicate that this frame stands for
    ("wall", "F64", False, ()),  # seconds since the epoch, or NaN
    ("commit", "I64", False, (3,)),  # frames of the session after the call that made it; the window then: first, slots
    ("offset", "I64", True, ()),  # of the block, from the start of the layer's blocks
    ("size", "I64", True, ()),  # of the block, in bytes
    ("crc", "U32", True, ()),  # of the block
    ("index_crc", "U32", True, ()),  # of the representative key
    ("tokens", "I32", False, ()),
)
_PER_LAYER = {name for name, _, per_layer, _ in _TABLES if per_layer}


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer stores per frame."""

    shape: tuple[int, int, int]  # kv_heads, tokens, head_dim
    width: int  # of the representative key: kv_heads * head_dim
    nbytes: int  # of one block as stored


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the file."""

    type: str
    shape: tuple[int, ...]
    start: int  # bytes from the file's start

    @cached_property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _BITS[self.type] // 8

    @cached_property
    def row(self) -> int:
        """Bytes of one entry along the first dimension."""
        return self.nbytes // self.shape[0]


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
            self.metadata, self.places = _read_header(files, self._descriptor, path)
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
    ) -> "Segment":
        """Make the file, durably but for its content. `metadata` comes beside the format's own."""
        header, size = _header(slots, layers, dtype, codec, metadata)
        descriptor = files.create(path, size)
        try:
            files.write(descriptor, [memoryview(header)], 0)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.sync_folder(path.parent)
        segment = cls(files, path, writable=True)
        sizes = np.repeat([[layer.nbytes] for layer in layers], slots, 1)
        segment.write_table("size", 0, sizes)
        segment.write_table("offset", 0, sizes * np.arange(slots))
        return segment

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
        place = self.places[f"layer.{layer}.blocks"]
        size = place.row
        if any(run.nbytes % size for run in runs):
            raise StoreError(f"{self.path.name} takes blocks of {size} bytes, not {[run.nbytes for run in runs]}")
        crcs = [zlib_ng.crc32(run[i : i + size]) for run in runs for i in range(0, run.nbytes, size)]
        self._reserve(slot + len(crcs))
        self._files.write(self._descriptor, runs, place.start + slot * size)
        self.write_table("crc", slot, crcs, layer)

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

    def write_index(self, layer: int, slot: int, rows: NDArray[np.float32]) -> None:
        """Write representative keys (n, width)."""
        place = self.places[f"layer.{layer}.index"]
        rows = np.ascontiguousarray(rows, "<f4")
        self._files.write(self._descriptor, [rows.data.cast("B")], place.start + slot * place.row)
        self.write_table("index_crc", slot, [zlib_ng.crc32(row) for row in rows], layer)

    def write_table(self, name: str, slot: int, values: Any, layer: int | slice = slice(None)) -> None:
        """Set entries of a table from `slot` on: one per slot, or per layer and slot (in one layer: one per slot)."""
        values = np.asarray(values, _NUMPY[self.places[name].type])
        n = values.shape[-1 if name in _PER_LAYER else 0]
        if not n:
            return
        with self._using_tables:
            table = self._keep(name)
            if name in _PER_LAYER:
                table[layer, slot : slot + n] = values
            else:
                table[slot : slot + n] = values
            first, last = self._unwritten.get(name, (slot, slot))
            self._unwritten[name] = min(first, slot), max(last, slot + n)

    def write_tables(self) -> None:
        """Put what was written to the tables into the file."""
        for name, (first, last) in self._unwritten.items():
            table = self._tables[name]
            for i, rows in enumerate(table if name in _PER_LAYER else [table]):
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
        data = np.empty(place.shape, _NUMPY[place.type])
        self._read(data.data.cast("B"), place.start)
        return data

    def index(self, layer: int, start: int, stop: int) -> NDArray[np.float32]:
        """Representative keys of slots start..stop-1: (slots, width)."""
        place = self.places[f"layer.{layer}.index"]
        data = np.frombuffer(room((stop - start) * place.row), "<f4").reshape(-1, place.shape[1])
        if stop > start:
            self._read(data.data.cast("B"), place.start + start * place.row)
        return data

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


def _crc_entry(crc: str) -> bytes:
    """How the header holds its own checksum, which is taken with zeros in its place."""
    return f'"crc":"{crc}"'.encode()


def _header(
    slots: int, layers: Sequence[Layer], dtype: torch.dtype, codec: str, metadata: Mapping[str, str]
) -> tuple[bytes, int]:
    """The file's first bytes and its size."""
    tensors: list[tuple[str, str, tuple[int, ...]]] = []
    for name, kind, per_layer, further in _TABLES:
        tensors.append((name, kind, (len(layers), slots) if per_layer else (slots, *further)))
    tensors += [(f"layer.{i}.index", "F32", (slots, layer.width)) for i, layer in enumerate(layers)]
    for i, layer in enumerate(layers):
        if codec == "raw":
            tensors.append((f"layer.{i}.blocks", _TORCH[dtype], (slots, 2, *layer.shape)))
        else:
            tensors.append((f"layer.{i}.blocks", "U8", (slots, layer.nbytes)))
    tensors.append(("state", "U8", (slots,)))
    entries: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "version": str(VERSION),
            "codec": codec,
            "dtype": str(dtype).removeprefix("torch."),
            "crc": _NO_CRC,
            "layers": json.dumps([{"shape": x.shape, "width": x.width, "nbytes": x.nbytes} for x in layers]),
            **metadata,
        }
    }
    start = 0
    for name, kind, shape in tensors:
        end = start + Place(kind, shape, 0).nbytes
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text = text.replace(_crc_entry(_NO_CRC), _crc_entry(f"{zlib_ng.crc32(text):08x}"), 1)
    text += b" " * (-(len(text) + 8) % PAGE)
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + start


def _read_header(files: Files, descriptor: int, path: Path) -> tuple[dict[str, str], dict[str, Place]]:
    begin = bytearray(8)
    damaged = StoreError(f"{path} is not a whole segment: its header is damaged; run `rekv verify --repair`")
    if files.read(descriptor, [memoryview(begin)], 0) < 8:
        raise damaged
    (length,) = struct.unpack("<Q", begin)
    if not 2 <= length <= 100_000_000:
        raise damaged
    text = bytearray(length)
    if files.read(descriptor, [memoryview(text)], 8) < length:
        raise damaged
    try:
        header = json.loads(bytes(text))
        metadata = header.pop("__metadata__")
        places = {
            name: Place(x["dtype"], tuple(x["shape"]), 8 + length + x["data_offsets"][0]) for name, x in header.items()
        }
        version = int(metadata["version"])
        unsigned = bytes(text).rstrip(b" ").replace(_crc_entry(metadata["crc"]), _crc_entry(_NO_CRC), 1)
        if metadata["format"] != FORMAT or f"{zlib_ng.crc32(unsigned):08x}" != metadata["crc"]:
            raise damaged
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise damaged from error
    if version > VERSION:
        raise StoreError(f"{path} has format {version}, this rekv reads up to {VERSION}; install a newer rekv")
    return metadata, places
