"""Collects what a reader of annotation files reads: images, found by their names, boxes, problems and notes."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, AnnotatedData, AnnotatedImage, group_by, group_rows, split_of
from fasterrcnn.data.findings import Finding, not_in_list, printable, size_mismatch, unreadable_image
from fasterrcnn.data.formats.collected_boxes import CollectedBoxes
from fasterrcnn.data.formats.shapes import Box
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError, ImageError
from fasterrcnn.images import image_names, read_header, read_size_hw


class UnusableError(DataError):
    """Something in a file that cannot be used; ``kind`` is that of its finding."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(what)
        self.kind = kind


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

    Args:
        place: the file or folder that is read.
        title: of the format.
        counted: what the numbers of boxes count: "annotation", "object" or "line".
        classes: their names in the order of their labels, see `list_classes`.
        images: folders of the images that the user names; else they are searched below ``root``.

    Attributes:
        root: the folder of the data set.
        findings: what cannot be used, and why.
        boxes: that were added to images.
    """

    def __init__(
        self,
        place: Path,
        title: str,
        counted: str,
        classes: tuple[str, ...] | None = None,
        images: Sequence[Path] = (),
    ) -> None:
        self.root = place.parent if place.is_file() else place
        self.findings: list[Finding] = []
        self._notes: list[str] = []
        self._outlines: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._place, self._title, self._counted, self._image_folders = place, title, counted, images
        self._sizes_hw: dict[Path, tuple[int, int] | None] = {}
        self._images: dict[tuple[Path, str, Path | None], CollectedImage] = {}
        self._claims: dict[tuple[Path, str], tuple[Path, str]] = {}  # file and name, by image and split
        self._unclear: set[int] = set()  # indices of images that the annotations of two images may be of
        self._candidates: set[Path] = set()  # images that have one of the names in the annotations
        self.boxes = CollectedBoxes()
        self.list_classes(classes)

    def list_classes(self, classes: tuple[str, ...] | None) -> None:
        """State the names of the classes in the order of their labels; None: they are collected from the boxes."""
        self._classes = classes
        self._labels = {name: label for label, name in enumerate(classes or ())}

    @cached_property
    def finder(self) -> ImageFinder:
        """Finds the images by the names that annotations give them.

        Raises:
            UsageError: a folder of images that the user names does not exist.
        """
        return ImageFinder(self.root, self._image_folders)

    def problem(
        self, kind: str, file: Path, what: str, annotation: int | None = None, *, image: Path | None = None
    ) -> None:
        """Note something that cannot be used, so that reading goes on; the arguments are those of `Finding`."""
        self.findings.append(Finding(kind, file, what, annotation, image))

    @contextmanager
    def report_errors(
        self, file: Path, what: str = "", number: int | None = None, *, image: Path | None = None
    ) -> Iterator[None]:
        """Make a `DataError` about a file, or about what ``what`` names in it, a finding, so that reading goes on."""
        try:
            yield
        except DataError as error:
            kind = error.kind if isinstance(error, UnusableError) else "unreadable-annotations"
            reason = str(error).removeprefix(f"{file}: ")
            self.problem(kind, file, f"{what}: {reason}" if what else reason, number, image=image)

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
            self.problem("ambiguous-image", file, f"several images have its name: {names}", image=candidates[0])
        return candidates[0] if len(candidates) == 1 else None

    def find_images(self, names: Iterable[str], file: Path, split: str) -> dict[str, list[Path]]:
        """The images that an annotation file names; where there is not one of them, a finding, and an empty dict."""
        names = list(names)
        matches = self.finder.find(names, file, split)
        if names and not any(matches.values()):
            self.problem("missing-image", file, self.finder.nothing_found(names))
            return {}
        return matches

    def only_one(
        self, paths: Sequence[Path], name: str, file: Path, what: str = "", number: int | None = None
    ) -> Path | None:
        """The image of a name; None, and a finding that begins with ``what``, unless there is just one."""
        self._candidates.update(paths)
        prefix = f"{what}: " if what else ""
        contested = self.finder.contested.get(name, self.finder.contested.get(str(file)))
        if not paths and contested is not None:
            other, path = contested
            self.problem(
                "ambiguous-image", file, f"{prefix}{name} and {other} could both be {path}", number, image=path
            )
        elif len(paths) > 1:
            several = f"{name} could be {paths[0]} or {paths[1]}"
            self.problem("ambiguous-image", file, f"{prefix}{several}", number, image=paths[0])
        elif not paths:
            missing = f"there is no {name} below {' and '.join(map(str, self.finder.places))}"
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

    def claim(
        self, path: Path | None, split: str, file: Path, name: str, stated_hw: tuple[int, int] = (0, 0)
    ) -> CollectedImage | None:
        """Add an image for its entry in an annotation file; None, and a finding, if its boxes may not be of the image.

        Names of two images may lead to one image that is there: then neither counts. The same image may be in two
        files: then the first one counts. Boxes of several entries of one name are put together, with a finding.

        Args:
            path: the image; None where `only_one` gave none.
            split: the split that it is of.
            file: the annotation file.
            name: what this calls the image.
            stated_hw: height and width as it states them; 0 is unknown.
        """
        if path is None:
            return None
        is_new = (path, split) not in self._claims
        first_file, first_name = self._claims.setdefault((path, split), (file, name))
        if first_file != file:
            what = f"{path.name} is annotated in {first_file} already: left out"
            self.problem("unlisted-annotations", file, what, image=path)
            return None
        image = self.image(path, split, file, stated_hw=stated_hw)
        if first_name != name:
            what = f"{first_name} and {name} could both be {path}: neither counts"
            self.problem("ambiguous-image", file, what, image=path)
            self._unclear.add(image.index)
            return None
        if not is_new:
            what = f"{name} is listed several times; its boxes are put together"
            self.problem("same-image", file, what, image=path)
        return image

    def report_unlisted(self, what: str, *, listed: Iterable[Path] = (), ignored: Path | None = None) -> None:
        """Note the images that were neither added nor are in a finding, in the folders of those that were added.

        Annotations may have been cut short.

        Args:
            what: is wrong with such an image.
            listed: other images that annotations name.
            ignored: a folder in which every image may lie.
        """
        added = {image.path for image in self._images.values()}
        in_findings = {finding.image for finding in self.findings if finding.image is not None}
        listed = {*listed, *added, *self._candidates, *in_findings}
        texts = set(map(str, listed))  # to make and compare texts takes a fraction of the time of paths
        folders = set(map(Path, {os.path.dirname(path) for path in map(str, added)}))
        for folder in sorted(folders - {ignored}):
            for name in image_names(folder):
                if os.path.join(folder, name) not in texts and (path := folder / name) not in listed:
                    self.problem("unlisted-image", path, what, image=path)

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
        self.boxes.add((image.index, x1, y1, x2, y2, area, label, difficult), number)

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
        by_split = self._by_folder(by_split)
        names = classes or tuple(sorted(self._labels) if sort_classes else self._labels)
        notes = [*self._places_of_images([image for _, image in images]), *self._notes, *self._shape_notes()]
        return AnnotatedData(self.root, self._title, names, by_split, self.findings, category_ids, self._counted, notes)

    def _by_folder(self, by_split: dict[str, list[AnnotatedImage]]) -> dict[str, list[AnnotatedImage]]:
        """The splits; where the annotations have none, those in the names of the folders of all images."""
        top = Path(os.path.abspath(self.root))
        groups: dict[str, list[AnnotatedImage]] = {}
        for place, images in group_by(by_split.get(NO_SPLIT, []), lambda image: image.path.parent).items():
            folder = Path(os.path.abspath(place))
            split = split_of(folder, top) if folder.is_relative_to(top) else NO_SPLIT
            groups.setdefault(split, []).extend(images)
        if list(by_split) != [NO_SPLIT] or NO_SPLIT in groups or len(groups) < 2:
            return by_split
        self.note("the annotations state no splits: they are taken from the folders of the images")
        return {split: groups[split] for split in dict.fromkeys(SPLITS.values()) if split in groups}

    def _places_of_images(self, images: Sequence[AnnotatedImage]) -> list[str]:
        """A note that names the folders of the images, relative to the data set where they are in it."""
        own = dict.fromkeys(image.path.parent for image in images)
        folders = dict.fromkeys(Path(os.path.abspath(folder)) for folder in own)
        root = Path(os.path.abspath(self.root))
        shown = [os.path.relpath(folder, root) if folder.is_relative_to(root) else str(folder) for folder in folders]
        more = f" and {len(shown) - 3} more folders" if len(shown) > 3 else ""
        return [f"images found in {', '.join(shown[:3])}{more}"] if shown else []

    def _shape_notes(self) -> list[str]:
        counts = {"taken as the box around": self._outlines, "left out, for want of a box": self._left_out}
        return [
            f"{about}: {', '.join(f'{count} x {what}' for what, count in number.items())}"
            for about, number in counts.items()
            if number
        ]

    def _annotated_images(self, sort_classes: bool) -> list[tuple[str, AnnotatedImage]]:
        """Split and content of every image that can be read."""
        table, numbers = self.boxes.read()
        with np.errstate(over="ignore"):  # coordinates too large for float32 become infinite
            boxes, areas = table[:, 1:5].astype(np.float32), table[:, 5].astype(np.float32)
        owners, labels = table[:, 0].astype(np.int64), table[:, 6].astype(np.int64)
        if sort_classes:
            labels = np.argsort(np.argsort(np.array(list(self._labels), np.object_)))[labels]
        columns = (boxes, labels, table[:, 7].astype(np.bool_), numbers, areas)
        has_areas = not np.isnan(areas).all()
        images = []
        for image, rows in zip(self._images.values(), group_rows(owners, len(self._images), *columns), strict=True):
            if image.size_hw is not None and image.index not in self._unclear:
                own_boxes, own_labels, difficult, own_numbers, own_areas = rows
                place, objects = (image.path, image.image_id, image.size_hw), (own_boxes, own_labels, difficult)
                optional = (None if image.source is None else own_numbers, own_areas if has_areas else None)
                annotated = AnnotatedImage(*place, *objects, image.source, *optional, image.original_id)
                images.append((image.split, annotated))
        return images


def _orientation(path: Path) -> int:
    """EXIF orientation of an image file; 1 of one that cannot be read."""
    with suppress(ImageError):
        return read_header(path).orientation
    return 1
