"""The device of the network, and the threads of the CPU."""

import os

import torch

from fasterrcnn.errors import UsageError, first_line


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the fastest kind that this machine has: cuda, mps or cpu.

    Raises:
        UsageError: no device has that name, or this machine has none of that kind.
    """
    kinds = (("cuda", torch.cuda.is_available), ("mps", torch.backends.mps.is_available), ("cpu", lambda: True))
    available = [kind for kind, is_available in kinds if is_available()]
    if name is None:
        return torch.device(available[0])
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # Only of CUDA is torch's reason of use: a driver that is missing or too old.
        reason = f" ({first_line(error).split('. ')[0]})" if name.startswith("cuda") else ""
        raise UsageError(f"device {name!r} cannot be used here{reason}; there is {', '.join(available)}") from None


def use_threads(threads: int | None) -> None:
    """Let torch use that many CPU threads, in the whole process; None changes nothing.

    Raises:
        UsageError: less than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)
