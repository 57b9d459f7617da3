"""The sink's file: keys and values of the init prompt, with their checksums."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from zlib_ng import zlib_ng

from rekv.errors import DamagedError, StoreError
from rekv.memory.pool import as_bytes
from rekv.store.meta import SessionMeta
from rekv.store.names import SINK

Sink = Sequence[tuple[Tensor, Tensor]]  # per layer: keys and values (kv_heads, tokens, head_dim)


def save_sink(file: Path, sink: Sink, meta: SessionMeta) -> None:
    """Write it to a file."""
    tensors = {}
    for i, (keys, values) in enumerate(sink):
        tensors[f"layer.{i}.keys"] = keys.cpu().contiguous()
        tensors[f"layer.{i}.values"] = values.cpu().contiguous()
    crcs = {name: zlib_ng.crc32(as_bytes(tensor)) for name, tensor in tensors.items()}
    metadata = {"format": "rekv-sink", "session": meta.dumps(), "crc": json.dumps(crcs)}
    # Not with safetensors' save_file, whose files nobody but their owner may read.
    file.write_bytes(save(tensors, metadata))


def load_sink(path: Path, meta: SessionMeta) -> list[tuple[Tensor, Tensor]]:
    """Read it from the folder `path`. Raises `DamagedError` if it is lost, and `StoreError` if it is out of reach."""
    try:
        # Not with safe_open: it says of any error of the system that there is no such file, and maps the file into
        # memory, so that one that is cut later ends the process.
        data = (path / SINK).read_bytes()
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        crcs = json.loads(header.get("__metadata__", {}).get("crc", "{}"))  # an older rekv wrote none
    except FileNotFoundError as error:
        raise _lost(path, "it is gone") from error
    except OSError as error:
        raise StoreError(
            f"{path / SINK} cannot be read ({error.strerror or error}); check the disk and its permissions"
        ) from error
    except (SafetensorError, ValueError, AttributeError) as error:
        raise _lost(path, str(error)) from error
    for i, (heads, dim) in enumerate(meta.layers):
        for name in _names(i):
            if name not in tensors or tuple(tensors[name].shape) != (heads, len(meta.init_ids), dim):
                raise _lost(path, f"it is of another session: {name} is not there, or has another shape")
            crc = zlib_ng.crc32(as_bytes(tensors[name]))
            if not isinstance(crcs, dict) or crcs.get(name, crc) != crc:
                raise _lost(path, f"{name} is not as it was written")
    return [(tensors[keys], tensors[values]) for keys, values in map(_names, range(len(meta.layers)))]


def _names(layer: int) -> tuple[str, str]:
    return f"layer.{layer}.keys", f"layer.{layer}.values"


def _lost(path: Path, why: str) -> DamagedError:
    words = "whoever next appends to the session, with the model that made it, makes it anew"
    return DamagedError(f"{path / SINK} is damaged ({why}); {words}", ())
