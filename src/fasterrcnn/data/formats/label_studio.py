"""Label Studio: the tasks of a project in one JSON file, exported as JSON or JSON-MIN; one file for each split.

Coordinates are percentages of the width and height of the upright image. A region may be several results: one with its
shape, and one with its label for each control.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats.base import DataFormat, NamedImages, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.label_studio_tasks import (
    GEOMETRY,
    LabelResult,
    TaskImage,
    choose_results,
    has_shape,
    images_of_tasks,
    is_region,
    read_tasks,
)
from fasterrcnn.data.formats.reading import by_split, read_json
from fasterrcnn.data.formats.shapes import ellipse_corners, rotated_corners
from fasterrcnn.data.formats.values import numbers_in, points_of, shortened, side_of_image, to_number
from fasterrcnn.data.formats.writing import (
    lost_areas_and_ids,
    lost_class_list,
    lost_flags,
    shortest_decimals,
    write_file,
)
from fasterrcnn.errors import DataError


@dataclass
class _Region:
    number: int  # position of its first result in the annotation, from 1
    results: list[LabelResult] = field(default_factory=list)

    @property
    def values(self) -> list[Mapping[str, Any]]:
        return [value for result in self.results if isinstance(value := result.get("value"), dict)]


class LabelStudio(DataFormat):
    """Label Studio's JSON.

    Written as <split>.json with the tasks to import, <split>/ with the images, and label-config.xml, the labelling
    interface; tasks.json and images/ where there are no splits. The images are served by a local storage whose
    LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT is the folder of the data set.
    """

    title = "Label Studio"
    layout = "Label Studio (.json file of tasks, exported as JSON or JSON-MIN)"
    box_format = "xywh"
    relative_boxes = True
    suffixes = (".json",)
    can_write = True

    def fits(self, content: bytes) -> bool:
        """Tasks have "data"; rows of JSON-MIN have their sizes or their annotator beside the values."""
        start = content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        if re.search(rb'"data"\s*:\s*\{', content):
            has_annotations = re.search(rb'"(annotations|completions|predictions)"\s*:\s*\[', content) is not None
            has_results = re.search(rb'"result"\s*:\s*\[', content) is not None
            return has_results if start == b"{" else start == b"[" and has_annotations
        is_short = b'"original_width"' in content or (b'"annotator"' in content and b'"annotation_id"' in content)
        return start == b"[" and is_short

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one file, or a folder with one for each split; classes are sorted by name.

        Raises:
            DataError: there is no such file, two are of the same split, or there is no image that could be used.
        """
        files = self.annotation_files(place)
        if not files:
            raise DataError(f"{place}: no Label Studio file, that is .json with tasks")
        collector = Collector(place, self.title, "task", images=options.images)
        counts: Counter[str] = Counter()
        images = 0
        splits = {NO_SPLIT: place} if place.is_file() else by_split(files, collector.root, collector)
        for split, file in splits.items():
            with collector.report_errors(file):
                images += _FileReader(file, split, collector, counts).read(read_json(file, _without_masks))
        notes = [f"{count} x {text}" for text, count in counts.items()]
        if not images and notes and not collector.findings:
            raise DataError(f"{place}: no annotated image; {'; '.join(notes)}")
        for note in notes:
            collector.note(note)
        return collector.finish(sort_classes=True)

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write the tasks of each split, and the labelling interface with all classes."""
        for split, images in splits.items():
            place = self.image_folder(split)
            tasks = [to_task(f"{place}/{name}", image, data.classes) for name, image in images.items()]
            file = folder / f"{'tasks' if split == NO_SPLIT else split}.json"
            write_file(file, json.dumps(tasks, ensure_ascii=False, indent=1) + "\n")
        write_file(folder / "label-config.xml", to_label_config(data.classes))

    def losses(self, data: AnnotatedData) -> list[str]:
        """Difficult objects, areas and ids, and what a list of classes would hold."""
        lost = (lost_flags, lost_areas_and_ids, lost_class_list)
        return [note for notes in lost for note in notes(self.title, data)]


def _without_masks(value: dict[str, Any]) -> dict[str, Any]:
    return value | {"rle": []} if "rle" in value else value  # most of the file, and of the memory


@dataclass(frozen=True)
class _FileReader:
    """Reads the file of one split."""

    file: Path
    split: str
    collector: Collector
    counts: Counter[str]  # of the notes at the end

    def read(self, content: object) -> int:
        """Collect all images and regions of a file; how many annotated images it names."""
        tasks = read_tasks(content, self._problem)
        chosen = [(task, choose_results(task, self._problem, self._count)) for task in tasks]
        annotated = [(task, results) for task, results in chosen if results is not None]
        images = list(images_of_tasks(annotated, self._problem, self._count))
        names = [image.name for image in images]
        matches = self.collector.find_images(names, self.file, self.split)
        of_path: dict[Path, list[TaskImage]] = {}
        for image in images if matches else ():
            what, paths = f"task {image.task}", matches[image.name]
            path = self.collector.only_one(paths, image.name, self.file, what, image.task)
            if path is not None:
                of_path.setdefault(path, []).append(image)
        for path, own in of_path.items():
            self._read_image(path, own)
        return len(names)

    def _read_image(self, path: Path, images: Sequence[TaskImage]) -> None:
        """Collect an image. Of several tasks about it the first counts, so that no object is there twice."""
        first, *others = images
        if len(names := list(dict.fromkeys(image.name for image in images))) > 1:
            for image in images:
                what = f"task {image.task}: {names[0]} and {names[1]} could both be {path}; left out"
                self.collector.problem("ambiguous-image", self.file, what, image.task, image=path)
            return
        for image in others:
            what = f"task {image.task}: {path.name} is the image of task {first.task} already; left out"
            self.collector.problem("same-image", self.file, what, image.task, image=path)
        if self.collector.size_hw(path) is None:
            return
        regions = _regions(first.results, self.collector)
        sizes = Counter(size for region in regions if (size := _stated_hw(region)) is not None)
        stated_hw = sizes.most_common(1)[0][0] if sizes else None
        collected = self.collector.image(path, self.split, self.file, stated_hw=stated_hw)
        for region in regions:
            what = f"task {first.task}: region {region.number}"
            with self.collector.report_errors(self.file, what, first.task, image=path):
                if _stated_hw(region) not in (None, stated_hw):
                    raise DataError("it is of an image of another size than the other regions")
                self._add(region, collected, first.task)

    def _add(self, region: _Region, image: CollectedImage, task: int) -> None:
        """Collect the box of a region, for each of its labels."""
        kind = _kind(region)
        if kind == "keypoint":
            self.collector.leave_out("key point")
            return
        labels = _labels(region, kind)
        value = next(filter(has_shape, region.values), {})
        if any(result.get("image_rotation") not in (None, 0) for result in region.results):
            raise DataError("it was drawn on the rotated image (image_rotation); rotate it back there, or the image")
        if len(labels) > 1:
            self._count("region with several labels: one box for each label")
        assert image.size_hw is not None
        height, width = image.size_hw
        shape, points = _outline(kind, value, width, height)
        for label in labels:
            if shape == "rectangle":
                self.collector.add(image, (*points[0], *points[1]), label, task)
            else:
                self.collector.add_outline(image, points, label, task, shape=shape)

    def _problem(self, task: int, what: str) -> None:
        self.collector.problem("unreadable-annotations", self.file, f"task {task}: {what}", task)

    def _count(self, text: str) -> None:
        self.counts[text] += 1


def _regions(results: Iterable[tuple[int, LabelResult]], collector: Collector) -> list[_Region]:
    """The results of one image by region: those of one id and one shape. JSON-MIN has no ids.

    Results without a shape belong to the regions of their id; others are about the whole image, and left out.
    """
    regions: dict[tuple[str, str], _Region] = {}
    others: list[LabelResult] = []
    for position, result in results:
        value = result.get("value")
        shape = {key: value[key] for key in GEOMETRY if key in value} if isinstance(value, dict) else {}
        if not is_region(result):
            others.append(result)
            continue
        key = (repr(result.get("id")), repr(shape))
        regions.setdefault(key, _Region(position)).results.append(result)
    for result in others:
        own = [region for (name, _), region in regions.items() if name == repr(result.get("id")) != "None"]
        for region in own:
            region.results.append(result)
        if not own:
            value = result.get("value")
            is_mask = isinstance(value, dict) and not value.keys().isdisjoint(("rle", "brushlabels", "imageDataURL"))
            kind = str(result.get("type") or "label of the whole image")
            collector.leave_out("brush mask" if is_mask else f"{kind:.40}")
    return list(regions.values())


def _stated_hw(region: _Region) -> tuple[int, int] | None:
    """Height and width of the image as a region states them, if it does."""
    for result in region.results:
        height, width = (side_of_image(result.get(f"original_{side}")) for side in ("height", "width"))
        if height and width:
            return height, width
    return None


def _kind(region: _Region) -> str:
    """rectangle, polygon, ellipse or keypoint: by its control, else by its numbers."""
    kinds = ("rectangle", "polygon", "ellipse", "keypoint")
    names = [str(result.get("type")) for result in region.results] + [key for value in region.values for key in value]
    for name in names:
        if (kind := name.lower().removesuffix("labels")) in kinds:
            return kind
    keys = {key for value in region.values for key in value}
    if "points" in keys:
        return "polygon"
    if "radiusX" in keys:
        return "ellipse"
    return "rectangle" if {"width", "height"} <= keys else "keypoint"


def _labels(region: _Region, kind: str) -> list[str]:
    """The labels of a region: those of its shape, else those of other controls, else the choices for it.

    Raises:
        DataError: it has none, or they are no names.
    """
    for key in (f"{kind}labels", "labels", "choices"):
        names = [name for value in region.values if key in value for name in _as_list(value[key])]
        if not all(isinstance(name, str) and name.strip() for name in names):
            raise DataError(f"its {key} must be names, not {shortened(names)}")
        if names:
            return list(dict.fromkeys(name.strip() for name in names))
    raise DataError(f"this {kind} has no label")


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _outline(kind: str, value: Mapping[str, Any], width: int, height: int) -> tuple[str, list[list[float]]]:
    """What a shape is called in notes, and points in pixels that its box is around; two corners of a rectangle.

    Raises:
        DataError: they are no numbers.
    """
    if kind == "polygon":
        points = points_of(value.get("points"))
        if len(points) < 3:
            raise DataError(f"a polygon of {len(points)} points has no area")
        return kind, [[x * width / 100, y * height / 100] for x, y in points]
    names = ("x", "y", "radiusX", "radiusY") if kind == "ellipse" else ("x", "y", "width", "height")
    x, y, across, down = numbers_in(value, names)
    x, across, y, down = x * width / 100, across * width / 100, y * height / 100, down * height / 100
    degrees = to_number(value.get("rotation") or 0, "rotation")
    if kind == "ellipse":
        return kind, ellipse_corners(x, y, across, down, degrees)
    if not degrees:
        return kind, [[x, y], [x + across, y + down]]
    return "rotated rectangle", rotated_corners((x, y, x + across, y + down), degrees, centre=(x, y))


def to_task(name: str, image: AnnotatedImage, classes: Sequence[str]) -> dict[str, Any]:
    """The task of an image whose path in the folder of the local storage is given."""
    height, width = image.size_hw
    frame = {"original_width": width, "original_height": height, "image_rotation": 0}
    control = {"type": "rectanglelabels", "from_name": "label", "to_name": "image"}
    results = []
    for number, ((x1, y1, x2, y2), label) in enumerate(
        zip(shortest_decimals(image.boxes), image.labels.tolist(), strict=True), start=1
    ):
        box = {"x": x1 / width * 100, "y": y1 / height * 100}
        box |= {"width": (x2 - x1) / width * 100, "height": (y2 - y1) / height * 100, "rotation": 0}
        results.append(
            {"id": f"box-{number}", **control, **frame, "value": box | {"rectanglelabels": [classes[label]]}}
        )
    return {"data": {"image": f"/data/local-files/?d={quote(name)}"}, "annotations": [{"result": results}]}


def to_label_config(classes: Sequence[str]) -> str:
    """The labelling interface, as XML."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    labels = ElementTree.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in classes:
        ElementTree.SubElement(labels, "Label", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
