"""The boxes of a data set while it is read: of a million, columns take a fraction of the time and memory of rows.

Axes: n boxes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Row = tuple[float, ...]  # index of the image, corners, area, label, difficult


class CollectedBoxes:
    """Rows of boxes, in the order in which they are added.

    Numbers of boxes are by themselves, for they may have more digits than a float.
    """

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._numbers: list[int] = []
        self._tables: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []  # the rows and numbers before these

    def add(self, row: _Row, number: int) -> None:
        """Add one box."""
        self._rows.append(row)
        self._numbers.append(number)

    def add_all(self, columns: Sequence[NDArray[np.float64] | Sequence[float]], numbers: Sequence[int]) -> None:
        """Add boxes by the columns of their rows; those of the image -1 are left out."""
        self._close()
        table = np.column_stack(columns).astype(np.float64, copy=False)
        of_images = table[:, 0] >= 0
        self._tables.append((table[of_images], np.array(numbers, np.int64)[of_images]))

    def read(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(n, 8) rows and (n,) numbers of all boxes."""
        self._close()
        tables, numbers = zip(*self._tables, strict=True)
        return np.concatenate(tables), np.concatenate(numbers)

    def _close(self) -> None:
        """Make arrays of the rows that were added one by one."""
        if self._rows or not self._tables:
            rows = np.array(self._rows, np.float64).reshape(-1, 8)
            self._tables.append((rows, np.array(self._numbers, np.int64)))
            self._rows, self._numbers = [], []
