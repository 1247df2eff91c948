"""Finds the files that other files name: images of annotations in every format, and label files of images.

Data sets travel: they are unzipped into other folders, written on other machines, uploaded and exported. So the name in
the annotations is compared with the files that are there, from its last part backwards, and of several files that fit
equally well the one counts that lies nearest to the annotations. A file that another part of the data set may own is
never taken: where there are images in train/ and in val/, annotations of train/ mean those in train/.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from fasterrcnn.data.annotations import NO_SPLIT, SPLITS, group_by
from fasterrcnn.errors import UsageError
from fasterrcnn.files import subfolders
from fasterrcnn.images import EXTENSIONS

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio puts it before the name of an uploaded file
_ANNOTATION_FOLDER = re.compile(
    r"(.*[_-])?(ann(ot(ation)?)?s?|annos?|xmls?|jsons?|labels?|csvs?|data|gt|lists?)([_-].*)?", re.I
)
_LEVELS = 5  # of folders that are searched: annotations may lie in a home folder
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")
"""Folders of originals, where masks or thumbnails of the same name may lie beside them; the best name first."""


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
        self._known: dict[tuple[Path, str], tuple[Path, tuple[str, ...], str]] = {}

    def find(self, names: Iterable[str], source: Path, split: str = NO_SPLIT) -> dict[str, list[Path]]:
        """The files of these names: none where there is none, several that could be.

        A name may be a file name, with or without extension, a path of another machine, or a URL.

        Args:
            names: as they are written.
            source: the file that names them.
            split: the split that it is of.
        """
        candidates = {name: self._candidates(name) for name in dict.fromkeys(names)}
        folders = {self._folders[path.parent] for _, paths in candidates.values() for path in paths}
        partial = frozenset().union(*folders) - frozenset.intersection(*folders) if folders else frozenset()
        matches = {name: self._best(*each, source, split, partial) for name, each in candidates.items()}
        votes = Counter(paths[0].parent for paths in matches.values() if len(paths) == 1)
        for name, paths in matches.items():
            if len(paths) > 1:
                highest = max(votes[path.parent] for path in paths)
                matches[name] = _in_image_folder([path for path in paths if votes[path.parent] == highest])
        return matches

    def find_for_files(
        self, names: Mapping[Path, str], split: Callable[[Path], str] = lambda folder: NO_SPLIT
    ) -> dict[Path, list[Path]]:
        """As `find`, for files that name one file each, such as annotation files of one image.

        Args:
            names: by the file that has the name.
            split: of a folder of such files.
        """
        matches: dict[Path, list[Path]] = {}
        for folder, files in group_by(names, lambda file: file.parent).items():
            by_name = self.find((names[file] for file in files), folder / "*", split(folder))
            matches |= {file: by_name[names[file]] for file in files}
        return matches

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """Files by their names and by their stems."""
        by_name: dict[str, list[Path]] = {}
        for path in dict.fromkeys(path for place in self.places for path in _files_below(place, self._fits)):
            for key in {_key(path.name), _key(path.stem)}:
                by_name.setdefault(key, []).append(path)
        return by_name

    @cached_property
    def _folders(self) -> dict[Path, frozenset[str]]:
        """Folders of files, and the names of each and of those above it, up to the place that is searched."""
        folders = {path.parent for paths in self._by_name.values() for path in paths}
        return {folder: frozenset(map(_key, self._below(folder))) for folder in folders}

    @cached_property
    def _splits(self) -> dict[Path, set[str]]:
        """The splits that the names of a folder and of those above it state."""
        return {folder: set(_splits_in(names)) for folder, names in self._folders.items()}

    def _below(self, folder: Path) -> tuple[str, ...]:
        place = next(place for place in (*self.places, Path("/")) if folder.is_relative_to(place))
        return folder.relative_to(place).parts

    def _candidates(self, name: str) -> tuple[tuple[str, ...], list[Path]]:
        """All files of a name, wherever they lie, and the parts of the path by which they were found."""
        for parts in _spellings(name):
            last = PurePosixPath(parts[-1])
            for key in (_key(last.name), _key(last.stem if last.suffix.lower() in EXTENSIONS else last.name)):
                if key in self._by_name:
                    return parts, self._by_name[key]
        return (), []

    def _best(
        self, parts: Sequence[str], candidates: list[Path], source: Path, split: str, partial: frozenset[str]
    ) -> list[Path]:
        """The candidates that fit best; none where all belong elsewhere.

        Where only a part of the files that are asked for lies in a folder that the names have, or that the source lies
        in, the others are not there.
        """
        folder, above, split = self._whereabouts(source, split)
        needed = {_key(name) for name in (*parts[:-1], *above)} & partial
        own = [path for path in candidates if needed <= self._folders[path.parent]]
        if any(split in splits for splits in self._splits.values()):
            own = [path for path in own if split in self._splits[path.parent]]
        if len(own) < 2:
            return own
        suffix = PurePosixPath(parts[-1]).suffix

        def rank(path: Path) -> tuple[int, int, bool]:
            near = _common(path.parent.parts, folder.parts)
            return common_end(path.parts, parts), near, path.suffix == suffix

        best = max(map(rank, own))
        return [path for path in own if rank(path) == best]

    def _whereabouts(self, source: Path, split: str) -> tuple[Path, tuple[str, ...], str]:
        """Folder of the source, the names of the folders above it in the data set, and its split."""
        if (source, split) not in self._known:
            folder = Path(os.path.abspath(source.parent))
            above = folder.relative_to(self._root).parts if folder.is_relative_to(self._root) else ()
            stated = next(_splits_in((source.stem, *reversed(above))), NO_SPLIT) if split == NO_SPLIT else split
            self._known[source, split] = folder, above, stated
        return self._known[source, split]


class ImageFinder(FileFinder):
    """The images of a data set, by the names that its annotations give them.

    Args:
        root: folder of the data set. If no image at all lies in it, the folder above it is searched, where its name is
            that of a folder of annotations; otherwise folders beside it that are called after images.
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

    def find(self, names: Iterable[str], source: Path, split: str = NO_SPLIT) -> dict[str, list[Path]]:
        """The images of these names; a path that exists as it is written is not searched, unless folders are given."""
        names = list(dict.fromkeys(names))
        direct = (
            {}
            if self.has_named_folders
            else {name: [path] for name in names if (path := _outside(name, source.parent))}
        )
        return super().find([name for name in names if name not in direct], source, split) | direct

    def nothing_found(self, names: Sequence[str]) -> str:
        """One sentence for annotations of which not one image was found."""
        places = " and ".join(map(str, self.places))
        return f"its images ({names[0]}...) are nowhere below {places}; name their folder (images, --images)"

    def all_of(self, source: Path) -> list[Path]:
        """The images below the folder of an annotation file, by path; where there is none, all that are searched."""
        images = sorted({path for paths in self._by_name.values() for path in paths})
        folder = Path(os.path.abspath(source.parent))
        return [path for path in images if path.is_relative_to(folder)] or images


