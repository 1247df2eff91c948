"""Run two sides alternately and compare: a shared machine is noisy, ratios taken in one run are not."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

WARM_UPS = 2
"""Rounds that do not count, where more than one does."""


def base_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the command line with the options that all programs have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="OUT.json", help="write the numbers there, too")
    parser.add_argument("--tiny", action="store_true", help="the same way with as little as possible, in seconds")
    return parser


def alternate(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median seconds of both sides, and the median and range of their ratio (theirs / ours), after a warm-up."""
    warm_ups = WARM_UPS if rounds > 1 else 0
    times: list[tuple[float, float]] = []
    for _ in range(rounds + warm_ups):
        times.append((_seconds(ours), _seconds(theirs)))
    times = times[warm_ups:]
    ratios = sorted(b / a for a, b in times)
    return {
        "ours_seconds": statistics.median(a for a, _ in times),
        "theirs_seconds": statistics.median(b for _, b in times),
        "ratio_median": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
        "rounds": rounds,
    }


def report(name: str, rows: dict[str, dict[str, float]], output: Path | None) -> None:
    """Print the rows, and write them to a JSON file."""
    import torch  # not above: some programs measure processes without it
    import torchvision

    machine = {
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    for row, numbers in rows.items():
        print(f"{row}: " + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()))
    if output is not None:
        text = json.dumps({"benchmark": name, "machine": machine, "rows": rows}, indent=1)
        output.write_text(text, encoding="utf-8")


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
