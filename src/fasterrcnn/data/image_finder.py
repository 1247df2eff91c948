"""Finds the files that other files name: images of annotations in every format, and label files of images.

Data sets travel: they are unzipped into other folders, written on other machines, uploaded and exported. So the name in
the annotations is compared with the files that are there, from its last part backwards, and of several files that fit
equally well the one counts that lies nearest to the annotations. A file that another part of the data set may own is
never taken: where there are images in train/ and in val/, annotations of train/ mean those in train/.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from fasterrcnn.data.annotations import NO_SPLIT, group_by
from fasterrcnn.data.file_names import (
    common_beginning,
    common_end,
    comparable,
    keys_of,
    likeness,
    parts_of,
    spellings,
    splits_in,
)
from fasterrcnn.errors import UsageError
from fasterrcnn.files import subfolders
from fasterrcnn.images import EXTENSIONS

_ANNOTATION_FOLDER = re.compile(r"ann(ot(ation)?)?s?|xmls?|json|labels?(_\d)?|labeltxt.*|gt", re.I)
_LEVELS = 5  # of folders that are searched: annotations may lie in a home folder
_COPY_FOLDER = re.compile(r".*(thumb|mask|segm|preview|small|augment|crop|depth|overlay|visual).*", re.I)
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")
"""Folders of originals, where masks or thumbnails of the same name may lie beside them; the best name first."""


class Request(NamedTuple):
    """Names of files, the file that names them, and the split that it is of."""

    names: Sequence[str]
    source: Path
    split: str = NO_SPLIT


@dataclass(frozen=True, eq=False)
class _Folder:
    """A folder with files that may be meant; one object for each, so that no path is compared for each of its files."""

    path: Path
    files: list[str]
    parts: frozenset[str]  # its name and of those above it, up to the place that is searched
    splits: frozenset[str]  # that these names state


class _File(NamedTuple):
    """A file; there may be hundreds of thousands, so it gets a path when that is needed."""

    folder: _Folder
    name: str

    @property
    def path(self) -> Path:
        return self.folder.path / self.name


class FileFinder:
    """Files of a data set, by the names that other files give them.

    Args:
        root: folder of the data set.
        places: folders that are searched.
        fits: whether a path is one of the files that may be meant.
    """

    def __init__(self, root: Path, places: Sequence[Path], fits: Callable[[str], bool]) -> None:
        self._root = Path(os.path.abspath(root))
        self.places = [Path(os.path.abspath(place)) for place in places]
        self._fits = fits
        self.has_named_folders = False  # whether the user named the places
        self._written: dict[_Folder, tuple[str, ...]] = {}  # what the names that fit a folder best call it
        self._copies: set[_Folder] = set()  # folders of masks, thumbnails or copies
        self.contested: dict[str, tuple[str, Path]] = {}
        """Names, or files that name one, that were refused a file; another name that could mean it, and the file."""
        self._known: dict[tuple[Path, str], tuple[Path, tuple[str, ...], str]] = {}

    def find(self, names: Iterable[str], source: Path, split: str = NO_SPLIT) -> dict[str, list[Path]]:
        """The files of these names: none where there is none, several that could be.

        A name may be a file name, with or without extension, a path of another machine, or a URL.

        Args:
            names: as they are written.
            source: the file that names them.
            split: the split that it is of.
        """
        return self.find_all([Request(list(names), source, split)])[0]

    def find_all(self, requests: Sequence["Request"]) -> list[dict[str, list[Path]]]:
        """The files of the names in several files, each as by `find`; no file is given to two different names."""
        matches = [self._matches(request) for request in requests]
        claims: list[tuple[str, tuple[str, ...], _File]] = []  # name, the folders in it, and its only file
        for by_name in matches:
            claims += [(name, parts_of(name)[:-1], files[0]) for name, files in by_name.items() if len(files) == 1]
        for folder, written in dict.fromkeys((file.folder, written) for _, written, file in claims):
            best = self._written.setdefault(folder, written)
            if common_end(folder.path.parts, written) > common_end(folder.path.parts, best):
                self._written[folder] = written
        claimants: dict[_File, list[str]] = {}
        is_same = lru_cache(maxsize=None)(
            lambda folder, own: _is_same_folder(own, self._written[folder], folder.path.parts)
        )
        for name, written, file in claims:
            if is_same(file.folder, written):
                claimants.setdefault(file, []).append(name)
        accepted = {
            file: names if len(names) == 1 else _of_one_file(names, file.path) for file, names in claimants.items()
        }
        for file, names in claimants.items():
            if len(accepted[file]) < len(names):
                for name in set(names).difference(accepted[file]):
                    self.contested[name] = next(other for other in names if other != name), file.path

        def usable(name: str, files: list[_File]) -> list[Path]:
            is_taken = len(files) == 1 and name not in accepted.get(files[0], ())
            return [] if is_taken else [file.path for file in files]

        return [{name: usable(name, files) for name, files in by_name.items()} for by_name in matches]

    def _matches(self, request: "Request") -> dict[str, list["_File"]]:
        """The files of the names of one file, each for itself."""
        candidates = {name: self._candidates(name) for name in dict.fromkeys(request.names)}
        folders = {file.folder for _, files in candidates.values() for file in files}
        parts_of_all = [folder.parts for folder in folders]
        partial = (
            frozenset[str]().union(*parts_of_all) - frozenset.intersection(*parts_of_all)
            if folders
            else frozenset[str]()
        )
        source_folder, above, split = self._whereabouts(request.source, request.split)
        by_split = any(split in folder.splits for folder in self._folders)
        matches: dict[str, list[_File]] = {}
        for name, (parts, files) in candidates.items():
            needed = {comparable(part) for part in (*parts[:-1], *above)} & partial if partial else partial
            own = [file for file in files if needed <= file.folder.parts]
            own = [file for file in own if split in file.folder.splits] if by_split else own
            matches[name] = own if len(own) < 2 else _nearest(own, parts, source_folder)
        return self._decided(matches)

    def _decided(self, matches: dict[str, list["_File"]]) -> dict[str, list["_File"]]:
        """Of several files the one in a folder called after images, or in the only folder that has all of the names.

        The folders of the others hold masks, thumbnails or copies, so nothing else is taken from them.
        """
        several = {name: files for name, files in matches.items() if len(files) > 1}
        counts = Counter(file.folder for files in matches.values() for file in files) if several else Counter()
        asked = sum(bool(files) for files in matches.values())
        for name, files in several.items():
            originals = [file for file in files if not _COPY_FOLDER.fullmatch(file.folder.path.name)] or files
            complete = [file for file in originals if counts[file.folder] == asked]
            likely = (complete, originals) if len(originals) == 1 else (complete, _in_image_folder(originals))
            chosen = {file for only in likely if len(only) == 1 for file in only}
            if self.has_named_folders or len(chosen) != 1:
                continue
            matches[name] = list(chosen)
            self._copies |= {file.folder for file in files if file not in chosen}
        if not self._copies:
            return matches
        return {name: [file for file in files if file.folder not in self._copies] for name, files in matches.items()}

    def find_for_files(
        self, names: Mapping[Path, str], split: Callable[[Path], str] = lambda folder: NO_SPLIT
    ) -> dict[Path, list[Path]]:
        """As `find`, for files that name one file each, such as annotation files of one image.

        Args:
            names: by the file that has the name.
            split: of a folder of such files.
        """
        folders = group_by(names, lambda file: file.parent)
        written = {file: _below(file.parent, self._root, name) for file, name in names.items()}
        requests = [
            Request([written[f] for f in files], folder / "*", split(folder)) for folder, files in folders.items()
        ]
        matches: dict[Path, list[Path]] = {}
        for files, by_name in zip(folders.values(), self.find_all(requests), strict=True):
            matches |= {file: by_name[written[file]] for file in files}
        self.contested |= {str(file): self.contested[name] for file, name in written.items() if name in self.contested}
        return matches

    @cached_property
    def _by_name(self) -> dict[str, list["_File"]]:
        """Files by their names and by their stems."""
        by_name: dict[str, list[_File]] = {}
        for folder in self._folders:
            for name in folder.files:
                file = _File(folder, name)
                for key in keys_of(name):
                    by_name.setdefault(key, []).append(file)
        return by_name

    @cached_property
    def _folders(self) -> list[_Folder]:
        """Folders with such files, each once though places may overlap."""
        folders: dict[Path, _Folder] = {}
        for place in self.places:
            for name, files in _folders_below(place):
                path, prefix = Path(name), os.path.join(name, "")
                fitting = sorted(file for file in files if self._fits(prefix + file)) if path not in folders else []
                if fitting:
                    parts = frozenset(map(comparable, self._below(path)))
                    folders[path] = _Folder(path, fitting, parts, frozenset(splits_in(parts)))
        return list(folders.values())

    def _below(self, folder: Path) -> tuple[str, ...]:
        place = next(place for place in (*self.places, Path("/")) if folder.is_relative_to(place))
        return folder.relative_to(place).parts

    def _candidates(self, name: str) -> tuple[tuple[str, ...], list["_File"]]:
        """All files of a name, wherever they lie, and the parts of the path by which they are reached."""
        for parts in spellings(name):
            if files := self._by_name.get(comparable(parts[-1])):
                return parts, files
            stem, suffix = os.path.splitext(parts[-1])
            if suffix.lower() in EXTENSIONS and (files := self._by_name.get(comparable(stem))):
                return parts, files
        return (), []

    def _whereabouts(self, source: Path, split: str) -> tuple[Path, tuple[str, ...], str]:
        """Folder of the source, the names of the folders above it in the data set, and its split."""
        if (source, split) not in self._known:
            folder = Path(os.path.abspath(source.parent))
            above = folder.relative_to(self._root).parts if folder.is_relative_to(self._root) else ()
            stated = next(splits_in((source.stem, *reversed(above))), NO_SPLIT) if split == NO_SPLIT else split
            self._known[source, split] = folder, above, stated
        return self._known[source, split]


class ImageFinder(FileFinder):
    """The images of a data set, by the names that its annotations give them.

    Args:
        root: folder of the data set. If no image at all lies in it, the folder above it is searched, where it is called
            annotations, labels or the like; otherwise folders beside it that are called after images.
        folders: that the user names; then the images are searched there alone.

    Attributes:
        has_named_folders: whether the user named any.

    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, root: Path, folders: Sequence[Path] = ()) -> None:
        for folder in folders:
            if not os.path.isdir(folder):
                raise UsageError(f"{folder}: no such folder of images")
        places = list(folders) or _places_of_images(Path(os.path.abspath(root)))
        super().__init__(places[0] if len(places) == 1 and not folders else root, places, _is_image)
        self.has_named_folders = bool(folders)

    def find_all(self, requests: Sequence[Request]) -> list[dict[str, list[Path]]]:
        """The images of these names; a path that exists as it is written is not searched, unless folders are given."""
        direct: list[dict[str, list[Path]]] = [{} for _ in requests]
        if not self.has_named_folders:
            for request, own in zip(requests, direct, strict=True):
                folder = request.source.parent
                own |= {name: [path] for name in request.names if (path := _outside(name, folder)) is not None}
        others = [
            request._replace(names=[name for name in request.names if name not in own])
            for request, own in zip(requests, direct, strict=True)
        ]
        return [matches | own for matches, own in zip(super().find_all(others), direct, strict=True)]

    def nothing_found(self, names: Sequence[str]) -> str:
        """One sentence for annotations of which not one image was found."""
        if names[0] in self.contested:
            other, path = self.contested[names[0]]
            return f"{names[0]} and {other} could both be {path}"
        places = " and ".join(map(str, self.places))
        return f"its images ({names[0]}...) are nowhere below {places}; name their folder (images, --images)"

    def all_of(self, source: Path) -> list[Path]:
        """The images below the folder of an annotation file, by path; where there is none, all that are searched."""
        images = sorted(folder.path / name for folder in self._folders for name in folder.files)
        folder = Path(os.path.abspath(source.parent))
        return [path for path in images if path.is_relative_to(folder)] or images


