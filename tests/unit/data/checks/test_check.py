import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fasterrcnn.config import InputConfig
from fasterrcnn.data.checks import DataReport, check, check_and_repair, check_data
from fasterrcnn.data.checks.check import describe_extent
from fasterrcnn.data.findings import Finding
from fasterrcnn.data.formats import read_data
from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.errors import DataError

GOOD = [10, 10, 40, 40]
READ = Finding("unlisted-image", Path("b.jpg"), "no annotations")


@pytest.fixture
def on_disk(tmp_path, annotated_of, data_of):
    """A data set of one image of 100 x 80 with these boxes."""
    noise = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")

    def make(*boxes, size_hw=(80, 100), path=tmp_path / "a.png", **more):
        return data_of(replace(annotated_of(1, boxes, size_hw=size_hw), path=path), classes=("cat",), **more)

    return make


@pytest.mark.parametrize("images", [True, False])
def test_check_data__what_every_check_found_gravest_first(on_disk, images):
    data = on_disk(GOOD, GOOD, [5, 5, 5, 9], size_hw=(80, 90), findings=[READ])
    found = check_data(data, images=images).findings
    assert [finding.kind for finding in found] == ["size-mismatch", "flat-box", "duplicate-box", "unlisted-image"]


def test_check_data__nothing_found(on_disk):
    diagnosis = check_data(on_disk(GOOD))
    assert diagnosis.findings == []
    assert diagnosis.counts == {"error": 0, "warning": 0, "note": 0}
    assert str(diagnosis) == (
        "Pascal VOC, 1 image, 1 class (cat), no splits\n\nno findings: this data set is ready for training"
    )


def test_check_data__a_wrong_size_does_not_put_boxes_outside(on_disk):
    """Neither of the image as it is nor as the annotations state."""
    assert [f.kind for f in check_data(on_disk([60, 50, 90, 70], size_hw=(20, 40))).findings] == ["size-mismatch"]
    assert [f.kind for f in check_data(on_disk([60, 50, 190, 150], size_hw=(160, 200))).findings] == ["size-mismatch"]


def test_check_data__findings_of_the_reader_are_not_repeated(on_disk, tmp_path):
    mismatch = Finding("size-mismatch", Path("1.xml"), "states 40 x 20", image=tmp_path / "a.png")
    data = on_disk([60, 50, 90, 70], size_hw=(20, 40), findings=[mismatch])
    assert check_data(data).findings == [mismatch]
    with pytest.raises(DataError, match=r"^1 error in set\nerror size-mismatch \(1\): .*\n  1\.xml: states 40 x 20\n"):
        check_and_repair(data)
    assert check_and_repair(data, "fix").data.images[0].size_hw == (80, 100)
    assert check_and_repair(data, "drop").data.images == []


def test_check_data__boxes_of_a_damaged_image_are_checked_too(on_disk, tmp_path):
    (tmp_path / "b.png").write_bytes(b"no image")
    found = check_data(on_disk(GOOD, [5, 5, 5, 9], path=tmp_path / "b.png")).findings
    assert [finding.kind for finding in found] == ["unreadable-image", "flat-box"]


def many(data_of, count):
    return DataReport(data_of([GOOD]), [Finding("flat-box", Path("a.xml"), f"object {n}", n) for n in range(count)])


def test_diagnosis__text_shows_some_of_each_kind(data_of):
    text = many(data_of, 22).to_text()
    assert "error flat-box (22): draw the box again, or delete it" in text
    assert "  a.xml: object 2\n  ... and 19 more (--all shows them)\n\n22 errors, 0 warnings" in text
    assert "object 3" not in text
    assert "object 21" in many(data_of, 22).to_text(examples=None)
    assert "more" not in many(data_of, 3).to_text()
    assert many(data_of, 1).to_text().endswith("\n\n1 error, 0 warnings, 0 notes")


def test_diagnosis__json(data_of):
    content = json.loads(json.dumps(many(data_of, 2).to_dict(), allow_nan=False))
    assert content.keys() == {"data", "summary", "notes", "counts", "findings"}
    assert content["counts"] == {"error": 2, "warning": 0, "note": 0}
    assert [finding["annotation"] for finding in content["findings"]] == [0, 1]


