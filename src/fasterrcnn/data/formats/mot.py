"""MOT Challenge: a folder for each video, with its frames in img1/ and the boxes of all of them in gt/gt.txt.

A line is ``frame,id,left,top,width,height,flag,class,visibility``. MOT15 and SoccerNet have the place in the world
instead of class and visibility. DanceTrack and SportsMOT have the same layout; CVAT ("MOT 1.1") and Datumaro add
gt/labels.txt, with the names of the classes. Coordinates are taken as they are written.
"""

import configparser
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasterrcnn.data.annotations import AnnotatedData, split_of
from fasterrcnn.data.formats.base import DataFormat, ReadOptions
from fasterrcnn.data.formats.collector import Collector, UnusableError
from fasterrcnn.data.formats.reading import files_below, read_lines
from fasterrcnn.data.formats.shapes import Box, box_to_xyxy
from fasterrcnn.data.formats.values import line_of, side_of_image, to_numbers, to_whole, whole_number
from fasterrcnn.errors import DataError
from fasterrcnn.images import image_files

_NAMES = (
    "pedestrian",
    "person on vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non motorized vehicle",
    "static person",
    "distractor",
    "occluder",
    "occluder on the ground",
    "occluder full",
    "reflection",
    "crowd",
)
_FILE = "gt.txt"
_NO_CLASS = -1
_DIGITS = (6, 8, 5, 7, 4, 3, 2, 1)  # of the names of frames; the benchmarks have 6, DanceTrack 8
_MAX_DIGITS = 19  # those of a time stamp in nanoseconds
_DETECTORS = re.compile(r"-(DPM|FRCNN|SDP)$")  # MOT17 holds each video three times, with the same frames and boxes
_LINE = re.compile(
    rb"(?m)^[ \t]*\d+(\.0*)?[ \t]*,[ \t]*-?\d+(\.0*)?([ \t]*,[ \t]*[-+]?[\d.]+(e[-+]?\d+)?){4,8}[ \t]*,?[ \t]*\r?$",
    re.I,
)


@dataclass(frozen=True)
class _Row:
    """A line of gt.txt."""

    number: int
    frame: int
    box: Box
    class_number: int
    ignored: bool


@dataclass(frozen=True)
class _Video:
    """What the files of a video state, but its frames.

    Attributes:
        folder: that holds gt/ and the folder of the frames.
        names: of the classes, numbered from 1; empty where the files name none.
        size_hw: 0 where it is not stated.
        length: how many frames; 0 where it is not stated.
    """

    file: Path
    folder: Path
    names: tuple[str, ...]
    rows: list[_Row]
    image_folder: str
    size_hw: tuple[int, int]
    length: int

    def class_name(self, row: _Row) -> str:
        """The name of a class; empty where it has none. Without a class it is the first, unless there are several."""
        names = self.names or _NAMES
        has_default = row.class_number == _NO_CLASS and (not self.names or len(names) == 1)
        number = 1 if has_default else row.class_number
        return names[number - 1] if 1 <= number <= len(names) else ""

    def frame_name(self, frame: int, digits: int = 6) -> str:
        """Numbers repeat in every video, so the folder is a part of the name."""
        return f"{self.folder.name}/{self.image_folder}/{frame:0{digits}d}"


