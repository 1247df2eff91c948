"""COCO JSON: one file for each split, anywhere beside the images; Roboflow's layout included.

Segmentations and key points are ignored: this library is about boxes.
"""

import json
import mmap
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage, group_by, split_of, to_coco
from fasterrcnn.data.formats.base import CollectedImage, Collector, DataFormat, NamedImages, ReadOptions
from fasterrcnn.data.formats.reading import read_json
from fasterrcnn.data.formats.writing import shortest_decimals, write_file
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError
from fasterrcnn.images import image_files

_Content = dict[str, list[dict[str, Any]]]

_LISTS = ("images", "annotations", "categories")


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
        """The annotation file itself, or the folder whose annotation files make one data set."""
        if root.is_file():
            return [root] if root.suffix.lower() == ".json" and _is_coco(root) else []
        return [root] if _annotation_files(root) else []

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one annotation file, or a folder with one for each split.

        Raises:
            DataError: a file is no COCO data set, two files are of the same split, their categories contradict each
                other, or not one image is where it could be.
        """
        files = {NO_SPLIT: place} if place.is_file() else _by_split(_annotation_files(place), place)
        if not files:
            raise DataError(f"{place}: no COCO file, that is .json with images and annotations")
        contents = {split: _load(file) for split, file in files.items()}
        collector = Collector(place, self.title, "annotation")
        classes, ids, label_of = _categories({files[split]: content for split, content in contents.items()}, collector)
        root = place.parent if place.is_file() else place
        finder = ImageFinder(root, options.images)
        used: set[Path] = set()
        for split, content in contents.items():
            image_of = _collect_images(content["images"], files[split], split, finder, collector)
            _collect_boxes(content["annotations"], files[split], image_of, label_of, collector)
            used.update(image.path for image in image_of.values() if image is not None)
            if not content["images"]:
                collector.problem("empty-split", files[split], "lists no image")
        listed = used | {finding.image for finding in collector.findings if finding.image is not None}
        present = {path for folder in {path.parent for path in used} for path in image_files(folder)}
        for path in sorted(present - listed):
            collector.problem("unlisted-image", path, "no annotation file lists it", image=path)
        return collector.finish(classes=classes, category_ids=ids)

    def image_folder(self, split: str) -> str:
        """One folder for each split."""
        return "images" if split == NO_SPLIT else split

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write a file for each split."""
        for split, named in splits.items():
            images = list(named.values())
            content: dict[str, Any] = {"info": {"description": f"from {data.format}"}, "licenses": []}
            content |= to_coco(data, images)
            for entry, name in zip(content["images"], named, strict=True):
                entry["file_name"] = name
            boxes = [box for image in images for box in shortest_decimals(image.boxes)]
            for annotation, number, (x1, y1, x2, y2) in zip(
                content["annotations"], self._annotation_ids(data, images), boxes, strict=True
            ):
                annotation["id"] = number
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


def _annotation_files(root: Path) -> list[Path]:
    """COCO files in a folder, in its annotations/ or in the folders of its splits."""
    candidates = [*root.glob("*.json"), *root.glob("annotations/*.json")]
    candidates += [file for file in root.glob("*/*.json") if file.parent.name.lower() in SPLITS]
    files = sorted(file for file in candidates if file.is_file() and _is_coco(file))
    instances = [file for file in files if file.name.startswith("instances")]
    return instances or files  # not those of captions and key points


def _is_coco(file: Path) -> bool:
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(f'"{name}"'.encode()) >= 0 for name in ("images", "annotations"))


def _by_split(files: Iterable[Path], root: Path) -> dict[str, Path]:
    """Files by the split in the name of the file or of its folder."""
    by_split = group_by(files, lambda file: split_of(file, root))
    several = [files for files in by_split.values() if len(files) > 1]
    if several or (NO_SPLIT in by_split and len(by_split) > 1):
        names = ", ".join(str(file) for files in by_split.values() for file in files)
        raise DataError(f"{root}: several COCO files, and their names do not state the splits; name one: {names}")
    order = [*dict.fromkeys(SPLITS.values()), NO_SPLIT]
    return {split: files[0] for split, files in sorted(by_split.items(), key=lambda item: order.index(item[0]))}


def _load(file: Path) -> _Content:
    def without_masks(value: dict[str, Any]) -> dict[str, Any]:
        value.pop("segmentation", None)  # most of the file, and of the memory
        return value

    content = read_json(file, without_masks)
    if isinstance(content, list):
        raise DataError(f"{file}: a list, as of COCO results; a data set has {', '.join(_LISTS)}")
    for name in _LISTS:
        rows = content.get(name) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file}: not a COCO data set: {name!r} must be a list of objects")
    return {name: content[name] for name in _LISTS}


