"""Reads annotation files, which are hostile until read, and recognises those of a format. Errors name the file."""

import codecs
import json
import math
import os
import reprlib
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, group_by, split_of
from fasterrcnn.errors import DataError
from fasterrcnn.files import folders_below

if TYPE_CHECKING:
    from fasterrcnn.data.formats.base import Collector

_MAX_XML_BYTES = 64 * 2**20
_OPENED = 3  # files of each folder, to recognise a format


def split_name(text: str) -> str:
    """The name of a split as `SPLITS` has it, from the name in a file; "all" where the file has none."""
    return SPLITS.get(text.strip().lower(), text.strip()) or NO_SPLIT


def side_of_image(value: object) -> int:
    """Width or height of an image in pixels, though it may be written as text or as 640.0; 0, unknown, for all else."""
    try:
        side = float(value) if isinstance(value, str | int | float) else 0
        return int(side) if 0 < side < 1e9 and side == int(side) else 0
    except (ValueError, OverflowError):
        return 0


def files_below(root: Path, suffixes: Collection[str], fits: Callable[[bytes], bool]) -> list[Path]:
    """The annotation files of a format: the file itself, or those in a folder and up to four levels below it.

    Hidden files and folders are left out. Files are alike in a folder of many, so of each folder only the first three
    that are not empty are opened: where one of them fits, all files with the suffix belong to the format, and reading
    reports the others.

    Args:
        suffixes: in lower case, as in ".json".
        fits: whether the beginning and the end of a file (`beginning_and_end`) are those of the format.
    """
    if root.is_file():
        return [root] if root.suffix.lower() in suffixes and fits(beginning_and_end(root)) else []
    files: list[Path] = []
    for folder in [root, *folders_below(root, levels=4)]:
        own = files_in(folder, suffixes)
        if len(own) <= _OPENED:
            files += [file for file in own if fits(beginning_and_end(file))]
        else:
            sample = islice((file for file in own if file.stat().st_size), _OPENED)
            files += own if any(fits(beginning_and_end(file)) for file in sample) else []
    return files


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder with some suffixes (in lower case), sorted; hidden ones are left out."""
    _, _, names = next(os.walk(folder), ("", [], []))
    fits = sorted(n for n in names if os.path.splitext(n)[1].lower() in suffixes and not n.startswith("."))
    return [file for name in fits if os.path.isfile(file := folder / name)]  # no pipe, no link to nothing


def beginning_and_end(file: Path) -> bytes:
    """The first MiB and the last 64 KiB of a file, enough to recognise its format; nothing if it cannot be read."""
    try:
        with file.open("rb") as stream:
            content = stream.read(2**20)
            if (rest := file.stat().st_size - len(content)) > 0:
                stream.seek(-min(rest, 2**16), os.SEEK_END)
                content += stream.read()
    except OSError:
        return b""
    return content


def by_split(files: Sequence[Path], root: Path, collector: "Collector") -> dict[str, Path]:
    """Annotation files of one data set each by the split in its name or in that of its folder.

    Beside files of splits, one that names none may hold the same images again: it is left out with a finding.

    Raises:
        DataError: two files are of the same split.
    """
    by_name = group_by(files, lambda file: split_of(file, root))
    if len(by_name) > 1:
        for file in by_name.pop(NO_SPLIT, []):
            collector.problem("unlisted-annotations", file, "its name states no split, those beside it do: left out")
    if several := next((files for files in by_name.values() if len(files) > 1), None):
        names = ", ".join(map(str, several[:3]))
        raise DataError(f"{root}: {len(several)} annotation files may be of the same split; name one: {names}")
    order = [*dict.fromkeys(SPLITS.values()), NO_SPLIT]
    return {split: own[0] for split, own in sorted(by_name.items(), key=lambda item: order.index(item[0]))}


def decode_text(content: bytes, file: Path) -> str:
    """The content of a text file, or its beginning, in UTF-8.

    Raises:
        DataError: it has another encoding; the message names the file.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{file}: UTF-16 text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_lines(file: Path) -> list[str]:
    """Lines of a text file, without the spaces around them.

    Raises:
        DataError: not UTF-8; the message names the file.
    """
    return [line.strip() for line in decode_text(file.read_bytes(), file).splitlines()]


def read_json(file: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file in UTF-8; ``change`` is the ``object_hook`` of `json.loads`.

    Raises:
        DataError: it cannot be read; the message names the file.
    """
    try:
        return json.loads(decode_text(file.read_bytes(), file), object_hook=change)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: broken JSON ({error}); is the file complete?") from None
    except (OSError, ValueError, RecursionError) as error:  # a number of thousands of digits, nesting
        raise DataError(f"{file}: cannot be read ({error})") from None


def to_number(value: object, what: str) -> float:
    """A finite number of a JSON file.

    Raises:
        DataError: it is none; the message begins with ``what``.
    """
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"{what} must be a number, not {reprlib.repr(value)}")
    return number


def read_xml(file: Path) -> ElementTree.Element:
    """The root of an XML file; one that is huge or declares entities is refused.

    Raises:
        DataError: it cannot be read; the message names the file.
    """
    try:
        if file.stat().st_size > _MAX_XML_BYTES:
            raise DataError(f"{file}: larger than {_MAX_XML_BYTES // 2**20} MiB")
        content = file.read_bytes()
        if b"<!ENTITY" in content.replace(b"\0", b""):  # the zeros of UTF-16
            raise DataError(f"{file}: declares XML entities, which can blow up in memory; refused")
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{file}: not readable XML ({error})") from None
