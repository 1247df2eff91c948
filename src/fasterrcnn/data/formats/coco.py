"""COCO JSON: one file for each split, anywhere beside the images; Roboflow's layout included.

Key points are ignored, and segmentations of objects that have a box: this library is about boxes.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, AnnotatedImage, group_by, to_coco
from fasterrcnn.data.formats.base import DataFormat, NamedImages, ReadOptions
from fasterrcnn.data.formats.coco_files import (
    CocoContent,
    annotation_files,
    coco_near_miss,
    is_coco,
    json_files,
    load_coco,
)
from fasterrcnn.data.formats.collector import CollectedImage, Collector, UnusableError
from fasterrcnn.data.formats.reading import by_split
from fasterrcnn.data.formats.shapes import box_of_segmentation, rotated_corners, rotation_of
from fasterrcnn.data.formats.values import numbers_of, shortened, side_of_image, whole_number
from fasterrcnn.data.formats.writing import shortest_decimals, write_file
from fasterrcnn.data.image_finder import has_images
from fasterrcnn.errors import DataError
from fasterrcnn.files import listings_kept, search_folders

_Id = int | str
_NUMBERS = frozenset((int, float))
_values_of_box = itemgetter("image_id", "category_id", "id", "iscrowd", "area", "bbox")
_AT_ONCE = 512  # annotations; where one of them is unusual, all take the longer way


class Coco(DataFormat):
    """COCO JSON.

    Written as annotations/instances_<split>.json and <split>/ with the images; instances_all.json and images/ where
    there are no splits. Ids are those of the original.
    """

    title = "COCO"
    layout = 'COCO (.json files with "images" and "annotations")'
    box_format = "xywh"
    opens_images = False
    can_write = True

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The annotation file itself, or the folder, here or up to three levels below, whose files are a data set."""
        if root.is_file():
            return [root] if root.suffix.lower() == ".json" and is_coco(root) else []
        places = _data_sets(root)
        return [place if len(places) > 1 or has_images(place) else root for place in places]

    def near_miss(self, root: Path, options: ReadOptions = ReadOptions()) -> str:
        """What a JSON file lacks that has a part of COCO."""
        files = search_folders(root, json_files, levels=3) if root.is_dir() else [root]
        misses = (coco_near_miss(file) for file in files if file.suffix.lower() == ".json")
        return next(filter(None, misses), "")

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or a folder with one for each split; classes of several files are matched by name.

        An object without a box gets the one around its segmentation.

        Raises:
            DataError: no file is a COCO data set, two are of the same split, or not one image is where it could be.
        """
        collector = Collector(place, self.title, "annotation", images=options.images)
        if place.is_file():
            files = {NO_SPLIT: place}
        else:
            with listings_kept():
                files = by_split(search_folders(place, annotation_files, levels=3), collector.root, collector)
        if not files:
            raise DataError(f"{place}: no COCO file, that is .json with images and annotations")
        contents: dict[str, CocoContent] = {}
        for split, file in files.items():
            with collector.report_errors(file) if len(files) > 1 else nullcontext():
                contents[split] = load_coco(file)
        if not contents:
            return collector.finish()  # raises, with the first of these findings
        classes, ids, label_of = _categories({files[split]: content for split, content in contents.items()}, collector)
        for split, content in contents.items():
            file = files[split]
            image_of = _collect_images(content["images"], file, split, collector)
            _collect_boxes(content["annotations"], file, image_of, label_of[file], collector)
            if not content["images"]:
                collector.problem("empty-split", file, "lists no image")
        collector.report_unlisted("no annotation file lists it")
        return collector.finish(classes=classes, category_ids=ids)

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write a file for each split."""
        for split, named in splits.items():
            images = list(named.values())
            content: dict[str, Any] = {"info": {"description": f"from {data.format}"}, "licenses": []}
            content |= to_coco(data, images)
            id_of = {image.image_id: image.stated_id for image in images}
            for entry, name in zip(content["images"], named, strict=True):
                entry["file_name"], entry["id"] = name, id_of[entry["id"]]
            boxes = [box for image in images for box in shortest_decimals(image.boxes)]
            for annotation, number, (x1, y1, x2, y2) in zip(
                content["annotations"], self._annotation_ids(data, images), boxes, strict=True
            ):
                annotation["id"], annotation["image_id"] = number, id_of[annotation["image_id"]]
                annotation["bbox"] = [x1, y1, round(x2 - x1, 6), round(y2 - y1, 6)]
                if annotation["iscrowd"]:
                    annotation["ignore"] = 1
            write_file(folder / "annotations" / f"instances_{split}.json", json.dumps(content, ensure_ascii=False))

    def _annotation_ids(self, data: AnnotatedData, images: Sequence[AnnotatedImage]) -> list[int]:
        """Those of a COCO file where they are unique and positive, otherwise from 1."""
        count = sum(len(image.boxes) for image in images)
        ids = [int(number) for image in images if image.numbers is not None for number in image.numbers]
        valid = data.format == self.title and len(ids) == count == len(set(ids)) and min(ids, default=1) >= 1
        return ids if valid else list(range(1, count + 1))

    def losses(self, data: AnnotatedData) -> list[str]:
        """That difficult objects become crowds."""
        difficult = sum(int(image.difficult.sum()) for image in data.images)
        if not difficult or data.format == self.title:
            return []
        become = "1 box becomes a crowd" if difficult == 1 else f"{difficult} boxes become crowds"
        return [f"{self.title} has no flag for difficult objects: {become}, which evaluation ignores as well"]


