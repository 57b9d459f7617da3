"""A segment's header: which tensors lie where in the file, what it says of itself, and its own checksum."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from rekv.errors import StoreError
from rekv.store.files import Files

FORMAT = "rekv-segment"
VERSION = 2  # of segments of sessions with a memory policy; without, they are of version 1
PAGE = 4096
_NO_CRC = "0" * 8

NUMPY = {"I64": "<i8", "F64": "<f8", "U32": "<u4", "I32": "<i4", "F32": "<f4", "U8": "u1"}
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
PER_LAYER = {name for name, _, per_layer, _ in _TABLES if per_layer} | {"kept"}


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer stores per frame."""

    shape: tuple[int, int, int]  # kv_heads, tokens, head_dim
    width: int  # of the representative key: kv_heads * head_dim
    nbytes: int  # of one block as stored, if all are alike


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


def _crc_entry(crc: str) -> bytes:
    """How the header holds its own checksum, which is taken with zeros in its place."""
    return f'"crc":"{crc}"'.encode()


def write_header(
    slots: int,
    layers: Sequence[Layer],
    dtype: torch.dtype,
    codec: str,
    metadata: Mapping[str, str],
    mask_bytes: int,
    sizes: NDArray[np.int64] | None,
) -> tuple[bytes, int]:
    """The file's first bytes and its size. For `mask_bytes` and `sizes` see `Segment.create`."""
    tensors: list[tuple[str, str, tuple[int, ...]]] = []
    for name, kind, per_layer, further in _TABLES:
        tensors.append((name, kind, (len(layers), slots) if per_layer else (slots, *further)))
    if mask_bytes:
        tensors.append(("kept", "U8", (len(layers), slots, mask_bytes)))
    tensors += [(f"layer.{i}.index", "F32", (slots, layer.width)) for i, layer in enumerate(layers)]
    for i, layer in enumerate(layers):
        if sizes is not None:
            tensors.append((f"layer.{i}.blocks", "U8", (int(sizes[i].sum()),)))
        elif codec == "raw":
            tensors.append((f"layer.{i}.blocks", _TORCH[dtype], (slots, 2, *layer.shape)))
        else:
            tensors.append((f"layer.{i}.blocks", "U8", (slots, layer.nbytes)))
    tensors.append(("state", "U8", (slots,)))
    entries: dict[str, Any] = {
        "__metadata__": {
            "format": FORMAT,
            "version": str(VERSION if mask_bytes else 1),
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


def read_header(files: Files, descriptor: int, path: Path) -> tuple[dict[str, str], dict[str, Place]]:
    """The metadata, and where tensors lie. Raises `StoreError` if the file does not begin with a whole header."""
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
