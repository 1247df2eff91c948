import base64
import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats import read_data, write_data
from fasterrcnn.data.formats.labelme import Labelme
from fasterrcnn.errors import DataError

read, recognise = Labelme().read, Labelme().recognise


def shape(label="cat", points=((15, 26), (5, 6)), shape_type="rectangle", **more):
    """A shape as labelme 5 writes it."""
    common = {"group_id": None, "description": "", "shape_type": shape_type, "flags": {}, "mask": None}
    return {"label": label, "points": [list(point) for point in points], **common, **more}


def document(*shapes, name="a.png", **more) -> str:
    """A file as labelme 5 writes it, of an image of 40 x 30."""
    frame = {"imagePath": name, "imageData": None, "imageHeight": 30, "imageWidth": 40}
    return json.dumps({"version": "5.5.0", "flags": {}, "shapes": shapes, **frame, **more})


def objects(data) -> list[tuple[str, list[float]]]:
    """Class and box of every object."""
    return [
        (data.classes[label], box)
        for image in data.images
        for label, box in zip(image.labels, image.boxes.round(3).tolist(), strict=True)
    ]


def counted(data) -> str:
    """The notes in one line, for numbers in them as in "2 polygon"."""
    return "; ".join(data.notes).replace(" x ", " ")


def messages(data) -> list[tuple[str, str, str]]:
    return [(finding.kind, finding.file.name, finding.what) for finding in data.findings]


def test_read__as_labelme_writes_it(write_files):
    polygon = shape("owl", [(1.5, 2), (9, 3.25), (4, 8)], "polygon")
    root = write_files({"a.png": None, "a.json": document(polygon, shape()), "b.png": None})
    write_files({"b.json": document(name="b.png")})
    data = read(root)
    assert data.summary() == "labelme, 2 images, 1 without boxes, 2 classes (cat, owl), no splits"
    assert objects(data) == [("owl", [1.5, 2, 9, 8]), ("cat", [5, 6, 15, 26])]
    (first, second) = data.images
    assert (first.path, first.source, first.size_hw) == (root / "a.png", root / "a.json", (30, 40))
    assert first.numbers.tolist() == [1, 2]
    assert second.boxes.shape == (0, 4)
    assert data.describe_box(first, 1) == "shape 2 (cat)"
    assert "images found in ." in data.notes
    assert "1 polygon" in counted(data)
    assert data.findings == []


@pytest.mark.parametrize(
    ("points", "shape_type", "box"),
    [
        ([(5, 6), (15, 6), (15, 26), (5, 26)], "rectangle", [5, 6, 15, 26]),  # AnyLabeling
        ([(10, 12), (13, 16)], "circle", [5, 7, 15, 17]),
        ([(10, 2), (18, 10), (10, 18), (2, 10)], "rotation", [2, 2, 18, 18]),
        ([(10, 2), (18, 10), (10, 18), (2, 10)], "oriented_rectangle", [2, 2, 18, 18]),
        ([(1, 2), (9, 3), (8, 7), (0, 5)], "quadrilateral", [0, 2, 9, 7]),
        ([(1, 2), (3, 2), (3, 4), (1, 4), (5, 6), (7, 6), (7, 8), (5, 8)], "cuboid", [1, 2, 7, 8]),
        ([(3, 4), (12, 9)], "mask", [3, 4, 12, 9]),
        ([(1, 2), (9, 3), (8, 7)], None, [1, 2, 9, 7]),
        ([(1, 2), (9, 3), (8, 7)], "", [1, 2, 9, 7]),
    ],
)
def test_read__shapes(write_files, points, shape_type, box):
    root = write_files({"a.png": None, "a.json": document(shape("cat", points, shape_type))})
    data = read(root)
    assert objects(data) == [("cat", box)]
    assert data.findings == []
    kind = shape_type or "polygon"
    assert (f"1 {kind}" in counted(data)) == (kind != "rectangle")


def test_read__files_of_the_first_versions(write_files):
    old = {"shapes": [{"label": "cat", "points": [[1, 2], [9, 3], [8, 7]], "line_color": None}], "imagePath": "a.png"}
    root = write_files({"a.png": None, "a.json": json.dumps({**old, "imageData": "AAAA", "lineColor": [0, 255, 0]})})
    data = read(root)
    assert objects(data) == [("cat", [1, 2, 9, 7])]
    assert data.images[0].size_hw == (30, 40)


def test_read__eiseg(write_files):
    rows = [{"name": "cat", "labelIdx": 1, "color": [255, 0, 0], "points": [[1, 2], [9, 3], [8, 7]]}]
    root = write_files({"a.png": None, "label/a.json": json.dumps(rows)})
    write_files({"b.jpg": None, "label/b.jpg.json": json.dumps(rows)})
    data = read(root)
    assert objects(data) == [("cat", [1, 2, 9, 7])] * 2
    assert data.findings == []


