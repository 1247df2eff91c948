"""What there is to look at, and the name under which the results of each are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.errors import UsageError
from fasterrcnn.inference.sources import find_files, is_many, is_video


@dataclass(frozen=True)
class Task:
    """One image, video or camera.

    Attributes:
        source: the file, or the number of a camera.
        stem: name of its results, without folder and suffix; no two tasks share it.
    """

    source: Path | int
    stem: str

    @property
    def is_video(self) -> bool:
        """Whether it has frames."""
        return is_video(self.source)


def list_sources(sources: Sequence[str | Path]) -> list[Path | int]:
    """All files that the sources stand for, each once, and the numbers of cameras; a missing file is named later.

    Raises:
        DataError: a folder holds no images, or nothing matches a glob.
        UsageError: nothing was named.
    """
    if not sources:
        raise UsageError("name at least one image, video, folder or glob")
    found: list[Path | int] = []
    for source in sources:
        if is_many(source):
            found += find_files(source)
        elif str(source).isdecimal() and not Path(source).exists():
            found.append(int(str(source)))
        else:
            found.append(Path(source))
    return list(dict.fromkeys(found))


def name_tasks(sources: Sequence[Path | int], output: Path, known: Mapping[str, str]) -> list[Task]:
    """Tasks in the order of the sources: each is called as its file is, numbered where two would share a name.

    Args:
        sources: files and numbers of cameras.
        output: folder for the results.
        known: names that sources had before, which they keep.

    Raises:
        UsageError: results could replace one of the files that are read, or the output is no folder.
    """
    folders = {source.resolve().parent for source in sources if isinstance(source, Path)}
    if output.resolve() in folders:
        raise UsageError(f"{output} holds images that are read; give another output folder")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, not a folder")
    taken = {stem.lower() for stem in known.values()}  # some file systems do not tell A from a
    tasks = []
    for source in sources:
        stem = known.get(str(source)) or _free(source.stem if isinstance(source, Path) else f"camera-{source}", taken)
        taken.add(stem.lower())
        tasks.append(Task(source, stem))
    return tasks


def _free(wanted: str, taken: set[str]) -> str:
    stem, number = wanted, 1
    while stem.lower() in taken:
        number += 1
        stem = f"{wanted}-{number}"
    return stem