def has_images(folder: Path) -> bool:
    """Whether an image lies in a folder or below it."""
    return any(_is_image(name) for _, files in _folders_below(folder) for name in files)


def _places_of_images(root: Path) -> list[Path]:
    """Where the images of a data set may lie: in its folder, or beside it where its folder holds annotations alone."""
    if has_images(root):
        return [root]
    if _ANNOTATION_FOLDER.fullmatch(root.name):
        return [root.parent] if has_images(root.parent) else [root]
    if comparable(root.parent.name) == "annotations":  # one of several folders in it
        return [root.parent.parent] if has_images(root.parent.parent) else [root]
    beside = [child for child in subfolders(root.parent) if child != root]
    if any(_ANNOTATION_FOLDER.fullmatch(child.name) for child in beside):  # which the images there belong to
        return [root]
    return [child for child in beside if comparable(child.name) in _IMAGE_FOLDERS] or [root]


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def _outside(name: str, folder: Path) -> Path | None:
    """The image of a path that leads out of the folder, if it is really there."""
    text = name.replace("\\", "/")
    if not os.path.isabs(text) and (".." not in text or ".." not in text.split("/")):
        return None
    path = os.path.normpath(folder / text)
    return Path(path) if _is_image(path) and os.path.isfile(path) else None


def _nearest(files: list[_File], parts: Sequence[str], folder: Path) -> list[_File]:
    """Those whose paths end most like a name, lie nearest to a folder and are most like the name."""

    def rank(file: _File) -> tuple[int, int, tuple[bool, bool]]:
        near = common_beginning(file.folder.path.parts, folder.parts)
        return common_end(file.path.parts, parts), near, likeness(file.path, parts[-1])

    best = max(map(rank, files))
    return [file for file in files if rank(file) == best]


