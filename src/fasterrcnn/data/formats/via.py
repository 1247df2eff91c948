"""VGG Image Annotator (VIA), versions 1 and 2: its project, or its annotations as JSON or CSV; a file for each split.

Every region has attributes that the annotator defined freely; one of them is the class.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fasterrcnn.data.annotations import SPLITS, AnnotatedData, group_by
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.csv_columns import TableColumns, read_rows
from fasterrcnn.data.formats.reading import beginning_and_end, by_split, files_below, read_json
from fasterrcnn.data.formats.shapes import ellipse_corners
from fasterrcnn.data.formats.values import list_in, numbers_in, shortened, text_in
from fasterrcnn.errors import DataError, UsageError

_CLASS_ATTRIBUTES = (
    *("class", "classes", "class_name", "classname", "label", "labels", "label_name", "category", "categories"),
    *("name", "type", "kind", "tag", "object", "objects", "object_name", "object_type", "object_class"),
)
"""Names, in lower case, that people give to the attribute that is the class."""

_SPLIT_ATTRIBUTES = ("split", "subset", "set")
_ONLY_CLASS = "object"
_COLUMNS = ("filename", "file_size", "file_attributes", "region_count", "region_shape_attributes", "region_attributes")


@dataclass(frozen=True)
class _Region:
    number: int  # position in the JSON file from 1, or line of the CSV file
    shape: object
    attributes: object


@dataclass(frozen=True)
class _Entry:
    """What a file has about an image."""

    name: str
    size: object  # of the image file, in bytes; -1 where VIA did not know it
    split: str
    regions: list[_Region]


class Via(DataFormat):
    """VIA.

    The class of a region is its only attribute, or the one called class, label, category, name, type...; ``columns``
    of the options chooses another: {"label": NAME}. People draw outlines as polylines, too, so the box around one is
    taken, unless it is a line of two points. Lines and points have no box: a note counts them.
    """

    title = "VIA"
    layout = 'VIA (.json files with "regions" and "shape_attributes", or .csv files with region_shape_attributes)'
    box_format = "xywh"
    options: ClassVar[frozenset[str]] = frozenset({"images", "columns"})

    def annotation_files(self, place: Path) -> list[Path]:
        """Files in JSON, and those in CSV."""
        tables = files_below(place, (".csv",), _is_table, alike=False)
        return files_below(place, (".json",), _is_json, alike=False) + tables

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read one file, or a folder with one for each split; classes are sorted by name.

        Where no region has any attribute, all are of the class "object", and a note states it.

        Raises:
            DataError: two files are of the same split, several attributes could be the class, or no image is usable.
            UsageError: ``columns`` of the options names no attribute.
        """
        files = self.annotation_files(place)
        counted = "line" if any(file.suffix.lower() == ".csv" for file in files) else "region"
        collector = Collector(place, self.title, counted, images=options.images)
        entries: dict[Path, list[_Entry]] = {}
        for split, file in by_split(files, collector.root, collector).items():
            with collector.report_errors(file):
                entries[file] = _read_file(file, split, collector)
        attribute = _class_attribute(place, [entry for own in entries.values() for entry in own], options.columns)
        if attribute is None:
            collector.note(f"no region has an attribute: all are of one class, {_ONLY_CLASS!r}")
        for file, own in entries.items():
            for split, of_split in group_by(own, lambda entry: entry.split).items():
                _collect(of_split, file, split, attribute, collector)
        collector.report_unlisted("no annotation file lists it")
        return collector.finish(sort_classes=True)


def _is_json(content: bytes) -> bool:
    keys = (b'"shape_attributes"', b'"file_attributes"', b'"_via_img_metadata"')
    return all(key in content for key in (b'"filename"', b'"regions"')) and any(key in content for key in keys)


def _is_table(content: bytes) -> bool:
    header = content.partition(b"\n")[0]
    return all(name.encode() in header for name in ("filename", "region_shape_attributes", "region_attributes"))


def _split(attributes: object, default: str) -> str:
    """The split that an attribute of an image states, if one does."""
    items = attributes.items() if isinstance(attributes, dict) else ()
    stated = (str(value).strip().lower() for name, value in items if name.strip().lower() in _SPLIT_ATTRIBUTES)
    return next((SPLITS[word] for word in stated if word in SPLITS), default)