def test_diagnosis__names_cannot_write_to_the_terminal(data_of):
    data = data_of([GOOD], classes=("cat\x1b[31m\nsecond line",))
    text = DataReport(data, [Finding("leak", Path("b\udce4\n.jpg"), "is twice\r")]).to_text()
    assert "\x1b" not in text
    assert text.count("\n") == 5
    text.encode("utf-8")


@pytest.mark.parametrize("policy", ["error", "drop", "fix"])
def test_check_and_repair__no_box_in_the_whole_set(on_disk, policy):
    data = on_disk()
    assert [finding.kind for finding in check_data(data).findings] == ["no-boxes"]
    with pytest.raises(DataError, match=r"no labels were found: none of 1 image has a box \(Pascal VOC\)"):
        check_and_repair(data, policy)
    assert len(check_and_repair(data, policy, is_part=True).data.images) == 1
    in_memory = replace(data, format="list")
    assert len(check_and_repair(in_memory, policy).data.images) == 1
    assert check_data(in_memory).findings == []


def test_check_data__one_split_may_be_without_boxes(data_of, annotated_of):
    data = data_of(splits={"train": [annotated_of(1, [GOOD])], "test": [annotated_of(2, [])]})
    assert "no-boxes" not in {finding.kind for finding in check_data(data, images=False).findings}


def test_describe_extent__images_of_a_split_and_boxes(data_of, annotated_of):
    images = [annotated_of(n, [GOOD, GOOD]) for n in range(20)]
    data = data_of(splits={"train": images[:8], "val": images[8:]})
    leaks = [Finding("leak", image.path, "twice", image=image.path) for image in images[8:]]
    assert describe_extent(data, leaks) == "all 12 images of 'val'"
    assert describe_extent(data, leaks[:11]) == "11 of 12 images of 'val'"
    assert describe_extent(data, leaks[:9]) == ""
    boxes = [data.box_finding("whole-image", image, n, "is large") for image in images for n in range(2)]
    assert describe_extent(data, boxes[:32]) == "32 of 40 boxes, all 8 images of 'train'"
    assert "\n  concerns all 12 images of 'val'\n" in DataReport(data, leaks).to_text()
    assert len(DataReport(data, leaks).to_dict()["findings"]) == 12


def test_check_and_repair__sound_data(on_disk):
    for policy in ("error", "fix", "drop"):
        assert check_and_repair(on_disk(GOOD), policy).changes == []


def test_check_and_repair__refuses_errors_by_kind(data_of):
    boxes = [[n, 5, n, 9] for n in range(1, 24)]
    lost = Finding("missing-image", Path("a.xml"), "there is no image")
    with pytest.raises(DataError, match=r"^24 errors in set\nerror missing-image \(1\): put the image") as caught:
        check_and_repair(data_of(boxes, findings=[lost]))
    assert "error flat-box (23): " in str(caught.value)
    assert str(caught.value).count("has no area") == 3
    assert "--on-bad-box" in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "left", "counts"),
    [
        ("fix", [GOOD, [10, 5, 40, 9]], "corners exchanged: 1, left out: 2"),
        ("drop", [GOOD], "left out: 3"),
    ],
)
def test_check_and_repair__counts_what_it_did(on_disk, policy, left, counts):
    data = on_disk(GOOD, [5, 5, 5, 9], [40, 5, 10, 9], [7, 7, 7, 7])
    repaired = check_and_repair(data, policy)
    assert repaired.data.images[0].boxes.tolist() == left
    assert repaired.changes[0] == counts
    assert len(repaired.changes) == 4


def test_check_and_repair__warnings_do_not_stop_training(data_of):
    repaired = check_and_repair(data_of([GOOD, GOOD, [7, 7, 7, 7], [90, 10, 120, 30]], findings=[READ]))
    assert repaired.data.images[0].boxes.tolist() == [GOOD, GOOD, [90, 10, 100, 30]]
    assert repaired.changes[0] == "left out: 1, cut at the border: 1"
    assert len(repaired.changes) == 3


