"""TFRecord of the object detection API, written here as its documentation describes it. Images are 40 x 30."""

import io
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.checks import check_data
from fasterrcnn.data.formats import read_data
from fasterrcnn.data.formats.tfrecord import TfRecord
from fasterrcnn.errors import DataError, FasterRCNNError

LABEL_MAP = """
# of Roboflow
item {
    name: "cat",
    id: 1,
    display_name: "cat"
}
item { id: 2 name: 'dog' }
"""
CAT, DOG = (0.025, 0.1, 0.275, 0.5), (0.5, 0.2, 0.75, 0.6)
CAT_BOX, DOG_BOX = [1, 3, 11, 15], [20, 6, 30, 18]


def image(colour, format="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, format)
    return buffer.getvalue()


RED, BLUE, GREEN = image("red"), image("blue", "JPEG"), image("green")


def varint(value):
    value &= 2**64 - 1  # negative numbers as their two's complement
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values, packed=True):
    """A Feature with a list of bytes, floats or whole numbers."""
    if all(isinstance(value, bytes) for value in values):
        return message(1, b"".join(message(1, value) for value in values))
    if all(isinstance(value, float) for value in values):
        packs = [struct.pack("<f", value) for value in values]
        return message(2, message(1, b"".join(packs)) if packed else b"".join(b"\x0d" + pack for pack in packs))
    packs = [varint(value) for value in values]
    return message(3, message(1, b"".join(packs)) if packed else b"".join(b"\x08" + pack for pack in packs))


def example(features, packed=True):
    entries = [
        message(1, message(1, name.encode()) + message(2, feature(values, packed))) for name, values in features.items()
    ]
    return message(1, b"".join(entries))


