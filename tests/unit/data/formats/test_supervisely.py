"""Projects as Supervisely exports them: all that it writes, with invented numbers."""

import base64
import copy
import io
import json
import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.shapes import box_of_png
from fasterrcnn.data.formats.supervisely import Supervisely
from fasterrcnn.errors import DataError, UsageError

read, recognise = Supervisely().read, Supervisely().recognise


def annotated_object(title="nut", kind="rectangle", points=((5, 6), (15, 26)), **values):
    shape = {"points": {"exterior": [list(point) for point in points], "interior": []}} if points else {}
    who = {"labelerLogin": "ann", "createdAt": "2024-01-02T03:04:05.678Z", "updatedAt": "2024-01-02T03:04:05.678Z"}
    return {"id": 9, "classId": 2, "description": "", "geometryType": kind, **who, "tags": [], "classTitle": title} | (
        shape | values
    )


def ann(*objects, size=(30, 40), tags=()) -> str:
    tags = [{"id": 1, "tagId": 2, "name": tag, "value": None, "labelerLogin": "ann"} for tag in tags]
    height, width = size
    return json.dumps(
        {"description": "", "tags": tags, "size": {"height": height, "width": width}, "objects": list(objects)}
    )


def meta(**shapes) -> str:
    shapes = shapes or {"nut": "rectangle", "bolt": "any"}
    classes = [
        {
            "title": title,
            "description": "",
            "shape": shape,
            "color": "#8A0F12",
            "geometry_config": {},
            "id": n,
            "hotkey": "",
        }
        for n, (title, shape) in enumerate(shapes.items())
    ]
    return json.dumps({"classes": classes, "tags": [{"name": "night", "value_type": "none"}], "projectType": "images"})


def encoded(mask, mode="RGBA") -> str:
    """A mask as Supervisely stores it."""
    grey = Image.fromarray(np.asarray(mask, np.uint8) * 255)
    png = Image.merge("RGBA", [Image.new("L", grey.size, 255)] * 3 + [grey]) if mode == "RGBA" else grey
    buffer = io.BytesIO()
    png.save(buffer, "PNG")
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


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


PROJECT = {
    "meta.json": meta(),
    "README.md": "x",
    "train/ann/a.png.json": ann(annotated_object(), annotated_object("bolt", points=[(9.5, 8), (1, 2)])),
    "train/img/a.png": None,
    "train/ann/b.png.json": ann(),
    "train/img/b.png": None,
    "val/ann/a.png.json": ann(annotated_object("bolt")),
    "val/img/a.png": None,
}


def test_read__project(write_files):
    root = write_files(PROJECT)
    data = read_data(root)
    assert (data.format, data.classes) == ("Supervisely", ("nut", "bolt"))
    assert boxes(data) == {
        "train/img/a.png": [("nut", 5, 6, 15, 26), ("bolt", 1, 2, 9.5, 8)],
        "train/img/b.png": [],
        "val/img/a.png": [("bolt", 5, 6, 15, 26)],
    }
    assert {split: len(own) for split, own in data.splits.items()} == {"train": 2, "val": 1}
    assert data.findings == []
    assert data.describe_box(data.images[0], 1) == "object 2 (bolt)"


@pytest.mark.parametrize("place", ["val", "val/ann", "val/ann/a.png.json"])
def test_read__a_part_of_a_project(write_files, place):
    root = write_files(PROJECT)
    assert recognise(root / place) == [root / place]
    data = read(root / place)
    assert [image.path for image in data.split("all")] == [root / "val/img/a.png"]
    assert data.classes == ("nut", "bolt")  # the list lies above


def test_read__datasets_without_splits(write_files):
    """Images of the same name stay apart, also in datasets of datasets."""
    folders = ("ds0", "ds1", "ds1/datasets/deep")
    files = {f"{f}/ann/a.png.json": ann(annotated_object(points=[(n, 1), (9, 9)])) for n, f in enumerate(folders)}
    data = read(write_files({"meta.json": meta(), **files, **{f"{folder}/img/a.png": None for folder in folders}}))
    assert boxes(data) == {f"{folder}/img/a.png": [("nut", n, 1, 9, 9)] for n, folder in enumerate(folders)}
    assert list(data.splits) == ["all"]


