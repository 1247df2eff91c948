"""Reads annotation files, which are hostile until read, and recognises those of a format. Errors name the file."""

import json
import os
from collections.abc import Callable, Collection, Sequence
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


def files_below(root: Path, suffixes: Collection[str], fits: Callable[[bytes], bool]) -> list[Path]:
    """The annotation files of a format: the file itself, or those in a folder and up to three levels below it.

    Hidden files and folders are left out. Files are alike in a folder of many, so of each folder only the first three
    are opened: where one of them fits, all files with the suffix belong to the format, and reading reports the others.

    Args:
        suffixes: in lower case, as in ".json".
        fits: whether the beginning and the end of a file (`beginning_and_end`) are those of the format.
    """
    if root.is_file():
        return [root] if root.suffix.lower() in suffixes and fits(beginning_and_end(root)) else []
    files: list[Path] = []
    for folder in [root, *folders_below(root, levels=3)]:
        _, _, names = next(os.walk(folder), ("", [], []))  # no error where it cannot be read
        own = [folder / name for name in sorted(names) if os.path.splitext(name)[1].lower() in suffixes]
        own = [file for file in own if not file.name.startswith(".") and os.path.isfile(file)]
        if len(own) <= _OPENED:
            files += [file for file in own if fits(beginning_and_end(file))]
        elif any(fits(beginning_and_end(file)) for file in own[:_OPENED]):
            files += own
    return files


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
        raise DataError(
            f"{root}: {len(several)} annotation files whose names do not tell them apart as splits; name one: {names}"
        )
    order = [*dict.fromkeys(SPLITS.values()), NO_SPLIT]
    return {split: own[0] for split, own in sorted(by_name.items(), key=lambda item: order.index(item[0]))}


def read_lines(file: Path) -> list[str]:
    """Lines of a text file, without the spaces around them.

    Raises:
        DataError: not UTF-8; the message names the file.
    """
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_json(file: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file in UTF-8; ``change`` is the ``object_hook`` of `json.loads`.

    Raises:
        DataError: it cannot be read; the message names the file.
    """
    try:
        return json.loads(file.read_bytes().decode("utf-8-sig"), object_hook=change)
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: broken JSON ({error}); is the file complete?") from None
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, nesting
        raise DataError(f"{file}: cannot be read ({error})") from None


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
