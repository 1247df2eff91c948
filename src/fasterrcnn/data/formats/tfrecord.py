"""TFRecord files of TensorFlow's object detection API, whole or in shards, read without TensorFlow.

The images are inside the records. Where the same image lies beside them as a file, that file is used; otherwise it is
written into the cache folder.
"""

import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from fasterrcnn.data.annotations import AnnotatedData
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.example_records import Feature, is_record_file, parse_example, read_records
from fasterrcnn.data.formats.label_map import LabelMap, nearest_label_map
from fasterrcnn.data.formats.reading import files_by_split
from fasterrcnn.errors import DataError
from fasterrcnn.files import cache_folder, folders_below, listing_of, write_bytes
from fasterrcnn.images import EXTENSIONS

_Value = TypeVar("_Value")

_NAME = re.compile(r".+\.(tf)?records?(-\d+-of-\d+)?", re.IGNORECASE)
_SHARD = re.compile(r"(?P<base>.+)-\d+-of-(?P<total>\d{1,9})(\.(tf)?records?)?", re.IGNORECASE)

_OBJECT = "image/object/"
_SIDES = tuple(f"{_OBJECT}bbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax"))
_TEXTS, _NUMBERS, _AREAS = f"{_OBJECT}class/text", f"{_OBJECT}class/label", f"{_OBJECT}area"
_FLAGS = tuple(f"{_OBJECT}{name}" for name in ("difficult", "is_crowd", "group_of"))
_MAX_SHARE = 2  # of the image: what is above are pixels


@dataclass(frozen=True)
class _Object:
    """An object of a record."""

    shares: tuple[float, float, float, float]  # of width and height: xyxy
    text: bytes | None
    number: int | None  # of its class
    area: float
    difficult: bool


class TfRecord(DataFormat):
    """TFRecord.

    Classes have the names and the order of the label map (.pbtxt) beside the records or in a folder above; without one,
    their names are the texts in the records, sorted. Records that have only numbers of classes need a label map, or
    ``classes`` of the options, the first of which has the number 1.
    """

    title = "TFRecord"
    layout = "TFRecord (.record or .tfrecord files of TensorFlow's object detection API, or their shards)"
    box_format = "xyxy"
    relative_boxes = True
    options: ClassVar[frozenset[str]] = frozenset({"images", "classes"})

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The file itself, or the folder whose files make one data set."""
        return [root] if _record_files(root) else []

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one file, or a folder whose files or folders are named after their splits.

        A note states where images were written to, if any were.

        Raises:
            DataError: not one image can be used, or the images of the records cannot be written.
        """
        root = place.parent if place.is_file() else place
        files = _record_files(place)
        label_map = nearest_label_map(dict.fromkeys(file.parent for file in files), root)
        reader = _Reader(place, label_map, options)
        if place.is_dir():
            _report_missing_shards(files, reader.collector)
        for split, own in files_by_split(files, root, reader.collector).items():
            for file in own:
                reader.read_file(file, split)
        return reader.finish()


def _record_files(root: Path) -> list[Path]:
    """The file itself, or those in a folder and up to three levels below it; hidden ones are left out.

    Where one of a folder is of records, all with such a name are: reading reports a damaged one. The name of a shard
    may have no such ending ("train-00000-of-00010"), as have those of checkpoints, so then the content decides.
    """
    if root.is_file():
        is_named = _NAME.fullmatch(root.name) or _SHARD.fullmatch(root.name)
        return [root] if is_named and is_record_file(root) else []
    paths = [
        folder / name
        for folder in (root, *folders_below(root, levels=3))
        for suffix, names in listing_of(folder).files.items()
        for name in (names if suffix not in EXTENSIONS else ())
    ]
    paths = [path for path in sorted(paths) if os.path.isfile(path)]
    shards = {path for path in paths if _SHARD.fullmatch(path.name) and is_record_file(path)}
    files = [path for path in paths if path in shards or _NAME.fullmatch(path.name)]
    return files if any(path in shards or is_record_file(path) for path in files) else []


