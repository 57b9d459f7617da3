"""A session's memory: its layers, the times of its frames, and the counter that makes frames visible."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from rekv.attention.kernels import Sink
from rekv.attention.positions import GridPositions, Layout, Positions
from rekv.attention.rotary import Rotary, rotate
from rekv.core import StorageConfig
from rekv.errors import ConfigError, DamagedError, MemoryFullError
from rekv.memory.blocks import Backing, Blocks
from rekv.memory.frames import FrameTable
from rekv.memory.heap import give_back
from rekv.memory.index import Index
from rekv.memory.window import Window

logger = logging.getLogger(__name__)

Present = Callable[[range], Sequence[int]]

_SLIDES_PER_TRIM = 4
_INDEX_PIECES = 64  # that the index grows by, at least, until it takes the whole budget
_MIN_CALLS = 4  # encode calls whose blocks fit in the smallest RAM that is accepted


class LayerMemory:
    """Sink, window, blocks and index of one layer. Made from the first keys that the layer computes."""

    def __init__(
        self,
        init_keys: Tensor,
        init_values: Tensor,
        positions: Positions,
        blocks: Blocks,
    ) -> None:
        kv_heads, _, dim = init_keys.shape
        self.dtype, self.device = init_keys.dtype, init_keys.device
        self._positions = positions
        self.sink_keys, self.sink_values = init_keys.clone(), init_values.clone()  # un-rotated
        self._far_keys = {
            text: rotate(self.sink_keys, positions.far(self.device, text=text).inverse()) for text in (False, True)
        }
        self.window = Window(kv_heads, dim, self.dtype, self.device)
        self.blocks = blocks
        self.index = Index(kv_heads, dim, self.device)

    def sink(self, query: Tensor, counts: Tensor, *, text: bool = False) -> Sink | None:
        """The init prompt as un-rotated queries, of frames or of text, see it from beyond the window.

        None if no query does.
        """
        if int(counts.max()) == 0:
            return None
        return Sink(query, self._far_keys[text], self.sink_values, counts)

    def make_room(self, tokens: int, seen: int, n_local: int, present: Present) -> None:
        """Let the window take `tokens` more, the stream having `seen` tokens so far."""
        limit = n_local + max(n_local // 2, tokens)
        length = seen - self.window.first
        if not self.window.reserve(length + tokens, limit, length):
            self.restore_window(max(0, seen - n_local), seen, limit, present)

    def restore_window(self, first: int, seen: int, slots: int, present: Present) -> None:
        """Build the window anew, with tokens first..seen-1 at its front, from the sink and the blocks.

        `present` names the frames to read for a range of them: another one for each that is gone.
        """
        _, kv_heads, block, dim = self.blocks.shape
        window = Window(kv_heads, dim, self.dtype, self.device, first=first, slots=slots)
        init = self.sink_keys.shape[1]
        at = max(0, init - first)
        if at:
            self._put(window, 0, self.sink_keys[:, first:], self.sink_values[:, first:])
        frame, skip = divmod(max(first - init, 0), block)
        last, step = (seen - init) // block, self.blocks.ram.rows_per_slab
        while frame < last:
            pairs = self.blocks.read(present(range(frame, min(frame + step, last))))
            keys, values = (pairs[:, i].transpose(0, 1).flatten(1, 2)[:, skip:] for i in range(2))
            self._put(window, at, keys, values)
            at, frame, skip = at + keys.shape[1], frame + len(pairs), 0
        self.window = window

    def _put(self, window: Window, slot: int, keys: Tensor, values: Tensor) -> None:
        end = slot + keys.shape[1]
        to_keys, to_values = window.slots(slot, end)
        rotate(
            keys, self._positions.window(window.first, window.first + slot, window.first + end, self.device), to_keys
        )
        to_values.copy_(values)


class Memory:
    """All layers of one session.

    Writers fill layers beyond `frames` and then call `commit`, which raises that one counter: whoever reads it first
    sees a consistent prefix, and a call that failed, wherever, left nothing visible behind.
    """

    def __init__(
        self,
        rotary: Rotary,
        *,
        n_init: int,
        tokens_per_frame: int,
        n_local: int,
        layout: Layout | None = None,
        several: bool = False,
    ) -> None:
        """`layout` places frames of a model with several position axes; `several`: a frame may hold many pictures."""
        if n_local < tokens_per_frame:
            raise ConfigError(
                f"n_local is {n_local} tokens, less than one frame ({tokens_per_frame}); "
                f"the paper uses 15000, and a few frames is the least that makes sense"
            )
        self.rotary = rotary
        self.positions = (
            Positions(rotary, n_init=n_init, tokens_per_frame=tokens_per_frame, n_local=n_local)
            if layout is None
            else GridPositions(rotary, layout, n_init=n_init, n_local=n_local)
        )
        self.n_init = n_init
        self.n_local = n_local
        self.tokens_per_frame = tokens_per_frame
        self.layers: dict[int, LayerMemory] = {}
        self.grid: tuple[int, int] | None = (
            None  # rows and columns of tokens, where the model's are not always the same
        )
        self.table = FrameTable()  # of the visible frames; what follows is not committed
        self.frames = 0  # visible to questions, those that are gone included
        self.unfinished = 0  # of these: 1 if the newest may be made anew, with another picture
        self.backing: Backing | None = None  # where blocks go when RAM is full
        self.block_dtype: torch.dtype | None = None  # None = the model's
        self.stored_sink: Sequence[tuple[Tensor, Tensor]] | None = None  # instead of what the layers compute
        self._several = several
        self._storage = StorageConfig()
        self._slides = 0  # of the window, since the session was opened
        self._least = 0  # frames that RAM has room for, whatever the index takes

    @property
    def times(self) -> Sequence[float]:
        """By frame: seconds."""
        return self.table.times

    @property
    def last_pictures(self) -> Mapping[int, float]:
        """By frame that holds several pictures: when the last one was taken at the latest, in seconds."""
        return self.table.until if self._several else {}

    @property
    def finished(self) -> int:
        """Frames that stay as they are: what can be written elsewhere."""
        return self.frames - self.unfinished

    @property
    def tokens(self) -> int:
        """Tokens of the stream so far, the init prompt included."""
        return self.n_init + self.frames * self.tokens_per_frame

    @property
    def bytes(self) -> int:
        """Bytes of the visible blocks as computed, all layers."""
        return len(self.table.there(range(self.frames))) * self.bytes_per_frame

    @property
    def bytes_in_ram(self) -> int:
        """Bytes that blocks and index take in RAM."""
        return sum(layer.blocks.ram.bytes + layer.index.bytes for layer in self.layers.values())

    @property
    def bytes_per_frame(self) -> int:
        return sum(layer.blocks.bytes_per_frame for layer in self.layers.values())

    def layer(self, index: int, keys: Tensor, values: Tensor) -> LayerMemory:
        """The memory of a layer; the first call of all, with the init prompt's keys and values, makes it."""
        if index not in self.layers:
            if self.stored_sink is not None:
                keys, values = (x.to(keys.device, keys.dtype) for x in self.stored_sink[index])
            kv_heads, tokens, dim = keys.shape
            dtype = self.block_dtype or keys.dtype
            blocks = Blocks(kv_heads, self.tokens_per_frame, dim, dtype, keys.device, layer=index, backing=self.backing)
            self.layers[index] = LayerMemory(keys, values, self.positions, blocks)
            self.layers[index].make_room(tokens, 0, self.n_local, self._present)
        return self.layers[index]

    def limit(self, storage: StorageConfig, frames_per_call: int) -> None:
        """Set the budgets, once all layers are there and before the first frame."""
        self._storage = storage
        gpu = storage.gpu_cache // self.bytes_per_frame
        if gpu and all(layer.blocks.device.type == "cpu" for layer in self.layers.values()):
            logger.warning("gpu_cache: the model is on the CPU, so the cache takes RAM; give `ram` more instead")
        if storage.ram is None and not gpu:
            return
        in_ram = 1 << 40 if storage.ram is None else storage.ram // self.bytes_per_frame
        if in_ram < (least := _MIN_CALLS * frames_per_call):
            raise ConfigError(
                f"ram is {storage.ram} bytes, and {least} frames take {least * self.bytes_per_frame}: give it at "
                f"least that; in Python, a smaller frames_per_call (now {frames_per_call}) needs less"
            )
        self._least = least
        index = sum(layer.index.row_bytes for layer in self.layers.values())
        for layer in self.layers.values():
            layer.blocks.limit(in_ram, gpu)
            layer.index.limit(in_ram * self.bytes_per_frame // _INDEX_PIECES // index)

    def make_room(self, tokens: int) -> None:
        """Before an encode call: let every layer's window take its tokens, and RAM its blocks."""
        slid = False
        for layer in self.layers.values():
            before = layer.window
            layer.make_room(tokens, self.tokens, self.n_local, self._present)
            slid = layer.window is not before
        if slid:
            self._slides += 1
            if self._slides % _SLIDES_PER_TRIM == 0:
                give_back()
        if self._storage.ram is not None and self.frames:
            self._keep_in_ram(self._storage.ram, tokens // self.tokens_per_frame)

    def fit(self) -> None:
        """Keep blocks and index within the budget, after frames were taken over from disk."""
        if self._storage.ram is not None:
            self._keep_in_ram(self._storage.ram, 0)

    def commit(self, times: Sequence[float], *, unfinished: bool = False) -> None:
        """After an encode call: its frames become visible, all at once, by one assignment."""
        self.table.add(self.frames, times)
        self.unfinished = int(unfinished)
        self.frames += len(times)

    def retract(self, frame: int) -> None:
        """Frames from this one on do not count any more: they are about to be made anew."""
        self.frames, self.unfinished = frame, 0

    def drop_window(self) -> None:
        """Do without a window: questions do not need it, `restore_window` builds it again."""
        for layer in self.layers.values():
            _, kv_heads, _, dim = layer.blocks.shape
            layer.window = Window(kv_heads, dim, layer.dtype, layer.device)

    def restore_window(self, first: int, slots: int) -> None:
        """Build every layer's window as it was when it had `slots` slots and token `first` in front.

        Raises `DamagedError` if a frame that it needs cannot be read.
        """
        for layer in self.layers.values():
            layer.restore_window(first, self.tokens, slots, self._present)

    def _present(self, frames: range) -> Sequence[int]:
        """For a window: each frame, or where it is gone the nearest one before it that is not, or else after it."""
        there = self.table.there(range(self.frames))
        if isinstance(there, range) and frames.start >= there.start:
            return frames
        if not there:
            raise DamagedError("no frame of the window can be read", tuple(frames))
        ids = torch.tensor(there)
        return ids[(torch.searchsorted(ids, torch.tensor(frames), right=True) - 1).clamp_(0)].tolist()

    # -- what a budget does ------------------------------------------------------------------------------------

    def _keep_in_ram(self, ram: int, coming: int) -> None:
        """Keep blocks and index within `ram` bytes while `coming` frames are added."""
        if self.backing is None:
            index = sum(layer.index.row_bytes for layer in self.layers.values())
            room = ram // (self.bytes_per_frame + index) - coming
            kept = self.frames - self.table.oldest
            if kept > room:
                self._forget_oldest(kept - room, room)
            return
        written = self.table.row(self.backing.written)
        # The index may take half; the part beyond it is read from disk whenever it is scanned.
        while sum(layer.index.bytes for layer in self.layers.values()) > ram // 2:
            moved = [layer.index.move_to_disk(self.index_from_disk(i), written) for i, layer in self.layers.items()]
            if not all(moved):
                break
        index = sum(layer.index.bytes for layer in self.layers.values())
        coming_index = sum(layer.index.slab_bytes for layer in self.layers.values())
        room = max(self._least, (ram - index - coming_index) // self.bytes_per_frame)
        for layer in self.layers.values():
            pool = layer.blocks.ram
            if pool.limit is not None and room < pool.limit:
                pool.shrink(room, layer.blocks.leaving)

    def _forget_oldest(self, frames: int, room: int) -> None:
        if self._storage.when_full == "error":
            raise MemoryFullError(
                f"the memory is full: {self.frames} frames, {self._storage.ram} bytes allowed. Give it more (ram), "
                f'keep it on disk (store), or let it forget the oldest (when_full="forget")'
            )
        first_needed = max(0, self.layers[0].window.first - self.n_init) // self.tokens_per_frame
        if self.table.oldest + frames > first_needed:
            raise MemoryFullError(
                f"the memory is full, and what is left is the window of {self.n_local} tokens: give it more (ram)"
            )
        leaving = range(self.table.oldest, self.table.oldest + frames)
        self.table.leave_out(leaving)
        for layer in self.layers.values():
            layer.blocks.forget(leaving)
        self.forget_gone()

    def index_from_disk(self, layer: int) -> Callable[[range], Tensor]:
        """What reads rows of a layer's index from disk; zeros for frames that are gone."""

        def load(rows: range) -> Tensor:
            if self.backing is None:
                raise RuntimeError("there is no disk to read the index from")
            frames = self.table.frames_of(rows)
            there = self.table.are_there(frames)
            if there.all():
                return self.backing.index(layer, frames)
            out = torch.zeros(len(frames), self.layers[layer].index.row_bytes // 4)
            if there.any():
                out[torch.from_numpy(there)] = self.backing.index(layer, frames[there])
            return out

        return load

    def forget_gone(self) -> None:
        """Give back what the index holds of frames that are gone."""
        for layer in self.layers.values():
            layer.index.forget(self.table.row(self.table.oldest))

    # -- for whoever writes them elsewhere ---------------------------------------------------------------------

    def blocks_of(self, layer: int, frames: range) -> Sequence[Tensor]:
        """Blocks in host memory, in runs (n, 2, kv_heads, tokens, head_dim)."""
        return self.layers[layer].blocks.runs(frames)

    def representatives_of(self, layer: int, frames: range) -> Tensor:
        """Representative keys (len(frames), kv_heads * head_dim), fp32 on the CPU."""
        first = self.table.row(frames.start)
        return self.layers[layer].index.rows(range(first, first + len(frames)))

    def check_integrity(self) -> None:
        """Raise if anything that must hold does not. Cheap: reads no blocks."""
        times = self.times[: self.frames]
        if len(times) != self.frames:
            raise RuntimeError(f"{self.frames} frames, but {len(times)} times")
        if any(b < a for a, b in pairwise(times)):
            raise RuntimeError("frame times go backwards")
        there = self.table.there(range(self.frames))
        rows = self.table.row(self.frames - 1) + 1 if self.frames else 0
        for i, layer in self.layers.items():
            layer.blocks.check_integrity(there)
            if layer.index.capacity < rows:
                raise RuntimeError(f"layer {i} lacks representative keys: {layer.index.capacity} for {rows} frames")
            length = self.tokens - layer.window.first
            if layer.window.capacity and not min(self.tokens, self.n_local) <= length <= layer.window.capacity:
                raise RuntimeError(f"layer {i}: window of {length} tokens after {self.tokens}")
            if layer.sink_keys.shape[1] != self.n_init:
                raise RuntimeError(f"layer {i}: sink of {layer.sink_keys.shape[1]} tokens, not {self.n_init}")