def _read_file(file: Path, split: str, collector: Collector) -> list[_Entry]:
    if file.suffix.lower() == ".csv":
        return _read_table(file, split, collector)
    content = read_json(file)
    if isinstance(content, dict) and "_via_img_metadata" in content:
        content = content["_via_img_metadata"]
    if not isinstance(content, dict):
        raise DataError(f"{file}: not VIA's annotations, which are an object with an entry for each image")
    entries = []
    count = 0
    for key, entry in content.items():
        with collector.report_errors(file, f"image {key!r}"):
            parts = _regions_of(entry)
            name, own_split = text_in(entry, "filename"), _split(entry.get("file_attributes"), split)
            regions = [_Region(number, *part) for number, part in enumerate(parts, start=count + 1)]
            entries.append(_Entry(name, entry.get("size"), own_split, regions))
            count += len(regions)
    return entries


def _regions_of(entry: Any) -> list[tuple[object, object]]:
    """Shape and attributes of every region of an image: a list in version 2, an object with numbers in version 1.

    Raises:
        DataError: the entry has no regions.
    """
    if not isinstance(entry, dict):
        raise DataError("an object with filename and regions is expected")
    regions = entry.get("regions")
    if isinstance(regions, dict):
        regions = list(regions.values())
    if not isinstance(regions, list):
        raise DataError("regions must be a list")
    parts = [region if isinstance(region, dict) else {} for region in regions]
    return [(part.get("shape_attributes"), part.get("region_attributes")) for part in parts]


def _read_table(file: Path, split: str, collector: Collector) -> list[_Entry]:
    """The images of a CSV file, which has a line for each region, or one without shape for an image without regions."""
    first_line = beginning_and_end(file).decode("utf-8-sig", "replace").partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    header = [cell.strip(' "#\r') for cell in first_line.split(delimiter)]
    if missing := [name for name in _COLUMNS if name not in header]:
        raise DataError(f"{file}: no column {', '.join(missing)}")
    positions = {name: header.index(name) for name in _COLUMNS}
    entries: dict[tuple[str, str], _Entry] = {}
    counts: dict[tuple[str, str], str] = {}
    for number, cells in read_rows(file, TableColumns(delimiter, header, positions, ())):
        with collector.report_errors(file, f"line {number}", number):
            if len(cells) != len(header):
                raise DataError(f"{len(cells)} cells where {len(header)} are expected")
            row = {name: cells[position] for name, position in positions.items()}
            key = text_in(row, "filename"), row["file_size"]
            shape, attributes, of_file = (_parsed(row, name) for name in (*_COLUMNS[4:], "file_attributes"))
            entry = entries.setdefault(key, _Entry(*key, _split(of_file, split), []))
            counts.setdefault(key, row["region_count"])
            if shape or row["region_count"] != "0":
                entry.regions.append(_Region(number, shape, attributes))
    for (name, size), entry in entries.items():
        stated = counts[name, size]
        if stated.isdecimal() and stated != str(len(entry.regions)):
            what = f"{name} has region_count {stated}, and {len(entry.regions)} usable lines"
            collector.problem("missing-annotations", file, what)
    return list(entries.values())


def _parsed(row: Mapping[str, str], name: str) -> Any:
    """The object in a cell.

    Raises:
        DataError: it holds no JSON.
    """
    try:
        return json.loads(row[name] or "{}")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is no JSON ({error})") from None


def _class_attribute(place: Path, entries: Sequence[_Entry], columns: Mapping[str, str] | None) -> str | None:
    """The region attribute that is the class; None where no region has a value of any.

    Raises:
        DataError: several could be it.
        UsageError: ``columns`` has another meaning than label, or names no attribute.
    """
    regions = [region.attributes for entry in entries for region in entry.regions]
    attributes = [(name, value) for region in regions if isinstance(region, dict) for name, value in region.items()]
    filled = Counter(name for name, value in attributes if _values(value))
    shown = ", ".join(filled) or "none"
    if columns:
        if other := [meaning for meaning in columns if meaning != "label"]:
            raise UsageError(f"columns: VIA has no column that means {other[0]!r}, only label: the region attribute")
        if columns["label"] not in filled:
            raise UsageError(f"{place}: no region has an attribute called {columns['label']!r}; there are: {shown}")
        return columns["label"]
    candidates = [name for name in filled if name.strip().lower() in _CLASS_ATTRIBUTES] or list(filled)
    if len(candidates) > 1:
        raise DataError(
            f"{place}: each of the region attributes {', '.join(candidates)} could be the class; choose with columns "
            f"(--columns label={candidates[0]})"
        )
    return next(iter(candidates), None)


