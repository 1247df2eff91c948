"""The fastest of several ways to compute something on this machine: measured once, remembered in the cache folder.

Also the digests by which the cache folder names what belongs to a processor or to weights.
"""

import hashlib
import json
import platform
import threading
import time
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from fasterrcnn.files import atomic_write, cache_folder

Way = TypeVar("Way", bound=Callable[[], object])

_ROUNDS = 3
_GAIN = 0.95
"""Another way than the first is chosen only if it needs less than this share of its time: noise must not decide."""

_lock = threading.RLock()  # what is measured may choose between ways itself


def fastest_way(what: str, size: int, ways: Mapping[str, Way]) -> Way:
    """The fastest way.

    Args:
        what: the kind of work.
        size: how much of it; sizes between the same powers of two share one measurement.
        ways: equivalent computations by name, the safe one first.
    """
    return ways[remembered_choice(f"{what} at {size.bit_length()}", ways, lambda: _measure(ways))]


def remembered_choice(what: str, names: Collection[str], choose: Callable[[], str]) -> str:
    """The one of some names that `choose` chose, now or in an earlier process on this machine.

    Args:
        what: of which choice; another number of threads is another choice.
        names: what can be chosen; an earlier choice that is not among them is made anew.
        choose: measures, and returns one of the names.
    """
    key = f"{what} with {torch.get_num_threads()} threads"
    remembered = _remembered()
    name = remembered.get(key, "")
    if name not in names:
        with _lock:
            name = remembered.get(key, "")
            if name not in names:
                name = remembered[key] = choose()
                _remember(remembered)
    return name


def _measure(ways: Mapping[str, Way]) -> str:
    """The ways alternate, after a warm-up; the shortest time of each way is the least disturbed one."""
    best = dict.fromkeys(ways, float("inf"))
    for number in range(_ROUNDS + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if number:
                best[name] = min(best[name], time.perf_counter() - started)
    return clear_winner(best)


def clear_winner(seconds: Mapping[str, float]) -> str:
    """The way that took the shortest time; the first, where no other is clearly faster."""
    first = next(iter(seconds))
    winner = min(seconds, key=lambda name: seconds[name])
    return winner if seconds[winner] < _GAIN * seconds[first] else first


def _file() -> Path:
    return cache_folder() / f"choices-{cache_digest(processor(), torch.__version__)}.json"


@lru_cache(maxsize=1)
def _remembered() -> dict[str, str]:
    """The choices of earlier measurements; a file that cannot be read is ignored."""
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
        return {str(key): str(value) for key, value in content.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _remember(choices: Mapping[str, str]) -> None:
    try:
        with atomic_write(_file(), shared=True) as temporary:
            temporary.write_text(json.dumps(dict(sorted(choices.items())), indent=1), encoding="utf-8")
    except OSError:  # it cannot be stored: the next process measures again
        return


@lru_cache(maxsize=1)
def processor() -> str:
    """A short name of what this machine's processor is and can do."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else [platform.processor()]
    kinds = {line for line in lines if line.split(":")[0].strip() in ("model name", "flags", "Features", "cpu family")}
    return cache_digest("\n".join(sorted(kinds)) + platform.machine())


@lru_cache(maxsize=1)
def is_intel() -> bool:
    """Whether this machine's processor is one of Intel's; False where the system does not state it."""
    info = Path("/proc/cpuinfo")
    return info.exists() and "GenuineIntel" in info.read_text(encoding="utf-8")


def cache_digest(*parts: str | bytes) -> str:
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
