"""What formats share whose annotation file has an entry for each of many images: their values, and their images."""

import math
import os
import reprlib
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.data.findings import Finding
from fasterrcnn.data.formats.base import Collector
from fasterrcnn.data.formats.reading import beginning_and_end
from fasterrcnn.data.image_finder import ImageFinder
from fasterrcnn.errors import DataError
from fasterrcnn.files import folders_below
from fasterrcnn.images import image_files

_OPENED = 50  # files of each folder, to recognise a format


def listing_files(root: Path, suffixes: Collection[str], fits: Callable[[bytes], bool]) -> list[Path]:
    """The file itself, or those that fit in a folder and up to three levels below it; hidden ones are left out.

    Files that list many images are few and lie beside all kinds of others, so each has to fit by itself. Of a folder
    of many files, as one for each image, the first fifty are opened.

    Args:
        suffixes: in lower case, as in ".json".
        fits: whether the beginning and the end of a file (`beginning_and_end`) are those of the format.
    """
    files = [root] if root.is_file() else []
    for folder in [] if files else [root, *folders_below(root, levels=3)]:
        _, _, names = next(os.walk(folder), ("", [], []))
        visible = [name for name in sorted(names) if not name.startswith(".")]
        files += [folder / name for name in visible if os.path.splitext(name)[1].lower() in suffixes][:_OPENED]
    files = [file for file in files if file.suffix.lower() in suffixes and os.path.isfile(file)]
    return [file for file in files if fits(beginning_and_end(file))]


def numbers_in(entry: object, names: Sequence[str]) -> list[float]:
    """The numbers that an object of a JSON file has by these names; digits in quotes count as well.

    Raises:
        DataError: it is no object, or has not all of them.
    """
    values: list[Any] = [entry.get(name) for name in names] if isinstance(entry, dict) else [entry]
    if isinstance(entry, dict) and not any(isinstance(value, bool | None) for value in values):
        try:
            return [float(value) for value in values]
        except (TypeError, ValueError, OverflowError):  # a list, text, a number of hundreds of digits
            pass
    raise DataError(f"{', '.join(names)} must be numbers, not {', '.join(map(reprlib.repr, values))}")


def text_in(entry: object, name: str) -> str:
    """The text that an object of a JSON file has by this name, without spaces around it.

    A whole number from 0 counts as text.

    Raises:
        DataError: it is no object, or the text is missing or blank.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name} must be a text, not {reprlib.repr(value)}")
    return value.strip()


def list_in(entry: dict[str, Any], name: str) -> list[Any]:
    """The list that an object of a JSON file has by this name.

    Raises:
        DataError: it has none.
    """
    value = entry.get(name)
    if not isinstance(value, list):
        raise DataError(f"{name} must be a list, not {reprlib.repr(value)}")
    return value


def stated_hw(size: object) -> tuple[int, int]:
    """Height and width in whole pixels of an object with these names; 0 where the file does not state them."""
    try:
        width, height = numbers_in(size, ("width", "height"))
    except DataError:
        return 0, 0
    whole = all(math.isfinite(side) and 0 < side < 2**31 for side in (width, height))
    return (int(height), int(width)) if whole else (0, 0)


def find_images(
    names: Iterable[str], file: Path, split: str, finder: ImageFinder, collector: Collector
) -> dict[str, list[Path]]:
    """The images that an annotation file names; where there is not one of them, a finding, and no image at all."""
    names = list(names)
    matches = finder.find(names, file, split)
    if names and not any(matches.values()):
        collector.problem("missing-image", file, finder.nothing_found(names))
        return {}
    return matches


def unlisted_images(used: Iterable[Path], findings: Sequence[Finding], what: str) -> list[Finding]:
    """A finding for every other image in the folders of those that are used; annotations may have been cut short."""
    used = set(used)
    listed = used | {finding.image for finding in findings}
    present = [path for folder in sorted({path.parent for path in used}) for path in image_files(folder)]
    return [Finding("unlisted-image", path, what, image=path) for path in present if path not in listed]
