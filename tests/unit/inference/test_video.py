from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.errors import DataError, ImageError, UsageError
from fasterrcnn.inference.sources import LoadedImage, is_video
from fasterrcnn.inference.video import atomic_video, camera_frames, captured, files_and_frames, upright, video_frames

av = pytest.importorskip("av")


def frame(number: int, size=(64, 48)) -> Image.Image:
    """Grey; its level shows the number."""
    return Image.new("RGB", size, (20 + 10 * number,) * 3)


def write(path, count=10, size=(64, 48), times=None, rate=10.0):
    with atomic_video(path, rate, part=path.with_stem("part")) as video:
        for number in range(count):
            video.write(frame(number, size), times[number] if times else number / rate)
    return path


def frames(path, every=1) -> list[LoadedImage]:
    return [one for one in video_frames(path, every) if isinstance(one, LoadedImage)]


def errors(path) -> list[str]:
    return [str(one) for one in video_frames(path) if isinstance(one, ImageError)]


@pytest.mark.parametrize("size", [(64, 48), (65, 47), (31, 16)])
def test_video__written_and_read(tmp_path, size):
    path = write(tmp_path / "a.mp4", size=size)
    read = frames(path)
    assert [one.frame for one in read] == list(range(10))
    assert [one.seconds for one in read] == pytest.approx([number / 10 for number in range(10)], abs=1e-3)
    even = tuple(side + side % 2 for side in size)
    assert {one.image.size for one in read} == {even}
    means = [float(one.pixels.float().mean()) for one in read]
    assert means == pytest.approx([20 + 10 * number for number in range(10)], abs=4)
    assert errors(path) == []
    assert {one.source for one in read} == {path}
    assert [one.frame for one in frames(path, every=4)] == [0, 4, 8]


def test_video__what_browsers_play(tmp_path):
    with av.open(str(write(tmp_path / "a.mp4", size=(65, 47)))) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.duration * stream.time_base) == pytest.approx(1.0, abs=1e-3)
    head = (tmp_path / "a.mp4").read_bytes()
    assert 0 < head.index(b"moov") < head.index(b"mdat")  # plays before it is loaded


def test_video__variable_frame_rate(tmp_path):
    times = [0.0, 0.02, 0.3, 0.31, 0.9, 1.7, 1.71, 1.72, 2.5, 3.0]
    read = frames(write(tmp_path / "a.mp4", times=times))
    assert [one.seconds for one in read] == pytest.approx(times, abs=1e-3)


def test_video__times_that_stand_still(tmp_path):
    read = frames(write(tmp_path / "a.mp4", count=4, times=[0.0, 0.0, 0.0, 0.5]))
    assert len(read) == 4
    assert read[-1].seconds == pytest.approx(0.5, abs=1e-3)


def matroska(path, count=40):
    """A file that can be cut anywhere."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 5
        chance = np.random.default_rng(0)
        for number in range(count):
            image = av.VideoFrame.from_ndarray(chance.integers(0, 255, (48, 64, 3), np.uint8), format="rgb24")
            image.pts, image.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def test_video__breaks_off(tmp_path):
    content = matroska(tmp_path / "whole.mkv").read_bytes()
    torn = tmp_path / "torn.mkv"
    torn.write_bytes(content[: len(content) * 2 // 3])
    assert errors(tmp_path / "whole.mkv") == []
    (error,) = errors(torn)
    read = frames(torn)
    assert 0 < len(read) < 40
    assert error.startswith(f"{torn}: breaks off after ")
    assert error.endswith(f" of 4.0 s; {len(read)} frames were read")


def test_video__damaged_parts_are_left_out(tmp_path):
    content = bytearray(matroska(tmp_path / "whole.mkv").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    path = tmp_path / "damaged.mkv"
    path.write_bytes(content)
    assert 20 < len(frames(path)) <= 40


@pytest.mark.parametrize("content", [b"", b"no video", b"\x00\x00\x00\x18ftypmp42"])
def test_video__no_video(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    (error,) = errors(path)
    assert error.startswith(f"{path}: not a video that can be read")
    assert frames(path) == []


def test_upright__quarter_turns():
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255  # upper left
    assert upright(pixels, 0).tolist() == pixels.tolist()
    left = upright(pixels, 90)  # counter-clockwise: the corner goes to the lower left
    assert left.shape == (3, 2, 3)
    assert left[2, 0, 0] == 255
    assert upright(pixels, -90)[0, 1, 0] == 255
    assert upright(pixels, 180)[1, 2, 0] == 255


def test_writer__nothing_without_frames_and_nothing_after_an_error(tmp_path):
    with atomic_video(tmp_path / "a.mp4", 25.0, part=tmp_path / "part.mp4"):
        pass
    with (
        pytest.raises(ValueError, match="oops"),
        atomic_video(tmp_path / "a.mp4", 25.0, part=tmp_path / "p.mp4") as v,
    ):
        v.write(frame(0), 0.0)
        raise ValueError("oops")
    assert list(tmp_path.iterdir()) == []


def test_writer__stopped_by_hand_leaves_a_part_that_plays(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        atomic_video(tmp_path / "a.mp4", 10.0, part=tmp_path / "p.mp4") as video,
    ):
        for number in range(3):
            video.write(frame(number), number / 10)
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["p.mp4"]
    assert len(frames(tmp_path / "p.mp4")) == 3


class Capture:
    """A camera of three frames."""

    def __init__(self):
        self.left, self.released = 3, False

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((4, 6, 3), (1, 2, 3), np.uint8)

    def release(self):
        self.released = True


def test_camera__rgb_numbers_and_release():
    camera = Capture()
    read = list(captured(camera, every=2))
    assert [one.frame for one in read] == [0, 2]
    assert read[0].pixels[:, 0, 0].tolist() == [3, 2, 1]
    assert camera.released


def test_camera__that_is_not_there():
    pytest.importorskip("cv2")
    with pytest.raises(UsageError, match="camera 63 cannot be opened"):
        next(camera_frames(63))


def test_is_video():
    assert all(is_video(source) for source in ("a.mp4", "b.MOV", 0, 3))
    assert not any(is_video(source) for source in ("a.jpg", "*.mp4", True, None, b"a.mp4"))


def test_files_and_frames__videos_among_images(tmp_path):
    write(tmp_path / "b.mp4", count=2)
    frame(0).save(tmp_path / "a.png")
    (tmp_path / "c.mp4").write_bytes(b"")
    found = list(files_and_frames(f"{tmp_path}/*", 1))
    assert found[0] == tmp_path / "a.png"
    assert [one.frame for one in found[1:3]] == [0, 1]
    assert isinstance(found[3], ImageError)
    with pytest.raises(DataError, match=r"absent\.mp4: no such file"):
        files_and_frames(tmp_path / "absent.mp4", 1)
