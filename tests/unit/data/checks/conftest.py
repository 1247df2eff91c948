"""Data sets in memory, of images that are 100 wide and 80 high."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, AnnotatedImage


def _annotated(
    number: int, boxes: Sequence[Sequence[float]], labels: Sequence[int] = (), size_hw=(80, 100)
) -> AnnotatedImage:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedImage(
        Path(f"images/{number}.png"),
        number,
        size_hw,
        boxes,
        np.array(labels or [0] * len(boxes), np.int64),
        np.zeros(len(boxes), np.bool_),
        Path(f"labels/{number}.xml"),
        np.arange(1, len(boxes) + 1),
    )


@pytest.fixture(scope="session")
def annotated_of() -> Callable[..., AnnotatedImage]:
    return _annotated


@pytest.fixture(scope="session")
def data_of() -> Callable[..., AnnotatedData]:
    """A data set from the boxes of each image, or from records."""

    def make(*images, classes=("cat", "dog"), data_format="Pascal VOC", splits=None, findings=()) -> AnnotatedData:
        records = [p if isinstance(p, AnnotatedImage) else _annotated(n, p) for n, p in enumerate(images, start=1)]
        splits = splits or {NO_SPLIT: records}
        return AnnotatedData(Path("set"), data_format, tuple(classes), splits, list(findings), counted="object")

    return make
