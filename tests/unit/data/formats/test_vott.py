"""VoTT: export and assets of version 2, and the file of version 1. The images of the tests are 40 x 30."""

import json
import re

import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.coco import Coco
from fasterrcnn.data.formats.createml import CreateMl
from fasterrcnn.data.formats.via import Via
from fasterrcnn.data.formats.vott import Vott
from fasterrcnn.errors import DataError


def region(left, top, width, height, *tags, shape="RECTANGLE"):
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    return {
        "id": "Qm5",
        "type": shape,
        "tags": list(tags),
        "boundingBox": {"height": height, "width": width, "left": left, "top": top},
        "points": [{"x": x, "y": y} for x, y in corners],
    }


def asset(name, *regions, state=2, type=1, path=None):
    """What the file of an asset holds."""
    own = {
        "format": name.rpartition(".")[2],
        "id": f"id-{name}",
        "name": name,
        "path": path or f"file:/home/somebody/project%201/{name}",
        "size": {"width": 40, "height": 30},
        "state": state,
        "type": type,
    }
    return {"asset": own, "regions": list(regions), "version": "2.2.0"}


def export(*assets):
    return {
        "name": "animals",
        "securityToken": "animals Token",
        "videoSettings": {"frameExtractionRate": 15},
        "tags": [{"name": "dog", "color": "#5db300"}, {"name": "cat", "color": "#e81123"}],
        "id": "xZ",
        "activeLearningSettings": {"autoDetect": False, "predictTag": True, "modelPathType": "coco"},
        "version": "2.2.0",
        "lastVisitedAssetId": "id-a.png",
        "assets": {own["asset"]["id"]: own for own in assets},
    }


def frames(**of_images):
    return {
        "frames": {name.replace("_", "."): regions for name, regions in of_images.items()},
        "framerate": "1",
        "inputTags": "cat,dog",
        "suggestiontype": "track",
        "scd": False,
        "visitedFrames": list(of_images),
        "tag_colors": ["#0cc0ff", "#1f8"],
    }


def rectangle(x1, y1, x2, y2, *tags, width=80, height=60):
    """A region of version 1 in a frame that was displayed twice as large as the image."""
    box = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return {**box, "width": width, "height": height, "box": dict(box), "tags": list(tags), "type": "Rectangle", "id": 1}


CAT, DOG = region(1, 2, 10, 20, "cat"), region(5.5, 6, 7, 8, "dog")
ASSETS = (asset("a.png", CAT, DOG), asset("b.png", DOG), asset("c.png", state=1))
BOXES = {"a.png": [[1, 2, 11, 22], [5.5, 6, 12.5, 14]], "b.png": [[5.5, 6, 12.5, 14]], "c.png": []}
IMAGES = dict.fromkeys(BOXES)
FRAMES = frames(
    a_png=[rectangle(2, 4, 22, 44, "cat"), rectangle(11, 12, 25, 28, "dog")],
    b_png=[rectangle(11, 12, 25, 28, "dog")],
    c_png=[],
)


def boxes_of(data):
    return {image.path.name: image.boxes.tolist() for image in data.images}


@pytest.mark.parametrize(
    ("name", "content"), [("vott-json-export/animals-export.json", export(*ASSETS)), ("animals.json", FRAMES)]
)
def test_vott__versions(write_files, name, content):
    root = write_files({**IMAGES, name: json.dumps(content), "package.json": "{}"})
    data = read_data(root)
    assert (data.format, data.classes, data.findings) == ("VoTT", ("cat", "dog"), [])
    assert boxes_of(data) == BOXES
    assert [image.labels.tolist() for image in data.images] == [[0, 1], [1], []]
    assert [image.numbers.tolist() for image in data.images] == [[1, 2], [3], []]
    assert boxes_of(read_data(root / name, images=root)) == BOXES


def test_vott__files_of_single_assets(write_files):
    files = {f"{own['asset']['id']}-asset.json": json.dumps(own) for own in ASSETS}
    root = write_files({**IMAGES, **files, "animals.vott": json.dumps({"assets": {}})})
    data = read_data(root)
    assert (data.format, boxes_of(data), data.findings) == ("VoTT", BOXES, [])
    assert [image.source.name for image in data.images] == list(files)
    assert boxes_of(read_data(root / "id-b.png-asset.json")) == {"b.png": BOXES["b.png"]}


