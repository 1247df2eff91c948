"""The check names whatever is damaged, in every format, and nothing else."""

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fasterrcnn.data.checks import check_and_repair, check_data
from fasterrcnn.data.findings import FINDING_KINDS, Finding
from fasterrcnn.data.formats import read_data

WIDTH, HEIGHT = 96, 72
CLASSES = ["square", "circle", "triangle"]
FORMATS = ["coco", "voc", "yolo", "csv"]
Box = tuple[float, float, float, float]
properties = settings(derandomize=True, deadline=None, max_examples=2, database=None)


# ---- a sound data set, and how it is written


@dataclass
class ImageFile:
    name: str
    split: str
    content: bytes | None
    objects: list[list]  # name of the class, then xyxy
    size: tuple[int, int] = (WIDTH, HEIGHT)  # in the annotations


@dataclass
class Set:
    """What is written to files; tests damage it before or after that."""

    images: list[ImageFile]
    classes: list[str] = field(default_factory=lambda: list(CLASSES))
    layout: Callable[[Box], Box] | None = None  # instead of the format's own

    def numbered(self) -> Iterator[tuple[ImageFile, int, str, Box]]:
        """Every object, with its position in its image."""
        for image in self.images:
            for position, (name, *box) in enumerate(image.objects):
                yield image, position, name, tuple(box)


def paint(seed: int) -> bytes:
    """An image of coarse blobs and fine noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 200, (6, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(int)
    buffer = io.BytesIO()
    Image.fromarray((pixels + rng.integers(0, 50, pixels.shape)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PAINTED = [paint(seed) for seed in range(13)]


def sound_set() -> Set:
    """Twelve images in two splits, each with three squares, a circle and a triangle in cells of their own."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(12):
        objects = []
        for cell, name in enumerate(["square", "circle", "square", "triangle", "square"]):
            width, height = rng.integers(12, 28, 2).tolist()
            x, y = cell % 3 * 32 + rng.integers(1, 4), cell // 3 * 36 + rng.integers(1, 8)
            objects.append([name, float(x), float(y), float(x + width), float(y + height)])
        images.append(ImageFile(f"p{number:02}.png", "train" if number < 8 else "val", PAINTED[number], objects))
    return Set(images)


def to_xywh(box: Box) -> Box:
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def to_cxcywh(box: Box) -> Box:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]


def to_xyxy(box: Box) -> Box:
    return box


def swapped(layout: Callable[[Box], Box]) -> Callable[[Box], Box]:
    def swap(box: Box) -> Box:
        a, b, c, d = layout(box)
        return b, a, d, c

    return swap


def save(image: ImageFile, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if image.content is not None:
        (folder / image.name).write_bytes(image.content)


def write_coco(data: Set, root: Path) -> None:
    layout = data.layout or to_xywh
    rows = list(data.numbered())
    for split in ("train", "val"):
        images, annotations = [], []
        for number, image in enumerate(data.images, start=1):
            if image.split == split:
                save(image, root / split)
                width, height = image.size
                images.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for number, (image, _, name, box) in enumerate(rows, start=101):
            if image.split == split:
                category = data.classes.index(name) + 1 if name in data.classes else 77
                image_id = data.images.index(image) + 1
                row = {"id": number, "image_id": image_id, "category_id": category, "bbox": list(layout(box))}
                annotations.append(row)
        categories = [{"id": number, "name": name} for number, name in enumerate(data.classes, start=1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))


def write_voc(data: Set, root: Path) -> None:
    layout = data.layout or to_xyxy
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for image in data.images:
        save(image, root / "JPEGImages")
        objects = ""
        for name, *box in image.objects:
            sides = zip(("xmin", "ymin", "xmax", "ymax"), layout(tuple(box)), strict=True)
            inner = "".join(f"<{side}>{value!r}</{side}>" for side, value in sides)
            objects += f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"
        size = "<size><width>{}</width><height>{}</height></size>".format(*image.size)
        file = root / "Annotations" / f"{Path(image.name).stem}.xml"
        file.write_text(f"<annotation>{size}{objects}</annotation>")
    for split in ("train", "val"):
        stems = [Path(image.name).stem for image in data.images if image.split == split]
        (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(stems))


def write_yolo(data: Set, root: Path) -> None:
    layout = data.layout or to_cxcywh
    for image in data.images:
        save(image, root / "images" / image.split)
        lines = []
        for name, *box in image.objects:
            shares = layout((box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT))
            label = data.classes.index(name) if name in data.classes else 77
            lines.append(" ".join([str(label), *(f"{value!r}" for value in shares)]))
        file = root / "labels" / image.split / f"{Path(image.name).stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: {json.dumps(data.classes)}\n")


