"""A session for as long as its questions are asked, within a budget of RAM."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rekv.engine import Model, Session


@contextmanager
def temporary(model: Model, ram: int | None, **settings: Any) -> Iterator[Session]:
    """A session in RAM; or, within `ram` bytes of it, in a store that is gone afterwards."""
    if ram is None:
        yield model.session(**settings)
        return
    with (
        tempfile.TemporaryDirectory(prefix="rekv-eval-") as store,
        model.session("video", store=store, ram=ram, **settings) as session,
    ):
        yield session