def test_vott__an_export_beside_its_assets(write_files):
    files = {f"{own['asset']['id']}-asset.json": json.dumps(own) for own in ASSETS}
    name = "vott-json-export/animals-export.json"
    data = read_data(
        write_files({**{f"vott-json-export/{n}": None for n in IMAGES}, **files, name: json.dumps(export(*ASSETS))})
    )
    assert (boxes_of(data), data.findings) == (BOXES, [])
    assert "3 files of single assets are not read, for animals-export.json is their export" in data.notes


def test_vott__splits_of_folders(write_files):
    files = {f"{split}/x-export.json": json.dumps(export(ASSETS[0])) for split in ("train", "val")}
    data = read_data(write_files({**files, "train/a.png": None, "val/a.png": None}))
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 1, "val": 1}
    files = {f"{split}/1-asset.json": json.dumps(ASSETS[0]) for split in ("train", "val")}
    root = write_files({**files, "train/a.png": None, "val/a.png": None}, data.root.parent / "assets")
    splits = read_data(root).splits
    assert {split: images[0].path.parent.name for split, images in splits.items()} == {"train": "train", "val": "val"}


def test_vott__other_regions(write_files):
    polygon = {
        **region(0, 0, 9, 9, "cat", shape="POLYGON"),
        "points": [{"x": 3, "y": 4}, {"x": 9, "y": 5}, {"x": 6, "y": 12}],
    }
    regions = [polygon, region(1, 1, 5, 5, "cat", "dog", shape="SQUARE"), region(1, 1, 0, 0, "cat", shape="POINT")]
    regions.append(region(1, 1, 9, 9, "cat", shape="POLYLINE"))
    data = read_data(write_files({"a.png": None, "e.json": json.dumps(export(asset("a.png", *regions)))}))
    assert boxes_of(data) == {"a.png": [[3, 4, 9, 12], [1, 1, 6, 6], [1, 1, 6, 6]]}
    assert data.images[0].labels.tolist() == [0, 0, 1]
    assert data.findings == []
    notes = " ".join(data.notes[1:])
    assert all(re.search(f"1 (x )?{shape}", notes) for shape in ("polygon", "point", "polyline"))


def test_vott__what_nobody_visited_is_not_empty(write_files):
    video = asset("film.mp4", type=2, state=1)
    frame = asset("film.mp4#t=1.5", DOG, type=3)
    listed = export(ASSETS[0], asset("b.png", state=0), video, frame)
    root = write_files({"a.png": None, "b.png": None, "film.mp4#t=1.5.png": None, "e.json": json.dumps(listed)})
    data = read_data(root)
    assert boxes_of(data) == {"a.png": BOXES["a.png"], "film.mp4#t=1.5.png": BOXES["b.png"]}
    assert [(finding.kind, finding.file.name) for finding in data.findings] == [("unlisted-image", "b.png")]
    assert "left out, for nobody visited them in VoTT: 1 images, such as b.png" in data.notes
    assert any(re.search("1 (x )?video", note) for note in data.notes)


def test_vott__version_1_in_the_size_of_the_image(write_files):
    box = {"x1": 1, "y1": 2, "x2": 11, "y2": 22}
    listed = frames(a_png=[{**box, "tags": ["cat"]}, {"box": box, "tags": ["dog"]}])
    data = read_data(write_files({"a.png": None, "e.json": json.dumps(listed)}))
    assert boxes_of(data) == {"a.png": [[1, 2, 11, 22], [1, 2, 11, 22]]}


def test_vott__recognition(write_files):
    contents = {"2.json": export(*ASSETS), "1.json": FRAMES, "a.json": ASSETS[0]}
    root = write_files({name: json.dumps(content) for name, content in contents.items()})
    for name in contents:
        assert Vott().recognise(root / name) == [root / name]
        assert [form.recognise(root / name) for form in (Coco(), Via(), CreateMl())] == [[], [], []]
    others = {"coco.json": '{"images": [], "annotations": []}', "via.json": '{"a": {"filename": "a", "regions": []}}'}
    root = write_files(others, root.parent / "others")
    assert Vott().recognise(root) == []