def test_read__shapes(write_files):
    mask = np.zeros((6, 8))
    mask[1:3, 2:7] = 1
    where = {"origin": [10, 20]}
    objects = [
        annotated_object("bolt", "polygon", [(1, 2), (9.5, 3), (4, 8)]),
        annotated_object("bolt", "bitmap", None, bitmap={"data": encoded(mask), **where}),
        annotated_object("bolt", "bitmap", None, bitmap={"data": encoded(mask, "L"), **where}),
        annotated_object("bolt", "alpha_mask", None, bitmap={"data": encoded(mask * 0), **where}),
        annotated_object(
            "bolt", "multipolygon", None, parts=[{"exterior": [[n, 2], [n, 5]], "interior": []} for n in (3, 7)]
        ),
        {**annotated_object("bolt", "oriented_bbox", angle=math.pi / 2), "points": [[10, 10], [20, 14]]},
        {**annotated_object("bolt", "cuboid", faces=[[0, 1, 2, 3]]), "points": [[n, n + 1] for n in range(1, 9)]},
        annotated_object("bolt", "point", [(1, 2)]),
        annotated_object("bolt", "line", [(1, 2), (3, 4)]),
        annotated_object("bolt", "graph", None, nodes={"x": {"loc": [1, 2]}}),
    ]
    data = read(write_files({"ds/ann/a.png.json": ann(*objects, tags=["night"]), "ds/img/a.png": None}))
    assert boxes(data)["ds/img/a.png"] == [
        ("bolt", 1, 2, 9.5, 8),
        ("bolt", 12, 21, 17, 23),
        ("bolt", 12, 21, 17, 23),
        ("bolt", 3, 2, 7, 5),
        ("bolt", 13, 7, 17, 17),
        ("bolt", 1, 2, 8, 9),
    ]
    assert data.images[0].numbers.tolist() == [1, 2, 3, 5, 6, 7]
    assert data.notes[1:] == [
        "taken as the box around: 2 x polygon, 2 x mask, 1 x rotated box, 1 x cuboid",
        "left out, for want of a box: 1 x image tag, 1 x empty mask, 1 x point, 1 x line, 1 x key points",
    ]
    assert data.findings == []


def test_read__early_versions_state_the_shape_in_the_list_of_classes(write_files):
    objects = [annotated_object(), annotated_object("bolt", points=[(1, 2), (9, 3), (4, 8)])]
    for entry in objects:
        del entry["geometryType"]
    files = {"meta.json": meta(nut="rectangle", bolt="polygon", dot="point"), "ds/ann/a.json": ann(*objects)}
    data = read(write_files({**files, "ds/img/a.png": None}))
    assert boxes(data)["ds/img/a.png"] == [("nut", 5, 6, 15, 26), ("bolt", 1, 2, 9, 8)]
    assert data.classes == ("nut", "bolt")


@pytest.mark.parametrize("text", ["{", '{"classes": 1}', '{"classes": [{"name": "x"}]}', '{"classes": [null]}'])
def test_read__damaged_list_of_classes(write_files, text):
    data = read(write_files({**PROJECT, "meta.json": text + " " * (text == "{") + '"classes"' * (text == "{")}))
    assert [kind for kind, _ in messages(data)] == ["unreadable-annotations"]
    assert data.findings[0].file.name == "meta.json"
    assert data.classes == ("bolt", "nut")
    assert boxes(data)["val/img/a.png"] == [("bolt", 5, 6, 15, 26)]


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (None, "an object is expected, not None"),
        (annotated_object(""), "it needs the title of a class (classTitle), not ''"),
        (annotated_object("nut", "sphere"), "there is no geometryType 'sphere'"),
        (annotated_object(points=[(1, 2)]), "two corners are expected, not {'exterior': [[1, 2]], 'interior': []}"),
        (annotated_object(points=[(1, 2), (3, "x")]), "2 numbers are expected, not [3, 'x']"),
        (annotated_object(points=None), "points must be pairs of numbers, not None"),
        (annotated_object("nut", "bitmap"), "a mask is expected (bitmap), not None"),
        (
            annotated_object("nut", "bitmap", bitmap={"data": "xx", "origin": [0, 0]}),
            "a mask as PNG in base64 cannot be read (",
        ),
        (
            annotated_object("nut", "bitmap", bitmap={"data": 5, "origin": [0, 0]}),
            "a mask is expected as text in base64, not 5",
        ),
        (annotated_object("nut", "bitmap", bitmap={"data": encoded([[1]])}), "2 numbers are expected, not None"),
        (annotated_object("nut", "oriented_bbox"), "angle must be a number, not None"),
    ],
)
def test_read__damaged_object_among_good_ones(write_files, damaged, what):
    data = read(
        write_files({**PROJECT, "val/ann/a.png.json": ann(annotated_object(), damaged, annotated_object("bolt"))})
    )
    assert boxes(data)["val/img/a.png"] == [("nut", 5, 6, 15, 26), ("bolt", 5, 6, 15, 26)]
    ((kind, message),) = messages(data)
    assert kind == "unreadable-annotations"
    assert message.startswith(f"object 2: {what}")


