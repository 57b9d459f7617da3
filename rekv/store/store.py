"""A store: a folder with one folder per session."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from rekv.errors import SessionError, StoreError
from rekv.store.catalog import FILE, LOCK
from rekv.store.names import holds_session

if TYPE_CHECKING:
    from rekv.store.folder import SessionFolder

VARIABLE = "REKV_STORE"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Store:
    """Sessions by name. The folder need not exist; it is made with its first session."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Without `path`: what the environment variable REKV_STORE names, or ~/.rekv/sessions."""
        self.folder = Path(path or os.environ.get(VARIABLE) or Path.home() / ".rekv" / "sessions").expanduser()
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"{self.folder} is a file; a store is a folder: give the path of one")

    def names(self) -> list[str]:
        """Sessions in it, in alphabetical order, also those whose catalog is lost."""
        try:
            entries = sorted(entry.name for entry in os.scandir(self.folder) if _NAME.fullmatch(entry.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be listed ({error.strerror}); check its permissions") from error
        return [name for name in entries if holds_session(self.folder / name)]

    def path(self, name: str) -> Path:
        """Where a session of this name lies, or would. Raises `StoreError` for what cannot be a name."""
        if not _NAME.fullmatch(name):
            raise StoreError(
                f"{name!r} cannot name a session: up to 100 letters, digits, dots, dashes and underscores, "
                f"beginning with a letter or digit"
            )
        return self.folder / name

    def find(self, name: str, *, damaged: bool = False) -> Path:
        """Where the session lies. Raises `StoreError` if there is none, or, unless it may be `damaged`, no catalog."""
        path = self.path(name)
        if not (path / FILE).exists() and not (damaged and holds_session(path)):
            if holds_session(path):
                raise StoreError(f"session {name!r} has lost its {FILE}; `rekv verify {name} --repair` makes it anew")
            known = self.names()
            others = f"there are {', '.join(known[:10])}" if known else "there are none; `rekv ingest` makes one"
            raise StoreError(f"no session {name!r} in {self.folder}; {others}")
        return path

    def open(self, name: str) -> "SessionFolder":
        """Open a session for reading, and see what is in it."""
        from rekv.store.folder import SessionFolder  # torch comes with it, which takes seconds

        folder = SessionFolder(self.find(name))
        folder.refresh()
        return folder

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Keep others from writing a session meanwhile. Raises `SessionError` if somebody writes it."""
        lock = FileLock(self.path(name) / LOCK, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise SessionError(f"session {name!r} is being written; wait until that ends, or end it") from error
        except OSError as error:
            raise StoreError(f"session {name!r} cannot be changed ({error.strerror}); check its permissions") from error
        try:
            yield
        finally:
            lock.release()

    def remove(self, name: str) -> None:
        """Delete a session that nobody writes. Readers go on with what they have open."""
        path = self.find(name, damaged=True)
        with self.lock(name):
            # Under another name first: a removal that is interrupted leaves nothing that looks like a session.
            removed = path.with_name(f".{name}.removed")
            shutil.rmtree(removed, ignore_errors=True)
            path.rename(removed)
        shutil.rmtree(removed)