def _data_sets(root: Path) -> list[Path]:
    return search_folders(root, lambda folder: [folder] if annotation_files(folder) else [], levels=3)


def _id(value: object) -> _Id | None:
    """An id as a key: a whole number, though it may be written as text or as 1.0; or text; None for all else."""
    if type(value) is int:
        return value
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isdecimal() and len(text) <= 20 else text or None
    return int(value) if isinstance(value, float) and value.is_integer() else None


def _is_set(flag: object) -> bool:
    """Whether it is true, 1 or "1"."""
    return flag is not None and flag != 0 and (flag is True or bool(whole_number(flag)))


def _categories(
    contents: Mapping[Path, CocoContent], collector: Collector
) -> tuple[tuple[str, ...], tuple[int, ...], dict[Path, dict[_Id, int]]]:
    """Names and ids of the classes in the order of the files, and the label of every id of each file."""
    parents = {str(c.get("supercategory")) for content in contents.values() for c in content["categories"]}
    used = {_id(row.get("category_id")) for content in contents.values() for row in content["annotations"]}
    labels: dict[str, int] = {}
    label_of: dict[Path, dict[_Id, int]] = {}
    ids_of: dict[Path, dict[str, _Id]] = {}
    for file, content in contents.items():
        name_of: dict[_Id, str] = {}
        for category in content["categories"]:
            number, name = _id(category.get("id")), str(category.get("name") or "").strip()
            if number is None or not name:
                what = f"category {shortened(category)} needs an id, and a name"
                collector.problem("unreadable-annotations", file, what)
            elif number in name_of:
                collector.problem("colliding-id", file, f"two categories have the id {number}; the first counts")
            else:
                # Roboflow puts the name of the project before the classes.
                is_project = number not in used and name in parents and category.get("supercategory") == "none"
                name_of[number] = "" if is_project else name
        by_name = group_by((number for number, name in name_of.items() if name), name_of.__getitem__)
        for name, ids in by_name.items():
            if len(ids) > 1:
                what = f"categories {', '.join(map(str, ids))} are all called {name!r}; they count as one class"
                collector.problem("colliding-id", file, what)
        ids_of[file] = {name: ids[0] for name, ids in by_name.items()}
        label_of[file] = {number: labels.setdefault(name, len(labels)) for number, name in name_of.items() if name}
    if not labels:
        raise DataError(str(collector.findings[-1]) if collector.findings else f"{next(iter(contents))}: no categories")
    return tuple(labels), _category_ids(ids_of, collector), label_of


