"""Label maps of TensorFlow's object detection API (.pbtxt): ``item { id: 1 name: "cat" }`` for each class."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fasterrcnn.data.formats.reading import read_lines
from fasterrcnn.errors import DataError
from fasterrcnn.files import folders_below

_TOKEN = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|#.*|[{}<>]|[^\s{}<>:,;"'#]+""")


@dataclass
class LabelMap:
    """Classes by their numbers; empty where there is no label map."""

    names: dict[int, str] = field(default_factory=dict)  # what people read: the display name, if there is one
    ids: dict[str, int] = field(default_factory=dict)  # by name and by display name

    @property
    def classes(self) -> dict[str, int]:
        """Every class and its first number, in the order of the numbers."""
        classes: dict[str, int] = {}
        for number, name in sorted(self.names.items()):
            classes.setdefault(name, number)
        return classes

    def add(self, number: int, name: str, display_name: str, file: Path) -> None:
        """Add a class of a file.

        Raises:
            DataError: the number has another name already.
        """
        shown = display_name or name
        if self.names.setdefault(number, shown) != shown:
            raise DataError(
                f"{file}: class {number} is {shown!r}, and {self.names[number]!r} before or in another file"
            )
        for text in filter(None, (name, display_name)):
            self.ids.setdefault(text, number)


def nearest_label_map(folders: Iterable[Path], root: Path) -> LabelMap:
    """The label maps in some folders of a data set or, for a folder that has none, in the next one above it.

    Where that finds none, those up to three levels below the root count.

    Raises:
        DataError: a file is not readable, or two contradict each other.
    """
    label_map = LabelMap()
    for folder in folders:
        above = [place for place in (folder, *folder.parents) if place.is_relative_to(root)]
        for place in above:
            if _add_files(sorted(place.glob("*.pbtxt")), label_map):
                break
    if not label_map.names:
        _add_files(
            [file for folder in folders_below(root, levels=3) for file in sorted(folder.glob("*.pbtxt"))], label_map
        )
    return label_map


def _add_files(files: Iterable[Path], label_map: LabelMap) -> bool:
    """Add the classes of some files; whether any of them has a class."""
    items = [(item, file) for file in files if file.is_file() for item in _items(file)]
    for item, file in items:
        if not (re.fullmatch(r"\d{1,18}", item.get("id", "")) and (item.get("name") or item.get("display_name"))):
            raise DataError(f"{file}: a class of the label map needs a whole number as id, and a name: {item}")
        label_map.add(int(item["id"]), item.get("name", ""), item.get("display_name", ""), file)
    return bool(items)


def _items(file: Path) -> list[dict[str, str]]:
    """The fields of each item; other messages, such as those of a graph or a pipeline, and fields in fields are passed.

    Raises:
        DataError: not UTF-8, or the last item is not complete.
    """
    items: list[dict[str, str]] = []
    path: list[str] = []  # names of the messages that are open
    before = ""
    for token in _TOKEN.findall("\n".join(read_lines(file))):
        if token.startswith("#"):
            continue
        if token in "{<":
            path.append(before)
            if path == ["item"]:
                items.append({})
        elif token in "}>":
            path = path[:-1]
        elif path == ["item"] and before in ("id", "name", "display_name"):
            items[-1][before] = _unquoted(token)
            before = ""  # a value is the name of no field
            continue
        before = token
    if path and items:
        raise DataError(f"{file}: the last item has no end; is the file complete?")
    return items


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1]) if token[0] in "\"'" else token