def test_check_and_repair__headers_of_images_that_no_reader_has_opened(on_disk, tmp_path, monkeypatch):
    (tmp_path / "b.png").write_bytes(b"no image")
    damaged = on_disk(GOOD, path=tmp_path / "b.png", data_format="COCO")
    with pytest.raises(DataError, match=r"b\.png: not an image that can be decoded"):
        check_and_repair(damaged)
    assert check_and_repair(damaged, "drop").data.images == []
    with pytest.raises(DataError, match=r"states 90 x 80 for a\.png, the image has 100 x 80"):
        check_and_repair(on_disk(GOOD, size_hw=(80, 90), data_format="COCO"))
    assert check_and_repair(on_disk(GOOD, size_hw=(80, 90), data_format="COCO"), "fix").data.images[0].size_hw == (
        80,
        100,
    )
    monkeypatch.setattr(check, "HEADERS_READ", 0)
    assert check_and_repair(damaged).changes == []


def test_check_data__drawn_scenes_are_sound(tmp_path):
    write_scenes(tmp_path, train=12, val=6, test=6, seed=5, size_hw=(144, 192))
    assert check_data(read_data(tmp_path)).findings == []


def test_check_data__blood_cells(shared_data):
    """Two clicks that became points, and fifteen photographs whose red cells have no labels."""
    data = read_data(shared_data / "bccd")
    found = check_data(data).by_kind()
    assert all(finding.severity == "warning" for findings in found.values() for finding in findings)
    assert [(f.file.stem, f.annotation, f.what.partition("box ")[2]) for f in found["point-box"]] == [
        ("BloodImage_00343", 4, "181,329,181,329 is a point"),
        ("BloodImage_00338", 13, "504,337,504,337 is a point"),
    ]
    named = {finding.image.stem.removeprefix("BloodImage_") for finding in found["missing-objects"]}
    training = {annotated.path.stem.removeprefix("BloodImage_") for annotated in data.split("train")}
    assert named & training == {"00134", "00150", "00224", "00250", "00258", "00267", "00268", "00322"}
    without = {annotated.path for annotated in data.images if not (annotated.labels == data.classes.index("RBC")).any()}
    assert {finding.image for finding in found["missing-objects"]} == without
    assert check_and_repair(data).counts == {"left out": 2}


@pytest.mark.slow
def test_check_data__road_signs(shared_data):
    found = check_data(read_data(shared_data / "road_signs")).findings
    assert [(f.kind, f.image.stem, f.what.partition(",")[0]) for f in found] == [
        ("same-image", "road147", "the same image as road145.jpg"),
        ("same-image", "road48", "the same image as road42.jpg"),
    ]


def test_check_and_repair__leaves_out_what_is_damaged_behind_its_header(on_disk, tmp_path):
    data = on_disk(GOOD)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    assert len(check_and_repair(data).data.images) == 1  # headers only: quick
    repaired = check_and_repair(data, "drop")
    assert repaired.data.images == []
    assert "image left out" in repaired.changes[0]


@pytest.mark.parametrize(("split", "kind"), [("train", "missing-annotations"), ("val", "unlisted-image")])
def test_check_data__split_without_annotations(on_disk, tmp_path, split, kind):
    (tmp_path / f"{split}2017").mkdir()
    (tmp_path / "a.png").rename(tmp_path / f"{split}2017" / "b.png")
    (tmp_path / "test").mkdir()
    Image.new("RGB", (100, 80), "red").save(tmp_path / "test" / "a.png")
    data = replace(on_disk(GOOD, path=tmp_path / "test" / "a.png"), root=tmp_path)
    data = replace(data, splits={"test": data.images})
    (found,) = check_data(data).findings
    assert (found.kind, found.file) == (kind, tmp_path / f"{split}2017")
    if split == "train":
        with pytest.raises(DataError, match="1 image that no annotation file lists"):
            check_and_repair(data)


