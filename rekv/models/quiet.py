"""Loading models without what transformers says meanwhile, of which nothing is for whoever only uses them."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_hints() -> Iterator[None]:
    """Let transformers say nothing below an error: weights that are missing are told by rekv, in one sentence."""
    from transformers.utils.logging import get_verbosity, set_verbosity, set_verbosity_error

    verbosity = get_verbosity()
    set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        set_verbosity(verbosity)


@contextmanager
def quietly() -> Iterator[None]:
    """Show no progress bars either: small models are loaded in a blink."""
    from transformers.utils.logging import EmptyTqdm, set_tqdm_hook

    previous = set_tqdm_hook(lambda factory, args, kwargs: EmptyTqdm(*args, **kwargs))  # type: ignore[no-untyped-call]
    try:
        with without_hints():
            yield
    finally:
        set_tqdm_hook(previous)
