"""Videos through PyAV: frames of any file that FFmpeg reads, h264 files that browsers play. Cameras through OpenCV."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from fasterrcnn.errors import ImageError, UsageError, require
from fasterrcnn.files import atomic_write
from fasterrcnn.inference.sources import LoadedImage, find_files, is_video

_CLOCK = 90_000
"""Ticks a second of the files that are written: a multiple of the common frame rates, fine enough for any other."""

_MISSING_SECONDS = 0.5
"""A video that ends so many seconds before the end that its header states is cut off."""


def require_av() -> ModuleType:
    """PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    av: ModuleType = require("av", "viz", package="PyAV")
    av.logging.set_level(None)  # damaged files are reported by our messages, not by FFmpeg's
    return av


def files_and_frames(source: str | Path | int, every: int) -> Iterator[Path | LoadedImage | ImageError]:
    """The image files of a folder or glob, to be loaded later, and the frames of videos and cameras.

    An error stands in the place of a video that cannot be read, or after the last frame of one that is damaged.

    Raises:
        DataError: there is no such file.
        MissingExtraError: videos need PyAV, cameras OpenCV.
    """
    if isinstance(source, int):
        return camera_frames(source, every)
    files = find_files(source)
    if any(is_video(file) for file in files):
        require_av()
    return chain.from_iterable(video_frames(file, every) if is_video(file) else (file,) for file in files)


def video_frames(path: Path, every: int = 1) -> Iterator[LoadedImage | ImageError]:
    """Frames of a video, upright, with their number and time; frames that cannot be decoded are left out.

    If the video cannot be read or is damaged, an error comes as the last element.
    """
    av = require_av()
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        yield ImageError(f"{path}: not a video that can be read ({_reason(error)})")
        return
    with container:
        if not container.streams.video:
            yield ImageError(f"{path}: no images in this file, sound only")
            return
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        number, end, damaged = 0, 0.0, 0
        step = 1 / float(stream.average_rate or 25)
        for frame in _decoded(container, stream, av):
            if frame is None:
                damaged += 1
                continue
            seconds = end if frame.time is None else max(0.0, frame.time - (stream.start_time or 0) * stream.time_base)
            end = float(seconds) + step
            if number % every == 0:
                pixels = upright(frame.to_ndarray(format="rgb24"), frame.rotation)
                yield _loaded(pixels, path, number, float(seconds))
            number += 1
        announced = _announced_seconds(container, stream)
    if number == 0:
        yield ImageError(f"{path}: none of its frames can be decoded")
    elif announced - end > max(_MISSING_SECONDS, 2 * step):
        yield ImageError(f"{path}: breaks off after {end:.1f} of {announced:.1f} s; {number} frames were read")
    elif damaged:
        yield ImageError(f"{path}: {damaged} damaged parts were left out; {number} frames were read")


def camera_frames(index: int, every: int = 1) -> Iterator[LoadedImage | ImageError]:
    """Each n-th frame of a camera, counted from 0, until it is switched off.

    Raises:
        MissingExtraError: OpenCV is not installed.
        UsageError: there is no such camera.
    """
    cv2 = require("cv2", "viz", package="OpenCV")
    camera = cv2.VideoCapture(index)
    if not camera.isOpened():
        raise UsageError(f"camera {index} cannot be opened; cameras are numbered from 0")
    return captured(camera, every)


def captured(camera: Any, every: int) -> Iterator[LoadedImage]:
    """Each n-th frame of an open ``cv2.VideoCapture``, as RGB, with the time since the first."""
    number, started = 0, time.monotonic()
    try:
        while True:
            there, frame = camera.read()
            if not there:
                return
            if number % every == 0:
                yield _loaded(np.ascontiguousarray(frame[..., ::-1]), None, number, time.monotonic() - started)
            number += 1
    finally:
        camera.release()


def upright(pixels: UInt8[np.ndarray, "h w 3"], rotation: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """A frame turned counter-clockwise by the degrees that its file states, rounded to quarter turns."""
    return np.ascontiguousarray(np.rot90(pixels, round(rotation / 90)))


class VideoWriter:
    """Writes an MP4 file with h264 images in yuv420p, which every browser plays.

    The encoder needs even sides; an image with an odd one gets its last row or column twice.

    Args:
        path: the file to write.
        rate: nominal frames a second; each frame has a time of its own nevertheless.
    """

    def __init__(self, path: Path, rate: float = 25) -> None:
        self._av = require_av()
        self._path, self._rate = path, Fraction(rate).limit_denominator(1001)
        self._container: Any = None
        self._stream: Any = None
        self._size = (0, 0)
        self._last = -1

    def write(self, image: Image.Image, seconds: float) -> None:
        """Add a frame that is shown from that second on, but at least one tick after the frame before."""
        if self._container is None:
            self._stream = self._open(image.size)
        width, height = self._stream.width, self._stream.height
        pixels = np.asarray(image)
        if image.size != self._size:
            pixels = np.asarray(image.resize(self._size))
        padding = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
        frame = self._av.VideoFrame.from_ndarray(np.pad(pixels, padding, mode="edge"), format="rgb24")
        self._last = max(round(seconds * _CLOCK), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the file's index; without frames there is no file."""
        if self._container is not None:
            self._mux(self._stream.encode(None))
            self._container.close()
            self._container = None

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = round(
                _CLOCK / self._rate
            )  # matters for the last frame only; the others end when the next begins
            self._container.mux(packet)

    def _open(self, size: tuple[int, int]) -> Any:
        """The stream of a new file for images of that width and height."""
        self._size = size
        self._container = self._av.open(str(self._path), "w", format="mp4", options={"movflags": "+faststart"})
        stream = self._container.add_stream("libx264", rate=self._rate)
        stream.width, stream.height = (side + side % 2 for side in size)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        stream.options = {"preset": "veryfast", "crf": "23"}
        return stream


@contextmanager
def atomic_video(path: Path, rate: float, *, part: Path) -> Iterator[VideoWriter]:
    """A `VideoWriter` whose file is there completely or not at all; see `fasterrcnn.files.atomic_write`.

    Args:
        path: the file to write; without any frame there will be none.
        rate: nominal frames a second.
        part: the path of the unfinished video that an interruption leaves; it can be played.
    """
    with atomic_write(path) as temporary:
        writer = VideoWriter(temporary, rate)
        try:
            yield writer
        except (KeyboardInterrupt, GeneratorExit):
            writer.close()
            if temporary.exists():
                temporary.replace(part)
            raise
        finally:
            writer.close()


def frame_rate(path: Path) -> float:
    """Average frames a second of a video; 25 where the file does not state it."""
    av = require_av()
    try:
        with av.open(str(path)) as container:
            return float(container.streams.video[0].average_rate or 25)
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return 25.0


def _decoded(container: Any, stream: Any, av: ModuleType) -> Iterator[Any]:
    """Frames, and None for a part that cannot be decoded; ends where the file cannot be read further."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError):
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            yield None


def _announced_seconds(container: Any, stream: Any) -> float:
    """Length of the video that its header states; 0 if it states none."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1
    return float(container.duration / 1_000_000) if alone and container.duration else 0.0


def _loaded(pixels: UInt8[np.ndarray, "h w 3"], source: Path | None, number: int, seconds: float) -> LoadedImage:
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    return LoadedImage(tensor, source, Image.fromarray(pixels), number, seconds)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).splitlines()[0]