def _in_image_folder(files: list[_File]) -> list[_File]:
    """The only file in a folder that is called after images, otherwise all of them."""
    for name in _IMAGE_FOLDERS:
        inside = [file for file in files if any(comparable(part) == name for part in file.folder.path.parts)]
        if len(inside) == 1:
            return inside
    return files


def _below(folder: Path, root: Path, name: str) -> str:
    """A file name with the folder of the file that has it, for images may lie in folders of the same names."""
    return name if parts_of(name)[:-1] else os.path.join(os.path.relpath(folder, root), name)


def _is_same_folder(written: tuple[str, ...], best: tuple[str, ...], folder: tuple[str, ...]) -> bool:
    """Whether a name means the folder, though another name fits it best: cam2/ is not cam1/, however it was renamed."""
    end = common_end(folder, best)
    return common_end(folder, written) == end or common_end(written, best) == min(len(written), len(best))


def _of_one_file(names: Sequence[str], path: Path) -> list[str]:
    """Of different names of one file those that fit it best; a.jpg and images/a.jpg are no different names."""
    fit = {name: likeness(path, (parts_of(name) or ("",))[-1]) for name in names}
    best = max(fit.values())
    fitting = [name for name in names if fit[name] == best]
    last = {comparable((parts_of(name) or ("",))[-1]) for name in fitting}
    folders = [parts_of(name)[:-1] for name in fitting]
    longest = max(folders, key=len)
    is_same = len(last) == 1 and all(common_end(folder, longest) == len(folder) for folder in folders)
    return fitting if is_same else []


def _folders_below(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it, with the names of files, hidden ones left out; one that is linked too comes once."""
    depth = len(folder.parts)
    walked: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in walked or len(Path(place).parts) - depth == _LEVELS:
            folders.clear()
        if real in walked:
            continue
        walked.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        folders.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        yield place, [name for name in files if not name.startswith(".")]
