"""Which device, and how many threads."""

import torch

from fasterrcnn.errors import UsageError


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the fastest kind of this machine: cuda, mps or cpu.

    Raises:
        UsageError: no device is called so, or this machine has none of that kind.
    """
    if name is None:
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else mps)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]})") from None


def use_threads(threads: int | None) -> None:
    """CPU threads of torch, for the whole process; None leaves them as they are.

    Raises:
        UsageError: fewer than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)