def _category_ids(ids_of: Mapping[Path, Mapping[str, _Id]], collector: Collector) -> tuple[int, ...]:
    """An id for each class: that of the first file that has the class; 1..K where these are no different numbers."""
    first: dict[str, _Id] = {}
    for ids in ids_of.values():
        for name, stated in ids.items():
            first.setdefault(name, stated)
    numbers = [number for value in first.values() if (number := whole_number(value)) is not None]
    if len(set(numbers)) < len(first):
        collector.note("ids of categories clash or are no whole numbers: classes are matched by name, ids count from 1")
        return tuple(range(1, len(first) + 1))
    name_of = {number: name for name, number in first.items()}
    if any(first[name] != i or name_of.get(i, name) != name for ids in ids_of.values() for name, i in ids.items()):
        collector.note("the files number the categories differently: classes are matched by name")
    return tuple(numbers)


def _file_name(image: Mapping[str, Any]) -> str:
    return str(image.get("file_name") or image.get("filename") or "")


def _collect_images(
    images: list[dict[str, Any]], file: Path, split: str, collector: Collector
) -> dict[_Id, CollectedImage | None]:
    """Collect every image that can be used; the image of every id, None where it cannot.

    Where an id is no whole number, images are numbered from 1.
    """
    counts = Counter(number for image in images if (number := _id(image.get("id"))) is not None)
    image_of: dict[_Id, CollectedImage | None] = dict.fromkeys(counts)
    of_path: dict[Path, _Id] = {}
    names = [name for image in images if (name := _file_name(image))]
    matches = collector.find_images(names, file, split)
    if names and not matches:
        return image_of
    are_numbers = all(whole_number(number) is not None for number in counts)
    for position, image in enumerate(images, start=1):
        number, name = _id(image.get("id")), _file_name(image)
        if number is None or not name:
            what = f"image {shortened(image.get('id'))} ({shortened(name)}) needs an id, and a file_name"
            collector.problem("unreadable-annotations", file, what)
        elif counts[number] > 1:
            what = f"{counts[number]} images have the id {number}, one is {name}"
            collector.problem("colliding-id", file, what, image=next(iter(matches[name]), None))
        elif (path := collector.only_one(matches[name], name, file, f"image {number}")) is None:
            continue
        elif path in of_path:
            image_of[number] = image_of[of_path[path]]
            what = f"images {of_path[path]} and {number} are one file; their boxes are put together"
            collector.problem("same-image", file, what, image=path)
        elif (size_hw := _stated_hw(image) or collector.size_hw(path)) is not None:
            given = image["id"] if isinstance(image["id"], str) else number
            of_path[path] = number
            image_of[number] = collector.image(
                path,
                split,
                file,
                size_hw=size_hw,
                image_id=int(number) if are_numbers else position,
                original_id=given if isinstance(given, str) or not are_numbers else None,
            )
    return image_of


def _collect_boxes(
    annotations: list[dict[str, Any]],
    file: Path,
    image_of: Mapping[_Id, CollectedImage | None],
    label_of: Mapping[Any, int],
    collector: Collector,
) -> None:
    for start in range(0, len(annotations), _AT_ONCE):
        some = annotations[start : start + _AT_ONCE]
        if _collect_plain_boxes(some, image_of, label_of, collector):
            continue
        for position, annotation in enumerate(some, start=start + 1):
            number = position if (given := whole_number(annotation.get("id"))) is None else given
            try:
                _collect_box(annotation, number, image_of, label_of, collector)
            except DataError as error:
                with collector.report_errors(file, f"annotation {number}", number):
                    raise error
    ids = [annotation.get("id") for annotation in annotations]
    if set(map(type, ids)) == {int} and len(set(ids)) == len(ids):
        return
    counts = Counter(map(_id, ids))
    for repeated, count in counts.items():
        if count > 1 and isinstance(repeated, int) and abs(repeated) < 2**63:
            collector.problem("colliding-id", file, f"{count} annotations have the id {repeated}", repeated)


