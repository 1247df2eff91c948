import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fasterrcnn import presets
from fasterrcnn.config import TrainConfig
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats import read_data
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.training import prepare

PRESET = presets.get("timm:test_efficientnet")


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{"data": "x", "model": PRESET, "weights": None, **changes})


def record(number, boxes, size_hw=(300, 400)) -> AnnotatedImage:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedImage(
        path=Path(f"{number}.jpg"),
        image_id=number,
        size_hw=size_hw,
        boxes=xyxy,
        labels=np.zeros(len(xyxy), np.int64),
        difficult=np.zeros(len(xyxy), np.bool_),
    )


def tall_boxes(count: int) -> list[AnnotatedImage]:
    """Objects five times as tall as wide, which no preset has anchors for."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (count, 2))
    widths = rng.uniform(20, 40, (count, 1))
    return [record(i, np.hstack([c, c + w * [1, 5]])) for i, (c, w) in enumerate(zip(corners, widths, strict=True))]


@pytest.fixture
def folder(tmp_path):
    """A COCO file with one good box and one whose corners are exchanged."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    good = {"id": 1, "image_id": 5, "category_id": 18, "bbox": [5, 6, 10, 12]}
    bad = {"id": 2, "image_id": 5, "category_id": 18, "bbox": [20, 20, -10, -5]}
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [good, bad],
        "categories": [{"id": 18, "name": "cat"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path


def test_open_data__refuses_errors(folder):
    message = r"1 error in .*train\.json: annotation 2 \(cat\): box 20,20,10,15 has its second corner.*--on-bad-box"
    with pytest.raises(DataError, match=message):
        prepare.open_data(folder, settings(), lambda line: None)


@pytest.mark.parametrize(("policy", "boxes"), [("fix", [[5, 6, 15, 18], [10, 15, 20, 20]]), ("drop", [[5, 6, 15, 18]])])
def test_open_data__fixes_and_logs(folder, policy, boxes):
    lines = []
    data = prepare.open_data(folder, settings(on_bad_box=policy), lines.append).data
    np.testing.assert_array_equal(data.split("train")[0].boxes, np.array(boxes, np.float32))
    assert lines[0].startswith("COCO, 1 image, 1 class (cat)")
    assert lines[1] in ("note: corners exchanged: 1", "note: left out: 1")
    assert "annotation 2 (cat)" in lines[2]


def test_open_data__many_changes_are_counted(tmp_path):
    points = [record(i, [[5, 5, 5, 5], [1, 1, 9, 9]]) for i in range(30)]
    lines = []
    data = AnnotatedData(tmp_path, "test", ("cat",), {"train": points})
    opened = prepare.open_data(data, settings(), lines.append).data
    assert [len(r.boxes) for r in opened.split("train")] == [1] * 30
    assert lines[1] == "note: left out: 30"
    assert len(lines) == 22
    assert lines[-1] == "note: and 11 more, all in data.txt of the run"


def test_start_config__category_ids_travel(folder):
    model = prepare.start_config(read_data(folder), settings())
    assert (model.classes, model.category_ids) == (("cat",), (18,))


@pytest.mark.parametrize(
    ("name", "weights", "norm"),
    [
        ("resnet50-fpn", None, "group"),
        ("resnet50-fpn", "imagenet", "frozen"),
        ("resnet50-fpn-v2", "imagenet", "batch"),
        ("timm:test_efficientnet", None, "batch"),
    ],
)
def test_start_config__norms_suit_the_start_weights(folder, name, weights, norm):
    chosen = settings(model=presets.get(name), weights=weights)
    assert prepare.start_config(read_data(folder), chosen).backbone.norm == norm


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ({}, (480, 800)),
        ({"short_side": 240}, (240, 400)),
        ({"long_side": 1000}, (480, 1000)),
        ({"short_side": 96, "long_side": 100}, (96, 100)),
    ],
)
def test_start_config__input_size(folder, sides, expected):
    size = prepare.start_config(read_data(folder), settings(**sides)).input
    assert (size.short_side, size.long_side) == expected


def test_with_anchors__fitted_and_logged():
    lines = []
    model = prepare.with_anchors(PRESET, tall_boxes(100), settings(), lines.append)
    assert model.anchors != PRESET.anchors
    assert max(model.anchors.ratios[0]) > 3
    assert len(lines) == 1
    assert "100 boxes" in lines[0]


@pytest.mark.parametrize(
    ("options", "fitted"),
    [
        ({"weights": None}, True),
        ({"weights": "imagenet"}, True),
        ({"weights": "coco"}, False),
        ({"weights": "run/last.safetensors"}, False),
        ({"weights": "coco", "anchors": "auto"}, True),
        ({"weights": None, "anchors": "preset"}, False),
    ],
)
def test_with_anchors__when(monkeypatch, options, fitted):
    calls = []
    real = prepare.anchors.fit_anchors

    def fit_few(boxes, *arguments, **options):
        """Records the call; boxes that are too few are left to the preset's anchors, which is quick."""
        calls.append(len(boxes))
        return real(boxes[:5], *arguments, **{**options, "labels": options["labels"][:5]})

    monkeypatch.setattr(prepare.anchors, "fit_anchors", fit_few)
    prepare.with_anchors(PRESET, tall_boxes(100), settings(**options), lambda line: None)
    assert calls == ([100] if fitted else [])


