"""Giving freed memory back to the system."""

import ctypes
from collections.abc import Callable
from functools import cache


def give_back() -> None:
    """Return what is free in the heap; does nothing where the C library has no way to.

    The temporaries of encode calls differ in size from call to call, and leave holes in the heap that add up to tens
    of megabytes over hours of stream. It takes some milliseconds.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim  # glibc's
    except (OSError, AttributeError, TypeError):
        return None
    return trim