def test_read__shapes_without_a_box_are_counted(write_files):
    shapes = [shape("cat", [(1, 2)] * count, kind) for kind, count in (("point", 1), ("line", 2), ("linestrip", 3))]
    root = write_files({"a.png": None, "a.json": document(*shapes, shape("owl", [(1, 2)], "point"), shape())})
    data = read(root)
    assert objects(data) == [("cat", [5, 6, 15, 26])]
    assert all(f"{count} {kind}" in counted(data) for count, kind in ((2, "point"), (1, "line"), (1, "linestrip")))


def test_read__parts_of_an_object(write_files):
    """Outlines of one label and group are one object; rectangles with a group, as of a tracker, are not."""
    triangle = [(1, 2), (9, 3), (8, 7)]
    moved = [(x + 20, y + 10) for x, y in triangle]
    shapes = [
        shape("cat", triangle, "polygon", group_id=1),
        shape("owl", triangle, "polygon", group_id=1),
        shape("cat", moved, "polygon", group_id=1),
        shape("cat", moved, "polygon", group_id=2),
        shape("cat", group_id=1),
    ]
    data = read(write_files({"a.png": None, "a.json": document(*shapes)}))
    assert objects(data) == [
        ("cat", [1, 2, 29, 17]),
        ("owl", [1, 2, 9, 7]),
        ("cat", [21, 12, 29, 17]),
        ("cat", [5, 6, 15, 26]),
    ]
    assert data.notes[1] == "1 x shape with the label and group_id of another: one box around all of them is taken"


def test_read__difficult(write_files):
    shapes = [shape(difficult=True), shape(flags={"difficult": True}), shape(difficult=False, flags={"occluded": True})]
    (image,) = read(write_files({"a.png": None, "a.json": document(*shapes)})).images
    assert image.difficult.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("name", "image", "file"),
    [
        ("a.png", "a.png", "a.json"),
        ("..\\images\\a.png", "images/a.png", "labels/a.json"),
        ("../images/a.png", "images/a.png", "labels/a.json"),
        ("C:\\Users\\me\\photos\\a.png", "a.png", "a.json"),
        ("/home/me/photos/a.png", "images/a.png", "annotations/a.json"),
        ("photo 7.png", "photo 7.png", "a.json"),
        ("gone.png", "a.png", "a.json"),
        ("a.jpg", "a.png", "a.json"),
        (None, "a.png", "a.json"),
        ("", "images/a.png", "labels/a.json"),
    ],
)
def test_read__places_of_images(write_files, name, image, file):
    root = write_files({image: None, file: document(shape(), name=name)})
    assert recognise(root) == [root]
    data = read(root)
    assert [annotated.path for annotated in data.images] == [root / image]
    assert data.findings == []


def test_read__name_and_stem_are_of_two_images(write_files):
    files = {"a.png": None, "b.png": None, "a.json": document(shape(), name="b.png"), "c.png": None}
    data = read(write_files({**files, "c.json": document(name="c.png")}))
    assert [image.path.name for image in data.images] == ["c.png"]
    ((kind, file, what),) = messages(data)
    assert (kind, file) == ("ambiguous-image", "a.json")
    assert what.startswith("b.png could be ")


def test_read__of_images_with_one_stem_the_named_one_counts(write_files):
    data = read(write_files({"a.png": None, "a.jpg": None, "a.json": document(shape(), name="a.jpg")}))
    assert [image.path.name for image in data.images] == ["a.jpg"]


def test_read__images_named_by_the_user(tmp_path, write_files):
    root = write_files({"a.json": document(shape())})
    store = write_files({"a.png": None}, tmp_path / "store")
    data = read_data(root, images=store)
    assert [image.path for image in data.images] == [store / "a.png"]


def test_read__a_folder_for_each_split(write_files):
    files = {f"{split}/a.png": None for split in ("train", "valid")}
    root = write_files({**files, "train/a.json": document(shape()), "valid/a.json": document(shape("owl"))})
    data = read(root)
    assert {split: [image.path.parent.name for image in images] for split, images in data.splits.items()} == {
        "train": ["train"],
        "val": ["valid"],
    }
    assert list(read(root / "train" / "a.json").splits) == ["all"]


def test_read__copies_of_a_file_give_no_double_boxes(write_files):
    files = {"a.png": None, "a - Copy.json": document(shape()), "a.json": document(shape("owl"))}
    data = read(write_files(files))
    assert objects(data) == [("owl", [5, 6, 15, 26])]
    ((kind, file, what),) = messages(data)
    assert (kind, file) == ("same-image", "a - Copy.json")
    assert what == f"a.png has its annotations in {data.root / 'a.json'} already: left out"


