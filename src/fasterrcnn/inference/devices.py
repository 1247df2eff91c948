"""The device of the network, its memory, the number formats that it is fast in, and the threads of the CPU."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from fasterrcnn.errors import FasterRCNNError, UsageError, first_line

_MAX_SHAPES = 8
"""Of batches: each costs some seconds of measuring."""

_NO_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
"""In the messages of CUDA, of Apple's GPUs, and of torch's allocator on the CPU."""


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the fastest kind that this machine has: cuda, mps or cpu.

    A GPU for which this build of torch has no kernels is passed over with a warning.

    Raises:
        UsageError: no device has that name, this machine has none of that kind, or torch has no kernels for it.
    """
    kinds = (("cuda", torch.cuda.is_available), ("mps", torch.backends.mps.is_available), ("cpu", lambda: True))
    available = [kind for kind, is_available in kinds if is_available()]
    if name is None:
        if available[0] == "cuda" and (problem := _without_kernels(torch.device("cuda"))):
            warnings.warn(f"{problem}; the CPU is used instead", stacklevel=2)
            return torch.device("cpu")
        return torch.device(available[0])
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # Only of CUDA is torch's reason of use: a driver that is missing or too old.
        reason = f" ({first_line(error).split('. ')[0]})" if name.startswith("cuda") else ""
        raise UsageError(f"device {name!r} cannot be used here{reason}; there is {', '.join(available)}") from None
    if device.type == "cuda" and (problem := _without_kernels(device)):
        raise UsageError(f'{problem}; install a build that has them, or take device "cpu"')
    return device


def has_kernels(capability: tuple[int, int], built_for: list[str]) -> bool:
    """Whether a build of torch runs on NVIDIA GPUs of a compute capability.

    Args:
        capability: of the GPU, such as (7, 5).
        built_for: what `torch.cuda.get_arch_list` gives. Kernels (sm_75) run on GPUs of the same major version that
            are no older, code that is compiled when it is first used (compute_90) on all that are no older.
    """
    for kind, major, minor in re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(built_for)):
        wanted = (int(major), int(minor))
        if wanted <= capability and (kind == "compute" or wanted[0] == capability[0]):
            return True
    return False


def _without_kernels(device: torch.device) -> str | None:
    """What is wrong with an NVIDIA GPU that this build of torch does not support; None if nothing is."""
    built_for = torch.cuda.get_arch_list()
    if torch.version.hip is not None or not built_for:
        return None
    capability = torch.cuda.get_device_capability(device)
    if has_kernels(capability, built_for):
        return None
    name, version = torch.cuda.get_device_name(device), ".".join(map(str, capability))
    return f"torch {torch.__version__} has no kernels for {name} (compute capability {version})"


def as_memory_error(error: Exception, kind: type[FasterRCNNError], advice: str) -> Exception:
    """One line of that kind, with advice, in the place of an error for lack of memory; any other error as it is."""
    if not (isinstance(error, MemoryError) or _NO_MEMORY.search(str(error))):
        return error
    reason = first_line(error).split(". ")[0]
    return kind(f"there is not enough memory ({reason}); {advice}")


@contextmanager
def memory_errors_as(kind: type[FasterRCNNError], advice: str) -> Iterator[None]:
    """Inside the block, `as_memory_error` of what is raised."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise as_memory_error(error, kind, advice) from None


@contextmanager
def tuned_convolutions(shapes: int) -> Iterator[None]:
    """Inside the block, a CUDA GPU measures which of its convolutions is fastest for each shape, if these are few."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or shapes <= _MAX_SHAPES
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32: CPUs and CUDA cards with instructions for it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and not _BF16_INSTRUCTIONS.isdisjoint(_cpu_instructions())


def has_bf16_tiles() -> bool:
    """Whether this machine's processor multiplies tiles of bfloat16 (AMX), many times faster than float32.

    The instructions of AVX-512 for bfloat16 alone are no such gain.
    """
    return "amx_bf16" in _cpu_instructions()


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