def write_csv(data: Set, root: Path) -> None:
    layout = data.layout or to_xyxy
    for image in data.images:
        save(image, root)
    with (root / "boxes.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", "xmin", "ymin", "xmax", "ymax", "label", "split"])
        for image, _, name, box in data.numbered():
            rows.writerow([image.name, *map(repr, layout(box)), name, image.split])


WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo, "csv": write_csv}


def place_of(data: Set, kind: str, image: ImageFile, position: int | None) -> tuple[str, int | None]:
    """Name of the annotation file, and the number of an object in it, as the format counts."""
    if kind == "voc":
        return f"{Path(image.name).stem}.xml", None if position is None else position + 1
    if kind == "yolo":
        return f"{Path(image.name).stem}.txt", None if position is None else position + 1
    rows = [(row[0] is image, row[1]) for row in data.numbered()]
    index = None if position is None else rows.index((True, position))
    if kind == "coco":
        return f"{image.split}.json", None if index is None else 101 + index
    return "boxes.csv", None if index is None else index + 2  # below the header


def examine(data: Set, kind: str, damage: Callable[[Path], object] = lambda root: None) -> list[Finding]:
    """Write the data, damage the files, read and check them."""
    root = Path(tempfile.mkdtemp())
    try:
        WRITERS[kind](data, root)
        damage(root)
        known = CLASSES if kind == "csv" and data.classes == CLASSES else None
        return check_data(read_data(root, format=kind, classes=known)).findings
    finally:
        shutil.rmtree(root)


def check(findings: list[Finding], kind: str, file: str, number: int | None, image: str | None) -> None:
    """One finding names it, and there is no other error."""
    rows = [(f.kind, f.file.name, f.annotation, f.image and f.image.name) for f in findings]
    assert (kind, file, number, image) in rows
    errors = [row for row in rows if FINDING_KINDS[row[0]][0] == "error"]
    assert errors == ([(kind, file, number, image)] if FINDING_KINDS[kind][0] == "error" else [])
    assert len([row for row in rows if row[0] == kind]) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_check_data__sound_data(kind):
    assert examine(sound_set(), kind) == []


# ---- single boxes


def between(seed: int, low: float, high: float) -> float:
    return float(np.random.default_rng(seed).uniform(low, high))


BOXES: dict[str, Callable[[Box, int], Box]] = {
    "not-finite": lambda box, seed: (*box[: seed % 4], (np.nan, np.inf, -np.inf)[seed % 3], *box[seed % 4 + 1 :]),
    "point-box": lambda box, seed: (*box[:2], *box[:2]),
    "flat-box": lambda box, seed: (*box[:2], box[0], box[3]) if seed % 2 else (*box[:3], box[1]),
    "inverted-box": lambda box, seed: (box[2], *box[1:2], box[0], box[3]) if seed % 2 else (*box[2:], *box[:2]),
    "outside-box": lambda box, seed: (
        (WIDTH + 1.0, box[1], WIDTH + 1 + box[2] - box[0], box[3])
        if seed % 2
        else (box[0], box[1] - HEIGHT, box[2], box[3] - HEIGHT)
    ),
    "over-border": lambda box, seed: (
        (box[0], box[1], WIDTH + between(seed, 1.5, 40), box[3])
        if seed % 2
        else (box[0], -between(seed, 1.5, 30), *box[2:])
    ),
    "whole-image": lambda box, seed: (0.0, 0.0, float(WIDTH), float(HEIGHT)),
    "tiny-box": lambda box, seed: (*box[:2], box[0] + between(seed, 0.5, 2), box[1] + between(seed, 0.5, 2)),
    "normalised-box": lambda box, seed: (box[0] / WIDTH, box[1] / HEIGHT, box[2] / WIDTH, box[3] / HEIGHT),
}


