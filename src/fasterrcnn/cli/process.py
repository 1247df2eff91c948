"""How a process that belongs to this library alone uses the machine; a library must not decide this for its host."""

import ctypes
import os

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # numbers of glibc's mallopt


def settle() -> None:
    """Wait quietly and keep memory. To be called before torch is imported.

    Threads that wait by spinning make every program on a busy machine many times slower, this one most of all. And
    glibc gives large tensors back to the system when they are freed, so that the next one pays for every page anew.
    Both are left alone where the environment says something already, and memory where the C library is another.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # macOS, Windows, musl
        return
    mallopt(_M_MMAP_THRESHOLD, 2**30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
