"""VIA: its project and exports of versions 1 and 2. The images of the tests are 40 x 30."""

import csv
import io
import json
import math
import os
import re

import pytest

from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.coco import Coco
from fasterrcnn.data.formats.csv_table import CsvTable
from fasterrcnn.data.formats.via import Via
from fasterrcnn.errors import DataError, UsageError


def rect(x, y, width, height):
    return {"name": "rect", "x": x, "y": y, "width": width, "height": height}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def entry(name, *regions, size=1234, **file_attributes):
    return {"filename": name, "size": size, "regions": list(regions), "file_attributes": file_attributes}


def export(*entries):
    return {f"{e['filename']}{e['size']}": e for e in entries}


def project(*entries):
    """A project of version 2.0.12."""
    return {
        "_via_settings": {
            "core": {"buffer_size": 18, "filepath": {}, "default_filepath": ""},
            "project": {"name": "p"},
        },
        "_via_img_metadata": export(*entries),
        "_via_attributes": {
            "region": {"kind": {"type": "dropdown", "options": {"cat": "", "dog": ""}, "default_options": {}}},
            "file": {},
        },
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(export(*entries)),
    }


def table(*rows, header="filename"):
    """The CSV export: (file name, file attributes, number of regions, shape, attributes) of each row."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = "file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    text.write(f"{header},{names}\n")
    for number, (name, file_attributes, count, shape, attributes) in enumerate(rows):
        cells = (json.dumps(cell) for cell in (file_attributes, shape, attributes))
        of_file, of_shape, of_region = cells
        writer.writerow([name, 1234, of_file, count, number, of_shape, of_region])
    return text.getvalue()


CAT = region(rect(1, 2, 10, 20), kind="cat")
DOG = region(rect(5.5, 6, 7, 8), kind="dog")
BOXES = {"a.png": [[1, 2, 11, 22], [5.5, 6, 12.5, 14]], "b.png": [[5.5, 6, 12.5, 14]], "c.png": []}
ENTRIES = (entry("a.png", CAT, DOG), entry("b.png", DOG), entry("c.png"))
VERSION_1 = {
    key: {"fileref": "", "base64_img_data": "", **own, "regions": {str(n): r for n, r in enumerate(own["regions"])}}
    for key, own in export(*ENTRIES).items()
}
CSV = table(
    ("a.png", {}, 2, CAT["shape_attributes"], CAT["region_attributes"]),
    ("a.png", {}, 2, DOG["shape_attributes"], DOG["region_attributes"]),
    ("b.png", {}, 1, DOG["shape_attributes"], DOG["region_attributes"]),
    ("c.png", {}, 0, {}, {}),
)
IMAGES = dict.fromkeys(("a.png", "b.png", "c.png"))


def boxes_of(data):
    return {image.path.name: image.boxes.tolist() for image in data.images}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("project.json", json.dumps(project(*ENTRIES))),
        ("via_region_data.json", json.dumps(export(*ENTRIES))),
        ("via_region_data.json", json.dumps(VERSION_1)),
        ("via_region_data.csv", CSV),
        ("via_export.csv", CSV.replace("filename", "#filename", 1)),
    ],
)
def test_via__versions(write_files, name, content):
    root = write_files({**IMAGES, name: content, "package.json": "{}", "other.csv": "a,b\n1,2\n"})
    for place in (root, root / name):
        data = read_data(place)
        assert (data.format, data.classes, data.findings) == ("VIA", ("cat", "dog"), [])
        assert boxes_of(data) == BOXES
        assert [image.labels.tolist() for image in data.images] == [[0, 1], [1], []]
        assert data.images[0].size_hw == (30, 40)
        assert data.notes == ["images found in ."]
        first = 2 if name.endswith(".csv") else 1
        assert [image.numbers.tolist() for image in data.images] == [[first, first + 1], [first + 2], []]


def test_via__is_claimed_by_no_other_format(write_files):
    root = write_files({**IMAGES, "a.json": json.dumps(export(*ENTRIES)), "b.csv": CSV})
    for file in (root / "a.json", root / "b.csv"):
        assert Via().recognise(file) == [file]
        assert Coco().recognise(file) == CsvTable().recognise(file) == []


def test_via__recognises_only_its_own(write_files):
    others = {
        "coco.json": '{"images": [], "annotations": [], "categories": []}',
        "vott.json": '{"assets": {"1": {"asset": {"name": "a.png"}, "regions": []}}}',
        "labelme.json": '{"version": "5", "shapes": [], "imagePath": "a.png"}',
        "table.csv": "filename,xmin,ymin,xmax,ymax,class\n",
    }
    root = write_files(others)
    assert Via().recognise(root) == []
    assert [Via().recognise(root / name) for name in others] == [[], [], [], []]


def test_via__outlines(write_files):
    shapes = [
        {"name": "polygon", "all_points_x": [3, 9, 6], "all_points_y": [4, 5, 12]},
        {"name": "circle", "cx": 10, "cy": 11, "r": 4.5},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 8, "ry": 3},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 8, "ry": 3, "theta": math.pi / 2},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 4, "ry": 4, "theta": 0.7},
        {"name": "point", "cx": 1, "cy": 2},
        {"name": "polyline", "all_points_x": [3, 9], "all_points_y": [4, 5]},
        {"name": "polyline", "all_points_x": [3, 9, 7, 4], "all_points_y": [4, 5, 20, 5]},
    ]
    regions = [region(shape, kind="cat") for shape in shapes]
    data = read_data(write_files({"a.png": None, "via.json": json.dumps(export(entry("a.png", *regions)))}))
    expected = [
        [3, 4, 9, 12],
        [5.5, 6.5, 14.5, 15.5],
        [12, 12, 28, 18],
        [17, 7, 23, 23],
        [16, 11, 24, 19],
        [3, 4, 9, 20],
    ]
    assert data.images[0].boxes.round(4).tolist() == expected
    assert data.findings == []
    notes = " ".join(data.notes[1:])
    counts = {"polygon": 1, "circle": 1, "ellipse": 3, "polyline": 1, "point": 1, "line of two points": 1}
    assert all(re.search(f"{count} (x )?{shape}", notes) for shape, count in counts.items())


def test_via__splits_of_folders_and_of_attributes(write_files):
    files = {f"{split}/via_region_data.json": json.dumps(export(ENTRIES[0])) for split in ("train", "val")}
    data = read_data(write_files({**files, "train/a.png": None, "val/a.png": None}))
    assert {split: [i.path.parent.name for i in images] for split, images in data.splits.items()} == {
        "train": ["train"],
        "val": ["val"],
    }
    listed = export(
        entry("a.png", CAT, split="train"), entry("b.png", DOG, Subset="Validation"), entry("c.png", set="?")
    )
    root = write_files({**IMAGES, "via.json": json.dumps(listed)}, data.root.parent / "other")
    splits = read_data(root).splits
    assert {split: [image.path.name for image in images] for split, images in splits.items()} == {
        "train": ["a.png"],
        "val": ["b.png"],
        "all": ["c.png"],
    }


def test_via__two_files_of_no_split(write_files):
    content = json.dumps(export(*ENTRIES))
    with pytest.raises(DataError, match=r"2 annotation files .*one\.json.*two\.json"):
        read_data(write_files({**IMAGES, "one.json": content, "two.json": content}))


def test_via__class_attribute(write_files):
    both = [
        region(rect(1, 2, 10, 20), species="cat", colour="red"),
        region(rect(1, 2, 10, 9), species="dog", colour=""),
    ]
    root = write_files({"a.png": None, "via.json": json.dumps(export(entry("a.png", *both)))})
    with pytest.raises(
        DataError, match=r"set: each of the region attributes species, colour could be the class.*label=species\)$"
    ):
        read_data(root)
    assert read_data(root, columns={"label": "species"}).classes == ("cat", "dog")
    with pytest.raises(UsageError, match="no region has an attribute called 'size'; there are: species, colour"):
        read_data(root, columns={"label": "size"})
    with pytest.raises(UsageError, match="VIA has no column that means 'x1', only label"):
        read_data(root, columns={"label": "species", "x1": "x"})
    (root / "via.json").write_text((root / "via.json").read_text().replace("species", "Label"))
    assert read_data(root).classes == ("cat", "dog")
    data = read_data(root, columns={"label": "colour"})
    assert data.classes == ("red",)
    assert [str(finding).partition("via.json: ")[2] for finding in data.findings] == [
        "region 2 (a.png): the attribute 'colour' has no value, so the class is unknown"
    ]


def test_via__ticked_classes(write_files):
    regions = [
        region(rect(1, 2, 10, 20), type={"cat": True}),
        region(rect(1, 2, 9, 9), type={"cat": True, "dog": True, "owl": False}),
        region(rect(1, 2, 8, 8), type={"cat": False}),
    ]
    data = read_data(write_files({"a.png": None, "via.json": json.dumps(export(entry("a.png", *regions)))}))
    assert data.classes == ("cat", "dog")
    assert data.images[0].boxes.tolist() == [[1, 2, 11, 22], [1, 2, 10, 11], [1, 2, 10, 11]]
    assert data.images[0].labels.tolist() == [0, 0, 1]
    assert [finding.annotation for finding in data.findings] == [3]


def test_via__no_attribute_at_all(write_files):
    listed = export(entry("a.png", region(rect(1, 2, 10, 20)), region(rect(1, 2, 9, 9), kind="")))
    data = read_data(write_files({"a.png": None, "via.json": json.dumps(listed)}))
    assert (data.classes, len(data.images[0].boxes), data.findings) == (("object",), 2, [])
    assert "no region has an attribute: all are of one class, 'object'" in data.notes


def test_via__images_of_one_name(write_files):
    root = write_files({"cats/1.png": b"", "dogs/1.png": None})
    (root / "cats/1.png").write_bytes((root / "dogs/1.png").read_bytes() + b"longer")
    sizes = [(root / name).stat().st_size for name in ("cats/1.png", "dogs/1.png")]
    listed = [entry("1.png", CAT, size=sizes[0]), entry("1.png", DOG, size=sizes[1])]
    (root / "via.json").write_text(json.dumps(export(*listed)))
    data = read_data(root)
    assert {image.path.parent.name: image.boxes.tolist() for image in data.images} == {
        "cats": [[1, 2, 11, 22]],
        "dogs": [[5.5, 6, 12.5, 14]],
    }
    (root / "cats/1.png").unlink()  # now both names lead to one file, which is that of the dogs
    data = read_data(root)
    assert [image.boxes.tolist() for image in data.images] == [[[5.5, 6, 12.5, 14]]]
    assert [finding.kind for finding in data.findings] == ["ambiguous-image"]
    assert f"2 images are called 1.png; not just one below has {sizes[0]} bytes" in str(data.findings[0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (region(rect(1, 2, None, 4), kind="cat"), "x, y, width, height must be numbers, not 1, 2, None, 4"),
        (region({"name": "cube"}, kind="cat"), "there is no shape 'cube', but rect, circle"),
        (region(None, kind="cat"), "shape_attributes must be an object, not None"),
        (region(rect(1, 2, 3, 4), kind=["cat"]), "the attribute 'kind' has no value"),
        (
            region({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, kind="cat"),
            "a polygon needs x and y of three points or more, not 3 x and 2 y",
        ),
        ("text", "shape_attributes must be an object, not None"),
    ],
)
def test_via__a_bad_region_is_a_finding(write_files, bad, message):
    listed = export(entry("a.png", CAT, bad, DOG))
    data = read_data(write_files({"a.png": None, "via.json": json.dumps(listed)}))
    assert boxes_of(data) == {"a.png": BOXES["a.png"]}
    (finding,) = data.findings
    assert (finding.kind, finding.annotation) == ("unreadable-annotations", 2)
    assert f"region 2 (a.png): {message}" in str(finding)


def test_via__bad_entries_and_files(write_files):
    listed = {"x": {"regions": []}, "y": None, **export(entry("a.png", CAT), {**entry("b.png"), "regions": 3})}
    files = {
        "train/a.png": None,
        "train/via.json": json.dumps(listed),
        "val/via.json": '{"filename" "regions" "shape_attributes"',
    }
    data = read_data(write_files(files))
    assert boxes_of(data) == {"a.png": [[1, 2, 11, 22]]}
    assert [str(finding).rpartition("via.json: ")[2] for finding in data.findings] == [
        "image 'x': filename must be a text, not None",
        "image 'y': an object with filename and regions is expected",
        "image 'b.png1234': regions must be a list",
        "broken JSON (Expecting ':' delimiter: line 1 column 13 (char 12)); is the file complete?",
    ]


def test_via__lines_of_a_table_that_are_missing(write_files):
    lines = CSV.splitlines()
    root = write_files({**IMAGES, "via.csv": "\n".join([*lines[:2], *lines[3:]])})
    data = read_data(root)
    assert boxes_of(data) == {**BOXES, "a.png": [[1, 2, 11, 22]]}
    assert [str(finding).rpartition("via.csv: ")[2] for finding in data.findings] == [
        "a.png has region_count 2, and 1 usable lines"
    ]
    (root / "via.csv").write_text(CSV.replace('""kind"": ""dog""', '""kind: ""dog""', 1))
    (first, second) = read_data(root).findings
    assert (first.annotation, "line 3: region_attributes is no JSON" in str(first)) == (3, True)
    assert "region_count" in str(second)


def test_via__images_elsewhere(write_files):
    root = write_files({"boxes/via.json": json.dumps(export(*ENTRIES)), "store/a.png": None})
    data = read_data(root / "boxes", images=root / "store")
    assert boxes_of(data) == {"a.png": BOXES["a.png"]}
    assert [finding.kind for finding in data.findings] == ["missing-image", "missing-image"]
    (root / "store/a.png").rename(root / "store/z.png")
    with pytest.raises(DataError, match=r"its images \(a\.png\.\.\.\) are nowhere below .*--images\)"):
        read_data(root / "boxes")


def test_via__what_is_no_file_is_not_opened(write_files):
    root = write_files({**IMAGES, "via.json": json.dumps(export(*ENTRIES))})
    os.mkfifo(root / "a.json")
    (root / "b.json").symlink_to("b.json")
    assert boxes_of(read_data(root)) == BOXES