def _whole(value: object) -> int | None:
    """A whole number, though it may be written as text or as 1.0; None for all else."""
    if type(value) is not int:  # rare among millions
        value = float(value) if isinstance(value, str) and value.isdecimal() and len(value) < 16 else value
        value = int(value) if isinstance(value, float) and value.is_integer() else value
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def _categories(
    contents: Mapping[Path, _Content], collector: Collector
) -> tuple[tuple[str, ...], tuple[int, ...], dict[int, int]]:
    """Names and ids of the classes in the order of the files, and the label of every id."""
    name_of: dict[int, str] = {}
    parents = {str(c.get("supercategory")) for content in contents.values() for c in content["categories"]}
    used = {_whole(row.get("category_id")) for content in contents.values() for row in content["annotations"]}
    for file, content in contents.items():
        own: set[int] = set()
        for category in content["categories"]:
            number, name = _whole(category.get("id")), str(category.get("name") or "").strip()
            if number is None or not name:
                raise DataError(f"{file}: category {reprlib.repr(category)} needs a whole number as id, and a name")
            if number in own:
                collector.problem("colliding-id", file, f"two categories have the id {number}; the first counts")
                continue
            own.add(number)
            # Roboflow puts the name of the project before the classes.
            if number not in used and name in parents and category.get("supercategory") == "none":
                continue
            if name_of.setdefault(number, name) != name:
                raise DataError(f"{file}: category {number} is {name!r} here and {name_of[number]!r} in another split")
    if not name_of:
        raise DataError(f"{next(iter(contents))}: no categories")
    ids_of: dict[str, list[int]] = {}
    for number, name in name_of.items():
        ids_of.setdefault(name, []).append(number)
    for name, ids in ids_of.items():
        if len(ids) > 1:
            what = f"categories {', '.join(map(str, ids))} are all called {name!r}; they count as one class"
            collector.problem("colliding-id", next(iter(contents)), what)
    label_of = {number: label for label, ids in enumerate(ids_of.values()) for number in ids}
    return tuple(ids_of), tuple(ids[0] for ids in ids_of.values()), label_of


def _file_name(image: Mapping[str, Any]) -> str:
    return str(image.get("file_name") or "")


def _collect_images(
    images: list[dict[str, Any]], file: Path, split: str, finder: ImageFinder, collector: Collector
) -> dict[int | None, CollectedImage | None]:
    """Collect every image that can be used; the image of every id, None where it cannot."""
    counts = Counter(_whole(image.get("id")) for image in images)
    image_of: dict[int | None, CollectedImage | None] = dict.fromkeys(counts)
    of_path: dict[Path, CollectedImage] = {}
    names = [name for image in images if (name := _file_name(image))]
    matches = finder.find(names, file, split)
    if names and not any(matches.values()):
        collector.problem("missing-image", file, finder.nothing_found(names))
        return image_of
    for image in images:
        number, name = _whole(image.get("id")), _file_name(image)
        if number is None or not name:
            what = f"image {image.get('id')!r} ({image.get('file_name')!r}) needs a whole number as id, and a file_name"
            collector.problem("unreadable-annotations", file, what)
        elif counts[number] > 1:
            what = f"{counts[number]} images have the id {number}, one is {name}"
            collector.problem("colliding-id", file, what, image=next(iter(matches[name]), None))
        elif (path := collector.only_one(matches[name], name, file, finder, f"image {number}")) is None:
            continue
        elif path in of_path:
            image_of[number] = of_path[path]
            what = f"images {of_path[path].image_id} and {number} are one file; their boxes are put together"
            collector.problem("same-image", file, what, image=path)
        elif (size_hw := _stated_hw(image) or collector.size_hw(path)) is not None:
            of_path[path] = collector.image(path, split, file, size_hw=size_hw, image_id=number)
            image_of[number] = of_path[path]
    return image_of


def _collect_boxes(
    annotations: list[dict[str, Any]],
    file: Path,
    image_of: Mapping[int | None, CollectedImage | None],
    label_of: Mapping[Any, int],
    collector: Collector,
) -> None:
    for position, annotation in enumerate(annotations, start=1):
        number = position if (given := _whole(annotation.get("id"))) is None else given
        try:
            image_id = _whole(annotation["image_id"])
            if image_id not in image_of:
                what = f"annotation {number}: no image has the id {annotation['image_id']!r}"
                collector.problem("unknown-image", file, what, number)
            elif (image := image_of[image_id]) is not None:
                x, y, width, height = map(float, annotation["bbox"])
                label = label_of[_whole(annotation["category_id"])]
                flagged = _whole(annotation.get("iscrowd")) or _whole(annotation.get("ignore"))
                area = annotation.get("area")
                area = float(area) if isinstance(area, int | float) and 0 < area < 1e30 else width * height
                corners = (x, y, x + width, y + height)
                collector.add(image, corners, label, number, difficult=bool(flagged), area=area)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            kind, reason = _reason(annotation, label_of, error)
            collector.problem(kind, file, f"annotation {number}{reason}", number)
    counts = Counter(_whole(annotation.get("id")) for annotation in annotations)
    for repeated, count in counts.items():
        if count > 1 and repeated is not None:
            collector.problem("colliding-id", file, f"{count} annotations have the id {repeated}", repeated)


def _reason(annotation: Mapping[str, Any], label_of: Mapping[Any, int], error: Exception) -> tuple[str, str]:
    """Kind of the finding about an annotation that cannot be used, and why."""
    category = annotation.get("category_id")
    if "category_id" in annotation and _whole(category) not in label_of:
        return "unknown-class", f": no category has the id {category!r}"
    if isinstance(error, KeyError):
        return "unreadable-annotations", f" has no {error.args[0]}"
    box = reprlib.repr(annotation.get("bbox"))
    return "unreadable-annotations", f": bbox must be four numbers (left, top, width, height), not {box} ({error})"


def _stated_hw(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of an image as the file states them, if it does."""
    height, width = image.get("height"), image.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return None
