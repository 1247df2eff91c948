"""Finds the annotation files of COCO data sets, and loads them: they may have hundreds of megabytes."""

import codecs
import difflib
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeGuard

from pydantic_core import from_json

from fasterrcnn.data.annotations import NO_SPLIT, split_of
from fasterrcnn.data.formats.reading import files_in, read_json, with_other_splits
from fasterrcnn.errors import DataError
from fasterrcnn.files import subfolders

CocoContent = dict[str, list[dict[str, Any]]]
"""The three lists of a COCO file."""

_LISTS = ("images", "annotations", "categories")
_SEGMENTATION = b'"segmentation"'  # never within a text: there quotes are escaped
_NUMBERS = b"0123456789+-.eE, \t\r\n"
_OUTLINE = re.compile(rb":\[(\[\])*\]")  # a list of numbers, or of lists of numbers, without its numbers
_FOLDERS = ("annotations", "annotation", "annots", "labels", "json")


def annotation_files(folder: Path) -> list[Path]:
    """Those of the `json_files` of a folder that are COCO's, and have boxes."""
    candidates = json_files(folder)
    files = [file for file in candidates if is_coco(file)]
    instances = [file for file in files if file.name.lower().startswith("instances")]  # not captions and key points
    whole = with_other_splits(instances or files, candidates, folder)
    return [file for file in whole if file in files or not _lists_images_alone(file)]


def _lists_images_alone(file: Path) -> bool:
    """Whether a file has images and no annotations, as those to test on are often published."""
    try:
        content = read_json(file)
    except DataError:
        return False
    is_list = isinstance(content, dict) and isinstance(content.get("images"), list)
    return is_list and not difflib.get_close_matches("annotations", content, 1)


def json_files(folder: Path) -> list[Path]:
    """JSON files in a folder, in its annotations/ or in the folders of its splits."""
    files = files_in(folder, (".json",))
    for child in subfolders(folder):
        if child.name.lower() in _FOLDERS or split_of(child, folder) != NO_SPLIT:
            files += json_files(child)
    return files


def is_coco(file: Path) -> bool:
    """Whether it is an object with the lists "images" and "annotations"; other formats have one of them at most."""
    with _mapped(file) as content:
        is_object = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
        return is_object and all(_has_list(content, name) for name in ("images", "annotations"))


def coco_near_miss(file: Path) -> str:
    """What a JSON file lacks to be COCO, in a sentence; empty if it is something else."""
    with _mapped(file) as content:
        beginning = content[:4096]
        if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return f"{file}: UTF-16 text; save it as UTF-8"
        if beginning.lstrip().startswith(b"[") and b'"image_id"' in beginning and b'"score"' in beginning:
            return f"{file}: a list, as of COCO results; a data set has {', '.join(_LISTS)}"
        if not _has_list(content, "images"):
            return ""
        similar = re.search(rb'"(annot\w{0,20})"\s*:\s*\[', content)
        name = bytes(similar[1]).decode() if similar else ""
    remedy = f"but {name!r}: rename the key" if name else "which COCO needs; is the file complete?"
    return f"{file}: has 'images' and no 'annotations', {remedy}"


def load_coco(file: Path) -> CocoContent:
    """The lists of a COCO file, without the segmentations of objects that have a box.

    Raises:
        DataError: it cannot be read, or a list is missing; the message names the file, and a key that is like it.
    """
    content = _without_outlines(file)
    rows = content.get("annotations") if isinstance(content, dict) else None
    if not _are_objects(rows) or not all(map(methodcaller("get", "bbox"), rows)):
        content = read_json(file)
    if isinstance(content, list):
        raise DataError(f"{file}: a list, as of COCO results; a data set has {', '.join(_LISTS)}")
    for name in _LISTS:
        rows = content.get(name) if isinstance(content, dict) else None
        if rows is None and isinstance(content, dict) and (similar := difflib.get_close_matches(name, content, 1)):
            raise DataError(f"{file}: not a COCO data set: no {name!r}, but {similar[0]!r}: rename the key")
        if not _are_objects(rows):
            raise DataError(f"{file}: not a COCO data set: {name!r} must be a list of objects")
    return {name: content[name] for name in _LISTS}


def _are_objects(rows: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(rows, list) and {dict}.issuperset(map(type, rows))


def _without_outlines(file: Path) -> Any:
    """The content of a JSON file without outlines: most of the file, and of the time and memory that it takes.

    None where it cannot be read: then the whole file is broken.
    """
    try:
        return from_json(_cut_outlines(file.read_bytes()))  # faster than json
    except (OSError, ValueError, RecursionError):
        return None


def _cut_outlines(content: bytes) -> bytearray:
    """The text of a JSON file with null in place of outlines; whatever else is called a segmentation stays.

    An outline ends with the last bracket before the next quote. To search for single bytes and to drop digits takes
    half the time of an expression that matches numbers.
    """
    text = bytearray()
    start, key = 0, content.find(_SEGMENTATION)
    while key >= 0:
        begin = key + len(_SEGMENTATION)
        quote = content.find(b'"', begin)
        end = content.rfind(b"]", begin, quote) + 1
        brackets = content[begin:end].translate(None, _NUMBERS)
        if brackets == b":[[]]" or _OUTLINE.fullmatch(brackets):
            text += content[start:begin]
            text += b":null"
            start = end
        key = content.find(_SEGMENTATION, quote)
    text += content[start:]
    return text


@contextmanager
def _mapped(file: Path) -> Iterator[mmap.mmap | bytes]:
    """The content of a file, which may be large, to search in; nothing where it cannot be read."""
    try:
        stream = file.open("rb")
    except OSError:
        yield b""
        return
    with stream:
        if file.stat().st_size == 0:
            yield b""
            return
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield content


def _has_list(content: mmap.mmap | bytes, name: str) -> bool:
    key = f'"{name}"'.encode()
    place = content.find(key)
    while place >= 0:
        end = place + len(key)
        if re.match(rb"\s*:\s*\[", content[end : end + 64]):
            return True
        place = content.find(key, end)
    return False
