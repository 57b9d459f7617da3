"""A session's memory: its layers, the times of its frames, and the counter that makes frames visible."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from rekv.attention.kernels import Sink
from rekv.attention.rotary import Rotary, rotate
from rekv.errors import ConfigError
from rekv.memory.blocks import Blocks
from rekv.memory.index import Index
from rekv.memory.window import Window


class LayerMemory:
    """Sink, window, blocks and index of one layer. Made from the first keys that the layer computes."""

    def __init__(
        self, init_keys: Tensor, init_values: Tensor, tokens_per_frame: int, n_local: int, rotary: Rotary
    ) -> None:
        kv_heads, _, dim = init_keys.shape
        dtype, self.device = init_keys.dtype, init_keys.device
        self._rotary = rotary
        self.sink_keys, self.sink_values = init_keys.clone(), init_values.clone()  # un-rotated
        far = rotary.angles(n_local - 1, n_local, self.device).inverse()
        self._far_keys = rotate(self.sink_keys, far)
        self.window = Window(kv_heads, dim, dtype, self.device)
        self.blocks = Blocks(kv_heads, tokens_per_frame, dim, dtype, self.device)
        self.index = Index(kv_heads, dim, self.device)

    def sink(self, query: Tensor, counts: Tensor) -> Sink | None:
        """The init prompt as un-rotated queries see it from beyond the window; None if no query does."""
        if int(counts.max()) == 0:
            return None
        return Sink(query, self._far_keys, self.sink_values, counts)

    def make_room(self, tokens: int, seen: int, n_local: int) -> None:
        """Let the window take `tokens` more, the stream having `seen` tokens so far."""
        limit = n_local + max(n_local // 2, tokens)
        length = seen - self.window.first
        if not self.window.reserve(length + tokens, limit, length):
            self.window = self._slid(max(0, seen - n_local), seen, limit)

    def _slid(self, first: int, seen: int, slots: int) -> Window:
        """A new window with tokens first..seen-1 at its front, from the sink and the blocks."""
        _, kv_heads, block, dim = self.blocks.shape
        window = Window(kv_heads, dim, self.blocks.dtype, self.device, first=first, slots=slots)
        init = self.sink_keys.shape[1]
        at = max(0, init - first)
        if at:
            self._put(window, 0, self.sink_keys[:, first:], self.sink_values[:, first:])
        frame, skip = divmod(max(first - init, 0), block)
        last, step = (seen - init) // block, self.blocks.frames_per_slab
        while frame < last:
            pairs = self.blocks.read(range(frame, min(frame + step, last)))
            keys, values = (pairs[:, i].transpose(0, 1).flatten(1, 2)[:, skip:] for i in range(2))
            self._put(window, at, keys, values)
            at, frame, skip = at + keys.shape[1], frame + len(pairs), 0
        return window

    def _put(self, window: Window, slot: int, keys: Tensor, values: Tensor) -> None:
        end = slot + keys.shape[1]
        to_keys, to_values = window.slots(slot, end)
        rotate(keys, self._rotary.angles(slot, end, self.device), to_keys)
        to_values.copy_(values)


class Memory:
    """All layers of one session.

    Writers fill layers beyond `frames` and then call `commit`, which raises that one counter: whoever reads it first
    sees a consistent prefix, and a call that failed, wherever, left nothing visible behind.
    """

    def __init__(self, rotary: Rotary, *, n_init: int, tokens_per_frame: int, n_local: int) -> None:
        if n_local < tokens_per_frame:
            raise ConfigError(
                f"n_local is {n_local} tokens, less than one frame ({tokens_per_frame}); "
                f"the paper uses 15000, and a few frames is the least that makes sense"
            )
        self.rotary = rotary
        self.n_init = n_init
        self.n_local = n_local
        self.tokens_per_frame = tokens_per_frame
        self.layers: dict[int, LayerMemory] = {}
        self.times: list[float] = []  # of the visible frames; what follows is not committed
        self.frames = 0  # visible to questions

    @property
    def tokens(self) -> int:
        """Tokens of the stream so far, the init prompt included."""
        return self.n_init + self.frames * self.tokens_per_frame

    @property
    def bytes(self) -> int:
        """Bytes of the visible blocks, all layers."""
        return self.frames * self.bytes_per_frame

    @property
    def bytes_per_frame(self) -> int:
        return sum(layer.blocks.bytes_per_frame for layer in self.layers.values())

    def layer(self, index: int, keys: Tensor, values: Tensor) -> LayerMemory:
        """The memory of a layer; the first call of all, with the init prompt's keys and values, makes it."""
        if index not in self.layers:
            self.layers[index] = LayerMemory(keys, values, self.tokens_per_frame, self.n_local, self.rotary)
            self.layers[index].make_room(keys.shape[1], 0, self.n_local)
        return self.layers[index]

    def make_room(self, tokens: int) -> None:
        """Before an encode call: let every layer's window take its tokens."""
        for layer in self.layers.values():
            layer.make_room(tokens, self.tokens, self.n_local)

    def commit(self, times: Sequence[float]) -> None:
        """After an encode call: its frames become visible, all at once, by one assignment."""
        del self.times[self.frames :]
        self.times.extend(times)
        self.frames += len(times)

    def check_integrity(self) -> None:
        """Raise if anything that must hold does not. Cheap: reads no blocks."""
        times = self.times[: self.frames]
        if len(times) != self.frames:
            raise RuntimeError(f"{self.frames} frames, but {len(times)} times")
        if any(b < a for a, b in pairwise(times)):
            raise RuntimeError("frame times go backwards")
        for i, layer in self.layers.items():
            if layer.blocks.capacity < self.frames or layer.index.capacity < self.frames:
                raise RuntimeError(f"layer {i} lacks blocks: {layer.blocks.capacity} for {self.frames} frames")
            length = self.tokens - layer.window.first
            if not min(self.tokens, self.n_local) <= length <= layer.window.capacity:
                raise RuntimeError(f"layer {i}: window of {length} tokens after {self.tokens}")
            if layer.sink_keys.shape[1] != self.n_init:
                raise RuntimeError(f"layer {i}: sink of {layer.sink_keys.shape[1]} tokens, not {self.n_init}")