@pytest.mark.parametrize("damage", BOXES)
@pytest.mark.parametrize("kind", FORMATS)
@properties
@given(st.integers(0, 11), st.integers(0, 4), st.integers(0, 2**20))
def test_check_data__one_damaged_box(damage, kind, number, position, seed):
    if (damage, kind) == ("normalised-box", "yolo"):
        return  # there it is right
    data = sound_set()
    image = data.images[number]
    image.objects[position][1:] = BOXES[damage](tuple(image.objects[position][1:]), seed)
    check(examine(data, kind), damage, *place_of(data, kind, image, position), image.name)


@pytest.mark.parametrize("name", ["square", "circle"])
@pytest.mark.parametrize("kind", FORMATS)
@properties
@given(st.integers(0, 11), st.integers(0, 4), st.integers(0, 2**20))
def test_check_data__one_box_twice(name, kind, number, position, seed):
    data = sound_set()
    image = data.images[number]
    own, *box = image.objects[position]
    shift = between(seed, -0.3, 0.3)
    image.objects.append([name, *(side + shift for side in box)])
    damage = "duplicate-box" if name == own else "contradiction"
    check(examine(data, kind), damage, *place_of(data, kind, image, 5), image.name)


# ---- all boxes

LAYOUTS = [
    ("coco", to_xyxy),
    ("coco", swapped(to_xywh)),
    ("coco", to_cxcywh),
    ("voc", to_xywh),
    ("voc", swapped(to_xyxy)),
    ("csv", to_xywh),
    ("csv", to_cxcywh),
    ("csv", swapped(to_xyxy)),
    ("yolo", to_xyxy),
    ("yolo", to_xywh),
]


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
@properties
@given(st.integers(0, 2**20))
def test_check_data__all_boxes_in_another_layout(kind, layout, seed):
    data = sound_set()
    data.layout = layout
    shift = np.random.default_rng(seed).uniform(0, 3, (12, 5, 2))
    for number, image in enumerate(data.images):
        for position, row in enumerate(image.objects):
            row[1:] = (np.array(row[1:]) + np.tile(shift[number, position], 2)).tolist()
    (finding,) = examine(data, kind)
    assert finding.kind == "wrong-format"
    named = next(p for p in data.images if p.name == finding.image.name)
    places = [place_of(data, kind, named, position) for position in range(5)]
    assert (finding.file.name, finding.annotation) in places


@pytest.mark.parametrize("kind", ["coco", "voc", "csv"])
def test_check_data__all_boxes_as_shares(kind):
    data = sound_set()
    for image in data.images:
        for row in image.objects:
            row[1:] = BOXES["normalised-box"](row[1:], 0)
    found = {(f.kind, f.file.name, f.annotation, f.image.name) for f in examine(data, kind)}
    expected = {("normalised-box", *place_of(data, kind, p, n), p.name) for p, n, *_ in data.numbered()}
    assert found == expected


# ---- images and files


def find_image(root: Path, image: ImageFile) -> Path:
    return next(root.rglob(image.name))


@pytest.mark.parametrize("kind", FORMATS)
@properties
@given(st.integers(0, 11), st.integers(0, 2**20))
def test_check_data__damaged_image(kind, number, seed):
    data = sound_set()
    image = data.images[number]
    length = len(image.content)
    # The last bytes of a PNG file are of no consequence.
    image.content = image.content[: seed % (length - 200)] if seed % 3 else b"<html>404</html>"
    check(examine(data, kind), "unreadable-image", image.name, None, image.name)


@pytest.mark.parametrize("kind", FORMATS)
@properties
@given(st.integers(0, 11))
def test_check_data__missing_image(kind, number):
    data = sound_set()
    image = data.images[number]
    file, line = place_of(data, kind, image, 0)
    image.content = None
    found = {
        "coco": (file, None, image.name),
        "voc": (file, None, f"{image.name[:-4]}.*"),
        "yolo": (file, None, None),
        "csv": (file, line, image.name),
    }
    check(examine(data, kind), "missing-image", *found[kind])