def test_read__image_without_a_file(write_files):
    data = read(write_files({"a.png": None, "b.png": None, "a.json": document(shape())}))
    assert messages(data) == [("unlisted-image", "b.png", "image without annotations")]
    assert read(data.root / "a.json").findings == []


def test_read__images_inside_the_files(write_files):
    content = base64.b64encode(b"x" * 2**21).decode()
    root = write_files({"a.json": document(shape(), imageData=content)})
    assert recognise(root) == [root]
    hint = r"\(it is inside the file, as imageData: labelme_export_json writes it out\)"
    with pytest.raises(DataError, match=rf"its images \(a\.png\.\.\.\) are nowhere below .*{hint}"):
        read(root)
    write_files({"b.png": None, "b.json": document(name="b.png")})
    ((kind, _, what),) = messages(read(root))
    assert kind == "missing-image"
    assert "labelme_export_json" in what


@pytest.mark.parametrize("order", [("imageData", "shapes", "imagePath"), ("shapes", "imagePath", "imageData")])
def test_recognise__large_image_inside(write_files, order):
    content = json.loads(document(shape(), imageData="A" * 2**21))
    root = write_files({"a.png": None, "a.json": json.dumps({key: content[key] for key in order})})
    assert recognise(root) == [root]
    assert recognise(root / "a.json") == [root / "a.json"]
    assert objects(read(root)) == [("cat", [5, 6, 15, 26])]


@pytest.mark.parametrize(
    "content",
    [
        '{"images": [], "annotations": [], "categories": []}',
        '{"_via_img_metadata": {"a.png1": {"filename": "a.png", "regions": [{"shape_attributes": {"name": "rect"}}]}}}',
        '[{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}]',
        '[{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": []}]}]',
        '{"asset": {"path": "a.png"}, "regions": [{"points": []}]}',
        '{"size": {"height": 30}, "objects": [{"points": {"exterior": []}, "geometryType": "rectangle"}]}',
        '{"items": [{"annotations": [{"type": "polygon", "points": []}], "image": {"path": "a.png"}}]}',
        "",
    ],
)
def test_recognise__other_json(write_files, content):
    root = write_files({"a.png": None, "a.json": content})
    assert recognise(root) == recognise(root / "a.json") == []
    with pytest.raises(DataError, match=r"no labelme file, that is \.json with shapes and imagePath"):
        read(root)


def test_read__other_json_among_them(write_files):
    files = {f"{stem}.{suffix}": document(name=f"{stem}.png") for stem in "abcd" for suffix in ("json",)}
    root = write_files({**files, **{f"{stem}.png": None for stem in "abcd"}, "meta.json": '{"author": "x"}'})
    data = read(root)
    assert len(data.images) == 4
    assert messages(data) == [("unlisted-annotations", "meta.json", "not labelme: it has no list of shapes")]
    (root / "d.json").write_text('{"author": "x"}')
    assert ("unreadable-annotations", "d.json", "not labelme: it has no list of shapes") in messages(read(root))


@pytest.mark.parametrize(
    ("damaged", "what"),
    [
        (None, "shape 2: an object with label and points is expected, not None"),
        (shape(label=None), "shape 2: its label must be a name, not None"),
        (shape(label=" "), "shape 2: its label must be a name, not ' '"),
        (shape(shape_type="spline"), "shape 2 (cat): shape_type 'spline' is unknown; draw it as a rectangle or a"),
        (shape(shape_type=["x"]), "shape 2 (cat): shape_type ['x'] is unknown"),
        (shape(points=[(1, 2)]), "shape 2 (cat): a rectangle of 2 or 4 points is expected, not of 1"),
        (shape(points=[(1, 2)] * 2, shape_type="polygon"), "shape 2 (cat): a polygon of 3 or more points is expected"),
        (shape() | {"points": None}, "shape 2 (cat): points must be pairs of numbers, not None"),
        (shape(points=[(1, 2, 3), (4, 5, 6)]), "shape 2 (cat): 2 numbers are expected, not [1, 2, 3]"),
        (shape(points=[(1, "x"), (4, 5)]), "shape 2 (cat): 2 numbers are expected, not [1, 'x']"),
        (shape(points=[(10**400, 2), (4, 5)]), "shape 2 (cat): 2 numbers are expected, not [1000"),
        (shape(points=[(True, 2), (4, 5)]), "shape 2 (cat): 2 numbers are expected, not [True, 2]"),
        (shape(group_id=[1]), "shape 2 (cat): its group_id must be a number, not [1]"),
    ],
)
def test_read__damaged_shape_among_good_ones(write_files, damaged, what):
    root = write_files({"a.png": None, "a.json": document(shape("owl"), damaged, shape("ant"))})
    data = read(root)
    assert objects(data) == [("owl", [5, 6, 15, 26]), ("ant", [5, 6, 15, 26])]
    ((kind, file, text),) = messages(data)
    assert (kind, file) == ("unreadable-annotations", "a.json")
    assert text.startswith(what)
    assert data.findings[0].annotation == 2