def test_with_anchors__too_few_boxes():
    lines = []
    assert prepare.with_anchors(PRESET, tall_boxes(5), settings(), lines.append) == PRESET
    assert lines == ["anchors: as they were (5 boxes, fewer than 30)"]


def test_with_anchors__from_a_file(tmp_path):
    mine = PRESET.anchors.model_copy(update={"ratios": ((0.4, 1.0, 3.0),) * 4})
    file = tmp_path / "anchors.yaml"
    file.write_text(yaml.safe_dump({"anchors": mine.model_dump(mode="json")}))
    model = prepare.with_anchors(PRESET, [], settings(anchors=str(file)), lambda line: None)
    assert model.anchors == mine
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        prepare.with_anchors(PRESET, [], settings(anchors="absent.yaml"), lambda line: None)


def test_choose_images__shared_images():
    train, val = record(1, [[1, 1, 9, 9]]), record(2, [[1, 1, 9, 9]])
    both = AnnotatedData(Path("root"), "test", ("cat",), {"train": [train, val], "val": [val]})
    assert prepare.choose_images(both, settings()) == ([train, val], [])
    with pytest.raises(UsageError, match=r"1 images are in 'train' and in 'val', for example 2\.jpg"):
        prepare.choose_images(both, settings(val_split="val"))


def test_choose_images__trainval():
    train = record(1, [[1, 1, 9, 9]])
    data = AnnotatedData(Path("root"), "test", ("cat",), {"test": [record(2, [])], "trainval": [train]})
    assert prepare.choose_images(data, settings()) == ([train], [])


BALANCED = PRESET.with_classes(["cat", "dog", "owl"])


def labelled(*labels, difficult=()) -> AnnotatedImage:
    boxes = [[1, 1, 9, 9]] * len(labels)
    marks = np.array([i in difficult for i in range(len(labels))], np.bool_)
    return replace(record(1, boxes), labels=np.array(labels, np.int64), difficult=marks)


def test_with_class_balance__weights_by_hand():
    records = [labelled(0, 0, 0, 1), labelled(0, 1, 2, 2, difficult=[1, 2, 3])]
    # Four cats and one dog; the owls are difficult, which counts as one of them: 1/2, 1, 1.
    # The mean over the five objects is (4 * 1/2 + 1 * 1) / 5 = 3/5.
    model = prepare.with_class_balance(BALANCED, records, settings(class_balance="weights"))
    assert model.regions.class_weights == (0.8333, 1.6667, 1.6667, 1.0)
    assert model == BALANCED.model_copy(update={"regions": model.regions})


def test_with_class_balance__focal():
    model = prepare.with_class_balance(BALANCED, [labelled(0)], settings(class_balance="focal"))
    assert model.regions == BALANCED.regions.model_copy(update={"focal_gamma": 2.0})


@pytest.mark.parametrize("kind", ["none", "repeat"])
def test_with_class_balance__loss_stays(kind):
    assert prepare.with_class_balance(BALANCED, [labelled(0, 1)], settings(class_balance=kind)) == BALANCED


@pytest.mark.parametrize(
    ("kind", "own"), [("focal", {"focal_gamma": 0.5}), ("weights", {"class_weights": (1.0, 2.0, 3.0, 0.5)})]
)
def test_with_class_balance__settings_of_the_model_stay(kind, own):
    model = BALANCED.model_copy(update={"regions": BALANCED.regions.model_copy(update=own)})
    assert prepare.with_class_balance(model, [labelled(0, 1)], settings(class_balance=kind)) == model


def test_prepare_run__patience_needs_validation(folder):
    chosen = settings(on_bad_box="drop", patience=3)
    with pytest.raises(UsageError, match=r"patience waits for a better AP, .* validation split \(--val-split\)"):
        prepare.prepare_run(folder, chosen, lambda line: None)


def test_prepare_run__all_is_decided_and_logged(folder):
    lines = []
    setup = prepare.prepare_run(folder, settings(on_bad_box="drop", short_side=240, epochs=3), lines.append)
    assert (setup.config.model.classes, setup.config.model.input.short_side) == (("cat",), 240)
    assert [len(r.boxes) for r in setup.images] == [1]
    assert setup.val_images == []
    assert lines[-1].startswith("recipe standard: 3 epochs of 1 images, short side 240, ")
    assert prepare.prepare_resumed(folder, setup.config, lambda line: None).config == setup.config