def _report_missing_shards(files: Sequence[Path], collector: Collector) -> None:
    """A finding where of shards such as train.record-00000-of-00010 some are not there."""
    shards: dict[tuple[Path, int], list[Path]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file.name):
            shards.setdefault((file.with_name(match["base"]), int(match["total"])), []).append(file)
    for (_, total), own in shards.items():
        if len(own) < total:
            what = f"{total - len(own)} of its {total} shards are missing"
            collector.problem("missing-annotations", own[0], what)


class _Reader:
    """Collects the images and objects of record files."""

    def __init__(self, place: Path, label_map: LabelMap, options: ReadOptions) -> None:
        self._classes = label_map.classes if options.classes is None else {}
        classes = options.classes or tuple(self._classes) or None
        self.collector = Collector(place, TfRecord.title, "object", classes, options.images)
        self._place, self._label_map = place, label_map
        self._names = label_map.names if options.classes is None else dict(enumerate(options.classes, start=1))
        self._cache = cache_folder() / "tfrecord"
        self._written: set[Path] = set()
        self._has_boxes = self._lacks_names = False

    def finish(self) -> AnnotatedData:
        """The data set.

        Raises:
            DataError: no image can be used, no record can hold boxes, or no class has a name.
        """
        if self._written:
            self.collector.note(f"{len(self._written)} images were taken out of the records, into {self._cache}")
        data = self.collector.finish(sort_classes=True, category_ids=tuple(self._classes.values()))
        if not self._has_boxes:
            raise DataError(f"{self._place}: no record has {_SIDES[0]}, so they are not of the object detection API")
        if self._lacks_names and not any(len(image.boxes) for image in data.images):
            raise DataError(
                f"{self._place}: no object has a class with a name; put the label map (.pbtxt) beside the records, or "
                f"give the names in the order of the labels from 1 (classes, --class-names); first: {data.findings[0]}"
            )
        self.collector.report_unlisted("no record holds it", ignored=self._cache)
        return data

    def read_file(self, file: Path, split: str) -> None:
        """Collect the images of a file; its objects are numbered through the file.

        Raises:
            DataError: an image cannot be written.
        """
        last, images = 0, 0
        missing = []
        for position, record in enumerate(read_records(file), start=1):
            try:
                if isinstance(record, DataError):
                    raise record
                features = parse_example(record)
                objects = _objects(features)
                name, size_hw = _name(features), (_size(features, "height"), _size(features, "width"))
                encoded = _encoded(features)
            except DataError as error:
                self.collector.problem("unreadable-annotations", file, f"record {position}: {error}")
                continue
            self._has_boxes = self._has_boxes or not features.keys().isdisjoint(_SIDES)
            path, candidates = self._image_path(name, encoded, file, split)
            if path is None:
                missing.append((name, candidates, position))
            else:
                image = self.collector.image(path, split, file, stated_hw=size_hw)
                self._add(objects, image, last)
                images += 1
            last += len(objects)
        if missing and not images and not any(candidates for _, candidates, _ in missing):
            what = self.collector.finder.nothing_found([name for name, *_ in missing])
            self.collector.problem("missing-image", file, f"the records hold no images, and {what}")
            return
        for name, candidates, position in missing:
            self.collector.only_one(candidates, name, file, f"record {position}")

    def _image_path(self, name: str, encoded: bytes, file: Path, split: str) -> tuple[Path | None, list[Path]]:
        """The file with the image of a record, and all those that have its name.

        A file of its name may be another image, so it has to have the same content, unless the user named the folder.
        """
        candidates = self.collector.finder.find([name], file, split)[name] if name else []
        same = next((path for path in candidates if encoded and _has_content(path, encoded)), None)
        if same is None and len(candidates) == 1 and (self.collector.finder.has_named_folders or not encoded):
            same = candidates[0]
        return same or (self._write(encoded) if encoded else None), candidates

    def _write(self, encoded: bytes) -> Path:
        """The file in the cache folder with an image, whose name is a hash of its content."""
        suffix = ".png" if encoded.startswith(b"\x89PNG") else ".jpg"  # readers go by the content
        path = self._cache / f"{hashlib.sha256(encoded).hexdigest()}{suffix}"
        if not _has_content(path, encoded):
            try:
                write_bytes(path, encoded)
            except OSError as error:
                raise DataError(f"the images of the records cannot be written to FASTERRCNN_CACHE: {error}") from None
        self._written.add(path)
        return path

    def _add(self, objects: Sequence[_Object], image: CollectedImage, last: int) -> None:
        """Add the boxes of a record to its image; an image that cannot be read is a finding already."""
        if image.size_hw is None:
            return
        file = image.source or image.path
        height, width = image.size_hw
        for number, entry in enumerate(objects, start=last + 1):
            x1, y1, x2, y2 = entry.shares
            with self.collector.report_errors(file, f"object {number}", number, image=image.path):
                name = self._class_name(entry)
                if any(math.isfinite(share) and abs(share) > _MAX_SHARE for share in entry.shares):
                    raise DataError(f"shares of the image (0 to 1) are expected, not {x1:g},{y1:g},{x2:g},{y2:g}")
                box = (x1 * width, y1 * height, x2 * width, y2 * height)
                self.collector.add(image, box, name, number, difficult=entry.difficult, area=entry.area)

    def _class_name(self, entry: _Object) -> str:
        """The class of an object.

        Raises:
            DataError: it has none, or its text and its number are different classes of the label map.
        """
        text = "" if entry.text is None else entry.text.decode("utf-8", "replace").strip()
        by_number = None if entry.number is None else self._names.get(entry.number)
        if text:
            number = self._label_map.ids.get(text) if self._classes else None
            by_text = text if number is None else self._label_map.names[number]
            if number is not None and by_number not in (None, by_text):
                raise DataError(
                    f"its class is {text!r}, but its label {entry.number} is {by_number!r} in the label map"
                )
            return by_text
        if by_number is not None:
            return by_number
        if entry.number is not None and not self._names:
            self._lacks_names = True
            raise DataError(f"its class has no text, only the label {entry.number}, and there is no label map")
        raise DataError(f"its class has no text, and no class has its label {entry.number}")


