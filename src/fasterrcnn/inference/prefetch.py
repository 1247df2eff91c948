"""Work ahead in a thread: the next pictures are read while the network looks at these."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")
_END: Final = object()


def prefetch(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items in the same order; the next one is made in a thread while this one is used.

    What making an item raises is raised here, in its place. Never more than one item is made ahead.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="fasterrcnn-prefetch") as pool:
        coming = pool.submit(next, items, _END)
        while (item := coming.result()) is not _END:
            coming = pool.submit(next, items, _END)
            yield item  # type: ignore[misc]  # the end alone is no T