def crc(data):
    """The masked CRC-32C, bit by bit."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    state ^= 0xFFFFFFFF
    return struct.pack("<I", ((state >> 15 | state << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def records(*datas):
    lengths = [struct.pack("<Q", len(data)) for data in datas]
    return b"".join(length + crc(length) + data + crc(data) for length, data in zip(lengths, datas, strict=True))


def features(name, content, *objects, **others):
    """An image of the object detection API; an object is its box, its class as a text and as a number."""
    boxes = [box for box, *_ in objects]
    sides = {
        f"image/object/bbox/{side}": [float(box[position]) for box in boxes]
        for position, side in enumerate(("xmin", "ymin", "xmax", "ymax"))
    }
    return {
        "image/height": [30],
        "image/width": [40],
        "image/filename": [name.encode()],
        "image/source_id": [name.encode()],
        "image/encoded": [content],
        "image/format": [b"png" if content.startswith(b"\x89") else b"jpeg"],
        **sides,
        "image/object/class/text": [text.encode() for _, text, _ in objects],
        "image/object/class/label": [number for *_, number in objects],
        **{f"image/object/{key}": values for key, values in others.items()},
    }


A = features("a.png", RED, (CAT, "cat", 1), (DOG, "dog", 2))
B = features("b.jpg", BLUE, (DOG, "dog", 2))
C = features("c.png", GREEN)
SOUND = records(*map(example, (A, B, C)))
ENDS = [len(records(*map(example, (A, B, C)[:count]))) for count in range(3)]  # a file cut there is another sound file


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tfrecord"


def boxes_of(data):
    return [image.boxes.round(3).tolist() for image in data.images]


@pytest.mark.parametrize(
    "name", ["a.record", "a.tfrecord", "a.tfrecords", "a.tfrecord-00000-of-00001", "a-00000-of-00001"]
)
def test_tfrecord__images_inside(write_files, cache, name):
    root = write_files({name: SOUND, "labels/label_map.pbtxt": LABEL_MAP})
    for place in (root, root / name):
        data = read_data(place)
        assert (data.format, data.classes, data.category_ids) == ("TFRecord", ("cat", "dog"), (1, 2))
        assert data.findings == []
        assert boxes_of(data) == [[CAT_BOX, DOG_BOX], [DOG_BOX], []]
        assert [image.labels.tolist() for image in data.images] == [[0, 1], [1], []]
        assert [image.numbers.tolist() for image in data.images] == [[1, 2], [3], []]
        assert [image.path.read_bytes() for image in data.images] == [RED, BLUE, GREEN]
        assert [(image.path.parent, image.path.suffix) for image in data.images] == [
            (cache, s) for s in (".png", ".jpg", ".png")
        ]
        assert f"3 images were taken out of the records, into {cache}" in data.notes


def test_tfrecord__numbers_that_are_not_packed(write_files):
    root = write_files({"a.record": records(example(A, packed=False))})
    assert boxes_of(read_data(root)) == [[CAT_BOX, DOG_BOX]]


def test_tfrecord__images_beside(write_files, cache):
    """An image of the same name and another content is not that of the annotations."""
    root = write_files({"a.record": SOUND, "images/a.png": RED, "images/b.jpg": GREEN, "images/x.png": RED})
    data = read_data(root)
    assert [image.path.parent.name for image in data.images] == ["images", "tfrecord", "tfrecord"]
    assert [finding.kind for finding in data.findings] == ["unlisted-image", "unlisted-image"]
    assert len(list(cache.iterdir())) == 2
    assert [image.path.name for image in read_data(root, images=root / "images").images][:2] == ["a.png", "b.jpg"]


def test_tfrecord__no_images_inside(write_files):
    content = records(*(example({**own, "image/encoded": []}) for own in (A, B)))
    root = write_files({"a.record": content, "a.png": None})
    data = read_data(root)
    assert boxes_of(data) == [[CAT_BOX, DOG_BOX]]
    assert "record 2: there is no b.jpg below" in str(data.findings[0])
    (root / "a.png").rename(root / "z.png")
    with pytest.raises(DataError, match=r"the records hold no images, and its images \(a\.png\.\.\.\) are nowhere"):
        read_data(root)


def test_tfrecord__splits(write_files):
    files = {
        "train/cells.tfrecord": records(example(A)),
        "train/cells_label_map.pbtxt": LABEL_MAP,
        "valid/cells.tfrecord": records(example(B)),
        "valid/cells_label_map.pbtxt": LABEL_MAP,
    }
    data = read_data(write_files(files))
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 1, "val": 1}
    assert (data.classes, data.findings) == (("cat", "dog"), [])
    shards = {
        f"coco_{s}.record-0000{n}-of-00002": records(example(own))
        for s, n, own in (("train", 0, A), ("train", 1, B), ("val", 0, C))
    }
    root = write_files({**shards, "other.record": SOUND}, data.root.parent / "shards")
    data = read_data(root)
    assert {split: len(images) for split, images in data.splits.items()} == {"train": 2, "val": 1}
    assert [(f.kind, str(f).rpartition(": ")[2]) for f in data.findings] == [
        ("missing-annotations", "1 of its 2 shards are missing"),
        ("unlisted-annotations", "left out"),
    ]


def test_tfrecord__difficult_objects_and_areas(write_files):
    first = features(
        "a.png", RED, (CAT, "cat", 1), (DOG, "dog", 2), (CAT, "dog", 2), is_crowd=[0, 1, 0], difficult=[0, 0, 1]
    )
    second = features("b.jpg", BLUE, (DOG, "dog", 2), group_of=[1], area=[77.5])
    data = read_data(write_files({"a.record": records(example(first), example(second))}))
    assert [image.difficult.tolist() for image in data.images] == [[False, True, True], [True]]
    assert data.images[1].areas.tolist() == [77.5]


def test_tfrecord__names_of_classes(write_files):
    """A text, or a number that a label map or the user names."""
    bare = {**A, "image/object/class/text": []}
    root = write_files({"a.record": records(example(bare))})
    with pytest.raises(
        DataError, match=r"put the label map \(.pbtxt\) beside .*--class-names.*object 1: .* the label 1,"
    ):
        read_data(root)
    assert read_data(root, classes=["owl", "ant"]).classes == ("owl", "ant")
    (root / "graph.pbtxt").write_text('node { name: "x" }')
    (root / "map.pbtxt").write_text('item { id: 2 name: "/m/01" display_name: "Dog" } item { id: 1 name: "/m/02" }')
    data = read_data(root)
    assert (data.classes, [image.labels.tolist() for image in data.images]) == (("/m/02", "Dog"), [[0, 1]])
    (root / "a.record").write_bytes(records(example(features("a.png", RED, (CAT, "/m/01", 2), (DOG, "Dog", 2)))))
    assert [image.labels.tolist() for image in read_data(root).images] == [[1, 1]]
    (root / "map.pbtxt").unlink()
    assert read_data(root).classes == ("/m/01", "Dog")


def test_tfrecord__classes_that_contradict_the_label_map(write_files):
    content = records(example(features("a.png", RED, (CAT, "cat", 2), (DOG, "dog", 2), (DOG, "owl", 7))))
    data = read_data(write_files({"a.record": content, "a.pbtxt": LABEL_MAP}))
    assert boxes_of(data) == [[DOG_BOX]]
    first, second = data.findings
    assert "object 1: its class is 'cat', but its label 2 is 'dog' in the label map" in str(first)
    assert (second.kind, second.annotation) == ("unknown-class", 3)
    (data.root / "b.pbtxt").write_text(LABEL_MAP.replace("cat", "owl"))
    with pytest.raises(DataError, match=r"b\.pbtxt: class 1 is 'owl', and 'cat' before or in another file"):
        read_data(data.root)
    (data.root / "b.pbtxt").write_text("item { name: 'x' }")
    with pytest.raises(DataError, match=r"b\.pbtxt: a class of the label map needs a whole number as id, and a name"):
        read_data(data.root)
    (data.root / "b.pbtxt").write_text("item { id: 3 name: 'x'")
    with pytest.raises(DataError, match=r"b\.pbtxt: the last item has no end; is the file complete"):
        read_data(data.root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image/object/bbox/xmin": [0.1]}, "record 1: it has 2 objects, but 1 bbox/xmin"),
        ({"image/object/bbox/xmin": [b"1", b"2"]}, "image/object/bbox/xmin must have values of the type float"),
        ({"image/object/class/text": [b"cat"]}, "it has 2 objects, but 1 class/text"),
        ({"image/object/difficult": [0, 0, 0]}, "it has 3 objects, but 2 bbox/xmin"),
    ],
)
def test_tfrecord__a_record_that_cannot_be_used(write_files, changes, message):
    data = read_data(write_files({"a.record": records(example({**A, **changes}), example(B))}))
    assert boxes_of(data) == [[DOG_BOX]]
    (finding,) = data.findings
    assert finding.kind == "unreadable-annotations"
    assert message in str(finding)


def test_tfrecord__pixels_instead_of_shares(write_files):
    content = records(example(features("a.png", RED, (CAT, "cat", 1), ((4, 5, 20, 25), "dog", 2))))
    data = read_data(write_files({"a.record": content}))
    assert boxes_of(data) == [[CAT_BOX]]
    assert "object 2: shares of the image (0 to 1) are expected, not 4,5,20,25" in str(data.findings[0])


def test_tfrecord__a_size_that_is_not_the_image_s(write_files):
    data = read_data(write_files({"a.record": records(example({**B, "image/width": [80], "image/height": [60]}))}))
    assert [finding.kind for finding in data.findings] == ["size-mismatch"]
    assert boxes_of(data) == [[[40, 12, 60, 36]]]


def test_tfrecord__records_of_something_else(write_files):
    content = records(example({"image/encoded": [RED], "image/class/label": [3]}))
    with pytest.raises(
        DataError, match="no record has image/object/bbox/xmin, so they are not of the object detection"
    ):
        read_data(write_files({"a.record": content}))
    root = write_files({"a.record": records(b"no protocol buffer")}, write_files({}).parent / "other")
    with pytest.raises(DataError, match=r"first: .*a\.record: record 1: it is no tf\.train\.Example"):
        read_data(root)


def test_tfrecord__recognition(write_files):
    root = write_files({"a.record": b"name,label\n", "b.tfrecord": b"", "c-00000-of-00001": b"x" * 40, "d.txt": SOUND})
    assert TfRecord().recognise(root) == []
    assert [TfRecord().recognise(file) for file in sorted(root.iterdir())] == [[]] * 4


def test_tfrecord__what_is_no_record_file_beside_it(write_files):
    root = write_files({"a.record": SOUND, "model.ckpt.data-00000-of-00001": b"x" * 40})
    os.mkfifo(root / "b.record")
    assert read_data(root).findings == []


def test_tfrecord__no_name_of_a_record_leads_out(write_files, cache):
    evil = features("../../evil.png", RED, (CAT, "cat", 1))
    data = read_data(write_files({"a.record": records(example(evil))}))
    assert [image.path.parent for image in data.images] == [cache]
    assert sorted(path.name for path in data.root.parent.iterdir()) == ["cache", "set"]


def test_tfrecord__a_damaged_file_beside_others(write_files):
    data = read_data(write_files({"train.record": b"\0" + SOUND[1:], "val.record": SOUND}))
    assert list(data.splits) == ["val"]
    assert "record 1: the file is damaged or cut off at its last" in str(data.findings[0])


def test_tfrecord__a_cache_that_cannot_be_written(write_files, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="the images of the records cannot be written to FASTERRCNN_CACHE"):
        read_data(write_files({"a.record": SOUND}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.mark.parametrize("fault", ["cut", "byte", "feature"])
@settings(derandomize=True, deadline=None, max_examples=15, database=None)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_tfrecord__planted_faults(folder, fault, place, value):
    """A box that is not as in the sound file is named, and what is lost is a finding."""
    content = bytearray(SOUND)
    position = int(place * len(content))
    if fault == "cut":
        del content[position:]
    elif fault == "byte":
        content[position] ^= value
    else:  # a fault of the program that wrote it, with a right checksum
        data = bytearray(example(A))
        data[len(data) - 1 - int(place * (len(data) - len(RED) - 100))] ^= value
        content = records(bytes(data), example(B), example(C))
    (folder / "a.record").write_bytes(content)
    message = ""
    try:
        data = read_data(folder)
    except FasterRCNNError as error:
        message = str(error)
    assert "\n" not in message
    if not message and fault != "feature" and not (fault == "cut" and position in ENDS):
        findings = check_data(data).findings
        sound = {RED: [CAT_BOX, DOG_BOX], BLUE: [DOG_BOX], GREEN: []}
        assert all(sound[image.path.read_bytes()] == image.boxes.round(3).tolist() for image in data.images)
        assert len(data.images) == 3 or [finding for finding in findings if finding.severity == "error"]
