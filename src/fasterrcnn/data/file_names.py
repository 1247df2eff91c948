"""What a file name in annotations may mean: written on other machines, as a URL, or changed by an upload."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from fasterrcnn.data.annotations import SPLITS

_CHANGED = re.compile(r"^[0-9a-f]{8}-|[^-\w.]")  # names that an upload makes, or changes
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio puts it before the name of an uploaded file


def comparable(name: str) -> str:
    """A name without differences that other systems make: capitals, and how accents are composed."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def common_end(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts two paths end with alike."""
    return common_beginning(reversed(first), reversed(second))


def common_beginning(first: Iterable[str], second: Iterable[str]) -> int:
    """How many parts two paths begin with alike."""
    count = 0
    for part, counterpart in zip(first, second, strict=False):
        if comparable(part) != comparable(counterpart):
            break
        count += 1
    return count


def spellings(name: str) -> Iterator[tuple[str, ...]]:
    """Parts of the path that a name may mean: as it is, as a URL, without the prefix of an upload."""
    plain = parts_of(name)
    if plain:
        yield plain
    url = _url(name)
    texts = [] if url is None else [path for value in parse_qs(url.query).values() for path in value] + [url.path]
    decoded = [parts for text in (name, *texts) if (parts := parts_of(unquote(text)))]
    yield from decoded
    yield from ((*parts[:-1], _UPLOAD_PREFIX.sub("", parts[-1])) for parts in [plain, *decoded] if parts)


def _url(name: str) -> SplitResult | None:
    try:
        return urlsplit(name) if "?" in name or "://" in name else None
    except ValueError:  # brackets that are no address
        return None


def parts_of(text: str) -> tuple[str, ...]:
    """Parts of a path, of Windows too, without those that lead out."""
    return tuple([part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")])


def keys_of(file_name: str) -> set[str]:
    """The names by which a file can be found: with and without extension, and before and after an upload."""
    names = [file_name]
    if _CHANGED.search(file_name):
        names += [_UPLOAD_PREFIX.sub("", file_name), _as_uploaded(file_name)]
    comparables = map(comparable, names)
    return {form for name in comparables for form in (name, os.path.splitext(name)[0])}


def likeness(path: Path, name: str) -> tuple[bool, bool]:
    """Whether a file has a name to the letter, and with the same extension."""
    return name in (path.name, path.stem), os.path.splitext(name)[1] == path.suffix


def _as_uploaded(name: str) -> str:
    """What a file is called after its upload to Label Studio, or to any other server that uses Django."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))


def splits_in(names: Iterable[str]) -> Iterator[str]:
    """The splits that names of files and folders state."""
    return (SPLITS[word] for name in names for word in re.findall("[a-z]+", name.lower()) if word in SPLITS)
