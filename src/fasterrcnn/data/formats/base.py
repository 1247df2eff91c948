"""What a data format is, and what the user may state about data.

CONTRIBUTING.md, "Add a data format", has an example. Files are read by ``reading.py``, their values by ``values.py``,
and ``collector.py`` builds the data set; helpers of formats that can be written are in ``writing.py``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fasterrcnn.data.annotations import NO_SPLIT, AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats.reading import files_below
from fasterrcnn.data.formats.shapes import BoxFormat

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
    can_write: ClassVar[bool] = False  # whether it has `write`
    splits_are_lists: ClassVar[bool] = False  # whether an image of several splits is written once, and listed in each

    suffixes: ClassVar[tuple[str, ...]] = ()  # of its annotation files, in lower case, as in ".json"
    file_per_image: ClassVar[bool] = True  # whether many of them lie in a folder; see `files_below`

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The data sets of this format in a file or folder: places that `read` takes; none where there is none.

        Cheap: reads names and the beginning of files only, and raises nothing. Unless a format has its own rule, it is
        the file or folder itself where `annotation_files` are.
        """
        return [root] if self.annotation_files(root) else []

    def annotation_files(self, place: Path) -> list[Path]:
        """The annotation files: the file itself, or those in a folder and below it that `fits` recognises."""
        return files_below(place, self.suffixes, self.fits, alike=self.file_per_image)

    def fits(self, content: bytes) -> bool:
        """Whether the beginning and the end of a file (`beginning_and_end`) are those of an annotation file."""
        raise NotImplementedError

    def near_miss(self, root: Path, options: ReadOptions = ReadOptions()) -> str:
        """What keeps a file or folder from being recognised, though it is almost of this format, in one sentence.

        Asked only where no format recognises anything; empty where it is of another kind. Raises nothing.
        """
        return ""

    @abstractmethod
    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read a data set as it is written: good boxes and bad ones, and a `Finding` for whatever cannot be used.

        Boxes become xyxy in pixels of the upright image; images without objects are kept. See ``collector.py``.

        Raises:
            DataError: it cannot be read at all, or has no image; the message names the file.
        """

    def image_folder(self, split: str) -> str:
        """Where `write_data` puts the images of a split; of "all" where the data has no splits. Only if `can_write`."""
        return "images" if split == NO_SPLIT else split

    def write(self, data: AnnotatedData, splits: Mapping[str, NamedImages], folder: Path) -> None:
        """Write the annotations of a data set whose images are in their folders already. Only if `can_write`.

        The images of each split come by their file names; the only key is "all" where the data has no splits.
        """
        raise NotImplementedError

    def losses(self, data: AnnotatedData) -> list[str]:
        """What of these data the format has no place for, in sentences."""
        return []