def _values(value: object) -> list[str]:
    """The values of an attribute: a text, or those that are ticked of a checkbox; none where it is not filled."""
    if isinstance(value, dict):
        return [str(name).strip() for name, ticked in value.items() if ticked is True and str(name).strip()]
    try:
        return [text_in({"value": value}, "value")]
    except DataError:
        return []


def _collect(entries: Sequence[_Entry], file: Path, split: str, attribute: str | None, collector: Collector) -> None:
    """Collect images and boxes of a file that are of one split.

    Two entries of one name are images of two folders: the size of the file decides which of them is which.
    """
    matches = collector.find_images([entry.name for entry in entries], file, split)
    counts = Counter(entry.name for entry in entries)
    counted = "line" if file.suffix.lower() == ".csv" else "region"
    for entry in entries if matches else ():
        paths, count = matches[entry.name], counts[entry.name]
        if paths and (len(paths) > 1 or count > 1):
            of_size = [path for path in paths if os.path.isfile(path) and str(os.path.getsize(path)) == str(entry.size)]
            if len(of_size) != 1 and count > 1:
                what = f"{count} images are called {entry.name}; not just one below has {entry.size} bytes"
                collector.problem("ambiguous-image", file, what)
                continue
            paths = of_size or paths
        path = collector.only_one(paths, entry.name, file)
        image = collector.claim(path, split, file, entry.name)
        if image is None:
            continue
        for region in entry.regions:
            what = f"{counted} {region.number} ({entry.name})"
            with collector.report_errors(file, what, region.number, image=image.path):
                _add_region(region, image, attribute, collector)


def _add_region(region: _Region, image: CollectedImage, attribute: str | None, collector: Collector) -> None:
    """Add the box of a region, once for each class that it has.

    Raises:
        DataError: it has no class, VIA has no such shape, or its numbers are not there.
    """
    if not isinstance(region.shape, dict):
        raise DataError(f"shape_attributes must be an object, not {shortened(region.shape)}")
    name = text_in(region.shape, "name")
    if name == "point" or (name == "polyline" and _is_line(region.shape)):
        collector.leave_out("line of two points" if name == "polyline" else name)
        return
    if name not in ("rect", "circle", "ellipse", "polygon", "polyline"):
        raise DataError(f"there is no shape {name!r}, but rect, circle, ellipse, polygon, polyline and point")
    attributes = region.attributes if isinstance(region.attributes, dict) else {}
    labels = [_ONLY_CLASS] if attribute is None else _values(attributes.get(attribute))
    if not labels:
        raise DataError(f"the attribute {attribute!r} has no value, so the class is unknown")
    for label in labels:
        if name == "rect":
            x, y, width, height = numbers_in(region.shape, ("x", "y", "width", "height"))
            collector.add(image, (x, y, x + width, y + height), label, region.number)
        else:
            collector.add_outline(image, _outline(name, region.shape), label, region.number, shape=name)


def _is_line(shape: dict[str, Any]) -> bool:
    """Whether a polyline has only two points."""
    return len(list_in(shape, "all_points_x")) == len(list_in(shape, "all_points_y")) == 2


def _outline(name: str, shape: Any) -> list[list[float]]:
    """The corners of a polygon or polyline, or of the box around a circle or an ellipse (turned by theta radians)."""
    if name in ("polygon", "polyline"):
        xs, ys = list_in(shape, "all_points_x"), list_in(shape, "all_points_y")
        if len(xs) != len(ys) or len(xs) < 3:
            raise DataError(f"a {name} needs x and y of three points or more, not {len(xs)} x and {len(ys)} y")
        return [numbers_in({"x": x, "y": y}, ("x", "y")) for x, y in zip(xs, ys, strict=True)]
    if name == "circle":
        x, y, radius = numbers_in(shape, ("cx", "cy", "r"))
        return ellipse_corners(x, y, radius, radius)
    x, y, radius_x, radius_y, theta = numbers_in({"theta": 0, **shape}, ("cx", "cy", "rx", "ry", "theta"))
    return ellipse_corners(x, y, radius_x, radius_y, math.degrees(theta))
