import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.detections import Detection, Detections, labels_of, match_names
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


def test_iter__tuples_with_names():
    first, second, third = detections()
    assert isinstance(first, Detection)
    assert (first.box.tolist(), first.label, first.name) == (BOXES[0], 1, "dog")
    assert first.score == pytest.approx(0.9)
    box, score, label, name = second
    assert (box.tolist(), label, name) == (BOXES[1], 0, "cat")
    assert score == pytest.approx(0.6)
    assert third.name == "dog"
    assert list(detections([])) == []


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (slice(0, 2), [0, 1]),
        (slice(None, None, -1), [2, 1, 0]),
        (slice(5, 9), []),
        ([2, 0], [2, 0]),
        ([], []),
        (np.array([1, 1]), [1, 1]),
        ([True, False, True], [0, 2]),
        (np.array([False, True, False]), [1]),
        (np.zeros(3, bool), []),
    ],
)
def test_getitem(index, rows):
    chosen = detections(source=Path("a.jpg"), frame=3)[index]
    assert chosen.boxes.tolist() == [BOXES[row] for row in rows]
    assert chosen.boxes.shape == (len(rows), 4)
    assert chosen.scores.tolist() == detections().scores[rows].tolist()
    assert chosen.labels.tolist() == detections().labels[rows].tolist()
    assert (chosen.source, chosen.frame, chosen.classes, chosen.image_hw) == (Path("a.jpg"), 3, CLASSES, (80, 100))


def test_getitem__of_none():
    empty = detections([])
    assert empty[:2] == empty[[]] == empty[np.zeros(0, bool)] == empty
    with pytest.raises(IndexError):
        empty[0]


@pytest.mark.parametrize("index", [3, [0, 3], [True, False], np.array([0.5]), "name", None, (0, 1), [[0, 1]]])
def test_getitem__mistakes(index):
    with pytest.raises(IndexError):
        detections()[index]


def test_eq__compares_values():
    image = Image.new("RGB", (100, 80))
    assert detections() == detections()
    assert detections(image=image) == detections()  # images are not compared
    assert detections([]) == detections([])
    others = [
        detections(BOXES[:2]),
        detections([]),
        detections([BOXES[0], BOXES[1], BOXES[1]]),
        detections(scores=(0.9, 0.6, 0.2)),
        detections(labels=(1, 0, 2)),
        detections(source=Path("a.jpg")),
        detections(frame=0),
        detections(seconds=0.0),
        dataclasses.replace(detections(), classes=("cat", "dog", "bee")),
        dataclasses.replace(detections(), image_hw=(100, 80)),
    ]
    assert all(detections() != other for other in others)
    assert detections() != "detections"
    with pytest.raises(TypeError, match="unhashable"):
        hash(detections())


def test_merge():
    first, second = detections(BOXES[:1], source=Path("a.jpg")), detections(BOXES[1:], source=Path("a.jpg"))
    merged = Detections.merge([first, second, first[:0]])
    assert merged.boxes.tolist() == BOXES
    assert merged.scores.tolist() == [*first.scores, *second.scores]
    assert merged.labels.tolist() == [*first.labels, *second.labels]
    assert merged.source == Path("a.jpg")
    assert (merged[:1], merged[1:]) == (first, second)
    assert Detections.merge([first]) == first
    assert Detections.merge([detections([]), detections([])]) == detections([])


def test_merge__keeps_what_all_agree_on():
    image = Image.new("RGB", (100, 80))
    same = {"image": image, "seconds": 0.5}
    merged = Detections.merge([detections(frame=1, **same), detections(frame=2, source=Path("a.mp4"), **same)])
    assert (merged.image, merged.seconds, merged.frame, merged.source) == (image, 0.5, None, None)


def test_merge__mistakes():
    with pytest.raises(UsageError, match="there is nothing to merge"):
        Detections.merge([])
    with pytest.raises(UsageError, match=r"different image_hw cannot be merged: \(80, 100\) and \(8, 10\)"):
        Detections.merge([detections(), dataclasses.replace(detections(), image_hw=(8, 10))])
    with pytest.raises(UsageError, match="different classes cannot be merged"):
        Detections.merge([detections(), dataclasses.replace(detections(), classes=("cat", "dog", "bee"))])


def test_with_nms():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 9], [20, 20, 30, 30]]  # IoU 0.8, 0.9 and 0 with the first
    four = detections(boxes, scores=(0.5, 0.9, 0.7, 0.6), labels=(0, 0, 1, 0))
    assert four.with_nms().boxes.tolist() == [boxes[1], boxes[2], boxes[3]]
    assert four.with_nms(class_agnostic=True).boxes.tolist() == [boxes[1], boxes[3]]
    assert four.with_nms(0.8) == four  # suppressed is what overlaps by more
    assert four.with_nms(0.0, class_agnostic=True).boxes.tolist() == [boxes[1], boxes[3]]
    assert detections([]).with_nms() == detections([])
    with pytest.raises(UsageError, match=r"threshold must lie in 0\.\.1, not 50"):
        four.with_nms(50.0)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_with_nms__as_in_supervision(class_agnostic):
    pytest.importorskip("supervision")
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 50, (200, 2)), rng.uniform(5, 40, (200, 2))
    scores, labels = rng.permutation(200) / 200, rng.integers(0, 3, 200)
    many = detections(np.hstack([corners, corners + sides]), scores=scores, labels=labels)
    theirs = many.to_supervision().with_nms(0.4, class_agnostic=class_agnostic)
    ours = many.with_nms(0.4, class_agnostic=class_agnostic)
    assert 20 < len(ours) < 200
    np.testing.assert_array_equal(ours.boxes, theirs.xyxy)
    np.testing.assert_array_equal(ours.scores, theirs.confidence)


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


def test_plot__no_image():
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


def test_plot__best_on_top_in_any_order():
    boxes = [[20, 30, 60, 60], [20, 30, 60, 60]]
    drawn = detections(boxes, scores=(0.2, 0.7), labels=(1, 0), image=Image.new("RGB", (100, 80))).plot()
    assert drawn.getpixel((40, 60)) == colour_of(0)


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


@pytest.mark.parametrize(
    ("names", "others", "expected"),
    [
        (["stop", "speed-limit"], ["Stop", "speed limit", "exit"], {"stop": "Stop", "speed-limit": "speed limit"}),
        (["a", "A"], ["A"], {"A": "A"}),
        (["a", "A"], ["A", "a"], {"a": "a", "A": "A"}),
        ([" traffic__light "], ["Traffic Light"], {" traffic__light ": "Traffic Light"}),
        (["caf\u00e9"], ["Cafe\u0301"], {"caf\u00e9": "Cafe\u0301"}),
        (["cat"], ["dog"], {}),
        ([], ["dog"], {}),
    ],
)
def test_match_names(names, others, expected):
    assert match_names(names, others) == expected
