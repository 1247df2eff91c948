"""Files that are there whole or not at all, and the folder for those that can be made again."""

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fasterrcnn.errors import UsageError

CACHE = "FASTERRCNN_CACHE"
"""Environment variable: the cache's folder."""


def cache_folder() -> Path:
    """``FASTERRCNN_CACHE``, else ``fasterrcnn`` in ``XDG_CACHE_HOME``, else ``~/.cache/fasterrcnn``."""
    if own := os.environ.get(CACHE):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "fasterrcnn"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A hidden name beside the file, to write to; it takes the file's place when the block has ended well.

    A process that is killed inside the block leaves the file as it was, and the hidden one, which the next attempt
    replaces.

    Raises:
        OSError: the folder cannot be made or written; a full disk is told with the file's name.
    """
    with _in_place_of(path, path.with_name(f".{path.name}")) as unfinished:
        yield unfinished


@contextmanager
def written_by_many(path: Path) -> Iterator[Path]:
    """As `written_whole`, where several processes may write the same file: each has a hidden name of its own."""
    with _in_place_of(path, path.with_name(f".{os.getpid()}.{path.name}")) as unfinished:
        yield unfinished


def unfinished_in(folder: Path) -> list[Path]:
    """Hidden files that `written_by_many` and `write_whole` left in a folder when their processes were killed."""
    return [path for path in folder.glob(".*") if re.fullmatch(r"\.\d+\..+", path.name)]


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file beside its place, flush it to the disk, then rename it: it is there whole or not at all.

    Several processes may write the same file: each has a hidden name of its own.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the file that was there before stays.
    """
    with written_by_many(path) as unfinished, unfinished.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _in_place_of(path: Path, unfinished: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        # A full disk names no file, and nobody knows the hidden one.
        if error.errno is not None and error.filename in (None, str(unfinished)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def check_output(output: Path | None) -> None:
    """Refuse an output folder that is a file or not empty, before any work is done.

    Raises:
        UsageError: it is; the message names it.
    """
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and is not empty; give another output folder")


def make_folder(output: Path | None, name: str) -> Path:
    """The folder that was asked for, or the next free one called ``runs/<name>-<number>``; made now."""
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        return output
    for number in itertools.count(1):
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # taken, perhaps a moment ago by another run
            continue
        break
    return folder
