"""Annotations in one text file per image, a line for each object: what KITTI, VisDrone and DOTA have in common."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, split_of
from fasterrcnn.data.formats.base import DataFormat
from fasterrcnn.data.formats.collector import CollectedImage, Collector
from fasterrcnn.data.formats.reading import read_lines, whole_folders
from fasterrcnn.data.formats.values import line_of
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError

_OTHER_TEXTS = re.compile(rf"(classes|labels?|label_colors|readme.*|licen[cs]e.*|notes|{'|'.join(SPLITS)})\.txt", re.I)


@dataclass(frozen=True)
class LabelLine:
    """A line of an annotation file that is not empty; numbers count from 1."""

    image: CollectedImage
    number: int
    text: str

    def __str__(self) -> str:
        return line_of(self.number, self.text)

    @property
    def file(self) -> Path:
        """The annotation file."""
        return self.image.source or self.image.path

    def report_errors(self, collector: Collector) -> AbstractContextManager[None]:
        """Make a `DataError` about the line a finding."""
        return collector.report_errors(self.file, str(self), self.number, image=self.image.path)


def label_lines(
    form: DataFormat,
    place: Path,
    collector: Collector,
    image_name: Callable[[Path], str] = lambda file: file.stem,
) -> Iterator[LabelLine]:
    """Collect the image of every annotation file and give the lines; what cannot be read becomes a finding.

    Args:
        form: the format.
        place: a file, or a folder: then all files of the folders in which there are some of the format.
        image_name: the name of the image of a file, perhaps with its folder.

    Raises:
        DataError: there is no image at all, or two files annotate one image.
    """
    root = collector.root
    files = [place] if place.is_file() else whole_folders(form.annotation_files(place), form.suffixes)
    names = {file: image_name(file) for file in files}
    images = collector.finder.find_for_files(names, lambda folder: split_of(folder, root))
    if not collector.finder.has_named_folders:  # many are numbered in each split anew: none of another split is taken
        for file, paths in images.items():
            split = split_of(file.parent, root)
            if split != NO_SPLIT:
                images[file] = [path for path in paths if _split_of_image(path, root) in (split, NO_SPLIT)]
    _refuse_second_files(images, collector.finder, place)
    if not any(images.values()):
        raise DataError(f"{place}: {collector.finder.nothing_found([f'{file.stem}.*' for file in images] or ['*'])}")
    for file, paths in images.items():
        if not paths and _OTHER_TEXTS.fullmatch(file.name):
            continue
        path = collector.only_one(paths, f"{file.stem}.*", file)
        if path is not None and collector.size_hw(path) is not None:
            lines: list[str] = []
            with collector.report_errors(file, image=path):
                lines = read_lines(file)
                image = collector.image(path, split_of(file.parent, root), file)
            yield from (LabelLine(image, number, line) for number, line in enumerate(lines, start=1) if line)
    if place.is_dir():
        collector.report_unlisted("image without annotations")


def _split_of_image(path: Path, root: Path) -> str:
    folder = Path(os.path.abspath(root))
    return split_of(path.parent, folder) if path.is_relative_to(folder) else NO_SPLIT


def _refuse_second_files(images: dict[Path, list[Path]], finder: ImageFinder, place: Path) -> None:
    """Refuse a data set that holds its annotations in several versions."""
    file_of: dict[Path, Path] = {}
    for file, paths in images.items():
        if str(file) in finder.contested:
            name, path = finder.contested[str(file)]
            first = finder.places[0] / f"{name}{file.suffix}"
        elif len(paths) == 1 and file_of.setdefault(paths[0], file) != file:
            first, path = file_of[paths[0]], paths[0]
        else:
            continue
        raise DataError(
            f"{place}: {first} and {file} annotate the same image, {path.name}; name the folder of those that count"
        )
