"""Annotations in one text file per image, a line for each object: what KITTI, VisDrone and DOTA have in common."""

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, group_by, split_of
from fasterrcnn.data.formats.base import CollectedImage, Collector, ReadOptions
from fasterrcnn.data.formats.reading import files_below, read_lines
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError
from fasterrcnn.images import image_files

_LARGEST = 1e9  # no coordinate in pixels is larger
_OTHER_TEXTS = re.compile(rf"(classes|labels?|label_colors|readme.*|licen[cs]e.*|notes|{'|'.join(SPLITS)})\.txt", re.I)


@dataclass(frozen=True)
class LabelLine:
    """A line of an annotation file that is not empty; numbers count from 1."""

    image: CollectedImage
    number: int
    text: str


def label_lines(
    place: Path,
    options: ReadOptions,
    collector: Collector,
    fits: Callable[[bytes], bool],
    image_name: Callable[[Path], str] = lambda file: file.stem,
) -> Iterator[LabelLine]:
    """Collect the image of every annotation file and give the lines; what cannot be read becomes a finding.

    Args:
        place: a file, or a folder: then all files of the folders in which there are some of the format.
        fits: whether the beginning and the end of a file are those of the format.
        image_name: the name of the image of a file, perhaps with its folder.

    Raises:
        DataError: there is no image at all, or two files annotate one image.
    """
    root = place.parent if place.is_file() else place
    finder = ImageFinder(root, options.images)
    images = _find_images(_label_files(place, fits), root, finder, image_name, trust_folders=bool(options.images))
    if not any(images.values()):
        raise DataError(f"{place}: {finder.nothing_found([f'{file.stem}.*' for file in images] or ['*'])}")
    _refuse_second_files(images, place)
    for file, paths in images.items():
        if not paths and _OTHER_TEXTS.fullmatch(file.name):
            continue
        path = collector.only_one(paths, f"{file.stem}.*", file, finder)
        if path is None or collector.size_hw(path) is None:
            continue
        try:
            lines = read_lines(file)
        except (DataError, OSError) as error:
            collector.unreadable(file, error, path)
            continue
        image = collector.image(path, split_of(file.parent, root), file)
        yield from (LabelLine(image, number, line) for number, line in enumerate(lines, start=1) if line)
    if place.is_dir():
        report_unlisted(collector, {path for paths in images.values() for path in paths})


def report_unlisted(collector: Collector, annotated: Collection[Path]) -> None:
    """A finding for every image that lies beside annotated ones."""
    beside = {path for folder in {path.parent for path in annotated} for path in image_files(folder)}
    for path in sorted(beside.difference(annotated)):
        collector.problem("unlisted-image", path, "image without annotations", image=path)


def report_line(collector: Collector, line: LabelLine, error: DataError, kind: str = "unreadable-annotations") -> None:
    """A finding for a line that cannot be used."""
    file = line.image.source or line.image.path
    shown = line.text if len(line.text) <= 60 else f"{line.text[:57]}..."
    collector.problem(kind, file, f"line {line.number} ({shown}): {error}", line.number, image=line.image.path)


def to_numbers(texts: Sequence[str]) -> list[float]:
    """Coordinates or other finite numbers.

    Raises:
        DataError: a text is no number, or one that is larger than any coordinate.
    """
    values = []
    for text in texts:
        try:
            value = float(text)
        except ValueError:
            raise DataError(f"{text.strip()[:20]!r} is no number") from None
        if not abs(value) <= _LARGEST or "_" in text:  # Python also takes 1_000 and nan for numbers
            raise DataError(f"{text.strip()[:20]!r} is no coordinate or other number")
        values.append(value)
    return values


def to_whole(text: str) -> int:
    """A whole number, also one that is written as 1.0.

    Raises:
        DataError: it is none.
    """
    (value,) = to_numbers([text])
    if not value.is_integer():
        raise DataError(f"{text.strip()[:20]!r} is no whole number")
    return int(value)


def _label_files(place: Path, fits: Callable[[bytes], bool]) -> list[Path]:
    """All text files of the folders in which there are some of the format, for empty ones belong to it as well."""
    if place.is_file():
        return [place]
    folders = dict.fromkeys(file.parent for file in files_below(place, {".txt"}, fits))
    files = (file for folder in folders for file in sorted(folder.iterdir()))
    return [file for file in files if file.suffix.lower() == ".txt" and not file.name.startswith(".")]


def _find_images(
    files: Sequence[Path], root: Path, finder: ImageFinder, image_name: Callable[[Path], str], *, trust_folders: bool
) -> dict[Path, list[Path]]:
    """The images of every file. Many are numbered in each split anew, so none of another split is taken."""
    images: dict[Path, list[Path]] = {}
    for folder, members in group_by(files, lambda file: file.parent).items():
        split = split_of(folder, root)
        by_name = finder.find((image_name(file) for file in members), folder / "*.txt", split)
        for file in members:
            paths = by_name[image_name(file)]
            images[file] = [
                path
                for path in paths
                if trust_folders or split == NO_SPLIT or _split_of_image(path, root) in (split, NO_SPLIT)
            ]
    return images


def _split_of_image(path: Path, root: Path) -> str:
    folder = Path(os.path.abspath(root))
    return split_of(path.parent, folder) if path.is_relative_to(folder) else NO_SPLIT


def _refuse_second_files(images: dict[Path, list[Path]], place: Path) -> None:
    """Refuse a data set that holds its annotations in several versions."""
    file_of: dict[Path, Path] = {}
    for file, paths in images.items():
        if len(paths) == 1 and file_of.setdefault(paths[0], file) != file:
            first = file_of[paths[0]]
            raise DataError(
                f"{place}: {first} and {file} annotate the same image, {paths[0].name}; "
                "name the folder of those that count"
            )
