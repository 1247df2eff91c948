import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.config import changed
from fasterrcnn.inference.detector import load
from fasterrcnn.weights import native


@pytest.fixture
def images(tmp_path, photo):
    folder = tmp_path / "photos with a space"
    folder.mkdir()
    for number, size in enumerate([(64, 96), (80, 60)]):
        photo(size, number).save(folder / f"p{number}.png")
    return folder


def test_predict__images_and_results(run, checkpoint, images):
    outcome = run("predict", checkpoint, images, "-o", "seen", "--score", "0.3")
    assert (outcome.code, outcome.err) == (0, "")
    assert "wrote 2 images and results.json to seen" in outcome.out
    output = images.parent / "here" / "seen"
    assert sorted(p.name for p in output.iterdir()) == ["detections.jsonl", "p0.jpg", "p1.jpg", "results.json"]
    with Image.open(output / "p0.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (96, 64))
    rows = json.loads((output / "results.json").read_text())
    detector = load(checkpoint)
    expected = []
    for image_id, path in enumerate(sorted(images.iterdir()), start=1):
        found = detector.predict(path, score=0.3)
        expected += [{**row, "file_name": str(path)} for row in found.to_coco(image_id)]
    assert rows == expected
    assert rows


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_predict__half_precision(run, checkpoint, images, workers):
    outcome = run("predict", checkpoint, images, "-o", "seen", "--precision", "bf16", "--workers", workers)
    assert outcome.code == 0, outcome.err
    detector = load(checkpoint, device="cpu", precision="bf16")
    rows = json.loads((images.parent / "here" / "seen" / "results.json").read_text())
    expected = [len(detector.predict(path, score=0.5)) for path in sorted(images.iterdir())]
    assert [sum(row["image_id"] == number for row in rows) for number in range(1, len(expected) + 1)] == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--device", "cpu", "--precision", "fp16"), "precision fp16 needs a GPU; on a CPU there are float32 and bf16"),
        (("--runtime", "winograd", "--precision", "bf16"), "runtime winograd has no precision bf16"),
    ],
)
def test_predict__precision_that_is_not_possible(run, checkpoint, images, options, reason):
    outcome = run("predict", checkpoint, images, "-o", "seen", *options)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1


def test_predict__ids_of_the_training_data(run, tiny_config, tiny_model, images, tmp_path):
    config = tiny_config.model_copy(update={"category_ids": (90, 18, 3)})
    native.save_checkpoint(tmp_path / "ids.safetensors", tiny_model, config)
    run("predict", tmp_path / "ids.safetensors", images, "-o", "seen", "--score", "0.3", "--classes", "dog")
    rows = json.loads((images.parent / "here" / "seen" / "results.json").read_text())
    assert {row["category_id"] for row in rows} == {18}


def test_predict__results_are_coco_results(run, checkpoint, images):
    hotcoco = pytest.importorskip("hotcoco")
    run("predict", checkpoint, images, "-o", "seen", "--score", "0.3")
    rows = json.loads((images.parent / "here" / "seen" / "results.json").read_text())
    ground_truth = {
        "images": [{"id": i, "width": 96, "height": 96} for i in (1, 2)],
        "annotations": [],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
    }
    results = [{key: value for key, value in row.items() if key != "file_name"} for row in rows]
    assert len(hotcoco.COCO(ground_truth).load_res(results).dataset["annotations"]) == len(rows)


def test_predict__broken_image_is_named_and_the_rest_done(run, checkpoint, images):
    (images / "broken.jpg").write_text("no image")
    outcome = run("predict", checkpoint, images, images / "absent.jpg", "-o", "seen")
    assert outcome.code == 1
    first, second = outcome.err.splitlines()
    assert first == f"error: {images / 'broken.jpg'}: not an image that can be decoded"
    assert second == f"error: {images / 'absent.jpg'}: no such file"
    assert "wrote 2 images" in outcome.out


def test_predict__images_of_one_name_do_not_overwrite_each_other(run, checkpoint, images, photo):
    other = images / "more"
    other.mkdir()
    photo((40, 50)).save(other / "p0.png")
    photo((50, 40)).save(images / "p0.jpg")
    outcome = run("predict", checkpoint, images, other, images / "p0.png", "-o", "seen")
    assert outcome.code == 0
    written = sorted(p.name for p in (images.parent / "here" / "seen").glob("*.jpg"))
    assert written == ["p0-2.jpg", "p0-3.jpg", "p0.jpg", "p1.jpg"]


def test_predict__source_images_are_not_replaced(run, checkpoint, images, photo):
    photo((50, 40)).save(images / "own.jpg")
    before = (images / "own.jpg").read_bytes()
    outcome = run("predict", checkpoint, images, "-o", images)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "holds images that are read; give another output folder" in outcome.err
    assert (images / "own.jpg").read_bytes() == before


def test_predict__photographs_beside_the_source_are_not_replaced(run, checkpoint, images, photo):
    photo((50, 40)).save(images / "twin.png")
    photo((50, 40)).save(images / "twin.jpg")
    before = (images / "twin.jpg").read_bytes()
    assert run("predict", checkpoint, images / "twin.png", "-o", images).code == 2
    assert (images / "twin.jpg").read_bytes() == before


