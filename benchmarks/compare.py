"""Run two sides alternately and compare: a shared machine is noisy, ratios taken in one run are not."""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision


def alternate(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median seconds of both sides, and the median and range of their ratio (theirs / ours), after a warm-up."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 2):
        times.append((_seconds(ours), _seconds(theirs)))
    times = times[2:]
    ratios = sorted(b / a for a, b in times)
    return {
        "ours_seconds": statistics.median(a for a, _ in times),
        "theirs_seconds": statistics.median(b for _, b in times),
        "ratio_median": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
        "rounds": rounds,
    }


def report(name: str, rows: dict[str, dict[str, float]]) -> None:
    """Print the rows and write them to the JSON file named on the command line, if there is one."""
    machine = {
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    for row, numbers in rows.items():
        print(f"{row}: " + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()))
    if len(sys.argv) > 1:
        text = json.dumps({"benchmark": name, "machine": machine, "rows": rows}, indent=1)
        Path(sys.argv[1]).write_text(text, encoding="utf-8")


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        return f"{len(names)} x {names[0]}" if names else platform.machine()
    return platform.processor()
