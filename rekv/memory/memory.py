"""A session's memory: its layers, the times of its frames, and the counter that makes frames visible."""

from collections.abc import Sequence

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
        self.tokens_per_frame = tokens_per_frame
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
        whole = self.window.length >= min(seen, n_local)  # not so if sliding failed half-way
        if not (whole and self.window.reserve(tokens, limit)):
            self._slide(seen, n_local)
            self.window.reserve(tokens, limit)

    def _slide(self, seen: int, n_local: int) -> None:
        """Rebuild the window at the front of its buffer from the sink and the blocks."""
        keep = min(n_local, seen)
        first = seen - keep
        self.window.length = 0  # until it is whole again, a failure leaves an empty window to rebuild
        init = self.sink_keys.shape[1]
        at = 0
        if first < init:
            at = init - first
            self._put(0, self.sink_keys[:, first:], self.sink_values[:, first:])
        frame, skip = divmod(max(first - init, 0), self.tokens_per_frame)
        last = (seen - init) // self.tokens_per_frame
        step = self.blocks.frames_per_slab
        while frame < last:
            pairs = self.blocks.read(range(frame, min(frame + step, last)))
            keys, values = (pairs[:, i].transpose(0, 1).flatten(1, 2)[:, skip:] for i in range(2))
            self._put(at, keys, values)
            at, frame, skip = at + keys.shape[1], frame + len(pairs), 0
        self.window.length = keep

    def _put(self, slot: int, keys: Tensor, values: Tensor) -> None:
        n = keys.shape[1]
        to_keys, to_values = self.window.slots(slot, n)
        rotate(keys, self._rotary.angles(slot, slot + n, self.device), to_keys)
        to_values.copy_(values)


class Memory:
    """All layers of one session.

    Writers fill layers beyond `frames` and then call `commit`, which raises the counter last: whoever reads the
    counter first sees a consistent prefix, and a call that failed left nothing visible behind.
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
        self.times: list[float] = []
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

    def commit(self, times: Sequence[float], tokens: int) -> None:
        """After an encode call: its tokens join the window, its frames become visible."""
        for layer in self.layers.values():
            layer.window.length += tokens
        del self.times[self.frames :]
        self.times.extend(times)
        self.frames += len(times)

    def check_integrity(self) -> None:
        """Raise if anything that must hold does not. Cheap: reads no blocks."""
        if len(self.times) != self.frames:
            raise RuntimeError(f"{self.frames} frames, but {len(self.times)} times")
        if any(b < a for a, b in zip(self.times, self.times[1:], strict=False)):
            raise RuntimeError("frame times go backwards")
        lengths = {layer.window.length for layer in self.layers.values()}
        if len(lengths) > 1:
            raise RuntimeError(f"windows of unequal length: {sorted(lengths)}")
        for i, layer in self.layers.items():
            if layer.blocks.capacity < self.frames or layer.index.capacity < self.frames:
                raise RuntimeError(f"layer {i} lacks blocks: {layer.blocks.capacity} for {self.frames} frames")
            if not min(self.tokens, self.n_local) <= layer.window.length <= min(self.tokens, layer.window.capacity):
                raise RuntimeError(f"layer {i}: window of {layer.window.length} tokens after {self.tokens}")
            if layer.sink_keys.shape[1] != self.n_init:
                raise RuntimeError(f"layer {i}: sink of {layer.sink_keys.shape[1]} tokens, not {self.n_init}")
