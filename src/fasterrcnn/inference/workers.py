"""The same work in several processes, with the machine's threads divided among them."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

from fasterrcnn.errors import FasterRCNNError, UsageError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2
"""Pieces of work that wait for each process."""

_work: Callable[[Any], Any] | None = None
"""What a worker process does; set once, when the process starts."""


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    threads: int | None = None,
    prepare: Callable[[], object] | None = None,
) -> Generator[R, None, None]:
    """The results of the work on each item, in order; few items are taken ahead of the results that are asked for.

    The processes are new ones, that import what they need: a program that calls this guards its own start with
    ``if __name__ == "__main__"``. They end with the process that started them, however that ends.

    Args:
        work: can be pickled; each process gets it once.
        items: can be pickled.
        workers: number of processes.
        threads: of torch in each process; default: the machine's, divided.
        prepare: called in each process before anything else.

    Raises:
        FasterRCNNError: a process died.
    """
    threads = threads or max(1, processors() // workers)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # OpenMP's threads do not survive a fork
        initializer=_begin,
        # As bytes, because torch would pass tensors through shared memory, which containers have little of.
        initargs=(pickle.dumps(work), threads, prepare),
    )
    waiting: deque[Future[Any]] = deque()
    coming = iter(items)
    try:
        waiting.extend(pool.submit(_do, item) for item in islice(coming, workers * (1 + _AHEAD)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(_do, item) for item in islice(coming, 1))
            yield result
    except BrokenProcessPool:
        raise FasterRCNNError("a worker process died, perhaps for lack of memory; use fewer workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(work: bytes, threads: int, prepare: Callable[[], object] | None) -> None:
    global _work  # noqa: PLW0603 - a process has one work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()
    import torch  # noqa: PLC0415 - after the preparation, which sets how its threads wait

    torch.set_num_threads(threads)
    _work = pickle.loads(work)


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


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
    """Let torch use that many CPU threads, in the whole process; None changes nothing.

    Raises:
        UsageError: less than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)
