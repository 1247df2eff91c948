"""What a run depends on besides its settings: the software, the machine, and the exact data. No names, no paths."""

import hashlib
import os
import platform
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.errors import ImageError

_PACKAGES = ("fasterrcnn", "torch", "torchvision", "pytorch-lightning", "numpy", "timm")
_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES")


def describe() -> dict[str, Any]:
    """Software and machine as plain values for YAML and JSON; nothing in it says whose machine it is.

    Returns:
        "python" and the version of each package (None: not installed); "platform"; "cpu", the "threads" that torch
        uses, and "memory_gib" (None where the system does not say); "cuda", the names of the devices; "variables",
        those of the environment that change how fast or where a run is, if they are set.
    """
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "cuda": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def fingerprint(records: Sequence[AnnotatedImage]) -> str:
    """16 hexadecimal digits that stand for exactly these images and objects.

    They follow from each image's file name, bytes and size, and from its boxes, labels and difficult marks in their
    order; not from where the data lies, nor from the order of the records.

    Raises:
        ImageError: an image file cannot be read; the message names it.
    """
    with ThreadPoolExecutor() as pool:  # hashing and reading let other threads run
        digests = list(pool.map(digest, records))
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


def digest(record: AnnotatedImage) -> bytes:
    """Stands for an image and its objects.

    Raises:
        ImageError: the file cannot be read; the message names it.
    """
    try:
        with record.path.open("rb") as stream:
            image = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ImageError(f"{record.path}: cannot be read ({error.strerror}); put the file back") from None
    head = ascii((record.path.name, image, tuple(record.size_hw), len(record.boxes)))
    columns = (record.boxes.astype("<f4"), record.labels.astype("<i8"), record.difficult.astype("?"))
    return hashlib.sha256(head.encode() + b"".join(column.tobytes() for column in columns)).digest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """As the kernel of Linux says it; elsewhere, and where it does not, what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
