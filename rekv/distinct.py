"""Near-duplicates of a stream are left out: the frame they repeat stands for them."""

from collections.abc import Iterator

from rekv.core import EncodeConfig, Frame
from rekv.sources.duplicates import Duplicates


class Distinct:
    """The frames of one `append` that are to be encoded."""

    def __init__(
        self, config: EncodeConfig, first: int, state: bytes | None, pictures: int = 1, held: int | None = None
    ) -> None:
        """`first` is the id of the next frame, `state` that of the session's last one.

        A frame takes `pictures`; the last one of the session holds `held` of them.
        """
        self._duplicates: Duplicates | None = None
        if config.skip_duplicates is not None:
            self._duplicates = Duplicates.resume(state, config.skip_duplicates, config.max_span)
        self._last = first - 1
        self._pictures, self._held = pictures, held or pictures
        self.earlier = state  # the state before the last frame
        self._until: dict[int, float] = {}

    @property
    def state(self) -> bytes | None:
        """What the next frame is compared with."""
        return None if self._duplicates is None else self._duplicates.state

    def of(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Those of `frames` that do not repeat the last one of these.

        Where several pictures make a frame, only its first one may be left out: whole frames are what costs.
        """
        for frame in frames:
            if self._held < self._pictures:
                self._held += 1
                self._until[self._last] = frame.time
                yield frame
                continue
            state = self.state
            if self._duplicates is not None and self._duplicates.repeats(frame):
                self._until[self._last] = frame.time
                continue
            self._last, self._held, self.earlier = self._last + 1, 1, state
            yield frame

    def extended(self, before: int) -> dict[int, float]:
        """Frames below `before` that have come to stand for others, and until when; each is told once."""
        told = {frame: time for frame, time in self._until.items() if frame < before}
        for frame in told:
            del self._until[frame]
        return told