def test_read__states_another_size(write_files):
    data = read(write_files({"a.png": None, "a.json": document(shape(), imageHeight=40, imageWidth=30)}))
    ((kind, _, what),) = messages(data)
    assert kind == "size-mismatch"
    assert "width and height are exchanged" in what
    for value in (None, "30", -1, 0, float("nan"), True, [30]):
        data = read(write_files({"a.json": document(shape(), imageHeight=value)}))
        assert data.images[0].size_hw == (30, 40)
        assert data.findings == []


def test_read__unreadable_image(write_files):
    root = write_files({"a.png": b"x", "a.json": document(shape()), "b.png": None, "b.json": document(name="b.png")})
    data = read(root)
    assert [image.path.name for image in data.images] == ["b.png"]
    assert [kind for kind, *_ in messages(data)] == ["unreadable-image"]


def test_write__as_labelme_reads_it(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    boxes, labels = np.array([[5.25, 6, 15, 26.1], [1, 2, 3, 4]], np.float32), np.array([0, 1])
    image = AnnotatedImage(tmp_path / "a.png", 1, (30, 40), boxes, labels, np.array([False, True]))
    data = AnnotatedData(tmp_path, "test", ("cat", "owl"), {"all": [image]})
    assert write_data(data, tmp_path / "out", "labelme") == []
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.json", "a.png"]
    content = json.loads((tmp_path / "out" / "images" / "a.json").read_text())
    assert content == json.loads(
        document(
            shape(points=[(5.25, 6), (15, 26.1)]),
            shape("owl", [(1, 2), (3, 4)], flags={"difficult": True}),
        )
    )
    again = read_data(tmp_path / "out")
    np.testing.assert_array_equal(again.images[0].boxes, boxes)
    assert again.images[0].difficult.tolist() == [False, True]


SOUND = json.loads(document(shape("cat"), shape("owl", [(1.5, 2), (9, 3), (4, 8)], "polygon"), shape("ant")))
EXPECTED = [("cat", (5, 6, 15, 26)), ("owl", (1.5, 2, 9, 8)), ("ant", (5, 6, 15, 26))]
FAULTS = st.sampled_from([None, "x", [], {}, [None], float("nan"), float("inf"), 10**400, -1, 1e300, True])


@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(
    st.integers(0, 2), st.sampled_from(["label", "points", "shape_type", "group_id", "flags"]), FAULTS, st.booleans()
)
def test_read__faults_in_a_shape(tmp_path_factory, index, key, fault, delete):
    content = copy.deepcopy(SOUND)
    content["shapes"][index][key] = fault
    if delete:
        del content["shapes"][index][key]
    check(tmp_path_factory.mktemp("faults"), json.dumps(content).encode(), index)


@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(st.sampled_from([*SOUND, "cut", "bytes"]), FAULTS, st.integers(0, 400))
def test_read__faults_in_a_file(tmp_path_factory, key, fault, place):
    fault = None if key == "shapes" and fault == [] else fault  # an image without objects
    text = json.dumps({**SOUND, key: fault} if key in SOUND else SOUND).encode()
    if key == "cut":
        text = text[:place]
    elif key == "bytes":
        text = text[:place] + b"\xff\0" + text[place:]
    check(tmp_path_factory.mktemp("faults"), text)


def check(folder, text: bytes, index: int | None = None) -> None:
    """The other shapes and the other file are read as they are; what is lost is in a finding."""
    for name in ("a", "b"):
        Image.new("1", (40, 30)).save(folder / f"{name}.png")
    (folder / "a.json").write_bytes(text)
    (folder / "b.json").write_text(document(shape("dog"), name="b.png"))
    data = read(folder)
    boxes = [(label, tuple(box)) for label, box in objects(data)]
    assert ("dog", (5, 6, 15, 26)) in boxes
    boxes.remove(("dog", (5, 6, 15, 26)))
    lost = [row for row in EXPECTED if row not in boxes]
    assert set(boxes) <= set(EXPECTED) or index is not None
    assert [row for row in boxes if row[1] not in [box for _, box in EXPECTED]] == []
    if index is not None:
        assert set(lost) <= {EXPECTED[index]}
    if lost and len(boxes) < len(EXPECTED):
        assert data.findings or any("left out" in note for note in data.notes)
    assert all("\n" not in str(finding) for finding in data.findings)
