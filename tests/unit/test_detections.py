import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.detections import Detections, labels_of
from fasterrcnn.errors import MissingExtraError, UsageError
from fasterrcnn.reporting.drawing import colour_of

CLASSES = ("cat", "dog", "owl")
BOXES = [[10, 20, 40, 60], [50, 20, 90, 70], [5, 5, 95, 75]]


def detections(boxes=BOXES, scores=(0.9, 0.6, 0.3), labels=(1, 0, 1), **others) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores[:n], np.float32),
        np.array(labels[:n], np.int64),
        CLASSES,
        (80, 100),
        **others,
    )


def test_filter__score_is_inclusive():
    found = detections(scores=(0.75, 0.5, 0.25)).filter(score=0.5)
    assert found.scores.tolist() == [0.75, 0.5]
    assert found.boxes.tolist() == BOXES[:2]
    assert (found.classes, found.image_hw) == (CLASSES, (80, 100))


@pytest.mark.parametrize(("classes", "names"), [(None, ["dog", "cat", "dog"]), (["dog"], ["dog", "dog"]), ([], [])])
def test_filter__classes(classes, names):
    assert detections().filter(classes=classes).names == names


def test_filter__keeps_source_and_image():
    image = Image.new("RGB", (100, 80))
    found = detections(source=Path("a.jpg"), image=image).filter(score=0.5)
    assert found.source == Path("a.jpg")
    assert found.image is image


def test_filter__unknown_class():
    with pytest.raises(UsageError, match="no class is called 'bee'; there are: cat, dog, owl"):
        detections().filter(classes=["dog", "bee"])


def test_labels_of():
    assert labels_of(["owl", "cat"], CLASSES) == [2, 0]
    assert labels_of([], CLASSES) == []


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (detections(), "image: 2 dog 1 cat"),
        (detections([]), "image: nothing"),
        (detections(BOXES[:1], source=Path("photos/a.jpg")), "photos/a.jpg: 1 dog"),
    ],
)
def test_str(found, text):
    assert str(found) == text


def test_len_and_names():
    assert len(detections()) == 3
    assert len(detections([])) == 0
    assert detections().names == ["dog", "cat", "dog"]
    assert detections([]).names == []


def test_to_records__plain_numbers():
    record = detections(BOXES[:1], scores=(0.5,)).to_records()
    assert record == [{"box": [10.0, 20.0, 40.0, 60.0], "score": 0.5, "label": 1, "name": "dog"}]
    json.dumps(record)
    assert detections([]).to_records() == []


def test_to_coco__left_top_width_height():
    found = detections(BOXES[:1], scores=(0.5,))
    expected = [{"image_id": 7, "category_id": 2, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.5}]
    assert found.to_coco(7) == expected
    assert found.to_coco(7, [18, 90, 3])[0]["category_id"] == 90
    json.dumps(found.to_coco(7))
    assert detections([]).to_coco(7) == []


def test_save__json(tmp_path):
    detections().save(tmp_path / "new" / "found.JSON")
    assert json.loads((tmp_path / "new" / "found.JSON").read_text()) == detections().to_records()


def test_save__image(tmp_path):
    detections(image=Image.new("RGB", (100, 80))).save(str(tmp_path / "found.jpg"))
    with Image.open(tmp_path / "found.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (100, 80))


def test_plot__image_of_the_call_of_predict_or_of_the_file(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (100, 80), (1, 2, 3)).save(path)
    file = detections(source=path).plot()
    given = detections(image=Image.new("RGB", (100, 80), (9, 9, 9))).plot()
    other = detections(source=path).plot(Image.new("RGB", (100, 80), (7, 7, 7)))
    corners = [image.getpixel((0, 79)) for image in (file, given, other)]
    assert corners == [(1, 2, 3), (9, 9, 9), (7, 7, 7)]


def test_plot__no_image_at_hand():
    with pytest.raises(UsageError, match=r"these detections have no image of their own: plot\(image\)"):
        detections().plot()


def test_plot__leaves_the_image_alone():
    image = Image.new("RGB", (100, 80))
    detections(image=image).plot()
    assert image.getbbox() is None


def test_plot__best_on_top():
    boxes = [[20, 30, 60, 60], [20, 30, 60, 60]]
    drawn = detections(boxes, labels=(1, 0), image=Image.new("RGB", (100, 80))).plot()
    assert drawn.getpixel((40, 60)) == colour_of(1)


def test_plot__nothing_found():
    drawn = detections([], image=Image.new("RGB", (100, 80))).plot()
    assert drawn.getbbox() is None


def test_str__frame_of_a_video():
    assert str(detections(BOXES[:1], source=Path("a.mp4"), frame=3, seconds=0.1)) == "a.mp4 frame 3: 1 dog"


def test_to_yolo__shares_of_the_image():
    assert detections(BOXES[:1], scores=(0.5,)).to_yolo() == ["1 0.250000 0.500000 0.300000 0.500000 0.500000"]
    assert detections([]).to_yolo() == []


@pytest.mark.parametrize("found", [detections(), detections([])])
def test_to_supervision(found):
    pytest.importorskip("supervision")
    theirs = found.to_supervision()
    np.testing.assert_array_equal(theirs.xyxy, found.boxes)
    np.testing.assert_array_equal(theirs.confidence, found.scores)
    np.testing.assert_array_equal(theirs.class_id, found.labels)
    assert list(theirs["class_name"]) == found.names


def test_to_supervision__not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r'pip install "fasterrcnn\[viz\]"'):
        detections().to_supervision()


def test_crops__inside_the_boxes():
    image = Image.new("RGB", (100, 80))
    image.paste((200, 0, 0), (10, 20, 40, 60))
    found = detections([BOXES[0], [99.5, 79.5, 100, 80], [30, 30, 30, 30]], image=image)
    crops = found.crops()
    assert [crop.size for crop in crops] == [(30, 40), (1, 1), (1, 1)]
    assert crops[0].getcolors() == [(1200, (200, 0, 0))]
    assert detections([], image=image).crops() == []


def test_repr_png():
    shown = Image.open(io.BytesIO(detections(image=Image.new("RGB", (3000, 80)))._repr_png_()))
    assert (shown.format, shown.size) == ("PNG", (1024, 27))
    assert detections()._repr_png_() is None
    assert detections(source=Path("absent.jpg"))._repr_png_() is None


def test_save__an_interrupted_one_leaves_the_old_file(tmp_path):
    path = tmp_path / "found.png"
    detections(image=Image.new("RGB", (100, 80))).save(path)
    before = path.read_bytes()
    with pytest.raises(UsageError):
        detections().save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["found.png"]