@pytest.mark.parametrize(("kind", "damage"), [("voc", "missing-annotations"), ("yolo", "unlabelled-image")])
@properties
@given(st.integers(0, 11))
def test_check_data__missing_annotation_file(kind, damage, number):
    data = sound_set()
    image = data.images[number]
    file, _ = place_of(data, kind, image, None)
    check(examine(data, kind, lambda root: next(root.rglob(file)).unlink()), damage, file, None, image.name)


@pytest.mark.parametrize("kind", ["coco", "voc"])
@properties
@given(st.integers(0, 11), st.sampled_from([(HEIGHT, WIDTH), (50, 60), (2 * WIDTH, 2 * HEIGHT), (WIDTH, HEIGHT + 8)]))
def test_check_data__size_that_is_not_the_image_s(kind, number, size):
    data = sound_set()
    image = data.images[number]
    image.size = size
    file, _ = place_of(data, kind, image, None)
    check(examine(data, kind), "size-mismatch", file, None, image.name)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [("voc", "<annotation><object>"), ("yolo", "0 0.5 0.5 0.1 0.1 0.9"), ("yolo", "0 a b c d"), ("yolo", "\0\0")],
)
@properties
@given(st.integers(0, 11))
def test_check_data__annotation_file_that_cannot_be_read(kind, broken, number):
    data = sound_set()
    image = data.images[number]
    file, _ = place_of(data, kind, image, None)
    found = examine(data, kind, lambda root: next(root.rglob(file)).write_text(broken))
    check(found, "unreadable-annotations", file, 1 if kind == "yolo" else None, image.name)


# ---- copies


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", FORMATS)
@properties
@given(st.integers(0, 7))
def test_check_data__image_of_training_in_validation(kind, exact, number):
    data = sound_set()
    first = data.images[number]
    content = first.content
    if not exact:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(content)).save(buffer, "JPEG", quality=85)
        content = buffer.getvalue()
    copy = ImageFile("z.png" if exact else "z.jpg", "val", content, [list(row) for row in first.objects])
    data.images.append(copy)
    check(examine(data, kind), "leak", copy.name, None, copy.name)


@pytest.mark.parametrize("kind", FORMATS)
@properties
@given(st.integers(0, 7))
def test_check_data__image_twice_in_a_split(kind, number):
    data = sound_set()
    first = data.images[number]
    data.images.insert(8, ImageFile("z.png", "train", first.content, [list(row) for row in first.objects]))
    check(examine(data, kind), "same-image", "z.png", None, "z.png")


# ---- identities and classes


@properties
@given(st.integers(0, 7), st.integers(0, 4), st.integers(0, 4))
def test_check_data__annotations_with_the_same_id(number, first, second):
    data = sound_set()
    _, old = place_of(data, "coco", data.images[number], first)
    _, new = place_of(data, "coco", data.images[(number + 1) % 8], second)

    def damage(root: Path) -> None:
        file = root / "train.json"
        file.write_text(file.read_text().replace(f'"id": {old},', f'"id": {new},'))

    check(examine(data, "coco", damage), "colliding-id", "train.json", new, None)


@properties
@given(st.integers(0, 7))
def test_check_data__images_with_the_same_id(number):
    data = sound_set()
    other = (number + 1) % 8

    def damage(root: Path) -> None:
        file = root / "train.json"
        content = json.loads(file.read_text())
        content["images"][number]["id"] = other + 1
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] != number + 1]
        file.write_text(json.dumps(content))

    errors = [f for f in examine(data, "coco", damage) if f.severity == "error"]
    assert [f.kind for f in errors] == ["colliding-id"] * 2
    assert {f.image.name for f in errors} == {data.images[number].name, data.images[other].name}


@pytest.mark.parametrize("kind", ["voc", "yolo"])
@properties
@given(st.integers(0, 11))
def test_check_data__two_images_with_one_name(kind, number):
    data = sound_set()
    image = data.images[number]
    file, _ = place_of(data, kind, image, None)

    def damage(root: Path) -> None:
        path = find_image(root, image)
        Image.open(io.BytesIO(PAINTED[12])).save(path.with_suffix(".jpg"))

    (finding,) = [f for f in examine(data, kind, damage) if f.severity == "error"]
    assert finding.kind == "ambiguous-image"
    assert (finding.file.name, finding.image.stem) == (file, image.name[:-4])