def _objects(features: dict[str, Feature]) -> list[_Object]:
    """The objects of a record.

    Raises:
        DataError: the lists of their properties have different lengths, or wrong types.
    """
    sides = [_floats(features, side) for side in _SIDES]
    texts, numbers = _list(features, _TEXTS, bytes), _list(features, _NUMBERS, int)
    areas, flags = _floats(features, _AREAS), [_list(features, flag, int) for flag in _FLAGS]
    lengths = {name: len(values) for name, values in zip(_SIDES, sides, strict=True)}
    optional = {_TEXTS: len(texts), _NUMBERS: len(numbers), _AREAS: len(areas)}
    optional |= {name: len(values) for name, values in zip(_FLAGS, flags, strict=True)}
    lengths |= {name: length for name, length in optional.items() if length}
    count = max(lengths.values())
    if wrong := [f"{length} {name.removeprefix(_OBJECT)}" for name, length in lengths.items() if length != count]:
        raise DataError(f"it has {count} objects, but {', '.join(wrong)}")
    return [
        _Object(
            (sides[0][index], sides[1][index], sides[2][index], sides[3][index]),
            texts[index] if texts else None,
            numbers[index] if numbers else None,
            areas[index] if areas and 0 < areas[index] < math.inf else math.nan,
            any(values[index] != 0 for values in flags if values),
        )
        for index in range(count)
    ]


def _list(features: dict[str, Feature], name: str, kind: type[_Value]) -> list[_Value]:
    """The values of a feature; none where the record does not have it.

    Raises:
        DataError: they have another type.
    """
    values: Sequence[object] = features.get(name, [])
    if any(type(value) is not kind for value in values):
        raise DataError(f"{name} must have values of the type {kind.__name__}")
    return [value for value in values if isinstance(value, kind)]


def _floats(features: dict[str, Feature], name: str) -> list[float]:
    return _list(features, name, float)


def _name(features: dict[str, Feature]) -> str:
    """The name of the image: that of its file, or of its source; empty where it has none."""
    names = (name for key in ("image/filename", "image/source_id") for name in _list(features, key, bytes))
    return next((text for name in names if (text := name.decode("utf-8", "replace").strip())), "")


def _size(features: dict[str, Feature], side: str) -> int:
    """Height or width as the record states it; 0 where it does not."""
    return max(0, next(iter(_list(features, f"image/{side}", int)), 0))


def _encoded(features: dict[str, Feature]) -> bytes:
    return next(iter(_list(features, "image/encoded", bytes)), b"")


def _has_content(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False
