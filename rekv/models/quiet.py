"""Loading small models without a word: it takes a blink, and progress bars and hints would only be noise."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Let transformers show no progress bars, and say nothing below an error, while a model is loaded."""
    from transformers.utils.logging import EmptyTqdm, get_verbosity, set_tqdm_hook, set_verbosity, set_verbosity_error

    previous = set_tqdm_hook(lambda factory, args, kwargs: EmptyTqdm(*args, **kwargs))  # type: ignore[no-untyped-call]
    verbosity = get_verbosity()
    set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        set_verbosity(verbosity)
        set_tqdm_hook(previous)
