"""A session's memory: its layers, the times of its frames, and the counter that makes frames visible."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rekv.attention.positions import GridPositions, Layout, Positions
from rekv.attention.rotary import Rotary
from rekv.core import StorageConfig
from rekv.errors import ConfigError, DamagedError, MemoryFullError
from rekv.memory.blocks import Backing, Blocks
from rekv.memory.frames import FrameTable
from rekv.memory.heap import give_back
from rekv.memory.kept import KeptBlocks, Masks
from rekv.memory.layer import LayerMemory
from rekv.memory.policies import find as find_policy
from rekv.memory.window import Window

logger = logging.getLogger(__name__)

_SLIDES_PER_TRIM = 4
_INDEX_PIECES = 64  # that the index grows by, at least, until it takes the whole budget
_MIN_CALLS = 4  # encode calls whose blocks fit in the smallest RAM that is accepted


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
        policy: str | None = None,
    ) -> None:
        """`layout` places frames of a model with several position axes; `several`: a frame may hold many pictures.

        `policy` names what says which tokens of a frame are kept for questions; None: all are.
        """
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
        self._policy = find_policy(policy)
        self._released = 0  # frames below this one are not kept whole any more, if there is a policy
        self._storage = StorageConfig()
        self._slides = 0  # of the window, since the session was opened
        self._whole = 0  # whole blocks that RAM has room for, if there is a policy
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
        """Bytes of what is kept of the visible blocks, as computed, all layers."""
        there = self.table.there(range(self.frames))
        if self._policy is None:
            return len(there) * self.bytes_per_frame
        return sum(layer.kept.bytes(there) for layer in self.layers.values() if layer.kept is not None)

    @property
    def bytes_in_ram(self) -> int:
        """Bytes that blocks and index take in RAM."""
        kept = sum(layer.kept.blocks.ram.bytes for layer in self.layers.values() if layer.kept is not None)
        return kept + sum(layer.blocks.ram.bytes + layer.index.bytes for layer in self.layers.values())

    @property
    def bytes_per_frame(self) -> int:
        """Bytes of a whole frame's blocks, all layers."""
        return sum(layer.blocks.bytes_per_frame for layer in self.layers.values())

    def layer(self, index: int, keys: Tensor, values: Tensor) -> LayerMemory:
        """The memory of a layer; the first call of all, with the init prompt's keys and values, makes it."""
        if index not in self.layers:
            if self.stored_sink is not None:
                keys, values = (x.to(keys.device, keys.dtype) for x in self.stored_sink[index])
            kv_heads, tokens, dim = keys.shape
            dtype = self.block_dtype or keys.dtype
            blocks = Blocks(kv_heads, self.tokens_per_frame, dim, dtype, keys.device, layer=index, backing=self.backing)
            kept = None if self._policy is None else KeptBlocks(self._policy, blocks, self.backing)
            self.layers[index] = LayerMemory(keys, values, self.positions, blocks, kept)
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
        least = _MIN_CALLS * frames_per_call * (1 if self._policy is None else 2)  # whole blocks, and what is kept
        if in_ram < least:
            raise ConfigError(
                f"ram is {storage.ram} bytes, and {least} frames take {least * self.bytes_per_frame}: give it at "
                f"least that; in Python, a smaller frames_per_call (now {frames_per_call}) needs less"
            )
        self._least = least
        index = sum(layer.index.row_bytes for layer in self.layers.values())
        self._whole = self._whole_in_ram(in_ram, frames_per_call)
        for layer in self.layers.values():
            layer.index.limit(in_ram * self.bytes_per_frame // _INDEX_PIECES // index)
            if layer.kept is None:
                layer.blocks.limit(in_ram, gpu)
                continue
            pages = layer.blocks.bytes_per_frame / layer.kept.page_bytes
            layer.blocks.limit(self._whole, 0)
            # Without a disk both grow as they need, within the budget of the whole.
            rest = in_ram if self.backing is None else in_ram - self._whole
            layer.kept.limit(int(rest * pages), int(gpu * pages))

    def make_room(self, tokens: int) -> None:
        """Before an encode call: let every layer's window take its tokens, and RAM its blocks."""
        slid = False
        for layer in self.layers.values():
            before = layer.window
            layer.make_room(tokens, self.tokens, self.n_local, self._present)
            slid = layer.window is not before
        if self._policy is not None and self.frames:
            self._release()
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
        if times and self._policy is not None:
            before = self.frames - 1
            for layer in self.layers.values():
                layer.keep(
                    range(self.frames, self.frames + len(times)), before if self.table.is_there(before) else None
                )
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

    @property
    def first_needed(self) -> int:
        """The first frame of which the window holds a token."""
        return max(0, self.layers[0].window.first - self.n_init) // self.tokens_per_frame

    def _release(self) -> None:
        """Let whole blocks go that have left the window: what the policy keeps of them has been stored."""
        end = self.first_needed if self.backing is None else min(self.first_needed, self.backing.written)
        if end > self._released:
            for layer in self.layers.values():
                layer.blocks.forget(range(self._released, end))
            self._released = end

    def _present(self, frames: range) -> Sequence[int]:
        """For a window: each frame, or where it is gone the nearest one before it that is not, or else after it."""
        # With a policy, what lies before the window may not be whole any more.
        there = self.table.there(range(0 if self._policy is None else frames.start, self.frames))
        if not frames or (isinstance(there, range) and frames.start >= there.start):
            return frames
        if not there:
            raise DamagedError("no frame of the window can be read", tuple(frames))
        ids = torch.tensor(there)
        return ids[(torch.searchsorted(ids, torch.tensor(frames), right=True) - 1).clamp_(0)].tolist()

    # -- what a budget does ------------------------------------------------------------------------------------

    def _keep_in_ram(self, ram: int, coming: int) -> None:
        """Keep blocks and index within `ram` bytes while `coming` frames are added."""
        if self.backing is None:
            if (surplus := self._surplus(ram, coming)) > 0:
                self._forget_oldest(surplus)
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
            blocks, most = layer.blocks, room
            if layer.kept is not None:
                blocks = layer.kept.blocks
                most = (
                    max(self._least // 2, room - self._whole) * layer.blocks.bytes_per_frame // blocks.bytes_per_frame
                )
            if blocks.ram.limit is not None and most < blocks.ram.limit:
                blocks.ram.shrink(most, blocks.leaving)

    def _whole_in_ram(self, in_ram: int, frames_per_call: int) -> int:
        """Of so many frames in RAM, how many are whole blocks: with a policy, those of the window, if there is room."""
        if self._policy is None or self.backing is None:
            return in_ram
        window = (self.n_local + max(self.n_local // 2, 1)) // self.tokens_per_frame + 3 * frames_per_call
        return max(self._least // 2, min(window, in_ram // 4))

    def _surplus(self, ram: int, coming: int) -> int:
        """How many frames have to go, so that `coming` ones find room in `ram` bytes, where there is no disk."""
        index = sum(layer.index.row_bytes for layer in self.layers.values())
        frames = range(self.table.oldest, self.frames)
        if self._policy is None:
            return len(frames) - ram // (self.bytes_per_frame + index) + coming
        used = index * (len(frames) + coming)
        freed = np.full(len(frames), index)
        for layer in self.layers.values():
            if layer.kept is not None:
                sizes = layer.kept.stored_bytes(frames)
                freed += sizes
                used += int(sizes.sum()) + coming * layer.kept.pages * layer.kept.page_bytes
                whole = layer.blocks.ram  # rows that were given back are not memory that is
                used += max(whole.capacity, whole.frames + coming) * whole.row_bytes
        return 0 if used <= ram else int(np.searchsorted(np.cumsum(freed), used - ram)) + 1

    def _forget_oldest(self, frames: int) -> None:
        if self._storage.when_full == "error":
            raise MemoryFullError(
                f"the memory is full: {self.frames} frames, {self._storage.ram} bytes allowed. Give it more (ram, "
                f"--ram), keep it on disk (store, `rekv ingest --session`), or let it forget the oldest "
                f'(when_full="forget")'
            )
        if self.table.oldest + frames > self.first_needed:
            raise MemoryFullError(
                f"the memory is full, and what is left is the window of {self.n_local} tokens: "
                f"give it more (ram, --ram)"
            )
        leaving = range(self.table.oldest, self.table.oldest + frames)
        self.table.leave_out(leaving)
        for layer in self.layers.values():
            layer.forget(leaving)
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

    def masks_of(self, layer: int, frames: range) -> Masks | None:
        """Which tokens a policy keeps of frames, packed bits (len(frames), bytes); None without one."""
        kept = self.layers[layer].kept
        return None if kept is None else kept.masks(frames)

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
            layer.blocks.check_integrity(self.table.there(range(self._released, self.frames)))
            if layer.kept is not None:
                layer.kept.check_integrity(there)
            if layer.index.capacity < rows:
                raise RuntimeError(f"layer {i} lacks representative keys: {layer.index.capacity} for {rows} frames")
            length = self.tokens - layer.window.first
            if layer.window.capacity and not min(self.tokens, self.n_local) <= length <= layer.window.capacity:
                raise RuntimeError(f"layer {i}: window of {length} tokens after {self.tokens}")
            if layer.sink_keys.shape[1] != self.n_init:
                raise RuntimeError(f"layer {i}: sink of {layer.sink_keys.shape[1]} tokens, not {self.n_init}")