def test_box_of_png__bombs_are_refused():
    def packed(content: bytes) -> str:
        return base64.b64encode(zlib.compress(content)).decode()

    for side, what in ((12_000, "a mask of 12000 x 12000 pixels is too large"), (14_000, "decompression bomb")):
        buffer = io.BytesIO()
        Image.new("1", (side, side)).save(buffer, "PNG", compress_level=1)
        with pytest.raises(DataError, match=what):
            box_of_png(packed(buffer.getvalue()))
    with pytest.raises(DataError, match="cannot be read"):
        box_of_png(packed(bytes(2**27)))
    with pytest.raises(DataError, match="cannot be read"):
        box_of_png(encoded([[1, 1]])[:40])


def test_read__images_that_are_not_there(write_files):
    root = write_files(
        {**PROJECT, "val/img/c.png": None, "val/ann/d.png.json": ann(annotated_object()), "val/ann/e.png.json": "{"}
    )
    data = read(root)
    assert [kind for kind, _ in messages(data)] == ["missing-image", "unreadable-annotations", "unlisted-image"]
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"its images \(a\.png\.\.\.\) are nowhere below .*--images\)"):
        read(root)


def test_recognise__only_images_of_supervisely(write_files):
    video = {**json.loads(ann()), "framesCount": 3, "frames": []}
    vott = {"asset": {"size": {"width": 4, "height": 3}}, "regions": [{"tags": ["x"]}], "version": "2.2"}
    root = write_files({"ds/ann/a.mp4.json": json.dumps(video), "ann/b.json": json.dumps(vott), "c.json": ann()})
    assert recognise(root) == []
    assert recognise(root / "c.json") == [root / "c.json"]
    write_files({"ds/ann/d.png.json": json.dumps(json.loads(ann()), indent=4)})
    assert recognise(root) == [root]


SOUND = json.loads(ann(annotated_object("bolt"), annotated_object()))
PLACES = [
    ("objects",),
    ("objects", 1),
    ("objects", 1, "classTitle"),
    ("objects", 1, "geometryType"),
    ("objects", 1, "points"),
    ("objects", 1, "points", "exterior"),
    ("objects", 1, "points", "exterior", 1),
    ("objects", 1, "points", "exterior", 1, 0),
    ("size",),
    ("size", "height"),
    ("tags",),
]


@settings(derandomize=True, deadline=None, max_examples=15, database=None)
@given(st.sampled_from([None, "x", [], {}, math.nan, 10**400, -5, True, "delete"]), st.integers(1, 300))
def test_read__damage_is_reported(tmp_path_factory, value, cut):
    root = tmp_path_factory.mktemp("set")
    (root / "ann").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(root / name)
    (root / "meta.json").write_text(meta())
    (root / "ann/a.png.json").write_text(ann(annotated_object()))
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
        (root / "ann/b.png.json").write_text(text if place else text[:-cut])
        try:
            data = read(root)
        except (DataError, UsageError) as error:
            errors.append(str(error))
            continue
        left = boxes(data)
        assert left["a.png"] == [("nut", 5, 6, 15, 26)]
        if place == ("objects",) and value == []:  # no object
            continue
        first = ("bolt", 5, 6, 15, 26)
        assert left.get("b.png", [first])[:1] == [first] or data.findings
        is_whole = left.get("b.png") == [first, ("nut", 5, 6, 15, 26)]
        is_coordinate = len(place) > 4 and value in (-5,)
        assert is_whole or data.findings or is_coordinate or math.isnan(left["b.png"][1][1])
    assert not any("\n" in error for error in errors)
