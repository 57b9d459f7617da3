"""Errors that rekv raises at its borders. Each message says what to do next."""


class RekvError(Exception):
    """Base of every error that rekv raises on purpose."""


class VideoError(RekvError):
    """A video that cannot be opened, has no pictures, or stopped being readable."""


class ModelError(RekvError):
    """A model that cannot be found, loaded, or that the method cannot reproduce."""


class ConfigError(RekvError, ValueError):
    """A setting that is out of range or contradicts another one."""


class SessionError(RekvError):
    """A call that a session's state does not allow."""


class MemoryFullError(SessionError):
    """The memory that a session may use is full."""


class StoreError(RekvError):
    """A store that cannot be opened, read or written."""


class WriteError(StoreError):
    """Frames that cannot be written for now. They are in memory: what mends it lets them be written after all."""

    def __init__(self, message: str, reason: str, durable: int) -> None:
        """`reason`: what is wrong, in words; `durable`: frames of the session that are safe."""
        super().__init__(message)
        self.reason = reason
        self.durable = durable


class DamagedError(StoreError):
    """Frames whose stored bytes are not what was written, or are gone. They can be left out; the rest is fine.

    `lasting` is False for what may be better next time, such as a disk that does not answer.
    """

    def __init__(self, message: str, frames: tuple[int, ...], *, lasting: bool = True) -> None:
        super().__init__(message)
        self.frames = frames
        self.lasting = lasting


class DataError(RekvError):
    """A benchmark's files that are missing or malformed."""


class JudgeError(RekvError):
    """A judge that cannot be asked at all: a wrong address, key or model."""


class ClusterError(RekvError):
    """Workers that cannot be started, or are lost again and again."""
