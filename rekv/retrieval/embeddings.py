"""What a dual encoder made of a session's frames: one unit vector each, beside the index."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rekv.core import Image
from rekv.errors import ConfigError
from rekv.memory.index import Index
from rekv.memory.memory import Memory

_TYPE = np.dtype("<f2")  # as they are stored; enough to rank by


class Encoder(Protocol):
    """A dual encoder."""

    def pictures(self, images: Sequence[Image]) -> Tensor: ...

    def texts(self, texts: Sequence[str]) -> Tensor: ...


class Stored(Protocol):
    """Where vectors are kept."""

    def embeddings(self, start: int) -> Iterable[tuple[int, bytes]]:
        """Frames from `start` on and their vectors, of those that have one."""


class FrameEmbeddings:
    """The vectors of one session's frames, in the rows of its index.

    They are read from `stored` when they are first needed. Frames without one, of a call that was interrupted, are the
    least alike to everything.
    """

    def __init__(
        self, memory: Memory, encoder: Callable[[], Encoder] | None, stored: Callable[[], Stored | None]
    ) -> None:
        """`encoder` loads it; None: the session has none."""
        self._memory, self._encoder, self._stored = memory, encoder, stored
        self._frames = 0  # frames below are here, or have no vector
        self._index: Index | None = None
        self._dim = 0
        self._lacking: set[int] = set()

    def see(self, images: Sequence[Image]) -> Sequence[bytes | None]:
        """Before the memory takes frames: embed their pictures; return the vectors as they are to be stored."""
        if self._encoder is None:
            return [None] * len(images)
        self._follow()
        table, frame = self._memory.table, self._memory.frames
        if self._index is not None:
            self._index.forget(table.row(table.oldest))
        rounded = self._encoder().pictures(images).numpy().astype(_TYPE)
        self._write(table.row(frame), rounded.astype(np.float32))
        return [row.tobytes() for row in rounded]

    def commit(self) -> None:
        """After the memory took the frames."""
        if self._encoder is not None:
            self._frames = self._memory.frames

    def similarity(self, text: str, frames: Sequence[int]) -> Tensor:
        """How alike a text and the pictures of frames (ascending) are: cosines, (len(frames),) fp32 on the CPU.

        Raises `ConfigError` if the session was read without an encoder, or with another one.
        """
        if self._encoder is None:
            raise ConfigError(
                "this session was read without a dual encoder, by which this retriever chooses: read the video again "
                'with one (encoder="google/siglip2-base-patch16-224"), or ask with retriever="internal"'
            )
        self._follow()
        rows, kept = self._memory.table.rows(frames)
        if not rows:
            return torch.zeros(0)
        vector = self._encoder().texts([text])
        if self._index is None:
            raise ConfigError("no frame of this session has been embedded; read the video again with a dual encoder")
        self._require(vector.shape[1])
        likes = self._index.scores(vector[None], rows)
        likes = likes if kept is None else likes[kept]
        lacking = [i for i, frame in enumerate(frames) if frame in self._lacking] if self._lacking else []
        likes[lacking] = likes.min()
        return likes

    def _follow(self) -> None:
        """Take over what is stored of frames that came since."""
        table, frames = self._memory.table, self._memory.frames
        if frames <= self._frames:
            return
        stored = self._stored()
        known = dict(stored.embeddings(self._frames)) if stored is not None else {}
        rows = range(table.row(self._frames), table.row(frames))
        size = self._dim * _TYPE.itemsize or len(next(iter(known.values()), b""))
        vectors = np.zeros((len(rows), size // _TYPE.itemsize), np.float32)
        for row, frame in enumerate(table.frames_of(rows).tolist()):
            if len(vector := known.get(frame, b"")) == size > 0:
                vectors[row] = np.frombuffer(vector, _TYPE)
            else:
                self._lacking.add(frame)
        if size:
            self._write(rows.start, vectors)
        self._frames = frames

    def _write(self, row: int, vectors: NDArray[np.float32]) -> None:
        if self._index is None:
            self._dim = vectors.shape[1]
            self._index = Index(1, self._dim, torch.device("cpu"))
            self._index.put(0, torch.zeros(row, self._dim))  # of frames before, which have none
        self._require(vectors.shape[1])
        self._index.put(row, torch.from_numpy(vectors))

    def _require(self, dim: int) -> None:
        if dim != self._dim:
            raise ConfigError(
                f"the session's frames have vectors of {self._dim} numbers, this dual encoder makes {dim}: name the "
                f"one that it was read with"
            )
