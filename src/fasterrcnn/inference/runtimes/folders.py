"""Where things are kept that take long to make, and how they are told apart."""

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from torch import nn


def cache_folder() -> Path:
    """The folder for what can be made again: ``FASTERRCNN_CACHE``, or ``fasterrcnn`` in the user's cache folder."""
    told = os.environ.get("FASTERRCNN_CACHE")
    if told:
        return Path(told)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fasterrcnn"


@contextmanager
def kept(path: Path) -> Iterator[Path]:
    """A name of this process's own, to write to; it becomes the file when the block has ended well.

    Several processes may make the same file at once: whichever comes last has the same to say.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def processor() -> str:
    """A short name of what this machine's processor is and can do."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else [platform.processor()]
    kinds = {line for line in lines if line.split(":")[0].strip() in ("model name", "flags", "Features", "cpu family")}
    return digest("\n".join(sorted(kinds)) + platform.machine())


def digest(*parts: str | bytes) -> str:
    """Twelve characters that stand for the parts."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else part)
    return whole.hexdigest()[:12]


def weights_digest(module: nn.Module) -> str:
    """Twelve characters that stand for a module's architecture and its numbers."""
    whole = hashlib.sha256(repr(module).encode())
    for key, value in module.state_dict().items():
        whole.update(key.encode())
        whole.update(value.detach().contiguous().cpu().numpy().data)
    return whole.hexdigest()[:12]
