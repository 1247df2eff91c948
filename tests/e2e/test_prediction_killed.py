"""Predictions that are killed or stopped, in processes of their own."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from fasterrcnn import presets
from fasterrcnn.build import assemble
from fasterrcnn.weights import native

IMAGES = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small detector with random weights, and images."""
    folder = tmp_path_factory.mktemp("killed")
    config = presets.get("timm:test_efficientnet", ["cat", "dog"])
    config = config.model_copy(update={"input": config.input.model_copy(update={"short_side": 64, "long_side": 96})})
    torch.manual_seed(0)
    native.save_checkpoint(folder / "w.safetensors", assemble(config), config)
    (folder / "photos").mkdir()
    for number in range(IMAGES):
        Image.effect_noise((200, 150), 10 + number).convert("RGB").save(folder / "photos" / f"{number:02d}.png")
    return folder


def start(folder, output, *more, photos="photos") -> subprocess.Popen[str]:
    options = ["--score", "0", "--max-detections", "5", "--save", "images", "coco", "csv", "yolo", *more]
    command = [sys.executable, "-m", "fasterrcnn", "predict", "w.safetensors", photos, "-o", output, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=environment)


def check_whole(output) -> int:
    """Every file with a name of its own is whole; returns how many images there are."""
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
    process = start(folder, output, "--skip-existing", *more, photos=photos)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert check_whole(folder / output) == count
    rows = json.loads((folder / output / "results.json").read_text())
    assert len({row["file_name"] for row in rows}) == count
    assert len((folder / output / "detections.jsonl").read_text().splitlines()) == count
    assert not list((folder / output).glob(".*"))


@pytest.mark.parametrize("more", [(), ("--workers", "2")])
def test_predict__killed_and_gone_on_with(folder, more):
    chance = random.Random(len(more))
    output = f"killed-{len(more)}"
    for _ in range(3):
        process = start(folder, output, "--skip-existing", *more)
        assert process.stdout is not None
        for _ in range(chance.randint(1, 7)):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.communicate()
        check_whole(folder / output)
    finish(folder, output, *more)


def test_predict__stopped_by_hand(folder):
    (folder / "many").mkdir()  # so many that a quick machine is not done before the signal comes
    for number in range(4 * IMAGES):
        shutil.copy(folder / "photos" / f"{number % IMAGES:02d}.png", folder / "many" / f"{number:03d}.png")
    process = start(folder, "stopped", photos="many")
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "interrupted\n")
    done = check_whole(folder / "stopped")
    assert 3 <= done < 4 * IMAGES
    rows = json.loads((folder / "stopped" / "results.json").read_text())
    assert 3 <= len({row["file_name"] for row in rows}) <= done
    finish(folder, "stopped", photos="many")


def test_predict__killed_within_a_video(folder):
    av = pytest.importorskip("av")
    (folder / "films").mkdir()
    frames = 60
    with av.open(str(folder / "films" / "street.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 200, 150, "yuv420p"
        for number in range(frames):
            image = Image.effect_noise((200, 150), 10 + number).convert("RGB")
            film.mux(stream.encode(av.VideoFrame.from_image(image)))
        film.mux(stream.encode())
    for seen in (1, 20, 50):
        process = start(folder, "film", "--skip-existing", "--json", photos="films/street.mp4")
        assert process.stdout is not None
        for _ in range(seen):
            assert "frame" in json.loads(process.stdout.readline())
        process.kill()
        process.communicate()
        check_whole(folder / "film")
        assert not (folder / "film" / "street.mp4").exists()
    process = start(folder, "film", "--skip-existing", photos="films/street.mp4")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    with av.open(str(folder / "film" / "street.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == frames
    lines = [json.loads(line) for line in (folder / "film" / "detections.jsonl").read_text().splitlines()]
    assert sorted(line["frame"] for line in lines if "frame" in line) == list(range(frames))
    assert not list((folder / "film").glob(".*"))
