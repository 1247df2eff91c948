"""The ground truth of one image: boxes in a small JSON file, or the annotations of a data set that holds the image.

Axes: g objects. Boxes are xyxy in pixels of the upright original image.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from torch import Tensor

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.checks import BadBoxPolicy, check_and_repair
from fasterrcnn.data.formats import read_data
from fasterrcnn.detections import labels_of
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.evaluation.ground_truth import common_classes
from fasterrcnn.ops import boxes
from fasterrcnn.structures import Target

GroundTruthSource = str | Path | AnnotatedData | Sequence[Mapping[str, Any]] | Mapping[str, Any]
"""A file of boxes, a data set (folder, file, or as `read_data` gave it), or the boxes themselves: a list of
``{"box": ..., "name": ...}``, or ``{"boxes": [...], "labels": [...]}`` with names."""


class _BoxRow(BaseModel):
    """One object of a file of boxes; other keys, such as those of detections, are ignored."""

    model_config = ConfigDict(extra="ignore")
    box: tuple[float, float, float, float]
    name: str


_ROWS = TypeAdapter(list[_BoxRow])


@dataclass(frozen=True)
class ImageGroundTruth:
    """The objects of one image that a detector is asked for."""

    boxes: Float[Tensor, "g 4"]  # xyxy in pixels of the original
    labels: Int64[Tensor, " g"]  # 0..K-1 of the detector
    # How many difficult objects, crowds and objects of classes that the detector does not know there are
    left_out: int = 0

    def to_input(self, original_hw: tuple[int, int], input_hw: tuple[int, int]) -> Target:
        """The same in the frame of the network input."""
        return Target(boxes.scale(self.boxes, original_hw, input_hw), self.labels)


def read_image_ground_truth(
    source: GroundTruthSource,
    image: Path | None,
    classes: Sequence[str],
    original_hw: tuple[int, int],
    *,
    on_bad_box: BadBoxPolicy = "error",
) -> ImageGroundTruth:
    """The annotated objects of an image, as classes of the detector; a data set is searched for the image by its file.

    ``on_bad_box`` treats errors in a data set's boxes of this image; wrong boxes of a list are always refused.

    Raises:
        DataError: the file or data set cannot be read, does not hold the image, or has errors.
        UsageError: a class that the detector does not know, or a data set and no image file.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        rows = _file_rows(path)
        if rows is not None:
            return _from_rows(rows, str(path), classes, original_hw)
        source = read_data(path)
    if isinstance(source, AnnotatedData):
        return _from_data(source, image, classes, on_bad_box)
    return _from_rows(source, "ground_truth", classes, original_hw)


def _file_rows(path: Path) -> list[Any] | dict[str, Any] | None:
    """The content of a file of boxes; None for any other file, which `read_data` may read."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from None
    if isinstance(content, dict) and "boxes" not in content:
        return None
    return content if isinstance(content, list | dict) else None


def _from_rows(
    rows: Sequence[Any] | Mapping[str, Any], where: str, classes: Sequence[str], original_hw: tuple[int, int]
) -> ImageGroundTruth:
    try:
        objects = _ROWS.validate_python(list(_paired(rows, where) if isinstance(rows, Mapping) else rows))
    except ValidationError as error:
        first = error.errors()[0]
        place = f"object {first['loc'][0] + 1}" if first["loc"] and isinstance(first["loc"][0], int) else "objects"
        raise DataError(
            f"{where}: {place}: {first['msg']} ({'.'.join(map(str, first['loc'][1:])) or 'value'}); "
            'write [{"box": [x1, y1, x2, y2], "name": "cat"}, ...]'
        ) from None
    height, width = original_hw
    for number, row in enumerate(objects, start=1):
        x1, y1, x2, y2 = row.box
        if not (x1 < x2 and y1 < y2 and x2 > 0 and y2 > 0 and x1 < width and y1 < height):  # NaN fails too
            raise DataError(
                f"{where}: object {number} ({row.name}): box {list(row.box)} has no area in an image of {width} x "
                f"{height} pixels; x1 < x2 and y1 < y2 are needed, in pixels of the original"
            )
    labels = labels_of([row.name for row in objects], classes)
    xyxy = torch.tensor([row.box for row in objects]).reshape(-1, 4)
    return ImageGroundTruth(boxes.clip(xyxy, original_hw), torch.tensor(labels, dtype=torch.int64))


def _paired(columns: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Boxes and names that stand in two lists."""
    xyxy, names = columns.get("boxes"), columns.get("labels")
    if not isinstance(xyxy, list) or not isinstance(names, list) or len(xyxy) != len(names):
        raise DataError(f'{where}: "boxes" and "labels" must be two lists of the same length')
    return [{"box": box, "name": name} for box, name in zip(xyxy, names, strict=True)]


def _from_data(
    data: AnnotatedData, image: Path | None, classes: Sequence[str], on_bad_box: BadBoxPolicy
) -> ImageGroundTruth:
    wanted = _find_image(data, image)
    findings = [finding for finding in data.findings if finding.image == wanted.path]
    alone = replace(data, splits={"all": [wanted]}, findings=findings)
    checked = check_and_repair(alone, on_bad_box, is_part=True).data.images
    if not checked:
        raise DataError(f"{wanted.path}: nothing of this image's annotations is usable")
    annotated = checked[0]
    own_names = {of_data: own for own, of_data in common_classes(classes, data.classes).items()}
    to_label = np.array([classes.index(own_names[name]) if name in own_names else -1 for name in data.classes])
    labels = to_label[annotated.labels]
    asked = (labels >= 0) & ~annotated.difficult
    asked_boxes, asked_labels = torch.from_numpy(annotated.boxes[asked]), torch.from_numpy(labels[asked])
    return ImageGroundTruth(asked_boxes, asked_labels, int((~asked).sum()))


def _find_image(data: AnnotatedData, image: Path | None) -> AnnotatedImage:
    """The image of that very file; otherwise the only one whose file has the same name."""
    if image is None:
        raise UsageError("a data set is searched by the image's file; give the image as a path, or boxes as a list")
    same_file = [annotated for annotated in data.images if annotated.path.resolve() == image.resolve()]
    matches = same_file or [annotated for annotated in data.images if annotated.path.name == image.name]
    if not matches:
        raise DataError(f"{data.root}: no annotations of {image.name} among {len(data.images)} images")
    if len(matches) > 1:
        raise DataError(f"{data.root}: {len(matches)} images are called {image.name}; give the path of one of them")
    return matches[0]