class MotChallenge(DataFormat):
    """MOT Challenge: folders of videos with gt/gt.txt, img1/ and seqinfo.ini."""

    title = "MOT Challenge"
    layout = "MOT Challenge (gt/gt.txt beside img1/)"
    box_format = "xywh"
    suffixes = (".txt",)
    options = frozenset({"images", "classes"})

    def recognise(self, root: Path, options: ReadOptions = ReadOptions()) -> list[Path]:
        """The file itself, or the folder; other files than gt.txt hold detections, or a part of gt.txt again."""
        return [root] if any(map(_is_gt, self.annotation_files(root))) else []

    def fits(self, content: bytes) -> bool:
        """Whether a line has the columns of the format."""
        return _LINE.search(content) is not None

    def read(self, place: Path, options: ReadOptions = ReadOptions()) -> AnnotatedData:
        """Read all videos. Boxes with flag 0 are not evaluated: they become difficult.

        Frames without boxes are images without objects. Numbers of classes count from 1; their names are those in the
        options, else those of gt/labels.txt, else those of the benchmark, of which only those with boxes are listed.

        Raises:
            DataError: there is no image at all.
        """
        files = [place] if place.is_file() else _gt_files(place)
        collector = Collector(place, self.title, "line", images=options.images)
        videos = [video for file in files if (video := _read_video(file, options.classes or (), collector))]
        distinct = _without_repeats(videos)
        is_given = len(distinct) == 1 and collector.finder.has_named_folders
        images = {video.file: _find_frames(video, collector, is_given) for video in distinct}
        if not any(paths for by_frame in images.values() for paths in by_frame.values()):
            names = [f"{video.frame_name(1)}.*" for video in videos]
            reason = f"{place}: {collector.finder.nothing_found(names)}" if names else str(collector.findings[0])
            raise DataError(reason)
        collector.list_classes(options.classes or _class_names(videos))
        for video in distinct:
            _collect_video(video, images[video.file], split_of(video.file.parent, collector.root), collector)
        if repeats := len(videos) - len(distinct):
            collector.note(f"{repeats} x video: left out, it is there for another detector, with the same boxes")
        return collector.finish()


def _is_gt(file: Path) -> bool:
    return file.name.lower() == _FILE


def _gt_files(folder: Path) -> list[Path]:
    """Every gt.txt; also those whose content is broken."""
    return [file for file in files_below(folder, {".txt"}, lambda content: True) if _is_gt(file)]


def _read_video(file: Path, classes: tuple[str, ...], collector: Collector) -> _Video | None:
    """A video; None and a finding where its boxes or the names of its classes cannot be read."""
    place = Path(os.path.abspath(file)).parent
    folder = place.parent if place.name.lower() == "gt" else place
    labels = file.parent / "labels.txt"
    try:
        lines = read_lines(file)
        names = classes or _read_names(labels)
    except DataError as error:
        collector.problem("unreadable-annotations", file, str(error).removeprefix(f"{file}: "))
        return None
    rows = list(_read_rows(file, lines, bool(names), collector))
    info = _read_info(folder / "seqinfo.ini", collector)
    image_folder = Path(info.get("imdir", "").replace("\\", "/")).name or "img1"
    size_hw = side_of_image(info.get("imheight")), side_of_image(info.get("imwidth"))
    return _Video(file, folder, names, rows, image_folder, size_hw, whole_number(info.get("seqlength")) or 0)


def _read_names(labels: Path) -> tuple[str, ...]:
    """The names of the classes, one a line."""
    return tuple("\n".join(read_lines(labels)).rstrip().split("\n")) if labels.is_file() else ()


def _read_info(file: Path, collector: Collector) -> Mapping[str, str]:
    """What seqinfo.ini states; nothing where there is none."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string("\n".join(read_lines(file)) if file.is_file() else "[Sequence]")
        return dict(parser["Sequence"])
    except (configparser.Error, KeyError, DataError) as error:
        what = f"not read: a section [Sequence] is expected ({' '.join(str(error).split())})"
        collector.problem("unreadable-annotations", file, what)
        return {}


def _read_rows(file: Path, lines: Sequence[str], has_names: bool, collector: Collector) -> Iterator[_Row]:
    """The boxes of a file. It has the same columns in all lines, so one with fewer lacks some, whichever these are."""
    columns = Counter(len(_values(line)) for line in lines if line)
    expected = columns.most_common(1)[0][0] if columns else 0
    for number, line in enumerate(lines, start=1):
        with collector.report_errors(file, line_of(number, line), number):
            if line and len(_values(line)) != expected:
                raise DataError(f"{len(_values(line))} columns; the other lines have {expected}")
            if line:
                yield _read_row(_values(line), number, has_names)


def _values(line: str) -> list[str]:
    return line.removesuffix(",").split(",")


def _read_row(values: Sequence[str], number: int, has_names: bool) -> _Row:
    """A box.

    Raises:
        DataError: columns are missing, or not of numbers.
    """
    if not 6 <= len(values) <= 10:
        expected = "frame, id, left, top, width, height, flag, class, visibility"
        raise DataError(f"{len(values)} columns; expected are 9: {expected}")
    # Ten columns hold a place in the world instead of a class, unless the names of the classes are given.
    has_class = len(values) in (8, 9) or (len(values) == 10 and has_names)
    class_number = to_whole(values[7]) if has_class else _NO_CLASS
    ignored = len(values) > 6 and to_numbers([values[6]]) == [0]
    box = box_to_xyxy(to_numbers(values[2:6]), "xywh")
    return _Row(number, to_whole(values[0]), box, class_number, ignored)


def _without_repeats(videos: Sequence[_Video]) -> list[_Video]:
    """The videos, but of those that MOT17 holds for several detectors only the first."""
    distinct: dict[Path, _Video] = {}
    for video in videos:
        place = video.folder.parent / _DETECTORS.sub("", video.folder.name)
        if distinct.setdefault(place, video).rows != video.rows:
            distinct[video.file] = video
    return list(distinct.values())


def _class_names(videos: Sequence[_Video]) -> tuple[str, ...]:
    """All names of the files, and of the benchmark's those that have boxes, in the order of their numbers."""
    own = [name for video in videos for name in video.names if name]
    used = {video.class_name(row) for video in videos if not video.names for row in video.rows}
    return tuple(dict.fromkeys([*own, *(name for name in _NAMES if name in used)]))


