"""Where the parts of a YOLO data set lie: its description, names of classes, images of each split and label files."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, group_by, split_of
from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.data.formats.reading import read_lines
from fasterrcnn.data.image_finder import FileFinder, ImageFinder
from fasterrcnn.errors import DataError
from fasterrcnn.files import folders_below, subfolders
from fasterrcnn.images import image_files

CLASS_LISTS = ("classes.txt", "_classes.txt", "labels.txt", "obj.names", "_darknet.labels", "predefined_classes.txt")
"""Names of the lists of classes; any other file with the suffix .names is one too."""

_LABEL_FOLDER = re.compile(r"(.*[_-])?labels?([_-].*)?", re.I)
_PART = re.compile(rf"{_LABEL_FOLDER.pattern}|obj_.*data|data", re.I)  # a folder below which labels may lie
_IMAGE_FOLDER = re.compile(r"images?|imgs?|jpegimages", re.I)
_LEVELS = 4  # of folders below the data set
_OPENED = 3  # label files of a folder, to recognise the format


class _Text(yaml.SafeLoader):
    """Reads numbers, dates and yes as they are written, for names are texts; null stays null."""


_Text.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_description(file: Path) -> dict[str, Any]:
    """The content of a yaml file, in which every value is a text, a list, a dict or None.

    Raises:
        DataError: it cannot be read; the message names the file.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_Text)
    except (yaml.YAMLError, OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: broken YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: not the description of a YOLO data set, which has names, train and val")
    return content


def descriptions(folder: Path) -> list[Path]:
    """The yaml files of a folder that name classes."""
    files = sorted(f for f in folder.glob("*.[Yy]*[Mm][Ll]") if f.suffix.lower() in (".yaml", ".yml") and f.is_file())
    return [file for file in files if re.search(rb"(?m)(^|[{,])\W*names\W*:", file.read_bytes())]


def description_of(folder: Path) -> Path | None:
    """The only yaml file of a folder that names classes, or data.yaml."""
    files = descriptions(folder)
    data_files = [file for file in files if file.stem.lower() in ("data", "dataset")]
    return next(iter(data_files), files[0] if len(files) == 1 else None)


def is_data_set(folder: Path) -> bool:
    """Whether a folder without a yaml file has label files, in itself or in folders with the names of the format.

    Beside a list of classes, these folders may have any name.
    """
    if _class_lists(folder):
        return holds_labels(folder)
    children = [child for child in subfolders(folder) if _PART.fullmatch(child.name) or child.name.lower() in SPLITS]
    return _has_labels(folder) or any(map(holds_labels, children))


def holds_labels(folder: Path) -> bool:
    """Whether a folder, or one up to four levels below it, has label files of YOLO."""
    return any(map(_has_labels, [folder, *folders_below(folder, _LEVELS)]))


def _has_labels(folder: Path) -> bool:
    texts = (file for file in _texts(folder) if not _is_class_list(file) and file.stat().st_size)
    return any(is_label_file(file) for file in islice(texts, _OPENED))


def is_label_file(file: Path) -> bool:
    """Whether the first line of a text file is that of a box or a polygon."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as stream:
            words = next((line.split() for line in stream if line.strip()), [])
        return [float(word) for word in words] != [] and len(words) >= 5
    except (OSError, ValueError):
        return False


def class_names(
    folders: Sequence[Path], file: Path | None, content: Mapping[str, Any], collector: Collector
) -> tuple[str, ...]:
    """Names of the classes from the yaml file, or from a list with one a line in folders or below them.

    Raises:
        DataError: there are none, or they are no list of different texts.
    """
    if file is not None:
        names = _checked(content.get("names"), file)
        if str(content.get("nc", len(names))) != str(len(names)):
            what = f"nc is {content['nc']}, but names has {len(names)}: {', '.join(names)}"
            collector.problem("unknown-class", file, what)
        return names
    places = (place for folder in folders for place in [folder, *folders_below(folder, _LEVELS)])
    lists = [path for place in places for path in _class_lists(place)]
    listed = next(iter(lists), None)
    for other in lists:
        if other.name == lists[0].name and read_lines(other) != read_lines(lists[0]):
            raise DataError(
                f"{lists[0]} and {other} differ: give the names (classes, --class-names), or one list for all"
            )
    if listed is None:
        raise DataError(
            f"{folders[0]}: the classes have no names; give them (classes, --class-names), or put them into "
            "data.yaml (names: [...]) or classes.txt (one a line)"
        )
    return _checked("\n".join(read_lines(listed)).strip().split("\n"), listed)


def _class_lists(folder: Path) -> list[Path]:
    """Lists of classes in a folder, the best name first."""
    files = [file for file in _texts(folder, (".txt", ".names", ".labels")) if _is_class_list(file)]
    order = {name: position for position, name in enumerate(CLASS_LISTS)}
    return sorted(files, key=lambda file: order.get(file.name.lower(), len(order)))


def _is_class_list(file: Path) -> bool:
    """Whether a file lists classes; labels.txt may also be the labels of an image called labels."""
    if file.suffix.lower() == ".names":
        return True
    return file.name.lower() in CLASS_LISTS and not is_label_file(file)


def _checked(names: object, file: Path) -> tuple[str, ...]:
    """Names in the order of their numbers."""
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items()}
        if missing := [number for number in range(len(names)) if str(number) not in numbered]:
            raise DataError(f"{file}: names must be numbered from 0 without a gap; {missing[0]} is missing")
        names = [numbered[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{file}: names must list the classes, as in names: [cat, dog]")
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{file}: the name of class {number} is {name!r}; write a text, in quotes")
    texts = [name.strip() for name in names]
    if repeated := [name for number, name in enumerate(texts) if name in texts[:number]]:
        raise DataError(f"{file}: two classes are called {repeated[0]!r}")
    return tuple(texts)


def images_by_description(file: Path, content: Mapping[str, Any], collector: Collector) -> dict[str, list[Path]]:
    """The images of each split that a yaml file names, in folders or lists.

    A folder that does not exist where it should is searched with the end of its path, then by the name of its split.
    Folders of other splits that have labelled images are read too, for exports forget them.

    Raises:
        DataError: not one of its paths exists.
    """
    root = file.parent
    bases = [root / str(content.get("path") or ""), root]
    by_layout, finder = _folders_of_splits(root), ImageFinder(root)
    paths: dict[str, list[Path]] = {}
    missing: list[str] = []
    for key, split in SPLITS.items():
        entries = content.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            places = [place] if (place := _locate(str(entry), bases)) else by_layout.get(split, [])
            if not places:
                missing.append(f"{key}: there is no {entry}")
            elif place is None:
                shown = " and ".join(other.relative_to(root).as_posix() for other in places)
                collector.note(f"{file.name}: there is no {entry}; {shown} is read as {split}")
            for place in places:
                paths.setdefault(split, []).extend(_images_in(place, finder, split, collector))
    if missing and not paths:
        tried = ", ".join(dict.fromkeys(os.path.normpath(base) for base in bases))
        raise DataError(f"{file}: {missing[0]}, from {tried}; correct its paths")
    for what in missing:
        collector.problem("empty-split", file, what)
    _add_forgotten(file, by_layout, paths, collector)
    return {split: list(dict.fromkeys(listed)) for split, listed in paths.items()}


def _add_forgotten(
    file: Path, by_layout: Mapping[str, Sequence[Path]], paths: dict[str, list[Path]], collector: Collector
) -> None:
    """Add the labelled images of splits that the yaml file does not name."""
    if not paths:
        return
    listed = {path for members in paths.values() for path in members}
    for split, folders in by_layout.items():
        images = [path for folder in folders for path in image_files(folder, deep=True)]
        if split not in paths and listed.isdisjoint(images) and any(map(holds_labels, folders)):
            paths[split] = images
            name = folders[0].relative_to(file.parent).as_posix()
            collector.note(f"{name} has {len(images)} labelled images, but {file.name} has no {split}: they are read")


def images_by_layout(folder: Path, collector: Collector) -> dict[str, list[Path]]:
    """The images of each split, by the names of folders (train/images, images/train, train) or of lists (train.txt)."""
    folders = _folders_of_splits(folder)
    lists = group_by(
        (file for file in _texts(folder) if split_of(file, folder) != NO_SPLIT), lambda f: split_of(f, folder)
    )
    if folders or not lists:
        originals = [child for child in subfolders(folder) if child.name.lower() == "images"]
        places: Mapping[str, Sequence[Path]] = folders or {NO_SPLIT: originals or [folder]}
    else:
        places = {split: lists[split] for split in dict.fromkeys(SPLITS.values()) if split in lists}
    finder = ImageFinder(folder)
    return {
        split: list(dict.fromkeys(path for place in own for path in _images_in(place, finder, split, collector)))
        for split, own in places.items()
    }


def _folders_of_splits(folder: Path) -> dict[str, list[Path]]:
    """Folders with images that are called after splits, each with all below it; those in images/ first."""
    places: dict[str, list[Path]] = {}
    candidates = folders_below(folder, _LEVELS)
    for name, split in SPLITS.items():
        for place in candidates:
            inside = any(place.is_relative_to(other) for others in places.values() for other in others)
            if place.name.lower() == name and not inside and any(image_files(place, deep=True)):
                places.setdefault(split, []).append(place)
    return places


def images_in_folders(folders: Iterable[Path], root: Path) -> dict[str, list[Path]]:
    """The images of folders that the user names, by the splits in the names of these, or of their label files."""
    split = {
        path: split_of(path.parent, folder.parent) for folder in folders for path in image_files(folder, deep=True)
    }
    for path, files in label_files([path for path in split if split[path] == NO_SPLIT], root).items():
        split[path] = split_of(files[0].parent, root)
    return group_by(split, lambda path: split[path])


def _images_in(place: Path, finder: ImageFinder, split: str, collector: Collector) -> list[Path]:
    """The images below a folder, or those of a list."""
    if place.is_dir():
        return image_files(place, deep=True)
    lines = [(number, line) for number, line in enumerate(read_lines(place), start=1) if line]
    matches = finder.find((line for _, line in lines), place, split)
    matched = [collector.only_one(matches[line], line, place, f"line {number}", number) for number, line in lines]
    return [path for path in matched if path is not None]


def _locate(text: str, bases: Sequence[Path]) -> Path | None:
    """The place that a path of a yaml file means here: leading folders are left out until it exists.

    Many files come from another machine, and Roboflow writes ../train/images for train/images.
    """
    parts = PurePosixPath(text.replace("\\", "/")).parts
    starts = range(max(1, len(parts)))
    candidates = [Path(os.path.normpath(base.joinpath(*parts[start:]))) for start in starts for base in bases]
    candidates.sort(key=lambda place: not place.is_relative_to(os.path.normpath(bases[-1])))  # the set's own come first
    return next((place for place in candidates if os.path.exists(place)), None)


def label_files(images: Sequence[Path], root: Path) -> dict[Path, list[Path]]:
    """The label files of images: those where the format has them; in a folder without any, those of the same name.

    The format has them beside the image, or in labels/ in place of the last images/. Beside a list of classes, any
    folder may have labels; otherwise only those that are called after them.
    """
    labels = {image: [file] for image in images if (file := _standard_label_file(image)) is not None}
    claimed = {file for files in labels.values() for file in files}
    outside = {_above_images(image.parent) for image in images if not image.is_relative_to(root)}
    places = [root, *sorted(outside)]
    with_lists = [folder for folder in [root, *folders_below(root, _LEVELS)] if _class_lists(folder)]
    stems = _Stems()

    def may_be_labels(path: str) -> bool:
        file = Path(path)
        if file.suffix.lower() != ".txt" or file in claimed or _is_class_list(file):
            return False
        is_place = _is_label_place(file, places) or any(file.is_relative_to(folder) for folder in with_lists)
        return is_place and not stems.has_own_image(file)

    finder = FileFinder(root, places, may_be_labels)
    for folder, members in group_by((i for i in images if i not in labels), lambda image: image.parent).items():
        names = {os.path.relpath(image, root) if image.is_relative_to(root) else str(image): image for image in members}
        standard = (
            {path.parent for path in _standard_places(folder / "x")} if folder in {i.parent for i in labels} else set()
        )
        for name, files in finder.find(names, folder / "*.txt").items():
            if own := [file for file in files if not standard or file.parent in standard]:
                labels[names[name]] = own
    return labels


def _standard_label_file(image: Path) -> Path | None:
    return next((f for f in _standard_places(image) if f.is_file() and not _is_class_list(f)), None)


def expected_label_file(image: Path) -> Path:
    """Where an image that has no label file should have it."""
    return next(file for file in _standard_places(image) if file.parent.is_dir())


def _standard_places(image: Path) -> list[Path]:
    parts = image.parent.parts
    last = next((i for i in range(len(parts) - 1, -1, -1) if parts[i].lower() == "images"), None)
    swapped = [] if last is None else [Path(*parts[:last], name, *parts[last + 1 :]) for name in ("labels", "Labels")]
    return [folder / f"{image.stem}{suffix}" for suffix in (".txt", ".TXT") for folder in (*swapped, image.parent)]


def _above_images(folder: Path) -> Path:
    """The folder that has the images/ of a folder in it; the folder itself without such."""
    parts = folder.parts
    last = next((i for i in range(len(parts) - 1, 0, -1) if _IMAGE_FOLDER.fullmatch(parts[i])), len(parts))
    return Path(*parts[:last])


class _Stems:
    """The stems of the images of folders, each of which is listed once."""

    def __init__(self) -> None:
        self._of_folder: dict[Path, set[str]] = {}

    def has_own_image(self, file: Path) -> bool:
        """Whether the image of a label file lies where the format has it."""
        swapped = (Path(str(file.parent).replace(name, "images")) for name in ("labels", "Labels"))
        for folder in (file.parent, *swapped):
            if folder not in self._of_folder:
                self._of_folder[folder] = {path.stem for path in image_files(folder)}
            if file.stem in self._of_folder[folder]:
                return True
        return False


def _is_label_place(file: Path, places: Sequence[Path]) -> bool:
    """Whether a file lies in a folder that is called after labels, or in the folder that the user named."""
    parts = file.relative_to(next(place for place in places if file.is_relative_to(place))).parts[:-1]
    return not parts or any(_LABEL_FOLDER.fullmatch(part) for part in parts)


def labels_without_images(used: Iterable[Path], images: Iterable[Path], root: Path) -> list[Path]:
    """Label files that no image has, in the folders of those that are used, or where the format has them."""
    listed = set(used)
    folders = {path.parent for path in (*listed, *(place for image in images for place in _standard_places(image)))}
    folders = folders or {place for place in folders_below(root, _LEVELS) if _LABEL_FOLDER.fullmatch(place.name)}
    texts = (file for folder in sorted(folders) for file in _texts(folder) if file not in listed)
    stems = _Stems()
    return [file for file in texts if is_label_file(file) and not stems.has_own_image(file)]


def other_label_folder(stems: Iterable[str], root: Path) -> Path | None:
    """A folder whose text files have the names of images, though it is not called after labels."""
    wanted = set(stems)
    places = (place for place in folders_below(root, _LEVELS) if any(f.stem in wanted for f in _texts(place)))
    return next(places, None)


def _texts(folder: Path, suffixes: Sequence[str] = (".txt",)) -> list[Path]:
    """Text files of a folder but hidden ones, sorted."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    texts = [name for name in names if name[name.rfind(".") :].lower() in suffixes and not name.startswith(".")]
    return [folder / name for name in sorted(texts)]