def test_vott__images_of_one_name(write_files):
    both = [asset("1.png", CAT, path="file:C:/data/cats/1.png"), asset("1.png", DOG, path="file:C:/data/dogs/1.png")]
    both[1]["asset"]["id"] = "other"
    root = write_files({"cats/1.png": None, "dogs/1.png": None, "e.json": json.dumps(export(*both))})
    data = read_data(root)
    assert {image.path.parent.name: image.boxes.tolist()[0] for image in data.images} == {
        "cats": [1, 2, 11, 22],
        "dogs": [5.5, 6, 12.5, 14],
    }
    (root / "cats/1.png").unlink()
    data = read_data(root)
    assert [(image.path.parent.name, image.boxes.tolist()[0]) for image in data.images] == [
        ("dogs", [5.5, 6, 12.5, 14])
    ]
    assert len([finding for finding in data.findings if finding.severity == "error"]) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (region(1, 2, 3, 4), "it has no tag"),
        (region(1, 2, 3, 4, None), "tag must be a text, not None"),
        (
            {**CAT, "boundingBox": {"left": 1, "top": 2, "width": 3}},
            "left, top, width, height must be numbers, not 1, 2, 3, None",
        ),
        ({**CAT, "type": "CUBE"}, "there is no type 'CUBE', but RECTANGLE"),
        ({**CAT, "type": "POLYGON", "points": [{"x": 1, "y": 2}]}, "a polygon needs three points, not 1"),
        (None, "type must be a text, not None"),
    ],
)
def test_vott__a_bad_region_is_a_finding(write_files, bad, message):
    data = read_data(write_files({"a.png": None, "e.json": json.dumps(export(asset("a.png", CAT, bad, DOG)))}))
    assert boxes_of(data) == {"a.png": BOXES["a.png"]}
    (finding,) = data.findings
    assert (finding.kind, finding.annotation) == ("unreadable-annotations", 2)
    assert f"region 2 (a.png): {message}" in str(finding)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (rectangle(2, 4, 22, 44, "cat", width=None), "width, height must be numbers, not None, 60"),
        (
            rectangle(2, 4, 22, 44, "cat", height=0),
            "width and height of the displayed image must be positive, not 80.0, 0.0",
        ),
        (rectangle(2, "a", 22, 44, "cat"), "x1, y1, x2, y2 must be numbers, not 2, 'a', 22, 44"),
        ({"tags": ["cat"]}, "x1, y1, x2, y2 must be numbers, not None"),
        (7, "an object is expected, not 7"),
    ],
)
def test_vott__a_bad_region_of_version_1(write_files, bad, message):
    listed = frames(a_png=[FRAMES["frames"]["a.png"][0], bad])
    data = read_data(write_files({"a.png": None, "e.json": json.dumps(listed)}))
    assert boxes_of(data) == {"a.png": [[1, 2, 11, 22]]}
    assert f"region 2 (a.png): {message}" in str(data.findings[0])


def test_vott__bad_assets_and_files(write_files):
    listed = export(ASSETS[0], {**ASSETS[1], "regions": None})
    listed["assets"]["x"] = []
    files = {"train/a.png": None, "train/e.json": json.dumps(listed), "val/e.json": '{"assets": {"regions": []'}
    data = read_data(write_files(files))
    assert boxes_of(data) == {"a.png": BOXES["a.png"]}
    assert [str(finding).rpartition("e.json: ")[2].partition(" (")[0] for finding in data.findings] == [
        "id-b.png: regions must be a list, not None",
        "x: an object with asset and regions is expected",
        "broken JSON",
    ]


def test_vott__a_size_that_is_not_the_image_s(write_files):
    listed = asset("a.png", CAT)
    listed["asset"]["size"] = {"width": 80, "height": 60}
    data = read_data(write_files({"a.png": None, "e.json": json.dumps(export(listed))}))
    assert [finding.kind for finding in data.findings] == ["size-mismatch"]
    assert data.images[0].size_hw == (60, 80)


def test_vott__images_that_are_nowhere(write_files):
    with pytest.raises(DataError, match=r"its images \(.*a\.png\.\.\.\) are nowhere below .*--images\)"):
        read_data(write_files({"z.png": None, "e.json": json.dumps(export(*ASSETS))}))


def test_vott__its_table_is_an_ordinary_one(write_files):
    lines = ['"image","xmin","ymin","xmax","ymax","label"', '"a.png",1.0,2.0,11.0,22.0,"cat"']
    data = read_data(
        write_files({"vott-csv-export/a.png": None, "vott-csv-export/animals-export.csv": "\n".join(lines)})
    )
    assert (data.format, data.classes, boxes_of(data)) == ("CSV", ("cat",), {"a.png": [[1, 2, 11, 22]]})
