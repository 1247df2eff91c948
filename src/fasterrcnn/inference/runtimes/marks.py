"""Short names for what can be kept: of a processor, of weights, of any text."""

import hashlib
import platform
from functools import lru_cache
from pathlib import Path

from torch import nn


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
