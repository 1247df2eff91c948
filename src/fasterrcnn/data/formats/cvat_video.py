"""Which images are the frames of a video that was annotated in CVAT, or of a series of images in its video format.

Its XML has numbers of frames and no names. CVAT calls images that it exports after them: frame_000017.PNG.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from fasterrcnn.data.formats.collector import Collector
from fasterrcnn.data.formats.values import side_of_image, whole_number
from fasterrcnn.images import image_files

_FRAME_NAME = re.compile(r"frame_(\d{6,12})")


@dataclass(frozen=True)
class FrameRange:
    """The frames of a task or job, as its description states them: every step-th from start to stop.

    Attributes:
        count: how many there are, less those that were deleted; None, as ``stop``, where the file does not state it.
        size_hw: height and width of the video; 0 where the file does not state it.
    """

    start: int = 0
    stop: int | None = None
    step: int = 1
    count: int | None = None
    size_hw: tuple[int, int] = (0, 0)

    def holds(self, frame: int) -> bool:
        """Whether a number can be that of a frame."""
        is_inside = self.start <= frame and (self.stop is None or frame <= self.stop)
        return is_inside and (frame - self.start) % self.step == 0


def frame_range(tree: ElementTree.Element, task_id: str | None) -> FrameRange:
    """The frames of a task, by its id in a file of several; of a file of one where there is no id."""
    parts = [part for tag in ("task", "job") for part in tree.iterfind(f"meta//{tag}")]
    part = next((part for part in parts if task_id in (None, part.findtext("id"))), None)
    if part is None:
        return FrameRange()
    step = re.fullmatch(r"step\s*=\s*(\d{1,9})", (part.findtext("frame_filter") or "").strip())
    height, width = (side_of_image(part.findtext(f"original_size/{side}")) for side in ("height", "width"))
    return FrameRange(
        whole_number(part.findtext("start_frame")) or 0,
        whole_number(part.findtext("stop_frame")),
        max(1, int(step[1])) if step else 1,
        whole_number(part.findtext("size")),
        (height, width),
    )


def find_frames(
    frames: Collection[int],
    frame_range: FrameRange,
    subset: str,
    file: Path,
    split: str,
    collector: Collector,
) -> dict[int, Path]:
    """The image of each frame, also of those without objects; what is not there becomes a finding.

    Images are found by the names that CVAT gives them. Images of other names are taken in their order, if there is just
    one for every frame. So are images whose numbers do not fit, such as those of ffmpeg, which counts from 1.

    Args:
        frames: the numbers of the frames with objects.
        frame_range: those that the task has.
        subset: the part of the project, whose images have a folder of its name; empty where there is none.
        file: the annotation file.
        split: that of the subset.
    """
    names = {frame: f"{subset}/frame_{frame:06d}".lstrip("/") for frame in sorted(frames)}
    matches = collector.finder.find(names.values(), file, split)
    certain = {frame: matches[name][0] for frame, name in names.items() if len(matches[name]) == 1}
    beside = {path for folder in {path.parent for path in certain.values()} for path in image_files(folder)}
    numbered = {int(name[1]): path for path in sorted(beside) if (name := _FRAME_NAME.fullmatch(path.stem))}
    if certain and all(map(frame_range.holds, numbered)):
        for frame in names.keys() - certain.keys():
            collector.only_one(matches[names[frame]], names[frame], file, f"frame {frame}")
        return numbered | certain
    images = collector.finder.all_of(file)
    if images and len(images) == frame_range.count and images == sorted(images, key=_natural_order):
        in_order = {frame_range.start + frame_range.step * index: path for index, path in enumerate(images)}
        for frame in names.keys() - in_order.keys():
            collector.problem("missing-image", file, f"frame {frame}: the task has {len(images)} frames, and not this")
        collector.note(f"{file.name} has no names of images: they are its frames in the order of their names")
        return in_order
    if names and not images:
        collector.problem("missing-image", file, collector.finder.nothing_found(list(names.values())))
    elif names:
        count = "an unknown number of" if frame_range.count is None else frame_range.count
        what = (
            f"which images are its frames is not clear: it has {count} frames, and there are {len(images)} images; "
            f"call them after the frames, as CVAT does ({next(iter(names.values()))}.png)"
        )
        collector.problem("missing-image", file, what)
    return {}


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts numbers in names by their value: frame2 before frame10."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(int(part), "") if part.isdecimal() and len(part) < 20 else (0, part) for part in parts]
