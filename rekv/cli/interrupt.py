"""Ctrl-C as a wish to stop where it does no harm."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Interrupt:
    """While it is entered, Ctrl-C asks to stop at the next frame; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._usual = signal.getsignal(signal.SIGINT)
        self._set(self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        self._set(self._usual)

    def check(self, _: object = None) -> None:
        """Raise KeyboardInterrupt if it is asked to stop."""
        if self.asked:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def _set(self, handler: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # others may not; nor does Ctrl-C reach them
            signal.signal(signal.SIGINT, handler)