def test_predict__image_too_long_for_a_jpeg(run, checkpoint, images):
    Image.new("RGB", (66_000, 2)).save(images / "long.png")
    outcome = run("predict", checkpoint, images / "long.png", images / "p0.png", "-o", "seen")
    assert outcome.code == 1
    assert "long.jpg: cannot be written" in outcome.err
    seen = images.parent / "here" / "seen"
    assert sorted(p.name for p in seen.iterdir()) == ["detections.jsonl", "p0.jpg", "results.json"]


def test_predict__output_is_a_file(run, checkpoint, images):
    outcome = run("predict", checkpoint, images, "-o", checkpoint)
    assert outcome.code == 2
    assert "is a file, not a folder" in outcome.err


def test_predict__json(run, checkpoint, images):
    outcome = run("predict", checkpoint, images / "p0.png", "-o", "seen", "--score", "0.3", "--json")
    (line,) = outcome.out.splitlines()
    entry = json.loads(line)
    assert entry["file"] == str(images / "p0.png")
    assert entry["image"] == "seen/p0.jpg"
    assert entry["detections"] == load(checkpoint).predict(images / "p0.png", score=0.3).to_records()


def test_predict__options(run, checkpoint, images):
    detector = load(checkpoint)
    name = detector.predict(images / "p0.png", score=0.0).names[0]
    options = [
        "--score",
        "0",
        "--classes",
        name,
        "--max-detections",
        "1",
        "--nms",
        "agnostic",
        "--nms-threshold",
        "0.4",
    ]
    outcome = run("predict", checkpoint, images / "p0.png", "-o", "seen", "--json", *options)
    (row,) = json.loads(outcome.out)["detections"]
    assert row["name"] == name


def test_predict__other_names(run, checkpoint, images):
    names = ["red", "green", "blue"]
    outcome = run("predict", checkpoint, images / "p0.png", "-o", "seen", "--score", "0", "--json", "--names", *names)
    assert {row["name"] for row in json.loads(outcome.out)["detections"]} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "bee"], "no class is called 'bee'; there are: cat, dog, owl"),
        (["--score", "2"], "score_threshold must lie in 0..1, not 2.0"),
        (["--names", "a", "b"], "holds 3 classes, not 2"),
        (["--max-detections", "0"], "max_detections must be at least 1"),
    ],
)
def test_predict__options_that_cannot_work(run, checkpoint, images, arguments, message):
    outcome = run("predict", checkpoint, images, "-o", "seen", *arguments)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert message in outcome.err


def test_predict__missing_weights_and_sources(run, checkpoint, tmp_path, images):
    outcome = run("predict", tmp_path / "absent.safetensors", images, "-o", "seen")
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "absent.safetensors: no such file" in outcome.err
    empty = tmp_path / "empty"
    empty.mkdir()
    outcome = run("predict", checkpoint, empty, "-o", "seen")
    assert outcome.code == 2
    assert "no images in this folder" in outcome.err


def test_predict__unknown_device(run, checkpoint, images):
    assert run("predict", checkpoint, images, "-o", "seen", "--device", "gpu").code == 2


def test_predict__bad_option_writes_nothing(run, checkpoint, images):
    outcome = run("predict", checkpoint, images, "-o", "seen", "--classes", "unicorn")
    assert outcome.code == 2
    assert not (images.parent / "here" / "seen").exists()


def test_predict__offline(run, images, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("os.environ", dict(os.environ))
    outcome = run("predict", "--offline", "resnet50-fpn", images, "-o", "seen")
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth: it is not there, and FASTERRCNN_OFFLINE forbids" in outcome.err
    assert "fetch https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth" in outcome.err


def test_predict__range_of_the_checkpoint_and_by_hand(run, tiny_config, tiny_model, tmp_path):
    values = np.linspace(30000, 31020, 64 * 96).astype(np.uint16).reshape(64, 96)
    Image.fromarray(values).save(tmp_path / "thermal.png")
    config = changed(tiny_config, input={"pixel_range": (30000.0, 31020.0)})
    native.save_checkpoint(tmp_path / "kept.safetensors", tiny_model, config)
    native.save_checkpoint(tmp_path / "none.safetensors", tiny_model, tiny_config)
    by_hand = ["--pixel-range", 30000, 31020]
    results = {}
    for name, weights, options in (("kept", "kept", []), ("hand", "none", by_hand), ("none", "none", [])):
        done = run(
            "predict", tmp_path / f"{weights}.safetensors", tmp_path / "thermal.png", "-o", name, "--score", 1, *options
        )
        assert done.code == 0
        with Image.open(next(Path(name).glob("thermal.*"))) as drawn:
            results[name] = np.asarray(drawn.convert("L")).astype(int)
    assert (results["kept"] == results["hand"]).all()
    assert np.ptp(results["kept"]) > 200  # the drawn image is as the network saw it
    assert results["none"][32].max() < 140


def test_predict__impossible_range(run, checkpoint, images):
    done = run("predict", checkpoint, images, "-o", "out", "--pixel-range", 5, 5)
    assert done.is_one_line
    assert "pixel_range" in done.err


def test_predict__other_files_of_a_folder_are_named(run, checkpoint, images):
    (images / "drawing.svg").touch()
    done = run("predict", checkpoint, images, "-o", "out")
    assert f"note: {images}: left out, because their names are not those of images: drawing.svg\n" in done.err