def _collect_plain_boxes(
    annotations: Sequence[Mapping[str, Any]],
    image_of: Mapping[_Id, CollectedImage | None],
    label_of: Mapping[Any, int],
    collector: Collector,
) -> bool:
    """Whether all values have the types of COCO's own files, where there may be a million boxes; then it collects them.

    It does what `_collect_box` does for each of them, in a fraction of the time.
    """
    if any("ignore" in annotation or "attributes" in annotation for annotation in annotations):
        return False
    try:
        *whole, areas, boxes = zip(*map(_values_of_box, annotations), strict=True)
        are_whole = all({int}.issuperset(map(type, column)) for column in whole)
        if not are_whole or not {list}.issuperset(map(type, boxes)) or not {4}.issuperset(map(len, boxes)):
            return False
        coordinates = list(chain.from_iterable(boxes))
        if not _NUMBERS.issuperset(map(type, chain(areas, coordinates))):
            return False
        image_ids, category_ids, numbers, crowds = whole
        images, labels = [image_of[i] for i in image_ids], [label_of[i] for i in category_ids]
        xywh = np.array(coordinates, np.float64).reshape(-1, 4)
    except (KeyError, OverflowError):
        return False
    if not (all(0 < area < 1e30 for area in areas) and min(numbers) >= 0 and max(numbers) < 2**63):
        return False
    with np.errstate(all="ignore"):  # values may be infinite
        xyxy = np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]])
    difficult = [crowd != 0 for crowd in crowds]
    indices = [-1 if image is None else image.index for image in images]
    collector.boxes.add_all((indices, xyxy, np.array(areas, np.float64), labels, difficult), numbers)
    return True


def _collect_box(
    annotation: Mapping[str, Any],
    number: int,
    image_of: Mapping[_Id, CollectedImage | None],
    label_of: Mapping[Any, int],
    collector: Collector,
) -> None:
    image_id, category_id = _value(annotation, "image_id"), _value(annotation, "category_id")
    if (key := _id(image_id)) is None or key not in image_of:
        raise UnusableError("unknown-image", f"no image has the id {shortened(image_id)}")
    if (image := image_of[key]) is None:  # there is a finding about it
        return
    if (label := label_of.get(_id(category_id))) is None:
        raise UnusableError("unknown-class", f"no category has the id {shortened(category_id)}")
    difficult = _is_set(annotation.get("iscrowd")) or _is_set(annotation.get("ignore"))
    area = annotation.get("area")
    area = float(area) if isinstance(area, int | float) and 0 < area < 1e30 else None
    if not annotation.get("bbox") and annotation.get("segmentation"):
        x1, y1, x2, y2 = box_of_segmentation(annotation["segmentation"])
        area = (x2 - x1) * (y2 - y1) if area is None else area
        points = ((x1, y1), (x2, y2))
        collector.add_outline(image, points, label, number, shape="segmentation", difficult=difficult, area=area)
        return
    box = _value(annotation, "bbox")
    try:
        x, y, width, height = numbers_of(box, 4)
    except DataError:
        raise DataError(f"bbox must be four numbers (left, top, width, height), not {shortened(box)}") from None
    area = width * height if area is None else area
    xyxy = (x, y, x + width, y + height)
    attributes = annotation.get("attributes")
    degrees = rotation_of(attributes) if attributes else 0.0
    if degrees % 360:
        corners = rotated_corners(xyxy, degrees)
        collector.add_outline(image, corners, label, number, shape="rotated box", difficult=difficult, area=area)
    else:
        collector.add(image, xyxy, label, number, difficult=difficult, area=area)


def _value(annotation: Mapping[str, Any], key: str) -> Any:
    if key not in annotation:
        raise DataError(f"it has no {key}")
    return annotation[key]


def _stated_hw(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of an image as the file states them, if it does."""
    height, width = side_of_image(image.get("height")), side_of_image(image.get("width"))
    return (height, width) if height and width else None
