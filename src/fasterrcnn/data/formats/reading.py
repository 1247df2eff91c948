"""Reads annotation files, which are hostile until read, and recognises those of a format. Errors name the file."""

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, group_by, split_of
from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.errors import DataError
from fasterrcnn.files import folders_below, listing_of

_MAX_XML_BYTES = 64 * 2**20
_SAMPLE = 3  # files of a folder of files that are alike, to recognise a format
_OPENED = 50  # files of another folder


def split_name(text: str) -> str:
    """The name of a split as `SPLITS` has it, from the name in a file; "all" where the file has none."""
    return SPLITS.get(text.strip().lower(), text.strip()) or NO_SPLIT


def files_below(
    root: Path, suffixes: Collection[str], fits: Callable[[bytes], bool], *, alike: bool = True
) -> list[Path]:
    """The annotation files of a format: the file itself, or those in a folder and up to five levels below it.

    Hidden files and folders are left out. Files of other splits are added, see `with_other_splits`.

    Args:
        suffixes: in lower case, as in ".json".
        fits: whether the beginning and the end of a file (`beginning_and_end`) are those of the format.
        alike: files of a folder are alike, for there is one for each image: of more than three, the first three that
            are not empty are opened, and where one of them fits, all belong to the format: reading reports the others.
            Otherwise files are few and lie beside all kinds of others, so each of the first fifty has to fit by itself.
    """
    if root.is_file():
        return [root] if root.suffix.lower() in suffixes and fits(beginning_and_end(root)) else []
    files: list[Path] = []
    candidates: list[Path] = []
    for folder in [root, *folders_below(root, levels=5)]:
        own = files_in(folder, suffixes)
        candidates += own
        if alike and len(own) > _SAMPLE:
            sample = islice((file for file in own if file.stat().st_size), _SAMPLE)
            files += own if any(fits(beginning_and_end(file)) for file in sample) else []
        else:
            files += [file for file in own[:_OPENED] if fits(beginning_and_end(file))]
    return with_other_splits(files, candidates, root)


def with_other_splits(files: list[Path], candidates: Sequence[Path], root: Path) -> list[Path]:
    """Annotation files, and the candidates of other splits that belong to them, though they are broken: none is lost.

    They have the same path but for the names of the splits, as val/boxes.csv beside train/boxes.csv, or are alone in
    the folder of a split where the annotation file of another split is alone in its folder.
    """
    own = set(files)
    rest = [file for file in candidates if file not in own]
    splits = {split_of(file, root) for file in files} if rest else set()
    if splits <= {NO_SPLIT}:
        return files
    counts = Counter(file.parent for file in candidates)
    patterns = {pattern for file in files for pattern in _patterns(file, root, counts)}
    others = [file for file in rest if split_of(file, root) not in {*splits, NO_SPLIT}]
    return files + [file for file in others if not patterns.isdisjoint(_patterns(file, root, counts))]


def _patterns(file: Path, root: Path, counts: Mapping[Path, int]) -> list[str]:
    """The path of a file without the names of splits; also that of its folder, where the file is alone in it."""
    paths = [path for path in (file, file.parent) if path == file or counts[path] == 1]
    return [
        re.sub("[a-z]+", lambda word: "*" if word[0] in SPLITS else word[0], path.relative_to(root).as_posix().lower())
        for path in paths
        if split_of(path, root) != NO_SPLIT
    ]


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder with some suffixes (in lower case), sorted; hidden ones are left out."""
    files = listing_of(folder).files
    names = sorted(name for suffix in suffixes for name in files.get(suffix, ()))
    return [file for name in names if os.path.isfile(file := folder / name)]  # no pipe, no link to nothing


def whole_folders(files: Iterable[Path], suffixes: Collection[str]) -> list[Path]:
    """All files of the folders of some annotation files: empty and broken ones among them belong to the format too."""
    return [file for folder in dict.fromkeys(file.parent for file in files) for file in files_in(folder, suffixes)]


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


def files_by_split(files: Sequence[Path], root: Path, collector: Collector) -> dict[str, list[Path]]:
    """Annotation files by the split in their names or in those of their folders.

    Beside files of splits, one that names none may hold the same images again: it is left out with a finding.
    """
    by_name = group_by(files, lambda file: split_of(file, root))
    if len(by_name) > 1:
        for file in by_name.pop(NO_SPLIT, []):
            collector.problem("unlisted-annotations", file, "its name states no split, those beside it do: left out")
    return {split: by_name[split] for split in dict.fromkeys([*SPLITS.values(), NO_SPLIT]) if split in by_name}


def by_split(files: Sequence[Path], root: Path, collector: Collector) -> dict[str, Path]:
    """As `files_by_split`, for formats that have one file for each split.

    Raises:
        DataError: two files are of the same split.
    """
    by_name = files_by_split(files, root, collector)
    if several := next((files for files in by_name.values() if len(files) > 1), None):
        names = ", ".join(map(str, several[:3]))
        raise DataError(f"{root}: {len(several)} annotation files may be of the same split; name one: {names}")
    return {split: own[0] for split, own in by_name.items()}


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
        DataError: it cannot be read, or is not UTF-8; the message names the file.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    return [line.strip() for line in decode_text(content, file).splitlines()]


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