def test_check_data__folders_beside_a_list_are_not_its_own(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    for name, colour in (("a.png", "red"), ("train/b.png", "blue")):
        Image.new("RGB", (100, 80), colour).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    rows = [{"image": "a.png", "boxes": [GOOD], "labels": ["cat"]}]
    assert check_data(read_data(rows)).findings == []


# Correct data of many kinds, in which nothing may be found


SQUARE, MANY = [(200, 200)], [(120, 160), (480, 640), (200, 150)]


def ground(kind, rng, height, width):
    if kind == "noise":
        return rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    if kind == "blobs":
        coarse = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8))
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    if kind == "flat":
        return np.full((height, width, 3), 120, np.uint8)
    slope = np.linspace(*((0, 255) if kind == "gradient" else sorted(rng.integers(0, 255, 2))), width)
    return np.tile(slope[None, :, None], (height, 1, 3)).astype(np.uint8)


def write(root, kind, classes, sizes_hw, count, suffix, side=(10, 80), over=0.0):
    """Drawn rectangles that do not touch; every fifth image is empty, and every fourth pair is to validate with."""
    rng = np.random.default_rng(count)
    rows, drawn = [], {"train": 0, "val": 0}
    for number in range(count):
        height, width = sizes_hw[number % len(sizes_hw)]
        image = Image.fromarray(ground(kind, rng, height, width))
        brush = ImageDraw.Draw(image)
        split = "val" if number // 2 % 4 == 3 else "train"
        boxes, labels = [], []
        for _ in range(0 if number % 5 == 4 else 4):
            w, h = rng.integers(side[0], min(side[1], height // 2) + 1, 2)
            x, y = rng.integers(0, (width - w + 1, height - h + 1))
            if all(x >= b[2] or x + w <= b[0] or y >= b[3] or y + h <= b[1] for b in boxes):
                label = drawn[split] % len(classes)
                drawn[split] += 1
                brush.rectangle((x, y, x + w - 1, y + h - 1), tuple(np.random.default_rng(label).integers(0, 255, 3)))
                boxes.append([float(x) - over, float(y) - over, float(x + w) + over, float(y + h) + over])
                labels.append(classes[label])
        path = root / f"{number:03}{suffix}"
        image.save(path, compress_level=1)  # of PNG: quick, and as exact
        rows.append({"image": path, "boxes": boxes, "labels": labels, "split": split})
    return rows


@pytest.mark.parametrize(
    ("sizes_hw", "suffix"),
    [(SQUARE, ".png"), (SQUARE, ".jpg"), (MANY, ".jpg"), pytest.param(MANY, ".png", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("kind", ["noise", "blobs", "flat", "gradient", "gradients"])
def test_check_data__clean_whatever_the_ground(tmp_path, kind, sizes_hw, suffix):
    data = read_data(write(tmp_path, kind, ["a", "b", "c"], sizes_hw, 24, suffix))
    assert check_data(data).findings == []


@pytest.mark.parametrize(
    "classes",
    [["a"], ["sign 1", "sign 2"], ["cat", "car"], ["type a", "type b"], [f"kind {number}" for number in range(12)]],
)
def test_check_data__clean_whatever_the_classes(tmp_path, classes):
    data = read_data(write(tmp_path, "noise", classes, SQUARE, 60, ".jpg", side=(10, 40)))
    assert check_data(data).findings == []


@pytest.mark.parametrize("count", [3, 300])
def test_check_data__clean_whatever_the_number(tmp_path, count):
    rows = write(tmp_path, "noise", ["a", "b"], [(64, 96)], count, ".png", side=(10, 30))
    without_splits = [{**row, "split": ""} for row in rows]
    assert check_data(read_data(without_splits)).findings == []


def test_check_data__clean_though_small_and_at_the_border(tmp_path):
    """Ten pixels of 200 are enough for any model, and less than a pixel over the border is no mistake."""
    rows = write(tmp_path, "noise", ["a", "b"], SQUARE, 24, ".png", side=(10, 12), over=0.9)
    assert check_data(read_data(rows), InputConfig(short_side=320, long_side=640)).findings == []
