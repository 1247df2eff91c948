"""CreateML: a list of images with the centres of their boxes. The images of the tests are 40 x 30."""

import json

import pytest

from fasterrcnn.data.checks import check_data
from fasterrcnn.data.findings import only_errors
from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.coco import Coco
from fasterrcnn.data.formats.createml import CreateMl
from fasterrcnn.data.formats.via import Via
from fasterrcnn.data.formats.vott import Vott
from fasterrcnn.errors import DataError


def annotation(label, x, y, width, height):
    return {"label": label, "coordinates": {"x": x, "y": y, "width": width, "height": height}}


CAT, DOG = annotation("cat", 10, 12, 6, 8), annotation("dog", 20.5, 15, 7, 4)
ENTRIES = [
    {"image": "a.png", "annotations": [DOG, CAT]},
    {"image": "b.png", "annotations": [CAT]},
    {"image": "c.png", "annotations": []},
]
BOXES = {"a.png": [[17, 13, 24, 17], [7, 8, 13, 16]], "b.png": [[7, 8, 13, 16]], "c.png": []}
IMAGES = dict.fromkeys(BOXES)


def boxes_of(data):
    return {image.path.name: image.boxes.tolist() for image in data.images}


@pytest.mark.parametrize(
    ("image", "objects"), [("image", "annotations"), ("imagefilename", "annotation"), ("filename", "annotations")]
)
def test_createml__versions_of_the_documentation(write_files, image, objects):
    listed = [{image: entry["image"], objects: entry["annotations"]} for entry in ENTRIES]
    root = write_files({**IMAGES, "animals.json": json.dumps(listed, indent=2), "package.json": "{}"})
    for place in (root, root / "animals.json"):
        data = read_data(place)
        assert (data.format, data.classes, data.findings) == ("CreateML", ("cat", "dog"), [])
        assert boxes_of(data) == BOXES
        assert [image.labels.tolist() for image in data.images] == [[1, 0], [0], []]
        assert [image.numbers.tolist() for image in data.images] == [[1, 2], [3], []]


def test_createml__key_order_of_swift(write_files):
    listed = json.dumps([{"annotations": entry["annotations"], "image": entry["image"]} for entry in ENTRIES])
    assert boxes_of(read_data(write_files({**IMAGES, "a.json": listed}))) == BOXES


def test_createml__splits_as_roboflow_exports_them(write_files):
    files = {f"{split}/_annotations.createml.json": json.dumps(ENTRIES[:1]) for split in ("train", "valid", "test")}
    images = {f"{split}/a.png": None for split in ("train", "valid", "test")}
    data = read_data(write_files({**files, **images, "README.roboflow.txt": "x"}))
    assert {split: [image.path.parent.name for image in images] for split, images in data.splits.items()} == {
        "train": ["train"],
        "val": ["valid"],
        "test": ["test"],
    }


def test_createml__images_without_objects_alone(write_files):
    data = read_data(write_files({"c.png": None, "a.json": json.dumps(ENTRIES[2:])}))
    assert (data.format, boxes_of(data)) == ("CreateML", {"c.png": []})


@pytest.mark.parametrize(
    "content",
    [
        {"images": [], "annotations": [], "categories": []},
        [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
        [{"id": 1, "annotations": [{"id": 2, "result": []}], "data": {"image": "/data/upload/a.png"}}],
        [{"image": "/data/upload/a.png", "id": 1, "label": [], "annotator": 1, "annotation_id": 1}],
        [{"image": "a.png", "annotations": "cat"}],
        {"a.png1": {"filename": "a.png", "size": 1, "regions": [], "file_attributes": {}}},
    ],
)
def test_createml__recognises_only_its_own(write_files, content):
    root = write_files({"a.json": json.dumps(content)})
    assert CreateMl().recognise(root) == CreateMl().recognise(root / "a.json") == []


def test_createml__is_claimed_by_no_other_format(write_files):
    root = write_files({**IMAGES, "a.json": json.dumps(ENTRIES)})
    for form in (Coco(), Via(), Vott()):
        assert form.recognise(root) == form.recognise(root / "a.json") == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (annotation(None, 1, 2, 3, 4), "label must be a text, not None"),
        (annotation("owl", 1, "two", 3, 4), "owl: x, y, width, height must be numbers, not 1, 'two', 3, 4"),
        ({"label": "owl"}, "owl: x, y, width, height must be numbers, not None"),
        ("owl", "label must be a text, not None"),
    ],
)
def test_createml__a_bad_annotation_is_a_finding(write_files, bad, message):
    listed = [{"image": "a.png", "annotations": [DOG, bad, CAT]}]
    data = read_data(write_files({"a.png": None, "a.json": json.dumps(listed)}))
    assert boxes_of(data) == {"a.png": BOXES["a.png"]}
    (finding,) = data.findings
    assert (finding.kind, finding.annotation) == ("unreadable-annotations", 2)
    assert f"annotation 2 (a.png): {message}" in str(finding)


def test_createml__bad_entries(write_files):
    listed = [
        *ENTRIES[:1],
        {"image": "", "annotations": []},
        None,
        {"image": "b.png"},
        {"image": "x.png", "annotations": [CAT]},
    ]
    data = read_data(write_files({"a.png": None, "a.json": json.dumps(listed)}))
    assert boxes_of(data) == {"a.png": BOXES["a.png"]}
    assert [str(finding).rpartition("a.json: ")[2].partition(" below")[0] for finding in data.findings] == [
        "image 2: image must be a text, not ''",
        "image 3: image must be a text, not None",
        "image 4: annotations must be a list, not None",
        "there is no x.png",
    ]


def test_createml__an_image_in_two_entries(write_files):
    listed = [{"image": "a.png", "annotations": [DOG]}, {"image": "a.png", "annotations": [CAT]}]
    data = read_data(write_files({"a.png": None, "a.json": json.dumps(listed)}))
    assert boxes_of(data) == {"a.png": BOXES["a.png"]}
    assert [finding.kind for finding in data.findings] == ["same-image"]


def test_createml__shares_of_the_image_are_an_error(write_files):
    """CreateML can train on them, but its files do not state it."""
    listed = [
        {
            "image": "a.png",
            "annotations": [annotation("cat", 0.5, 0.4, 0.3, 0.2), annotation("dog", 0.2, 0.4, 0.1, 0.2)],
        }
    ]
    data = read_data(write_files({"a.png": None, "a.json": json.dumps(listed)}))
    assert {finding.kind for finding in only_errors(check_data(data).findings)} == {"normalised-box"}


def test_createml__images_elsewhere(write_files):
    root = write_files({"boxes/a.json": json.dumps(ENTRIES[:1]), "store/a.png": None, "store/other.png": None})
    data = read_data(root / "boxes", images=root / "store")
    assert boxes_of(data) == {"a.png": BOXES["a.png"]}
    assert [(finding.kind, finding.file.name) for finding in data.findings] == [("unlisted-image", "other.png")]
    (root / "store/a.png").unlink()
    with pytest.raises(DataError, match=r"its images \(a\.png\.\.\.\) are nowhere below .*--images\)"):
        read_data(root / "boxes")
