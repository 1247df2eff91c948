"""The images, videos and cameras of a prediction job, and the name under which the results of each are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.errors import UsageError
from fasterrcnn.images import count_frames, other_files
from fasterrcnn.inference.sources import find_files, is_many, is_video


@dataclass(frozen=True)
class Task:
    """One image, video or camera."""

    source: Path | int  # the file, or the number of a camera
    stem: str  # name of its results, without folder and suffix; no two tasks share it

    @property
    def is_video(self) -> bool:
        """Whether it has frames."""
        return is_video(self.source)


def list_sources(sources: Sequence[str | Path]) -> list[Path | int]:
    """All files of the sources, each once, and the numbers of cameras; missing files are reported when they are read.

    Raises:
        DataError: a folder holds no images, or no file matches a glob.
        UsageError: there is no source.
    """
    if not sources:
        raise UsageError("name at least one image, video, folder or glob")
    files: list[Path | int] = []
    for source in sources:
        if is_many(source):
            files += find_files(source)
        elif str(source).isdecimal() and not Path(source).exists():
            files.append(int(str(source)))
        else:
            files.append(Path(source))
    return list(dict.fromkeys(files))


def notes_on(sources: Sequence[str | Path], files: Sequence[Path | int]) -> list[str]:
    """What of the sources takes no part, in sentences: other files of folders, and all frames but the first."""
    notes = []
    for folder in dict.fromkeys(Path(source) for source in sources if Path(source).is_dir()):
        if others := other_files(folder):
            notes.append(f"{folder}: left out, because their names are not those of images: {others}")
    several = {file: count for file in files if isinstance(file, Path) and (count := count_frames(file)) > 1}
    if several:
        file, count = next(iter(several.items()))
        more = f", and {len(several) - 1} other files have several" if len(several) > 1 else ""
        notes.append(f"only the first page or frame is read: {file} has {count}{more}")
    return notes


def name_tasks(sources: Sequence[Path | int], output: Path, earlier_stems: Mapping[str, str]) -> list[Task]:
    """Tasks in the order of the sources: each has the stem of its file, with a number where two would be equal.

    Args:
        sources: files and numbers of cameras.
        output: folder for the results.
        earlier_stems: stems that sources had in an earlier run, which they keep.

    Raises:
        UsageError: results could replace one of the files that are read, or the output is no folder.
    """
    folders = {source.resolve().parent for source in sources if isinstance(source, Path)}
    if output.resolve() in folders:
        raise UsageError(f"{output} holds images that are read; give another output folder")
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file, not a folder")
    taken = {stem.lower() for stem in earlier_stems.values()}  # some file systems ignore case
    tasks = []
    for source in sources:
        stem = earlier_stems.get(str(source))
        if stem is None:
            stem = _free(source.stem if isinstance(source, Path) else f"camera-{source}", taken)
        taken.add(stem.lower())
        tasks.append(Task(source, stem))
    return tasks


def _free(wanted: str, taken: set[str]) -> str:
    stem, number = wanted, 1
    while stem.lower() in taken:
        number += 1
        stem = f"{wanted}-{number}"
    return stem
