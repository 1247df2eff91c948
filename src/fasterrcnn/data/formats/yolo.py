"""YOLO: one text file per image and one line per object, as Ultralytics, Roboflow, CVAT, labelImg and Darknet write.

A line is ``class cx cy width height``, or class and the corners of a polygon, in shares of the upright image.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage, group_by
from fasterrcnn.data.formats.base import Box, Collector, DataFormat, NamedImages, ReadOptions, box_to_xyxy
from fasterrcnn.data.formats.reading import read_lines
from fasterrcnn.data.formats.writing import lost_areas_and_ids, lost_flags, shortest_decimals, write_file
from fasterrcnn.errors import DataError
from fasterrcnn.files import search_folders
from fasterrcnn.images import image_files

_CLASS_LISTS = ("classes.txt", "obj.names", "_darknet.labels")
_OTHER_TEXTS = re.compile(rf"\..*|(classes|predefined_classes|readme.*|licen[cs]e|notes|{'|'.join(SPLITS)})\.txt", re.I)
_LARGEST_SHARE = 1.5  # a box over the border is a little larger than 1, pixels are far larger
_SHARE_DIGITS = 9  # 0.0005 pixels in an image of a million


class _LineError(Exception):
    """Kind of the finding, and what is wrong with a line."""


class Yolo(DataFormat):
    """YOLO.

    Written as data.yaml, images/<split>/ and labels/<split>/; images/ and labels/ where there are no splits. An image
    without boxes has an empty file.
    """

    title = "YOLO"
    layout = "YOLO (data.yaml, or images/ beside labels/ with .txt files)"
    box_format = "cxcywh"
    relative_boxes = True
    options = frozenset({"images", "classes"})
    can_write = True

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The yaml file itself, the folder itself, or folders up to two levels below it that hold a data set.

        Where several yaml files of a folder name classes, and none is called data.yaml, those files.
        """
        if root.is_file():
            return [root] if root.suffix.lower() in (".yaml", ".yml") else []
        return search_folders(root, _data_sets)

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read a folder, or the yaml file that describes a data set.

        An image without a label file, or with an empty one, has no objects. The names of the classes in the options
        replace those of the data set.

        Raises:
            DataError: the yaml file or a list is not readable, the classes have no names, or there is no image.
        """
        folder, file = (place, _yaml_of(place)) if place.is_dir() else (place.parent, place)
        content = {} if file is None else _load(file)
        collector = Collector(place, self.title, "line")
        names = options.classes or _class_names(folder, file, content, collector)
        places = _places_by_yaml(file, content, collector) if file is not None else {}
        places = places or _places_by_layout(folder)
        paths = {split: _image_paths(within, folder, collector) for split, within in places.items()}
        # A label file belongs to several images where they have the same stem.
        distinct = sorted({path for listed in paths.values() for path in listed})
        images = group_by(distinct, lambda path: _label_folder(path.parent) / f"{path.stem}.txt")
        for label_file, candidates in images.items():
            path = collector.image_of(label_file, candidates)
            if path is not None:
                _read_image(path, label_file, len(names), collector)
        folders = {within for listed in places.values() for within in listed if within.is_dir()}
        texts = {text for within in folders for text in _label_folder(within).rglob("*.txt")}
        for text in sorted(texts - images.keys()):
            if not _OTHER_TEXTS.fullmatch(text.name):
                collector.image_of(text, [])
        return collector.finish(paths, classes=names)

    def image_folder(self, split: str) -> str:
        """One folder for each split, below images/."""
        return "images" if split == NO_SPLIT else f"images/{split}"

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write data.yaml, and a folder of labels for each split."""
        content: dict[str, object] = {}
        for split, images in splits.items():
            place = self.image_folder(split)
            for name, image in images.items():
                file = folder / place.replace("images", "labels", 1) / f"{Path(name).stem}.txt"
                write_file(file, _to_lines(image))
            if split != NO_SPLIT:
                content[split] = place
        # Without "path", tools take paths relative to this file, wherever it is.
        content["names"] = dict(enumerate(data.classes))
        write_file(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def losses(self, data: AnnotatedData) -> list[str]:
        """Difficult objects, areas and ids."""
        return lost_flags(self.title, data) + lost_areas_and_ids(self.title, data)


def _data_sets(folder: Path) -> list[Path]:
    """The folder itself, or its yaml files, where none of several describes all of it."""
    files = _yaml_files(folder)
    if len(files) > 1 and _yaml_of(folder) is None:
        return files
    return [folder] if files or _is_data_set(folder) else []


def _is_data_set(folder: Path) -> bool:
    """Whether a folder without a yaml file has the layout of one of the tools."""
    halves = [folder, *(child for child in folder.glob("*/") if child.name.lower() in SPLITS)]
    if any((half / "images").is_dir() and any((half / "labels").rglob("*.txt")) for half in halves):
        return True
    images = image_files(folder, deep=True) if _class_list(folder) is not None else []
    return any(path.with_suffix(".txt").is_file() for path in images)


def _yaml_files(folder: Path) -> list[Path]:
    files = sorted(f for f in folder.glob("*.y*ml") if f.suffix.lower() in (".yaml", ".yml") and f.is_file())
    return [file for file in files if re.search(rb"(?m)(^|[{,])\W*names\W*:", file.read_bytes())]


def _yaml_of(folder: Path) -> Path | None:
    """The only yaml file of a folder that names classes, or data.yaml."""
    files = _yaml_files(folder)
    data_files = [file for file in files if file.stem.lower() == "data"]
    return next(iter(data_files), files[0] if len(files) == 1 else None)


def _class_list(folder: Path) -> Path | None:
    places = [folder, folder / "labels", *(folder / split for split in SPLITS)]
    files = (place / name for place in places for name in _CLASS_LISTS)
    return next((file for file in files if file.is_file()), None)


def _load(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: broken YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: not the description of a YOLO data set, which has names, train and val")
    return content


def _class_names(folder: Path, file: Path | None, content: dict[str, Any], collector: Collector) -> tuple[str, ...]:
    """Names from the yaml file, or from a list with one a line."""
    if file is not None:
        names = _checked(content.get("names"), file)
        if content.get("nc", len(names)) != len(names):
            what = f"nc is {content['nc']!r}, but names has {len(names)}: {', '.join(names)}"
            collector.problem("unknown-class", file, what)
        return names
    listed = _class_list(folder)
    if listed is None:
        raise DataError(
            f"{folder}: the classes have no names; give them (classes, --class-names), or put them into "
            "data.yaml (names: [...]) or classes.txt (one a line)"
        )
    return _checked("\n".join(read_lines(listed)).strip().split("\n"), listed)


def _checked(names: object, file: Path) -> tuple[str, ...]:
    """Names in the order of their numbers."""
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items()}
        names = [numbered.get(str(number)) for number in range(len(names))]
        if None in names:
            raise DataError(f"{file}: names must be numbered from 0 without a gap; {names.index(None)} is missing")
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: names must list the classes, as in names: [cat, dog]")
    for number, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise DataError(f"{file}: the name of class {number} is {name!r}; write a text, in quotes")
    texts = [str(name).strip() for name in names]
    repeated = [name for number, name in enumerate(texts) if name in texts[:number]]
    if repeated:
        raise DataError(f"{file}: two classes are called {repeated[0]!r}")
    return tuple(texts)


def _places_by_yaml(file: Path, content: dict[str, Any], collector: Collector) -> dict[str, list[Path]]:
    """Folders and lists of images of each split."""
    bases = [file.parent / str(content.get("path") or ""), file.parent]
    places: dict[str, list[Path]] = {}
    missing: list[str] = []
    for key, split in SPLITS.items():
        entries = content.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            place = _locate(str(entry), bases)
            if place is None:
                missing.append(f"{key}: there is no {entry}")
            else:
                places.setdefault(split, []).append(place)
    if missing and not places:
        tried = ", ".join(dict.fromkeys(os.path.normpath(base) for base in bases))
        raise DataError(f"{file}: {missing[0]}, from {tried}; correct its paths")
    for what in missing:
        collector.problem("empty-split", file, what)
    return places


def _places_by_layout(folder: Path) -> dict[str, list[Path]]:
    """The same, from the names of folders (train/images, images/train, train) or of lists (train.txt)."""
    children = sorted([*folder.iterdir(), *(folder / "images").glob("*/")])
    folders = [child for child in children if child.is_dir() and any(image_files(child, deep=True))]
    lists = [child for child in children if child.suffix == ".txt"]
    for candidates in (folders, lists):
        places: dict[str, list[Path]] = {}
        for name, split in SPLITS.items():
            named = [child for child in candidates if child.stem.lower() == name]
            if named:
                places.setdefault(split, []).extend(named)
        if places:
            return places
    return {NO_SPLIT: [folder / "images" if (folder / "images").is_dir() else folder]}


def _locate(text: str, bases: Sequence[Path]) -> Path | None:
    """The place that a path of a yaml file or list means here: leading folders are left out until it exists."""
    # Many files come from another machine, and Roboflow writes ../train/images for train/images. Two parts stay.
    parts = PurePosixPath(text.replace("\\", "/")).parts
    tails = [Path(*parts[start:]) for start in range(max(1, len(parts) - 1))]
    candidates = (base / tail for tail in tails for base in bases)
    return next((Path(os.path.normpath(place)) for place in candidates if os.path.exists(place)), None)


def _image_paths(places: Sequence[Path], folder: Path, collector: Collector) -> list[Path]:
    """The images below folders and in lists, each once."""
    paths: list[Path] = []
    for place in places:
        if place.is_dir():
            paths += image_files(place, deep=True)
            continue
        for number, line in enumerate(read_lines(place), start=1):
            path = _locate(line, [place.parent, folder]) if line else None
            if path is not None:
                paths.append(path)
            elif line:
                collector.problem("missing-image", place, f"line {number}: there is no {line}", number)
    return list(dict.fromkeys(paths))


def _label_folder(folder: Path) -> Path:
    """Where the label files of a folder of images lie: labels/ in place of the last images/, or beside them."""
    parts = folder.parts
    if "images" not in parts:
        return folder
    last = len(parts) - 1 - parts[::-1].index("images")
    labels = Path(*parts[:last], "labels")
    return labels.joinpath(*parts[last + 1 :]) if labels.is_dir() else folder


def _read_image(path: Path, file: Path, class_count: int, collector: Collector) -> None:
    """Collect one image and the lines of its label file."""
    size_hw = collector.size_hw(path)
    if size_hw is None:
        return
    lines: list[str] = []
    try:
        lines = read_lines(file)
    except FileNotFoundError:
        collector.problem("unlabelled-image", file, f"no such file for {path.name}", image=path)
    except (DataError, OSError) as error:
        collector.unreadable(file, error, path)
        return
    height, width = size_hw
    image = collector.image(path, source=file, size_hw=size_hw)
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                label, (x1, y1, x2, y2) = _read_line(line, class_count)
                collector.add(image, (x1 * width, y1 * height, x2 * width, y2 * height), label, number)
        except _LineError as error:
            kind, what = error.args
            shown = line if len(line) <= 60 else f"{line[:57]}..."
            collector.problem(kind, file, f"line {number} ({shown}): {what}", number, image=path)


def _read_line(line: str, class_count: int) -> tuple[int, Box]:
    """Label, and corners in shares of the image."""
    try:
        label, *values = map(float, line.split())
    except ValueError:
        raise _LineError("unreadable-annotations", "expected are numbers: class, cx, cy, width, height") from None
    if len(values) == 5:
        raise _LineError("unreadable-annotations", "a sixth number, as in predictions with a score; expected are five")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        what = f"{len(values) + 1} numbers; expected are class, cx, cy, width, height, or class and x, y of each corner"
        raise _LineError("unreadable-annotations", what)
    if not label.is_integer():
        raise _LineError("unreadable-annotations", f"the class must be a whole number, not {label:g}")
    if not 0 <= label < class_count:
        raise _LineError("unknown-class", f"the classes are 0 to {class_count - 1}, not {label:g}")
    if any(math.isfinite(value) and value > _LARGEST_SHARE for value in values):
        raise _LineError("wrong-format", "pixels where shares of the image are expected (0 to 1)")
    if len(values) == 4:
        return int(label), box_to_xyxy(values, "cxcywh")
    corners = np.array(values).reshape(-1, 2)  # numpy's min and max keep NaN
    return int(label), [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]


def _to_lines(image: AnnotatedImage) -> str:
    """A line for each box: class, centre and size in shares of the image."""
    height, width = image.size_hw
    x1, y1, x2, y2 = (np.array(shortest_decimals(image.boxes)).reshape(-1, 4) / (width, height, width, height)).T
    shares = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
    texts = [
        " ".join(np.format_float_positional(value, precision=_SHARE_DIGITS, trim="-") for value in row)
        for row in shares
    ]
    return "".join(f"{label} {text}\n" for label, text in zip(image.labels, texts, strict=True))
