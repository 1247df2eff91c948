"""Programs that do the same work, each in a process of its own, measured alternately: times and peak memory."""

import multiprocessing
import pickle
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from fasterrcnn.errors import FasterRCNNError

Work = Callable[[], Any]

_UNIT = 1024 if sys.platform == "linux" else 1
"""Bytes in which a system counts a process's largest memory."""


@dataclass
class Competitor:
    """One program and what was measured of it.

    Attributes:
        name: of the program.
        answer: what its work gave the first time.
        ready_seconds: from the start of its process to that answer, imports and compiling included.
        seconds: of each round.
        processor_seconds: of each round, on all threads together: what a busy machine disturbs least.
        peak_bytes: largest memory of its process.
        failure: why it could not take part.
    """

    name: str
    answer: Any = None
    ready_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    failure: str | None = None

    @property
    def median(self) -> float:
        """Seconds of a round."""
        return statistics.median(self.seconds)

    @property
    def processor_median(self) -> float:
        """Processor seconds of a round."""
        return statistics.median(self.processor_seconds)

    @property
    def p95(self) -> float:
        """Seconds that 95 of 100 rounds do not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1) + 0.49))]


def run_contest(
    makers: dict[str, Callable[[], Work]],
    rounds: int,
    *,
    prepare: Callable[[], object] | None = None,
    log: Callable[[str], object] | None = None,
) -> list[Competitor]:
    """Every program in turn, round after round; each gets ready alone before the first round.

    Args:
        makers: programs by name. Each can be pickled and is called once, in its process, to give the work itself.
        rounds: how often each works.
        prepare: called first in each process, before anything is imported.
        log: is told what happens.
    """
    log = log or (lambda _: None)
    context = multiprocessing.get_context("spawn")
    all_of_them, running = [], []
    for name, maker in makers.items():
        log(f"{name}: getting ready")
        competitor = Competitor(name)
        all_of_them.append(competitor)
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, pickle.dumps(maker), prepare), daemon=True)
        started = time.perf_counter()
        process.start()
        there.close()
        outcome = _receive(here)
        competitor.ready_seconds = time.perf_counter() - started
        if isinstance(outcome, _Failed):
            competitor.failure = outcome.reason
            process.join()
            continue
        competitor.answer = outcome
        running.append((competitor, process, here))
    try:
        for number in range(rounds):
            log(f"round {number + 1} of {rounds}")
            for competitor, _, here in running:
                here.send("work")
                seconds, processor = here.recv()
                competitor.seconds.append(seconds)
                competitor.processor_seconds.append(processor)
    finally:
        for competitor, process, here in running:
            here.send("end")
            competitor.peak_bytes = here.recv()
            process.join()
    return all_of_them


@dataclass(frozen=True)
class _Failed:
    reason: str


def _receive(here: Connection) -> Any:
    try:
        return here.recv()
    except EOFError:
        return _Failed("its process died, perhaps for lack of memory")


def _serve(there: Connection, maker: bytes, prepare: Callable[[], object] | None) -> None:
    """What a process does: get ready, answer once, then work whenever it is told to."""
    if prepare is not None:
        prepare()
    try:
        work = pickle.loads(maker)()
        answer = work()
    except (FasterRCNNError, RuntimeError) as error:
        there.send(_Failed(str(error).splitlines()[0] if str(error) else type(error).__name__))
        return
    there.send(answer)
    while there.recv() == "work":
        started, used = time.perf_counter(), time.process_time()
        work()
        there.send((time.perf_counter() - started, time.process_time() - used))
    there.send(_peak_bytes())


def _peak_bytes() -> int:
    """Largest memory of this process; Linux's getrusage has that of the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