@properties
@given(st.integers(0, 11), st.integers(0, 4))
def test_check_data__annotation_of_no_image(number, position):
    data = sound_set()
    image = data.images[number]
    file, identity = place_of(data, "coco", image, position)

    def damage(root: Path) -> None:
        text = (root / file).read_text()
        old = f'"id": {identity}, "image_id": {number + 1},'
        (root / file).write_text(text.replace(old, f'"id": {identity}, "image_id": 555,'))

    check(examine(data, "coco", damage), "unknown-image", file, identity, None)


@pytest.mark.parametrize("kind", ["coco", "yolo", "csv"])
@properties
@given(st.integers(0, 11), st.integers(0, 4))
def test_check_data__unknown_class(kind, number, position):
    data = sound_set()
    image = data.images[number]
    image.objects[position][0] = "hexagon"
    place = place_of(data, kind, image, position)
    found = examine(data, kind)
    errors = [(f.kind, f.file.name, f.annotation) for f in found if f.severity == "error"]
    assert errors == [("unknown-class", *place)]


WRONG = ["sqaure", "squar", "squarre", "sqvare", "Square"]
MISSPELT = [
    pytest.param(kind, wrong, marks=pytest.mark.slow) if kind != "coco" and wrong != WRONG[0] else (kind, wrong)
    for kind in FORMATS
    for wrong in WRONG
]
"""By default every wrong name in one format, and one in every format."""


@pytest.mark.parametrize(("kind", "wrong"), MISSPELT)
@properties
@given(st.integers(0, 11), st.sampled_from([0, 2, 4]))
def test_check_data__misspelt_class(kind, wrong, number, position):
    data = sound_set()
    data.classes.append(wrong)
    image = data.images[number]
    image.objects[position][0] = wrong
    check(examine(data, kind), "similar-names", *place_of(data, kind, image, position), image.name)


@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_check_data__unused_class(kind):
    data = sound_set()
    data.classes.insert(1, "hexagon")
    (finding,) = examine(data, kind)
    assert (finding.kind, finding.what) == ("unused-class", "class 'hexagon' has no box")


@pytest.mark.parametrize("kind", FORMATS)
def test_check_data__class_that_a_split_lacks(kind):
    data = sound_set()
    for image in data.images[8:]:
        image.objects = [row for row in image.objects if row[0] != "circle"]
    (finding,) = examine(data, kind)
    assert finding.what == "class 'circle' has no box in the split 'val'"


@pytest.mark.parametrize("kind", FORMATS)
def test_check_data__imbalance(kind):
    data = sound_set()
    for image in data.images:
        if image.name not in ("p00.png", "p11.png"):
            image.objects = [row for row in image.objects if row[0] != "circle"]
        row = next(row for row in image.objects if row[0] == "triangle")
        row[0] = "square"
    data.classes.remove("triangle")
    (finding,) = examine(data, kind)
    assert finding.kind == "imbalance"
    assert finding.what == "48 boxes of 'square', 2 of 'circle': 24 to 1"


@pytest.mark.parametrize("kind", FORMATS)
@properties
@given(st.integers(0, 11))
def test_check_data__image_whose_common_class_nobody_labelled(kind, number):
    data = sound_set()
    image = data.images[number]
    image.objects = [row for row in image.objects if row[0] != "square"]
    file, _ = place_of(data, kind, image, None)
    check(examine(data, kind), "missing-objects", file, None, image.name)


# ---- repair


@pytest.mark.parametrize("policy", ["fix", "drop"])
@pytest.mark.parametrize("kind", FORMATS)
@properties
@given(st.lists(st.tuples(st.sampled_from(sorted(BOXES)), st.integers(0, 11), st.integers(0, 4)), max_size=12))
def test_repair__no_error_is_left(policy, kind, damages):
    data = sound_set()
    for damage, number, position in damages:
        row = data.images[number].objects[position]
        row[1:] = BOXES[damage](tuple(row[1:]), number)
    root = Path(tempfile.mkdtemp())
    try:
        WRITERS[kind](data, root)
        files = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
        fixed = check_and_repair(read_data(root, format=kind), policy).data
        assert check_data(fixed).counts["error"] == 0
        assert files == {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    finally:
        shutil.rmtree(root)
