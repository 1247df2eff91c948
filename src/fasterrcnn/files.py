"""Atomic writes, output folders, the cache folder, and folders in folders."""

import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

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
def atomic_write(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a file completely or not at all.

    Gives a temporary path: a hidden file in the same folder, with the same extension. When the block ends well, the
    temporary file is renamed to ``path``. After an error, or where the block wrote nothing, ``path`` stays as it was.
    The folder is made if need be.

    With `shared`, several processes may write this file at the same time: each gets a temporary name of its own.
    Without it the name is always the same, so that what a killed process left is overwritten by the next.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full; the message names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}" if shared else f".{path.name}")
    try:
        yield temporary
        if temporary.exists():
            temporary.replace(path)
    except OSError as error:
        # A full disk names no file, and the temporary name would mean nothing to the user.
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """As `atomic_write`, and flush the file to the disk; several processes may write the same one."""
    with atomic_write(path, shared=True) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, for text as UTF-8; the bytes of file names that are not UTF-8 become escapes (``\\udce9``)."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """As `atomic_write`, for a folder that is new or empty: gives a temporary one beside it, renamed at the end."""
    check_output(folder)
    folder = folder.resolve()
    temporary = folder.with_name(f".{os.getpid()}.{folder.name}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if folder.exists():
            folder.rmdir()  # it is empty; Windows renames only to names that do not exist
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class FolderListing(NamedTuple):
    """What is in a folder but hidden entries: names of folders, and of files by their suffix in lower case; sorted."""

    folders: list[str]
    files: dict[str, list[str]]


_listings: ContextVar[dict[Path, FolderListing] | None] = ContextVar("listings", default=None)


@contextmanager
def listings_kept() -> Iterator[None]:
    """Inside the block every folder is listed once, for many formats ask for the same ones."""
    token = _listings.set({})
    try:
        yield
    finally:
        _listings.reset(token)


def listing_of(folder: Path) -> FolderListing:
    """What is in a folder; nothing where it cannot be read."""
    kept = _listings.get()
    if kept is not None and folder in kept:
        return kept[folder]
    _, folders, names = next(os.walk(folder), ("", [], []))
    files: dict[str, list[str]] = {}
    for name in sorted(names):
        if not name.startswith("."):
            suffix = name[name.rfind(".") :].lower() if "." in name else ""
            files.setdefault(suffix, []).append(name)
    listing = FolderListing(sorted(name for name in folders if not name.startswith((".", "__MACOSX"))), files)
    if kept is not None:
        kept[folder] = listing
    return listing


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder but hidden ones, sorted; none where it cannot be read."""
    return [folder / name for name in listing_of(folder).folders]


def folders_below(folder: Path, levels: int) -> list[Path]:
    """All folders below a folder, down to some levels, but hidden ones."""
    return [] if not levels else [p for child in subfolders(folder) for p in (child, *folders_below(child, levels - 1))]


def search_folders(folder: Path, find: Callable[[Path], list[Path]], levels: int = 2) -> list[Path]:
    """What is found in a folder; where that is nothing, in the folders up to some levels below it."""
    places = find(folder)
    if places or not levels:
        return places
    return [place for child in subfolders(folder) for place in search_folders(child, find, levels - 1)]


def temporary_files(folder: Path) -> list[Path]:
    """Temporary files that killed processes left in a folder, from `write_bytes` or `atomic_write` with ``shared``."""
    return [path for path in folder.glob(".*") if re.fullmatch(r"\.\d+\..+", path.name)]


def check_output(output: Path | None) -> None:
    """Refuse an output folder that is a file or not empty by a `UsageError`, before any work is done."""
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
