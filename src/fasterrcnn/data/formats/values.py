"""Values out of annotation files, which may hold anything where a number or a name should be.

One strictness for all formats: digits in quotes are a number, true and false are none. NaN and infinity are numbers,
for the checks of a data set report boxes that have them, and can leave them out.
"""

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from fasterrcnn.errors import DataError

_LARGEST = 1e9  # no coordinate in pixels is larger
_LARGEST_WHOLE = 2**63 - 1  # what numpy holds

_PLAIN = frozenset((int, float))


def shortened(value: object) -> str:
    """A value from a file in one short line, for a message."""
    return f"{' '.join(reprlib.repr(value).split()):.80}"


def line_of(number: int, text: str) -> str:
    """A line of a text file, for a message."""
    return f"line {number} ({text if len(text) <= 60 else f'{text[:57]}...'})"


def to_number(value: object, what: str) -> float:
    """A number.

    Raises:
        DataError: it is none; the message begins with ``what``.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str) and "_" not in value:  # Python also takes 1_000 for a number
            return float(value)
    except (ValueError, OverflowError):  # whole numbers may have hundreds of digits
        pass
    raise DataError(f"{what} must be a number, not {shortened(value)}")


def numbers_in(entry: object, names: Sequence[str]) -> list[float]:
    """The numbers that an object of a JSON file, or the attributes of an XML element, have by these names.

    Raises:
        DataError: it is no object, or has not all of them.
    """
    values = [entry.get(name) for name in names] if isinstance(entry, Mapping) else [entry]
    try:
        if isinstance(entry, Mapping):
            return [to_number(value, "") for value in values]
    except DataError:
        pass
    raise DataError(f"{', '.join(names)} must be numbers, not {', '.join(map(shortened, values))}")


def numbers_of(value: object, count: int) -> list[float]:
    """The numbers of a JSON list.

    Raises:
        DataError: it is no list of so many numbers.
    """
    try:
        if isinstance(value, list) and len(value) == count:
            if _PLAIN.issuperset(map(type, value)):  # nearly always, and there may be a million
                return [float(number) for number in value]
            return [to_number(number, "") for number in value]
    except (DataError, OverflowError):
        pass
    raise DataError(f"{count} numbers are expected, not {shortened(value)}")


def points_of(value: object) -> list[list[float]]:
    """The points of a JSON list of pairs, or of a flat list: x, y, x, y...

    Raises:
        DataError: it is no such list, or is empty.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"points must be pairs of numbers, not {shortened(value)}")
    pairs = value if isinstance(value[0], list) else [value[i : i + 2] for i in range(0, len(value), 2)]
    return [numbers_of(pair, 2) for pair in pairs]


def whole_number(value: object) -> int | None:
    """A whole number of 63 bits, though it may be written as text or as 1.0; None for all else."""
    if type(value) is not int:  # nearly always it is, and there may be a million
        if isinstance(value, str):
            value = int(value) if value.strip().isdecimal() and len(value) <= 20 else None
        elif isinstance(value, float) and value.is_integer():
            value = int(value)
    return value if type(value) is int and abs(value) <= _LARGEST_WHOLE else None


def side_of_image(value: object) -> int:
    """Width or height of an image in pixels, though it may be written as text or as 640.0; 0, unknown, for all else."""
    if type(value) is int:  # nearly always, and there may be a million
        return value if 0 < value <= _LARGEST else 0
    try:
        side = to_number(value, "side")
    except DataError:
        return 0
    return int(side) if 0 < side <= _LARGEST and side.is_integer() else 0


def text_in(entry: object, name: str) -> str:
    """The text that an object of a JSON file has by this name, without spaces around it.

    A whole number from 0 counts as text.

    Raises:
        DataError: it is no object, or the text is missing or blank.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if type(value) is int and 0 <= value <= _LARGEST_WHOLE:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name} must be a text, not {shortened(value)}")
    return value.strip()


def list_in(entry: object, name: str) -> list[Any]:
    """The list that an object of a JSON file has by this name.

    Raises:
        DataError: it is no object, or has none.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, list):
        raise DataError(f"{name} must be a list, not {shortened(value)}")
    return value


def to_numbers(texts: Sequence[str]) -> list[float]:
    """Coordinates or other finite numbers, from the columns of a line.

    Here NaN and huge numbers are refused: columns have no names, so they are a sign of another format.

    Raises:
        DataError: a text is no number, or one that is larger than any coordinate.
    """
    values = []
    for text in texts:
        shown = repr(text.strip()[:20])
        try:
            value = to_number(text, "")
        except DataError:
            raise DataError(f"{shown} is no number") from None
        if not abs(value) <= _LARGEST:
            raise DataError(f"{shown} is no coordinate or other number")
        values.append(value)
    return values


def to_whole(text: str) -> int:
    """A whole number from a column of a line, also one that is written as 1.0.

    Raises:
        DataError: it is none.
    """
    (value,) = to_numbers([text])
    if not value.is_integer():
        raise DataError(f"{text.strip()[:20]!r} is no whole number")
    return int(value)
