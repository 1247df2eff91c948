"""The device of the network, the number formats that it is fast in, and the threads of the CPU."""

import os
from functools import lru_cache
from pathlib import Path

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


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32: CPUs and CUDA cards with instructions for it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not _BF16_INSTRUCTIONS.isdisjoint(_cpu_instructions())


def has_fast_fp16(device: torch.device) -> bool:
    """Whether a device is a CUDA card with tensor cores; many older ones are slow with 16-bit numbers."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


_BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16", "bf16", "sve_bf16"})
"""Names of the instructions of x86 and ARM, in torch and in Linux."""


@lru_cache(maxsize=1)
def _cpu_instructions() -> frozenset[str]:
    """What the processor can do; empty where it is unknown."""
    if hasattr(torch.cpu, "get_capabilities"):  # since torch 2.11
        return frozenset(name for name, value in torch.cpu.get_capabilities().items() if value is True)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(flags.split())


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
