"""Memory that is no longer used."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def release() -> None:
    """Gives memory that is no longer used back to the system.

    Capturing a model leaves hundreds of megabytes of small pieces, which the C library keeps for what comes next; what
    comes next are arrays that have pages of their own.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # Of glibc alone.
        ctypes.CDLL(None).malloc_trim(0)
