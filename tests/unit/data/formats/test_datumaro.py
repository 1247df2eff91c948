"""Files as Datumaro and CVAT export them: all that they write, with invented numbers."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.datumaro import Datumaro
from fasterrcnn.data.formats.shapes import box_of_runs
from fasterrcnn.errors import DataError, UsageError

read, recognise = Datumaro().read, Datumaro().recognise


def annotation(kind="bbox", label=0, attributes=(), **values):
    own = {"bbox": [5, 6, 10.5, 20]} if kind == "bbox" else {}
    shared = {"id": 0, "type": kind, "attributes": {"occluded": False, **dict(attributes)}, "group": 0}
    return {**shared, "label_id": label, "z_order": 0, **own, **values}


def item(name, *annotations, **media):
    own = media or {"image": {"path": f"{name}.png", "size": [30, 40]}}
    return {"id": name, "annotations": list(annotations), "attr": {"frame": 0}, **own}


def content(*items, names=("nut", "bolt")):
    labels = [{"name": name, "parent": "", "attributes": []} for name in names]
    label = {"labels": labels, "label_groups": [], "attributes": ["occluded"]}
    head = {"dm_format_version": "1.0", "media_type": 2, "infos": {}}
    return {**head, "categories": {"label": label, "points": {"items": []}}, "items": list(items)}


def old_content(*items):
    """As of versions that state none."""
    return {"info": {}, **{key: content(*items)[key] for key in ("categories", "items")}}


def boxes(data) -> dict[str, list]:
    return {
        image.path.relative_to(data.root).as_posix(): [
            (data.classes[label], *corners)
            for label, corners in zip(image.labels, image.boxes.round(3).tolist(), strict=True)
        ]
        for image in data.images
    }


def messages(data) -> list[tuple[str, str]]:
    return [(finding.kind, finding.what) for finding in data.findings]


@pytest.mark.parametrize("make", [content, old_content])
def test_read__subsets(write_files, make):
    crowd = annotation(label=1, bbox=[1, 2, 2, 2], attributes={"is_crowd": True})
    files = {
        "annotations/train.json": make(item("a", annotation(), crowd), item("deep/b")),
        "annotations/Validation.json": make(item("a", annotation(), media={"path": "a.png"})),
        "annotations/default.json": make(item("a", annotation(label=1), image={"path": ""})),
    }
    images = ("train/a.png", "train/deep/b.png", "Validation/a.png", "default/a.png")
    texts = {name: json.dumps(value) for name, value in files.items()}
    root = write_files(texts | {f"images/{name}": None for name in images})
    data = read_data(root)
    assert (data.format, data.classes) == ("Datumaro", ("nut", "bolt"))
    assert boxes(data) == {
        "images/train/a.png": [("nut", 5, 6, 15.5, 26), ("bolt", 1, 2, 3, 4)],
        "images/train/deep/b.png": [],
        "images/Validation/a.png": [("nut", 5, 6, 15.5, 26)],
        "images/default/a.png": [("bolt", 5, 6, 15.5, 26)],
    }
    assert {split: len(own) for split, own in data.splits.items()} == {"train": 2, "val": 1, "all": 1}
    assert data.split("train")[0].difficult.tolist() == [False, True]
    assert data.findings == []


def test_read__subsets_of_other_names(write_files):
    files = {f"annotations/{name}.json": json.dumps(content(item("a", annotation()))) for name in ("cam1", "cam2")}
    data = read(write_files({**files, "images/cam1/a.png": None, "images/cam2/a.png": None}))
    assert {split: own[0].path.parent.name for split, own in data.splits.items()} == {"cam1": "cam1", "cam2": "cam2"}


def test_read__single_file(write_files):
    root = write_files({"annotations/train.json": json.dumps(content(item("a", annotation()))), "images/a.png": None})
    assert read(root).splits.keys() == {"train"}
    assert recognise(root / "annotations/train.json") == [root / "annotations/train.json"]
    assert read(root / "annotations/train.json").splits.keys() == {"all"}


def test_read__shapes(write_files):
    runs = [4 * 30 + 3, 2, 28, 2, 40 * 30 - (4 * 30 + 35)]  # rows 3 and 4 of columns 4 and 5
    text = content(
        item(
            "a",
            annotation("polygon", points=[1.0, 2.0, 9.5, 3.0, 4.0, 8.0]),
            annotation("mask", rle={"counts": runs, "size": [30, 40]}),
            annotation("mask", rle={"counts": [1200], "size": [30, 40]}),
            annotation("ellipse", points=[1, 2, 11, 8]),
            annotation("cuboid_2d", points=[[n, n + 1] for n in range(1, 9)]),
            annotation(bbox=[10, 10, 10, 4], attributes={"rotation": 90.0}),
            annotation(bbox=[10, 10, 10, 4], attributes={"rotation": "left"}),
            annotation("label"),
            annotation("points", points=[1, 2], visibility=[2]),
            annotation("polyline", points=[1, 2, 3, 4]),
            {"id": 0, "type": "caption", "attributes": {}, "group": 0, "caption": "a nut"},
        )
    )
    data = read(write_files({"annotations/default.json": json.dumps(text), "images/default/a.png": None}))
    assert boxes(data)["images/default/a.png"] == [
        ("nut", 1, 2, 9.5, 8),
        ("nut", 4, 3, 6, 5),
        ("nut", 1, 2, 11, 8),
        ("nut", 1, 2, 8, 9),
        ("nut", 13, 7, 17, 17),
        ("nut", 10, 10, 20, 14),
    ]
    assert data.notes[1:] == [
        "taken as the box around: 1 x polygon, 1 x mask, 1 x ellipse, 1 x cuboid, 1 x rotated box",
        "left out, for want of a box: 1 x empty mask, 1 x image label, 1 x point, 1 x line, 1 x caption",
    ]
    assert data.images[0].numbers.tolist() == [1, 2, 4, 5, 6, 7]
    assert data.findings == []


@pytest.mark.parametrize(
    ("counts", "size", "box"),
    [
        ([0, 6], [2, 3], [0, 0, 3, 2]),
        ([3, 1, 2], [2, 3], [1, 1, 2, 2]),
        ([1, 2, 3], [2, 3], [0, 0, 2, 2]),  # the end of a column and the beginning of the next
        ([6], [2, 3], None),
        ("312", [2, 3], [1, 1, 2, 2]),
        ("06", [2, 3], [0, 0, 3, 2]),
        ("`l30P2", [30, 40], None),
    ],
)
def test_box_of_runs__by_hand(counts, size, box):
    if counts == "`l30P2":
        with pytest.raises(DataError, match="run lengths of"):
            box_of_runs(counts, size)
    else:
        assert box_of_runs(counts, size) == box


@pytest.mark.parametrize(
    ("counts", "size"),
    [
        ([7], [2, 3]),
        ([-1, 7], [2, 3]),
        ([1.5, 4.5], [2, 3]),
        (None, [2, 3]),
        ("~~", [2, 3]),
        ("P", [2, 3]),
        ("o" * 10**6, [2, 3]),
        ([0], [0, 0]),
        ([6], [2, -3]),
        ([6], [math.nan, 3]),
        ([6], None),
    ],
)
def test_box_of_runs__hostile(counts, size):
    with pytest.raises(DataError) as caught:
        box_of_runs(counts, size)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (None, "an annotation is expected, not None"),
        (annotation(label=None), "no label has the number None (label_id)"),
        (annotation(label=2), "no label has the number 2 (label_id)"),
        (annotation(bbox=[1, 2, 3]), "4 numbers are expected, not [1, 2, 3]"),
        (annotation(bbox=[1, 2, 3, True]), "4 numbers are expected, not [1, 2, 3, True]"),
        (annotation(bbox=[1, 2, 3, 10**400]), "4 numbers are expected, not [1, 2, 3, 1000"),
        (annotation("polygon", points=[]), "points must be pairs of numbers, not []"),
        (annotation("polygon", points=[1, 2, 3]), "2 numbers are expected, not [3]"),
        (annotation("mask"), "a mask needs run lengths (rle), not None"),
        (annotation("blob"), "there is no type 'blob' of annotations"),
        (annotation(["bbox"]), """there is no type "['bbox']" of annotations"""),
    ],
)
def test_read__damaged_annotation_among_good_ones(write_files, damaged, what):
    text = json.dumps(content(item("a", annotation(), damaged, annotation(label=1))))
    data = read(write_files({"annotations/default.json": text, "a.png": None}))
    assert boxes(data) == {"a.png": [("nut", 5, 6, 15.5, 26), ("bolt", 5, 6, 15.5, 26)]}
    ((kind, message),) = messages(data)
    assert kind == "unreadable-annotations"
    assert message.startswith(f"item a.png, annotation 2: {what}")


@pytest.mark.parametrize("labels", [-1, 1e308, float("nan"), True, None, "ab", {"name": "nut"}])
def test_read__labels_that_are_no_list(write_files, labels):
    good, broken = content(item("a", annotation())), content(item("b", annotation()))
    broken["categories"]["label"]["labels"] = labels
    texts = {"annotations/train.json": json.dumps(good), "annotations/val.json": json.dumps(broken)}
    data = read(write_files({**texts, "a.png": None}))
    assert boxes(data) == {"a.png": [("nut", 5, 6, 15.5, 26)]}
    assert messages(data)[0][1].startswith("it has no names of classes")


def test_read__images_that_are_not_there(write_files):
    text = json.dumps(content(item("a"), item("b", annotation()), {"id": "c"}, [1]))
    root = write_files({"annotations/default.json": text, "a.png": None, "d.png": None})
    data = read(root)
    assert [kind for kind, _ in messages(data)] == [*["unreadable-annotations"] * 2, "missing-image", "unlisted-image"]
    (root / "a.png").unlink()
    with pytest.raises(DataError, match=r"its images \(default/a\.png\.\.\.\) are nowhere below .*--images\)"):
        read(root)


def test_read__classes_by_name(write_files):
    """Subsets may number them differently."""
    first, second = content(item("a", annotation())), content(item("b", annotation()), names=("bolt", "nut"))
    texts = {"annotations/train.json": json.dumps(first), "annotations/val.json": json.dumps(second)}
    data = read(write_files({**texts, "images/a.png": None, "images/b.png": None}))
    assert boxes(data) == {"images/a.png": [("nut", 5, 6, 15.5, 26)], "images/b.png": [("bolt", 5, 6, 15.5, 26)]}


def test_recognise__only_files_of_datumaro(write_files):
    others = {
        "coco.json": {"images": [], "annotations": [], "categories": [], "items": []},
        "labelme.json": {"version": "5", "shapes": [], "imagePath": "a.png"},
        "list.json": [{"items": [], "categories": []}],
    }
    root = write_files({name: json.dumps(value) for name, value in others.items()})
    assert recognise(root) == []
    write_files({"annotations/train.json": json.dumps(old_content(), indent=4)})
    assert recognise(root) == [root]


SOUND = content(item("a", annotation(label=1)), item("b", annotation()))
PLACES = [
    ("items", 1),
    ("items", 1, "id"),
    ("items", 1, "annotations"),
    ("items", 1, "image"),
    ("items", 1, "image", "path"),
    ("items", 1, "image", "size"),
    ("items", 1, "annotations", 0),
    ("items", 1, "annotations", 0, "type"),
    ("items", 1, "annotations", 0, "bbox"),
    ("items", 1, "annotations", 0, "bbox", 2),
    ("items", 1, "annotations", 0, "label_id"),
    ("items", 1, "annotations", 0, "attributes"),
    ("categories", "label", "labels", 0, "name"),
    ("categories", "label"),
    ("items",),
]
LIST, WIDTH, NAME = PLACES[2], PLACES[9], PLACES[12]
HARMLESS = (PLACES[3], PLACES[4], PLACES[5], PLACES[11])  # the id is enough for the image, and its size is not needed


@settings(derandomize=True, deadline=None, max_examples=15, database=None)
@given(st.sampled_from([None, "x", [], {}, math.nan, 10**400, -5, True, "delete"]), st.integers(1, 400))
def test_read__damage_is_reported(tmp_path_factory, value, cut):
    root = tmp_path_factory.mktemp("set")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(root / name)
    errors = []
    for place in [*PLACES, ()]:
        damaged = copy.deepcopy(SOUND)
        parent = damaged
        for key in place[:-1]:
            parent = parent[key]
        if value == "delete" and place:
            if isinstance(parent, list):  # an object less is no damage
                continue
            del parent[place[-1]]
        elif place:
            parent[place[-1]] = value
        text = json.dumps(damaged)
        (root / "data.json").write_text(text if place else text[:-cut])
        try:
            data = read(root)
        except (DataError, UsageError) as error:
            errors.append(str(error))
            continue
        left = boxes(data)
        assert left["a.png"] == [("bolt", 5, 6, 15.5, 26)]
        if place == NAME and value == "x":  # another name of the class
            assert left["b.png"] == [("x", 5, 6, 15.5, 26)]
        elif place == LIST and value == []:  # no annotation
            assert left["b.png"] == []
        elif place == WIDTH:
            assert data.findings or not np.isfinite(left["b.png"][0][3]) or left["b.png"] == [("nut", 5, 6, 0, 26)]
        else:
            is_whole = left.get("b.png") == [("nut", 5, 6, 15.5, 26)]
            assert is_whole or data.findings
            assert not (place in HARMLESS and "b.png" not in left)
    assert not any("\n" in error for error in errors)
