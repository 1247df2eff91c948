import json
import os

import pytest
from PIL import Image

from fasterrcnn.inference.loading import load
from fasterrcnn.weights import native


@pytest.fixture
def pictures(tmp_path, photo):
    folder = tmp_path / "photos with a space"
    folder.mkdir()
    for number, size in enumerate([(64, 96), (80, 60)]):
        photo(size, number).save(folder / f"p{number}.png")
    return folder


def test_predict__pictures_and_results(run, checkpoint, pictures):
    outcome = run("predict", checkpoint, pictures, "-o", "seen", "--score", "0.3")
    assert (outcome.code, outcome.err) == (0, "")
    assert "wrote 2 pictures and results.json to seen" in outcome.out
    output = pictures.parent / "here" / "seen"
    assert sorted(p.name for p in output.iterdir()) == ["detections.jsonl", "p0.jpg", "p1.jpg", "results.json"]
    with Image.open(output / "p0.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (96, 64))
    rows = json.loads((output / "results.json").read_text())
    detector = load(checkpoint)
    expected = []
    for image_id, path in enumerate(sorted(pictures.iterdir()), start=1):
        found = detector.predict(path, score=0.3)
        expected += [{**row, "file_name": str(path)} for row in found.to_coco(image_id)]
    assert rows == expected
    assert rows


def test_predict__ids_of_the_training_data(run, tiny_config, tiny_model, pictures, tmp_path):
    config = tiny_config.model_copy(update={"category_ids": (90, 18, 3)})
    native.save(tmp_path / "ids.safetensors", tiny_model, config)
    run("predict", tmp_path / "ids.safetensors", pictures, "-o", "seen", "--score", "0.3", "--classes", "dog")
    rows = json.loads((pictures.parent / "here" / "seen" / "results.json").read_text())
    assert {row["category_id"] for row in rows} == {18}


def test_predict__results_are_coco_results(run, checkpoint, pictures):
    hotcoco = pytest.importorskip("hotcoco")
    run("predict", checkpoint, pictures, "-o", "seen", "--score", "0.3")
    rows = json.loads((pictures.parent / "here" / "seen" / "results.json").read_text())
    truth = {
        "images": [{"id": i, "width": 96, "height": 96} for i in (1, 2)],
        "annotations": [],
        "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
    }
    results = [{key: value for key, value in row.items() if key != "file_name"} for row in rows]
    assert len(hotcoco.COCO(truth).load_res(results).dataset["annotations"]) == len(rows)


def test_predict__broken_picture_is_named_and_the_rest_done(run, checkpoint, pictures):
    (pictures / "broken.jpg").write_text("no picture")
    outcome = run("predict", checkpoint, pictures, pictures / "absent.jpg", "-o", "seen")
    assert outcome.code == 1
    first, second = outcome.err.splitlines()
    assert first == f"error: {pictures / 'broken.jpg'}: not a picture that can be decoded"
    assert second == f"error: {pictures / 'absent.jpg'}: no such file"
    assert "wrote 2 pictures" in outcome.out


def test_predict__pictures_of_one_name_do_not_overwrite_each_other(run, checkpoint, pictures, photo):
    other = pictures / "more"
    other.mkdir()
    photo((40, 50)).save(other / "p0.png")
    photo((50, 40)).save(pictures / "p0.jpg")
    outcome = run("predict", checkpoint, pictures, other, pictures / "p0.png", "-o", "seen")
    assert outcome.code == 0
    written = sorted(p.name for p in (pictures.parent / "here" / "seen").glob("*.jpg"))
    assert written == ["p0-2.jpg", "p0-3.jpg", "p0.jpg", "p1.jpg"]


def test_predict__source_pictures_are_not_replaced(run, checkpoint, pictures, photo):
    photo((50, 40)).save(pictures / "own.jpg")
    before = (pictures / "own.jpg").read_bytes()
    outcome = run("predict", checkpoint, pictures, "-o", pictures)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "holds pictures that are read; give another output folder" in outcome.err
    assert (pictures / "own.jpg").read_bytes() == before


def test_predict__photographs_beside_the_source_are_not_replaced(run, checkpoint, pictures, photo):
    photo((50, 40)).save(pictures / "twin.png")
    photo((50, 40)).save(pictures / "twin.jpg")
    before = (pictures / "twin.jpg").read_bytes()
    assert run("predict", checkpoint, pictures / "twin.png", "-o", pictures).code == 2
    assert (pictures / "twin.jpg").read_bytes() == before


def test_predict__picture_too_long_for_a_jpeg(run, checkpoint, pictures):
    Image.new("RGB", (66_000, 2)).save(pictures / "long.png")
    outcome = run("predict", checkpoint, pictures / "long.png", pictures / "p0.png", "-o", "seen")
    assert outcome.code == 1
    assert "long.jpg: cannot be written" in outcome.err
    seen = pictures.parent / "here" / "seen"
    assert sorted(p.name for p in seen.iterdir()) == ["detections.jsonl", "p0.jpg", "results.json"]


def test_predict__output_is_a_file(run, checkpoint, pictures):
    outcome = run("predict", checkpoint, pictures, "-o", checkpoint)
    assert outcome.code == 2
    assert "is a file, not a folder" in outcome.err


def test_predict__json(run, checkpoint, pictures):
    outcome = run("predict", checkpoint, pictures / "p0.png", "-o", "seen", "--score", "0.3", "--json")
    (line,) = outcome.out.splitlines()
    said = json.loads(line)
    assert said["file"] == str(pictures / "p0.png")
    assert said["picture"] == "seen/p0.jpg"
    assert said["detections"] == load(checkpoint).predict(pictures / "p0.png", score=0.3).to_records()


def test_predict__options(run, checkpoint, pictures):
    detector = load(checkpoint)
    name = detector.predict(pictures / "p0.png", score=0.0).names[0]
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
    outcome = run("predict", checkpoint, pictures / "p0.png", "-o", "seen", "--json", *options)
    (row,) = json.loads(outcome.out)["detections"]
    assert row["name"] == name


def test_predict__other_names(run, checkpoint, pictures):
    names = ["red", "green", "blue"]
    outcome = run("predict", checkpoint, pictures / "p0.png", "-o", "seen", "--score", "0", "--json", "--names", *names)
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
def test_predict__options_that_cannot_work(run, checkpoint, pictures, arguments, message):
    outcome = run("predict", checkpoint, pictures, "-o", "seen", *arguments)
    assert outcome.code == 2
    assert outcome.is_one_line
    assert message in outcome.err


def test_predict__missing_weights_and_sources(run, checkpoint, tmp_path, pictures):
    outcome = run("predict", tmp_path / "absent.safetensors", pictures, "-o", "seen")
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "absent.safetensors: no such file" in outcome.err
    empty = tmp_path / "empty"
    empty.mkdir()
    outcome = run("predict", checkpoint, empty, "-o", "seen")
    assert outcome.code == 2
    assert "no pictures in this folder" in outcome.err


def test_predict__unknown_device(run, checkpoint, pictures):
    assert run("predict", checkpoint, pictures, "-o", "seen", "--device", "gpu").code == 2


def test_predict__bad_option_writes_nothing(run, checkpoint, pictures):
    outcome = run("predict", checkpoint, pictures, "-o", "seen", "--classes", "unicorn")
    assert outcome.code == 2
    assert not (pictures.parent / "here" / "seen").exists()


def test_predict__offline(run, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("os.environ", dict(os.environ))
    outcome = run("predict", "--offline", "resnet50-fpn", pictures, "-o", "seen")
    assert outcome.code == 2
    assert outcome.is_one_line
    assert "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth: it is not there, and FASTERRCNN_OFFLINE forbids" in outcome.err
    assert "fetch https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth" in outcome.err
