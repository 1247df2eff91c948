import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fasterrcnn import presets
from fasterrcnn.config import TrainConfig
from fasterrcnn.data.formats import read_data
from fasterrcnn.data.records import AnnotatedData, Record
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.training import prepare

PRESET = presets.get("timm:test_efficientnet")


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{"data": "x", "model": "y", "weights": None, **changes})


def record(number, boxes, size_hw=(300, 400)) -> Record:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Record(
        path=Path(f"{number}.jpg"),
        image_id=number,
        size_hw=size_hw,
        boxes=xyxy,
        labels=np.zeros(len(xyxy), np.int64),
        difficult=np.zeros(len(xyxy), np.bool_),
    )


def tall_boxes(count: int) -> list[Record]:
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
def test_open_data__mends_and_tells(folder, policy, boxes):
    said = []
    data = prepare.open_data(folder, settings(on_bad_box=policy), said.append).data
    np.testing.assert_array_equal(data.split("train")[0].boxes, np.array(boxes, np.float32))
    assert said[0].startswith("COCO, 1 image, 1 class (cat)")
    assert said[1] in ("note: corners exchanged: 1", "note: left out: 1")
    assert "annotation 2 (cat)" in said[2]


def test_open_data__many_changes_are_counted(tmp_path):
    points = [record(i, [[5, 5, 5, 5], [1, 1, 9, 9]]) for i in range(30)]
    said = []
    data = AnnotatedData(tmp_path, "test", ("cat",), {"train": points})
    opened = prepare.open_data(data, settings(), said.append).data
    assert [len(r.boxes) for r in opened.split("train")] == [1] * 30
    assert said[1] == "note: left out: 30"
    assert len(said) == 22
    assert said[-1] == "note: and 11 more, all in data.txt of the run"


def test_start_config__category_ids_travel(folder):
    model = prepare.start_config(PRESET, read_data(folder), settings())
    assert (model.classes, model.category_ids) == (("cat",), (18,))


def test_with_anchors__fitted_and_told():
    said = []
    model = prepare.with_anchors(PRESET, tall_boxes(100), settings(), said.append)
    assert model.anchors != PRESET.anchors
    assert max(model.anchors.ratios[0]) > 3
    assert len(said) == 1
    assert "100 boxes" in said[0]


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
def test_with_anchors__when(options, fitted):
    model = prepare.with_anchors(PRESET, tall_boxes(100), settings(**options), lambda line: None)
    assert (model.anchors != PRESET.anchors) == fitted


def test_with_anchors__few_boxes_say_nothing():
    said = []
    assert prepare.with_anchors(PRESET, tall_boxes(5), settings(), said.append) == PRESET
    assert said == ["anchors: as they were (5 boxes, fewer than 30)"]


def test_with_anchors__from_a_file(tmp_path):
    mine = PRESET.anchors.model_copy(update={"ratios": ((0.4, 1.0, 3.0),) * 4})
    file = tmp_path / "anchors.yaml"
    file.write_text(yaml.safe_dump({"anchors": mine.model_dump(mode="json")}))
    model = prepare.with_anchors(PRESET, [], settings(anchors=str(file)), lambda line: None)
    assert model.anchors == mine
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        prepare.with_anchors(PRESET, [], settings(anchors="absent.yaml"), lambda line: None)


def test_choose_records__shared_pictures():
    train, val = record(1, [[1, 1, 9, 9]]), record(2, [[1, 1, 9, 9]])
    both = AnnotatedData(Path("root"), "test", ("cat",), {"train": [train, val], "val": [val]})
    assert prepare.choose_records(both, settings()) == ([train, val], [])
    with pytest.raises(UsageError, match=r"1 pictures are in 'train' and in 'val', for example 2\.jpg"):
        prepare.choose_records(both, settings(val_split="val"))


def test_choose_records__trainval():
    train = record(1, [[1, 1, 9, 9]])
    data = AnnotatedData(Path("root"), "test", ("cat",), {"test": [record(2, [])], "trainval": [train]})
    assert prepare.choose_records(data, settings()) == ([train], [])
