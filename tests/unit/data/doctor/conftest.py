"""Data sets in memory, of pictures that are 100 wide and 80 high."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fasterrcnn.data.records import WHOLE, AnnotatedData, Record


def _record(number: int, boxes: Sequence[Sequence[float]], labels: Sequence[int] = (), size_hw=(80, 100)) -> Record:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(
        Path(f"pictures/{number}.png"),
        number,
        size_hw,
        boxes,
        np.array(labels or [0] * len(boxes), np.int64),
        np.zeros(len(boxes), np.bool_),
        Path(f"labels/{number}.xml"),
        np.arange(1, len(boxes) + 1),
    )


@pytest.fixture(scope="session")
def record_of() -> Callable[..., Record]:
    return _record


@pytest.fixture(scope="session")
def data_of() -> Callable[..., AnnotatedData]:
    """A data set from the boxes of each picture, or from records."""

    def make(*pictures, classes=("cat", "dog"), data_format="Pascal VOC", splits=None, findings=()) -> AnnotatedData:
        records = [p if isinstance(p, Record) else _record(n, p) for n, p in enumerate(pictures, start=1)]
        splits = splits or {WHOLE: records}
        return AnnotatedData(Path("set"), data_format, tuple(classes), splits, list(findings), counted="object")

    return make
