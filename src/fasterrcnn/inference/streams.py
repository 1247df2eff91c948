"""What a folder, glob, video or camera holds, one after the other."""

from collections.abc import Iterator
from pathlib import Path

from fasterrcnn.errors import ImageError
from fasterrcnn.inference import video
from fasterrcnn.inference.sources import Loaded, find_files, is_video


def files_and_frames(source: str | Path | int, every: int) -> Iterator[Path | Loaded | ImageError]:
    """What a folder, glob, video or camera holds, one after the other: files to load, and frames that are loaded.

    A video that cannot be read, or not to its end, has its error in its place, or at its end.

    Args:
        source: what to look at.
        every: of videos and cameras, each n-th frame.

    Raises:
        DataError: nothing is there.
        MissingExtraError: videos need PyAV, cameras OpenCV.
    """
    if isinstance(source, int):
        return video.camera_frames(source, every)
    files = find_files(source)
    if any(is_video(file) for file in files):
        video.require_av()
    return _all_of(files, every)


def _all_of(files: list[Path], every: int) -> Iterator[Path | Loaded | ImageError]:
    for file in files:
        if is_video(file):
            yield from video.video_frames(file, every)
        else:
            yield file
