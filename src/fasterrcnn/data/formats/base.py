"""What a data format is: how it is recognised, read and written."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
"""Order of the four numbers of a box: two corners; left, top, width, height; or centre, width, height."""


@dataclass(frozen=True)
class ReadOptions:
    """What the user states about a data set; a format takes what it needs.

    Attributes:
        images: folder of the images, where they are not beside the annotations.
        classes: names of the classes in the order of their labels, where the files have no list.
        columns: names of the columns of a table, by meaning.
        box_format: of the boxes, where the format does not fix it.
    """

    images: Path | None = None
    classes: tuple[str, ...] | None = None
    columns: Mapping[str, str] | None = None
    box_format: BoxFormat = "xyxy"


class DataFormat(ABC):
    """A format of annotation files.

    A subclass lives in a file of its own and is registered in `fasterrcnn.data.formats.FORMATS`.

    Attributes:
        title: its name in messages; that of every `AnnotatedData` it reads.
        layout: the files it consists of, for the message that nothing was recognised.
        box_format: how it writes boxes; None where the user states it.
        relative_boxes: whether boxes are written as shares of the image, 0..1.
        opens_images: whether reading opens every image and reports sizes that differ from the annotations.
        can_write: whether it has `write`.
        splits_are_lists: whether an image of several splits is written once, and named by the list of each split.
    """

    title: ClassVar[str]
    layout: ClassVar[str]
    box_format: ClassVar[BoxFormat | None] = None
    relative_boxes: ClassVar[bool] = False
    opens_images: ClassVar[bool] = True
    can_write: ClassVar[bool] = False
    splits_are_lists: ClassVar[bool] = False

    @abstractmethod
    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The data sets of this format in a file or folder: places that `read` takes; none where there is none.

        Cheap: reads names and the beginning of files only, and raises nothing.
        """

    @abstractmethod
    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read a data set as it is written: good boxes and bad ones, and a `Finding` for whatever cannot be used.

        Boxes become xyxy in pixels of the upright image; images without objects are kept.

        Raises:
            DataError: it cannot be read at all, or has no image; the message names the file.
        """

    def write(self, data: AnnotatedData, splits: Mapping[str, Sequence[AnnotatedImage]], folder: Path) -> list[str]:
        """Write a data set, images included, into an empty folder; only where `can_write`.

        Args:
            data: classes and ids.
            splits: the images of each split to write; the key "all" where the data has none.
            folder: exists, and is empty.

        Returns:
            What the user should know, in sentences: renamed or copied images.
        """
        raise NotImplementedError

    def losses(self, data: AnnotatedData) -> list[str]:
        """What of these data the format has no place for, in sentences."""
        return []
