"""The bytes of a video: a path or an open binary file, checked before FFmpeg sees them."""

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, cast

from rekv.errors import VideoError

Source = str | os.PathLike[str] | BinaryIO

# How files begin that list other files, or addresses.
LISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"v=0", b"[playlist]")


def name_of(source: Source) -> str:
    """What messages call the source."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return str(getattr(source, "name", None) or "the given file object")


def open_bytes(source: Source) -> BinaryIO:
    """Open a path, or rewind a file object if it can be rewound. Raises VideoError."""
    if not isinstance(source, str | os.PathLike):
        if source.seekable():
            source.seek(0)
        return source
    name = os.fspath(source)
    if "://" in name:
        raise VideoError(f"{name}: rekv reads local files so far; record the stream to a file and give its path")
    file = _open_path(name)
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        file.close()
        raise VideoError(f"{name} is empty; was its recording or download interrupted?")
    return cast(BinaryIO, file)


def _open_path(name: str) -> io.FileIO:
    try:
        return io.FileIO(name)
    except FileNotFoundError as error:
        raise VideoError(f"{name}: no such file; check the path (relative ones start at {Path.cwd()})") from error
    except IsADirectoryError as error:
        raise VideoError(f"{name} is a directory; give a video file") from error
    except PermissionError as error:
        raise VideoError(f"{name}: no permission to read it; change its mode or owner") from error
    except (OSError, ValueError) as error:
        raise VideoError(f"{name} cannot be opened ({error}); check the path") from error


class Content:
    """A binary file as PyAV reads it: without its name, whose ending would hint at a format (*.txt: text art).

    PyAV swallows what its callbacks raise. Ctrl-C while a pipe is waited for ends the file here, and is raised by
    `check` once PyAV has returned.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._interrupt: KeyboardInterrupt | None = None
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if self._interrupt is not None:
            return b""
        try:
            return self._file.read(size)
        except KeyboardInterrupt as interrupt:
            self._interrupt = interrupt
            return b""

    def check(self) -> None:
        """Raise the interrupt that a read met, once."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt


def explain(file: BinaryIO) -> str:
    """Why FFmpeg may have refused these bytes, and what to do: a guess from how they begin."""
    try:
        file.seek(0)
        head = file.read(16)
    except (OSError, ValueError):  # cannot be rewound
        head = b""
    if head.startswith(LISTS):
        return "it seems to be a list of other files, which rekv does not follow; give the video file itself"
    if head[4:8] == b"ftyp":
        return (
            "it is an MP4 file without its index (moov), as when recording or copying was interrupted; "
            "copy it again, or have a repair tool rebuild the index"
        )
    return "it is not a video in a format that FFmpeg knows, or its beginning is damaged; give a video file"