def _find_frames(video: _Video, collector: Collector, is_given: bool) -> dict[int, list[Path]]:
    """The images of the frames with boxes, and of the first, in a folder of the video's name.

    The user may name another folder for a single video.
    """
    frames = dict.fromkeys([*(row.frame for row in video.rows), 1])
    for digits in _DIGITS:
        names = {frame: video.frame_name(frame, digits) for frame in frames}
        by_name = collector.finder.find(names.values(), video.file, split_of(video.file.parent, collector.root))
        images = {
            frame: [path for path in by_name[name] if is_given or video.folder.name in path.parts]
            for frame, name in names.items()
        }
        if any(images.values()):
            return images
    return {frame: [] for frame in frames}


def _collect_video(video: _Video, images: Mapping[int, list[Path]], split: str, collector: Collector) -> None:
    """Collect the frames of a video and their boxes."""
    path_of = _frames_with_boxes(video, images, collector)
    path_of |= _frames_without_boxes(video, images, collector)
    if len(path_of) < video.length:
        what = f"seqinfo.ini states {video.length} frames, {len(path_of)} of them are there"
        collector.problem("missing-image", video.file, what)
    frames = {
        frame: collector.image(path, split, video.file, stated_hw=video.size_hw)
        for frame, path in sorted(path_of.items())
    }
    for row in video.rows:
        if row.frame in frames:
            path = path_of[row.frame]
            with collector.report_errors(video.file, f"line {row.number}", row.number, image=path):
                if not (name := video.class_name(row)):
                    what = f"class {row.class_number} has no name; names count from 1 (classes, --class-names)"
                    raise UnusableError("unknown-class", what)
                collector.add(frames[row.frame], row.box, name, row.number, difficult=row.ignored)


def _frames_with_boxes(video: _Video, images: Mapping[int, list[Path]], collector: Collector) -> dict[int, Path]:
    """The images of the frames that gt.txt names."""
    path_of = {}
    for frame in dict.fromkeys(row.frame for row in video.rows):
        name = f"{video.frame_name(frame)}.*"
        path = collector.only_one(images[frame], name, video.file, f"frame {frame}")
        if path is not None:
            path_of[frame] = path
    return path_of


def _frames_without_boxes(video: _Video, images: Mapping[int, list[Path]], collector: Collector) -> dict[int, Path]:
    """The other images in the folders of the frames, as far as seqinfo.ini counts them."""
    annotated = {row.frame for row in video.rows}
    folders = {paths[0].parent for paths in images.values() if len(paths) == 1}
    with_boxes = {path for frame in annotated for path in images[frame]}
    path_of: dict[int, Path] = {}
    for path in sorted({path for folder in folders for path in image_files(folder)} - with_boxes):
        frame = int(path.stem) if path.stem.isdecimal() and len(path.stem) <= _MAX_DIGITS else None
        if frame is None or frame in annotated or frame in path_of or frame > (video.length or frame):
            collector.problem("unlisted-image", path, "no frame of the video", image=path)
        else:
            path_of[frame] = path
    return path_of
