"""Predictions that are killed or interrupted, in processes of their own.

No test depends on speed: a process prints a line for each image or frame into a pipe that holds few of them, and waits
until they are read.
"""

import json
import random
import signal
import sys
import time

import pytest
import torch
from PIL import Image
from tests.e2e.forked import PIPE_BYTES, Forked, start_command
from tests.e2e.small import small_config

from fasterrcnn.build import assemble
from fasterrcnn.weights import native

IMAGES = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small detector with random weights, and images."""
    folder = tmp_path_factory.mktemp("killed")
    config = small_config(["cat", "dog"])
    torch.manual_seed(0)
    native.save_checkpoint(folder / "w.safetensors", assemble(config), config)
    (folder / "photos").mkdir()
    for number in range(IMAGES):
        Image.effect_noise((200, 150), 10 + number).convert("RGB").save(folder / "photos" / f"{number:02d}.png")
    return folder


def start(folder, output, *more, photos="photos") -> Forked:
    options = ["--score", "0", "--max-detections", "5", "--save", "images", "coco", "csv", "yolo", *more]
    return start_command("predict", "w.safetensors", photos, "-o", output, *options, cwd=folder)


def check_whole(output) -> int:
    """Every file that is not hidden is complete; returns the number of images."""
    for file in output.rglob("*"):
        if file.is_dir() or file.name.startswith("."):
            continue
        if file.suffix == ".jpg":
            with Image.open(file) as image:
                image.load()
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".jsonl":
            assert all(json.loads(line) for line in file.read_text().splitlines())
        elif file.suffix == ".txt":
            assert all(len(line.split()) == 6 for line in file.read_text().splitlines())
    return len(list(output.glob("[!.]*.jpg")))


def finish(folder, output, *more, photos="photos") -> None:
    count = len(list((folder / photos).iterdir()))
    code, _, errors = start(folder, output, "--skip-existing", *more, photos=photos).finish()
    assert code == 0, errors
    assert check_whole(folder / output) == count
    rows = json.loads((folder / output / "results.json").read_text())
    assert len({row["file_name"] for row in rows}) == count
    assert len((folder / output / "detections.jsonl").read_text().splitlines()) == count
    assert not list((folder / output).glob(".*"))


@pytest.mark.parametrize("more", [(), pytest.param(("--workers", "2"), marks=pytest.mark.slow)])
def test_predict__killed_and_continued(folder, more):
    rng = random.Random(len(more))
    output = f"killed-{len(more)}"
    for _ in range(3):
        process = start(folder, output, "--skip-existing", *more)
        for _ in range(rng.randint(1, 7)):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        check_whole(folder / output)
    finish(folder, output, *more)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the size of a pipe")
def test_predict__interrupted(folder):
    process = start(folder, "stopped", "--json")
    lines = [process.stdout.readline() for _ in range(3)]
    assert min(map(len, lines)) * (IMAGES - 4) > 2 * PIPE_BYTES  # so that it waits long before its end
    process.send_signal(signal.SIGINT)
    code, _, errors = process.finish()
    assert (code, errors) == (130, "interrupted\n")
    done = check_whole(folder / "stopped")
    assert 3 <= done < IMAGES
    rows = json.loads((folder / "stopped" / "results.json").read_text())
    assert 3 <= len({row["file_name"] for row in rows}) <= done
    finish(folder, "stopped")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the size of a pipe")
def test_predict__killed_within_a_video(folder):
    av = pytest.importorskip("av")
    (folder / "films").mkdir()
    frames = 40
    with av.open(str(folder / "films" / "street.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 200, 150, "yuv420p"
        for number in range(frames):
            image = Image.effect_noise((200, 150), 10 + number).convert("RGB")
            film.mux(stream.encode(av.VideoFrame.from_image(image)))
        film.mux(stream.encode())
    for count in (1, 20):
        process = start(folder, "film", "--skip-existing", "--json", photos="films/street.mp4")
        lines = [process.stdout.readline() for _ in range(count)]
        assert all("frame" in json.loads(line) for line in lines)
        assert min(map(len, lines)) * (frames - count - 1) > 2 * PIPE_BYTES  # so that it waits before the last frame
        process.kill()
        check_whole(folder / "film")
        assert not (folder / "film" / "street.mp4").exists()
    code, _, errors = start(folder, "film", "--skip-existing", photos="films/street.mp4").finish()
    assert code == 0, errors
    with av.open(str(folder / "film" / "street.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == frames
    lines = [json.loads(line) for line in (folder / "film" / "detections.jsonl").read_text().splitlines()]
    assert sorted(line["frame"] for line in lines if "frame" in line) == list(range(frames))
    assert not list((folder / "film").glob(".*"))
