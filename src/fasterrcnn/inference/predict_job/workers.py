"""One function in several processes, with the threads of the machine divided among them.

Torch is imported in these processes only, after their preparation.
"""

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

from fasterrcnn.errors import FasterRCNNError

Item = TypeVar("Item")
Result = TypeVar("Result")

_QUEUED_PER_WORKER = 2
"""Items that wait for each process while it works on another one."""

_function: Callable[[Any], Any] | None = None
"""What a worker process computes; set once, when the process starts."""


def map_in_processes(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    threads: int | None = None,
    prepare: Callable[[], object] | None = None,
) -> Generator[Result, None, None]:
    """The results of a function for each item, in order; only a few items are taken from the iterable ahead.

    The processes are spawned and import what they need: a program that calls this needs the guard
    ``if __name__ == "__main__"``. They end with the process that started them, even if it is killed.

    Args:
        function: can be pickled; each process gets it once.
        items: can be pickled.
        workers: number of processes.
        threads: of torch in each process; default: those of the machine, divided.
        prepare: called first in each process, before torch is imported.

    Raises:
        FasterRCNNError: a process died.
    """
    if threads is None:
        from fasterrcnn.inference.devices import processors  # noqa: PLC0415 - worker processes import torch later

        threads = max(1, processors() // workers)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # OpenMP's threads do not survive a fork
        initializer=_start_worker,
        # As bytes, because torch would pass tensors through shared memory, of which containers have little.
        initargs=(pickle.dumps(function), threads, prepare),
    )
    pending: deque[Future[Any]] = deque()
    remaining = iter(items)
    try:
        pending.extend(pool.submit(_call, item) for item in islice(remaining, workers * (1 + _QUEUED_PER_WORKER)))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(_call, item) for item in islice(remaining, 1))
            yield result
    except BrokenProcessPool:
        raise FasterRCNNError("a worker process died, perhaps for lack of memory; use fewer workers") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(function: bytes, threads: int, prepare: Callable[[], object] | None) -> None:
    global _function  # noqa: PLW0603 - each process has one function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the main one ends the others
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()
    import torch  # noqa: PLC0415 - after the preparation, which sets how its threads wait

    torch.set_num_threads(threads)
    _function = pickle.loads(function)


def _call(item: Any) -> Any:
    assert _function is not None
    return _function(item)


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
