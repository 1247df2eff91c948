"""What a data format is, and what its reader needs: a collector of images and boxes.

CONTRIBUTING.md, "Add a data format", has an example. Files are read by ``reading.py``; helpers of formats that can be
written are in ``writing.py``.
"""

import math
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage, group_by, group_rows, split_of
from fasterrcnn.data.findings import Finding, not_in_list, printable, size_mismatch, unreadable_image
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError, ImageError, UsageError
from fasterrcnn.images import read_header, read_size_hw

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Order of the four numbers of a box: two corners; left, top, width, height; or centre, width, height."""

Box = Sequence[int | float]

NamedImages = Mapping[str, AnnotatedImage]
"""Images by the names of their files in a data set that is written."""


@dataclass(frozen=True)
class ReadOptions:
    """What the user states about a data set; what a format cannot use is refused (`DataFormat.options`)."""

    images: tuple[Path, ...] = ()  # folders of the images; else they are searched below the data set
    classes: tuple[str, ...] | None = None  # names in the order of their labels, where the files have no list
    columns: Mapping[str, str] | None = None  # names of the columns of a table, by meaning
    box_format: BoxFormat | None = None  # of the boxes, where the format does not fix it

    def given(self) -> list[str]:
        """The names of the options that the user gave."""
        return [name for name, value in vars(self).items() if value not in ((), None)]


class DataFormat(ABC):
    """A format of annotation files.

    A subclass lives in a file of its own and is registered in `fasterrcnn.data.formats.FORMATS`.
    """

    title: ClassVar[str]  # its name in messages; that of every `AnnotatedData` it reads
    layout: ClassVar[str]  # the files it consists of, for the message that nothing was recognised
    box_format: ClassVar[BoxFormat | None] = None  # how it writes boxes; None where the user states it
    relative_boxes: ClassVar[bool] = False  # whether boxes are written as shares of the image, 0..1
    opens_images: ClassVar[bool] = True  # whether reading opens every image and reports sizes that differ
    options: ClassVar[frozenset[str]] = frozenset({"images"})  # fields of `ReadOptions` that it uses
    can_write: ClassVar[bool] = False  # whether it has `image_folder` and `write`
    splits_are_lists: ClassVar[bool] = False  # whether an image of several splits is written once, and listed in each

    @abstractmethod
    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The data sets of this format in a file or folder: places that `read` takes; none where there is none.

        Cheap: reads names and the beginning of files only, and raises nothing.
        """

    def near_miss(self, root: Path, options: ReadOptions = ReadOptions()) -> str:
        """What keeps a file or folder from being recognised, though it is almost of this format, in one sentence.

        Asked only where no format recognises anything; empty where it is of another kind. Raises nothing.
        """
        return ""

    @abstractmethod
    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read a data set as it is written: good boxes and bad ones, and a `Finding` for whatever cannot be used.

        Boxes become xyxy in pixels of the upright image; images without objects are kept. See `Collector`.

        Raises:
            DataError: it cannot be read at all, or has no image; the message names the file.
        """

    def image_folder(self, split: str) -> str:
        """Where `write_data` puts the images of a split; of "all" where the data has no splits. Only if `can_write`."""
        raise NotImplementedError

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write the annotations of a data set whose images are in their folders already. Only if `can_write`.

        The images of each split come by their file names; the only key is "all" where the data has no splits.
        """
        raise NotImplementedError

    def losses(self, data: AnnotatedData) -> list[str]:
        """What of these data the format has no place for, in sentences."""
        return []


@dataclass(frozen=True)
class CollectedImage:
    """An image of a `Collector`; `index` is its place among them, and an unreadable image has no size."""

    index: int
    path: Path
    split: str
    source: Path | None
    image_id: int
    size_hw: tuple[int, int] | None
    original_id: int | str | None = None