def has_images(folder: Path) -> bool:
    """Whether an image lies in a folder or below it."""
    return next(_files_below(folder, _is_image), None) is not None


def _places_of_images(root: Path) -> list[Path]:
    """Where the images of a data set may lie: in its folder, or beside it where its folder holds annotations alone."""
    for folder in (root, *root.parents[:2]):
        if has_images(folder):
            return [folder]
        if not any(_ANNOTATION_FOLDER.fullmatch(name) for name in (folder.name, folder.parent.name)):
            return [child for child in subfolders(folder.parent) if _key(child.name) in _IMAGE_FOLDERS] or [root]
    return [root]


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in EXTENSIONS


def _outside(name: str, folder: Path) -> Path | None:
    """The image of a path that leads out of the folder, if it is really there."""
    text = name.replace("\\", "/")
    if not os.path.isabs(text) and ".." not in text.split("/"):
        return None
    path = os.path.normpath(folder / text)
    return Path(path) if _is_image(path) and os.path.isfile(path) else None


def _in_image_folder(paths: list[Path]) -> list[Path]:
    """The only path in a folder that is called after images, otherwise all of them."""
    for name in _IMAGE_FOLDERS:
        inside = [path for path in paths if any(_key(part) == name for part in path.parent.parts)]
        if len(inside) == 1:
            return inside
    return paths


def _files_below(folder: Path, fits: Callable[[str], bool]) -> Iterator[Path]:
    """Files of a folder and of those below it, hidden ones left out; a folder that is linked too is walked once."""
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
        for name in sorted(files):
            if not name.startswith(".") and fits(path := os.path.join(place, name)):
                yield Path(path)


def _key(name: str) -> str:
    """A name without differences that other systems make: capitals, and how accents are composed."""
    return name if name.isascii() and name.islower() else unicodedata.normalize("NFC", name).casefold()


def _splits_in(names: Iterable[str]) -> Iterator[str]:
    """The splits that names of files and folders state."""
    return (SPLITS[word] for name in names for word in re.findall("[a-z]+", name.lower()) if word in SPLITS)


def common_end(first: Sequence[str], second: Sequence[str]) -> int:
    """How many parts two paths end with alike."""
    return _common(reversed(first), reversed(second))


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """How many parts two paths begin with alike."""
    count = 0
    for part, counterpart in zip(first, second, strict=False):
        if _key(part) != _key(counterpart):
            break
        count += 1
    return count


def _spellings(name: str) -> Iterator[tuple[str, ...]]:
    """Parts of the path that a name may mean: as it is, as a URL, without the prefix of an upload."""
    plain = _parts(name)
    if plain:
        yield plain
    url = _url(name)
    texts = [] if url is None else [path for value in parse_qs(url.query).values() for path in value] + [url.path]
    decoded = [parts for text in (name, *texts) if (parts := _parts(unquote(text)))]
    yield from decoded
    yield from ((*parts[:-1], _UPLOAD_PREFIX.sub("", parts[-1])) for parts in [plain, *decoded] if parts)


def _url(name: str) -> SplitResult | None:
    try:
        return urlsplit(name) if "?" in name or "://" in name else None
    except ValueError:  # brackets that are no address
        return None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(text.replace("\\", "/")).parts if part not in ("..", "/"))
