import json
from pathlib import Path

import numpy as np
import pytest

from fasterrcnn.config import InputConfig
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats.voc import PascalVoc
from fasterrcnn.data.statistics import compute_statistics
from fasterrcnn.errors import UsageError

INPUT = InputConfig(short_side=200, long_side=400)


def annotated(boxes=(), labels=(), difficult=None, size_hw=(100, 200)) -> AnnotatedImage:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    flags = np.array(difficult if difficult is not None else [False] * len(array), np.bool_)
    return AnnotatedImage(Path("a.png"), 1, size_hw, array, np.array(labels, np.int64), flags)


def data_of(splits: dict[str, list[AnnotatedImage]], classes=("cat", "dog")) -> AnnotatedData:
    return AnnotatedData(Path("some/pets"), "COCO", tuple(classes), splits)


def pets() -> AnnotatedData:
    """At the input twice as large: a 20 x 40 cat, a 40 x 40 and a 200 x 50 dog."""
    nan = float("nan")
    both = annotated([(0, 0, 20, 20), (0, 0, 10, 20), (0, 0, 100, 25)], [1, 0, 1])
    odd = annotated([(5, 5, 5, 9), (nan, 0, 9, 9), (1, 1, 9, 9)], [0, 0, 1], [False, False, True], size_hw=(200, 200))
    return data_of({"train": [both, annotated()], "val": [odd], "both": [both, odd]})


def test_compute_statistics__counts_by_hand():
    found = compute_statistics(pets(), INPUT)
    assert (found.total.images, found.total.negatives, found.total.boxes) == (3, 1, 3)
    assert (found.total.difficult, found.total.left_out, found.total.by_class) == (1, 2, (1, 2))
    train, val = found.splits["train"], found.splits["val"]
    assert (train.images, train.negatives, train.boxes, train.by_class) == (2, 1, 3, (1, 2))
    assert (val.images, val.negatives, val.boxes, val.difficult, val.left_out) == (1, 0, 0, 1, 2)
    assert found.per_image.tolist() == [3, 0, 3]
    assert found.image_sizes == {(100, 200): 2, (200, 200): 1}


def test_compute_statistics__sizes_at_the_input_of_the_network():
    found = compute_statistics(pets(), INPUT)
    np.testing.assert_allclose(found.sides, [(40, 40), (20, 40), (200, 50)])
    np.testing.assert_allclose(found.sizes, [40, 800**0.5, 100])
    np.testing.assert_allclose(found.ratios, [1, 2, 0.25])
    assert found.labels.tolist() == [1, 0, 1]
    assert found.shares == pytest.approx({"small": 1 / 3, "medium": 1 / 3, "large": 1 / 3})


def test_to_dict__survives_json():
    logged = json.loads(json.dumps(compute_statistics(pets(), INPUT).to_dict(), allow_nan=False))
    assert logged["all"]["by_class"] == {"cat": 1, "dog": 2}
    assert logged["splits"]["train"]["negatives"] == 1
    assert logged["box_ratio"]["median"] == 1
    assert logged["box_size_by_class"]["dog"]["most"] == pytest.approx(100)
    assert logged["image_sizes"][0] == {"height": 100, "width": 200, "images": 2}


def test_text__has_the_numbers():
    text = str(compute_statistics(pets(), INPUT))
    assert text.startswith("pets: COCO, 3 images, 3 boxes; 2 without an area or not finite are left out")
    assert "dog  2  ████████████████████████\n  cat  1  ████████████\n" in text
    assert "200 x 100 (2), 200 x 200 (1)" in text
    assert "median 1, most from 0.4 to 1.8, all from 0.25 to 2" in text


@pytest.mark.parametrize("classes", [0, 1, 12, 13, 80])
def test_text__is_short_whatever_the_classes(classes):
    names = [f"class {n}" for n in range(classes)]
    boxes = [(0, 0, 9, 9)] * classes
    found = compute_statistics(data_of({"all": [annotated(boxes, range(classes))]}, names), INPUT)
    text = str(found)
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 120
    assert (f"... and {classes - 12} more classes of 1 to 1 boxes" in text) == (classes > 13)


def test_text__rare_classes_are_shown():
    counts = [100 - n for n in range(19)] + [1]
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    names = [f"class {n}" for n in range(20)]
    text = str(compute_statistics(data_of({"all": [annotated([(0, 0, 9, 9)] * len(labels), labels)]}, names), INPUT))
    lines = [line.split()[:3] for line in text.partition("Boxes of each class\n")[2].splitlines()[:13]]
    expected = [["class", str(n), str(counts[n])] for n in (*range(8), *range(16, 20))]
    assert lines == [*expected[:8], ["...", "and", "8"], *expected[8:]]
    assert "... and 8 more classes of 85 to 92 boxes" in text


def test_text__classes_without_boxes():
    text = str(compute_statistics(data_of({"all": [annotated([(0, 0, 9, 9)], [0])]}), INPUT))
    assert "  dog  0\n" in text


@pytest.mark.parametrize(
    "splits",
    [
        {},
        {"all": []},
        {"all": [annotated()]},
        {"train": [annotated([(0, 0, 0, 0)], [0])], "val": []},
        {"all": [annotated([(3, 3, 9, 9)], [1])]},
        {"all": [annotated([(3, 3, 9, 9)], [1], [True])]},
    ],
)
@pytest.mark.parametrize("classes", [("cat", "dog"), ("<i>", "a & b")])
def test_statistics__hardly_any_data(splits, classes, tmp_path):
    found = compute_statistics(data_of(splits, classes), INPUT)
    assert len(str(found).splitlines()) <= 40
    json.dumps(found.to_dict(), allow_nan=False)
    for kind in ("json", "html"):
        found.save(tmp_path / "new" / f"statistics.{kind}")
    assert "<i>" not in (tmp_path / "new" / "statistics.html").read_text(encoding="utf-8")


def test_statistics__no_classes_no_images(tmp_path):
    found = compute_statistics(data_of({}, ()), INPUT)
    found.save(tmp_path / "statistics.html")
    assert "none" in str(found)


def test_save__json_is_the_dictionary(tmp_path):
    found = compute_statistics(pets(), INPUT)
    found.save(tmp_path / "pets.json")
    assert json.loads((tmp_path / "pets.json").read_text(encoding="utf-8")) == json.loads(json.dumps(found.to_dict()))


def test_save__page_has_every_class_and_chart(tmp_path):
    compute_statistics(pets(), INPUT).save(tmp_path / "pets.html")
    page = (tmp_path / "pets.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 7
    assert "<td>dog</td><td>2</td><td>0</td><td>2</td><td>2</td>" in page


def test_save__other_kinds_of_file(tmp_path):
    with pytest.raises(UsageError, match=r"pets\.csv: statistics can be written as \.json or \.html"):
        compute_statistics(pets(), INPUT).save(tmp_path / "pets.csv")


def test_compute_statistics__real_data(shared_data):
    found = compute_statistics(PascalVoc().read(shared_data / "bccd/BCCD"), INPUT)
    assert dict(zip(found.classes, found.total.by_class, strict=True)) == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert (found.total.images, found.total.left_out) == (364, 2)
    assert found.image_sizes == {(480, 640): 364}
