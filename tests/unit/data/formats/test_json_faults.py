"""Faults that are planted in sound files of annotation tools: no crash, and no box that is lost or changed in silence.

Replaced by a value of its own type, a part of a file is another sound file; so for these only crashes count.
"""

import copy
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.checks import check_data
from fasterrcnn.data.formats import read_data
from fasterrcnn.errors import FasterRCNNError

CIRCLE = {"name": "circle", "cx": 20, "cy": 15, "r": 6}
POLYGON = {"name": "polygon", "all_points_x": [3, 19, 6], "all_points_y": [4, 5, 22]}
RECT = {"name": "rect", "x": 2, "y": 3, "width": 20, "height": 18}
VIA_REGIONS = [
    {"shape_attributes": RECT, "region_attributes": {"kind": "cat"}},
    {"shape_attributes": POLYGON, "region_attributes": {"kind": "dog"}},
    {"shape_attributes": CIRCLE, "region_attributes": {"kind": {"dog": True}}},
]
VIA = {
    f"{name}123": {"filename": name, "size": 123, "regions": VIA_REGIONS, "file_attributes": {"split": split}}
    for name, split in (("a.png", "train"), ("b.png", "val"))
}
VIA_1 = {key: {**entry, "regions": dict(zip("012", VIA_REGIONS, strict=True))} for key, entry in VIA.items()}
PLACES = {"x": 12, "y": 12, "width": 18, "height": 16}
CREATEML = [
    {"image": name, "annotations": [{"label": label, "coordinates": PLACES} for label in ("cat", "dog")]}
    for name in ("a.png", "b.png")
]
BOX = {"left": 2, "top": 3, "width": 20, "height": 18}
POINTS = [{"x": 2, "y": 3}, {"x": 22, "y": 3}, {"x": 12, "y": 21}]
VOTT = {
    "tags": [{"name": "cat", "color": "#ff0000"}],
    "assets": {
        f"id{name}": {
            "asset": {"id": f"id{name}", "name": name, "size": {"width": 40, "height": 30}, "state": 2, "type": 1},
            "regions": [
                {"id": "1", "type": "RECTANGLE", "tags": ["cat"], "boundingBox": BOX, "points": POINTS},
                {"id": "2", "type": "POLYGON", "tags": ["dog"], "boundingBox": BOX, "points": POINTS},
            ],
        }
        for name in ("a.png", "b.png")
    },
}
FRAME = {"x1": 4, "y1": 6, "x2": 44, "y2": 40, "width": 80, "height": 60, "tags": ["cat"]}
VOTT_1 = {"frames": {"a.png": [FRAME, {**FRAME, "tags": ["dog"]}], "b.png": [FRAME]}, "inputTags": "cat,dog"}
FILES = {"via": VIA, "via 1": VIA_1, "createml": CREATEML, "vott": VOTT, "vott 1": VOTT_1}

WRONG = [None, "text", ["text"], {"text": 1}, math.nan, math.inf, 10**400, -7, True]
ENTRY = re.compile(r"^\d+$|\.png")
"""Keys that are names of images or numbers of regions: without one, a file is another sound file."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the two images."""
    folder = tmp_path_factory.mktemp("faults")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (40, 30)).save(folder / name)
    return folder


def parts_of(value, path=()):
    """The path of every part of a file."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from parts_of(part, (*path, key))


def kind_of(value):
    return "number" if type(value) in (int, float) and abs(value) < 1e9 else type(value).__name__


def rows_of(data):
    """Image, class and box of every annotation."""
    return {
        (image.path.name, data.classes[label], tuple(box))
        for image in data.images
        for label, box in zip(image.labels, image.boxes.tolist(), strict=True)
    }


def read(root, form, content):
    """The data, or None after an error of one line."""
    (root / "file.json").write_bytes(content)
    try:
        return read_data(root, format=form.split()[0])
    except FasterRCNNError as error:
        message = str(error)
    assert "\n" not in message
    return None


@pytest.mark.parametrize("form", FILES)
@settings(derandomize=True, deadline=None, max_examples=15, database=None)
@given(choices=st.data())
def test_read_data__planted_faults(root, form, choices):
    sound = read(root, form, json.dumps(FILES[form]).encode())
    assert len(rows_of(sound)) > 2
    content = copy.deepcopy(FILES[form])
    path = choices.draw(st.sampled_from(list(parts_of(content))))
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    old = parent[path[-1]]
    if isinstance(parent, dict) and not ENTRY.search(path[-1]) and choices.draw(st.booleans()):
        del parent[path[-1]]
        is_sound = False
    else:
        parent[path[-1]] = choices.draw(st.sampled_from(WRONG))
        is_sound = kind_of(old) == kind_of(parent[path[-1]])
    data = read(root, form, json.dumps(content).encode())
    if data is None or is_sound:
        return
    findings = check_data(data).findings
    if rows_of(data) != rows_of(sound):
        assert [finding for finding in findings if finding.severity == "error"]
    new = rows_of(data) - rows_of(sound)
    named = {finding.annotation for finding in findings if finding.severity in ("error", "warning")}
    for image in data.images:
        for index, (label, box) in enumerate(zip(image.labels, image.boxes.tolist(), strict=True)):
            changed = (image.path.name, data.classes[label], tuple(box)) in new
            assert not changed or image.number(index) in named


@pytest.mark.parametrize("form", FILES)
@settings(derandomize=True, deadline=None, max_examples=8, database=None)
@given(share=st.floats(0, 1, exclude_max=True), byte=st.sampled_from([None, b"\xff", b"\0"]))
def test_read_data__cut_files_and_wrong_bytes(root, form, share, byte):
    content = json.dumps(FILES[form]).encode()
    place = int(share * len(content))
    broken = content[:place] if byte is None else content[:place] + byte + content[place + 1 :]
    assert read(root, form, broken) is None