class Collector:
    """Builds a data set while its files are read: each image is added, then its boxes; problems are noted.

    Numbers of boxes count what ``counted`` names: "annotation", "object" or "line". Without names of the classes in the
    order of their labels, these are collected in the order of the boxes.
    """

    def __init__(self, place: Path, title: str, counted: str, classes: tuple[str, ...] | None = None) -> None:
        self.findings: list[Finding] = []
        self._notes: list[str] = []
        self._outlines: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._place, self._title, self._counted, self._classes = place, title, counted, classes
        self._labels = {name: label for label, name in enumerate(classes or ())}
        self._sizes_hw: dict[Path, tuple[int, int] | None] = {}
        self._images: dict[tuple[Path, str, Path | None], CollectedImage] = {}
        self._rows: list[tuple[float, ...]] = []  # index of the image, corners, area, label, difficult
        self._numbers: list[int] = []  # by themselves: ids may have more digits than a float

    def problem(
        self, kind: str, file: Path, what: str, annotation: int | None = None, *, image: Path | None = None
    ) -> None:
        """Note something that cannot be used, so that reading goes on; the arguments are those of `Finding`."""
        self.findings.append(Finding(kind, file, what, annotation, image))

    def unreadable(self, file: Path, error: Exception, image: Path | None = None) -> None:
        """Note a file of annotations that cannot be read."""
        self.problem("unreadable-annotations", file, str(error).removeprefix(f"{file}: "), image=image)

    def note(self, text: str) -> None:
        """Something about the whole data set that the user should know, in one sentence."""
        self._notes.append(text)

    def leave_out(self, what: str) -> None:
        """Count something that is no box, such as a "point" or "line"; a note states how many."""
        self._left_out[what] += 1

    def image_of(self, file: Path, candidates: Sequence[Path]) -> Path | None:
        """The image that a file of annotations belongs to, by its name; None and a finding unless there is just one."""
        if not candidates:
            self.problem("missing-image", file, f"there is no image called {file.stem}.*")
        elif len(candidates) > 1:
            names = ", ".join(path.name for path in candidates)
            self.problem("colliding-id", file, f"several images have its name: {names}", image=candidates[0])
        return candidates[0] if len(candidates) == 1 else None

    def only_one(
        self,
        paths: Sequence[Path],
        name: str,
        file: Path,
        finder: ImageFinder,
        what: str = "",
        number: int | None = None,
    ) -> Path | None:
        """The image of a name; None, and a finding that begins with ``what``, unless there is just one."""
        prefix = f"{what}: " if what else ""
        if not paths and name in finder.rivals:
            rival, path = finder.rivals[name]
            self.problem("ambiguous-image", file, f"{prefix}{name} and {rival} could both be {path}", number)
            return None
        if len(paths) > 1:
            several = f"{name} could be {paths[0]} or {paths[1]}"
            self.problem("ambiguous-image", file, f"{prefix}{several}", number, image=paths[0])
        elif not paths:
            missing = f"there is no {name} below {' and '.join(map(str, finder.places))}"
            self.problem("missing-image", file, prefix + missing, number, image=file.parent / printable(name))
        return paths[0] if len(paths) == 1 else None

    def size_hw(self, path: Path) -> tuple[int, int] | None:
        """Height and width of an image, from its header; None, and a finding, where it cannot be read."""
        if path not in self._sizes_hw:
            self._sizes_hw[path] = None
            try:
                self._sizes_hw[path] = read_size_hw(path)
            except ImageError as error:
                self.findings.append(unreadable_image(path, error))
        return self._sizes_hw[path]

    def image(
        self,
        path: Path,
        split: str = NO_SPLIT,
        source: Path | None = None,
        *,
        stated_hw: tuple[int, int] | None = None,
        size_hw: tuple[int, int] | None = None,
        image_id: int | None = None,
        original_id: int | str | None = None,
    ) -> CollectedImage:
        """Add an image of a split; the same one when it is named again. `finish` leaves out what cannot be read.

        Args:
            split: "all" where the data has none, or where `finish` gets them.
            source: the file with its annotations; the numbers of its boxes count in it.
            stated_hw: height and width as the annotations state them; 0 is unknown. Where the file has another size,
                that is a finding, and the boxes belong to the stated one.
            size_hw: height and width where the file need not be opened for it.
            image_id: as in `AnnotatedImage`, and ``original_id`` too; default: they are counted from 1.
        """
        key = (path, split, source)
        if key not in self._images:
            size_hw = size_hw or self.size_hw(path)
            if size_hw and stated_hw and all(stated_hw) and stated_hw != size_hw:
                self.findings.append(size_mismatch(path, source or path, stated_hw, size_hw, _orientation(path)))
                size_hw = stated_hw
            index = len(self._images)
            number = index + 1 if image_id is None else image_id
            self._images[key] = CollectedImage(index, path, split, source, number, size_hw, original_id)
        return self._images[key]

    def add(
        self,
        image: CollectedImage,
        xyxy: Box,
        label: str | int,
        number: int,
        *,
        difficult: bool = False,
        area: float = math.nan,
        where: str | None = None,
    ) -> None:
        """Add a box to an image; a class that is not in the given list becomes a finding instead.

        Args:
            xyxy: corners in pixels of the upright image.
            label: name of the class, or its place in the classes that `finish` gets.
            number: id, object number or line number in the source.
            area: of the object in pixels, where the file states it for every box.
            where: what the finding calls the box; default as in "line 5".
        """
        if isinstance(label, str):
            if self._classes is not None and label not in self._labels:
                where = where or f"{self._counted} {number}"
                what = f"{where}: {not_in_list(label, self._classes)}"
                self.problem("unknown-class", image.source or image.path, what, number, image=image.path)
                return
            label = self._labels.setdefault(label, len(self._labels))
        x1, y1, x2, y2 = xyxy
        self._rows.append((image.index, x1, y1, x2, y2, area, label, difficult))
        self._numbers.append(number)

    def add_outline(
        self,
        image: CollectedImage,
        points: Sequence[Sequence[float]],
        label: str | int,
        number: int,
        *,
        shape: str = "polygon",
        difficult: bool = False,
        area: float = math.nan,
    ) -> None:
        """Add the box around the points of an object that is no upright box; a note states how many of each shape."""
        self._outlines[shape] += 1
        corners = np.asarray(points, np.float64).reshape(-1, 2)  # numpy's min and max keep NaN
        self.add(image, [*corners.min(axis=0), *corners.max(axis=0)], label, number, difficult=difficult, area=area)

    def finish(
        self,
        splits: Mapping[str, Sequence[Path]] | None = None,
        *,
        classes: tuple[str, ...] | None = None,
        sort_classes: bool = False,
        category_ids: tuple[int, ...] = (),
        may_be_empty: bool = False,
    ) -> AnnotatedData:
        """The data set.

        Args:
            splits: images of each split, for formats in which one image may be in several; default: those that
                `image` was given.
            classes: names in the order of the labels, where boxes were added by label.
            sort_classes: number the classes by their names, not in the order of the boxes, unless the user listed them.
            category_ids: of each class in the file; default: 1..K.

        Raises:
            DataError: no image can be used; the message has the first finding.
        """
        sort_classes = sort_classes and self._classes is None
        images = self._annotated_images(sort_classes)
        if not images and not may_be_empty:
            first = f"; first: {self.findings[0]}" if self.findings else ""
            raise DataError(f"{self._title} ({self._place}): no image that could be used{first}")
        if splits is None:
            order = dict.fromkeys([*SPLITS.values(), *(split for split, _ in images)])
            listed = {name: [image for split, image in images if split == name] for name in order}
            by_split = {name: members for name, members in listed.items() if members}
        else:
            image_of = {image.path: image for _, image in images}
            by_split = {name: [image_of[path] for path in paths if path in image_of] for name, paths in splits.items()}
        root = self._place.parent if self._place.is_file() else self._place
        by_split = self._by_folder(by_split, root)
        names = classes or tuple(sorted(self._labels) if sort_classes else self._labels)
        notes = [*self._places_of_images([image for _, image in images], root), *self._notes, *self._shape_notes()]
        return AnnotatedData(root, self._title, names, by_split, self.findings, category_ids, self._counted, notes)

    def _by_folder(self, by_split: dict[str, list[AnnotatedImage]], root: Path) -> dict[str, list[AnnotatedImage]]:
        """The splits; where the annotations have none, those in the names of the folders of all images."""
        images = by_split.get(NO_SPLIT, [])
        top = Path(os.path.abspath(root))
        folders = {image.path: Path(os.path.abspath(image.path)).parent for image in images}
        if list(by_split) != [NO_SPLIT] or not all(folder.is_relative_to(top) for folder in folders.values()):
            return by_split
        groups = group_by(images, lambda image: split_of(folders[image.path], top))
        if NO_SPLIT in groups or len(groups) < 2:
            return by_split
        self.note("the annotations state no splits: they are taken from the folders of the images")
        return {split: groups[split] for split in dict.fromkeys(SPLITS.values()) if split in groups}

    def _places_of_images(self, images: Sequence[AnnotatedImage], root: Path) -> list[str]:
        """A note that names the folders of the images, relative to the data set where they are in it."""
        folders = dict.fromkeys(Path(os.path.abspath(image.path.parent)) for image in images)
        root = Path(os.path.abspath(root))
        shown = [os.path.relpath(folder, root) if folder.is_relative_to(root) else str(folder) for folder in folders]
        more = f" and {len(shown) - 3} more folders" if len(shown) > 3 else ""
        return [f"images found in {', '.join(shown[:3])}{more}"] if shown else []

    def _shape_notes(self) -> list[str]:
        counts = {"taken as the box around": self._outlines, "left out, for want of a box": self._left_out}
        return [
            f"{about}: {', '.join(f'{count} {what}' for what, count in number.items())}"
            for about, number in counts.items()
            if number
        ]

    def _annotated_images(self, sort_classes: bool) -> list[tuple[str, AnnotatedImage]]:
        """Split and content of every image that can be read."""
        table = np.array(self._rows, np.float64).reshape(-1, 8)
        with np.errstate(over="ignore"):  # coordinates too large for float32 become infinite
            boxes, areas = table[:, 1:5].astype(np.float32), table[:, 5].astype(np.float32)
        owners, labels = table[:, 0].astype(np.int64), table[:, 6].astype(np.int64)
        if sort_classes:
            labels = np.argsort(np.argsort(np.array(list(self._labels), np.object_)))[labels]
        columns = (boxes, labels, table[:, 7].astype(np.bool_), np.array(self._numbers, np.int64), areas)
        has_areas = not np.isnan(areas).all()
        images = []
        for image, rows in zip(self._images.values(), group_rows(owners, len(self._images), *columns), strict=True):
            if image.size_hw is not None:
                own_boxes, own_labels, difficult, numbers, own_areas = rows
                place, objects = (image.path, image.image_id, image.size_hw), (own_boxes, own_labels, difficult)
                optional = (None if image.source is None else numbers, own_areas if has_areas else None)
                annotated = AnnotatedImage(*place, *objects, image.source, *optional, image.original_id)
                images.append((image.split, annotated))
        return images


def box_to_xyxy(box: Box, box_format: BoxFormat) -> Box:
    """A box of some format as two corners.

    Raises:
        UsageError: there is no such format.
    """
    x, y, width, height = box
    if box_format == "xywh":
        return x, y, x + width, y + height
    if box_format == "cxcywh":
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if box_format != "xyxy":
        raise UsageError(f"no box format {box_format!r}; there are: {', '.join(get_args(BoxFormat))}")
    return box


def _orientation(path: Path) -> int:
    """EXIF orientation of an image file; 1 of one that cannot be read."""
    with suppress(ImageError):
        return read_header(path).orientation
    return 1
