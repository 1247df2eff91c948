from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fasterrcnn.config import InputConfig
from fasterrcnn.data.checks import check_data, repair
from fasterrcnn.data.checks.boxes import check_boxes
from fasterrcnn.data.checks.repair import turn_upright
from fasterrcnn.data.findings import Finding
from fasterrcnn.images import read_image

GOOD = [10, 10, 40, 40]
POLICIES = ("error", "fix", "drop")
USELESS = {"not-finite", "point-box", "inverted-box", "flat-box", "outside-box", "over-border", "wrong-format"}


def boxes_of(repaired):
    return [annotated.boxes.tolist() for annotated in repaired.data.images]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("images", [(), ([],), ([GOOD], [], [[0, 0, 100, 80]])])
def test_repair__sound_data_stay_as_they_are(data_of, policy, images):
    data = data_of(*images)
    repaired = repair(data, policy)
    assert repaired.changes == []
    assert not repaired.counts
    assert all(new is old for new, old in zip(repaired.data.images, data.images, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("box", "expected", "change"),
    [
        ([50, 40, 50, 40], [], "box 50,40,50,40 (point-box); left out"),
        ([50, 40, 50, 60], [], "box 50,40,50,60 (flat-box); left out"),
        ([np.nan, 40, 50, 60], [], "box nan,40,50,60 (not-finite); left out"),
        ([200, 40, 250, 60], [], "box 200,40,250,60 (outside-box); left out"),
        ([80, -5, 130, 60], [[80, 0, 100, 60]], "box 80,-5,130,60 (over-border); cut at the border"),
    ],
)
def test_repair__whatever_the_policy(data_of, policy, box, expected, change):
    repaired = repair(data_of([GOOD], [GOOD, box]), policy)
    assert boxes_of(repaired) == [[GOOD], [GOOD, *expected]]
    assert repaired.changes == [f"labels/2.xml: object 2 (cat): {change}"]
    assert repaired.counts == {change.partition("; ")[2]: 1}


def test_repair__a_pixel_over_the_border_is_cut_without_a_word(data_of):
    repaired = repair(data_of([[-0.5, 10, 20, 80.75]]), "error")
    assert boxes_of(repaired) == [[[0, 10, 20, 80]]]
    assert repaired.changes == []


@pytest.mark.parametrize(
    ("box", "fixed", "change"),
    [
        ([40, 10, 10, 30], [10, 10, 40, 30], "box 40,10,10,30 is inverted; corners exchanged: 10,10,40,30"),
        ([40, 30, 10, 10], [10, 10, 40, 30], "box 40,30,10,10 is inverted; corners exchanged: 10,10,40,30"),
        (
            [0.1, 0.25, 0.5, 0.75],
            [10, 20, 50, 60],
            "box 0.1,0.25,0.5,0.75 seems to be in shares of the image of 100 x 80; made pixels",
        ),
    ],
)
def test_repair__fix_fixes_what_drop_leaves_out(data_of, box, fixed, change):
    data = data_of([GOOD, GOOD, box])
    repaired = repair(data, "fix")
    np.testing.assert_allclose(boxes_of(repaired), [[GOOD, GOOD, fixed]], rtol=1e-6)
    assert repaired.changes == [f"labels/1.xml: object 3 (cat): {change}"]
    dropped = repair(data, "drop")
    assert boxes_of(dropped) == [[GOOD, GOOD]]
    assert dropped.changes[0].endswith("; left out")
    assert data.images[0].boxes.shape == (3, 4)


def test_repair__corners_that_were_exchanged_and_over_the_border(data_of):
    repaired = repair(data_of([[130, 40, 80, 20], [30, 20, 30, 10]]), "fix")
    assert boxes_of(repaired) == [[[80, 20, 100, 40]]]
    assert [change.rpartition("; ")[2] for change in repaired.changes] == [
        "corners exchanged: 80,20,130,40",
        "corners exchanged: 30,10,30,20",
        "left out",  # the second is flat
        "cut at the border",
    ]
    assert repaired.counts == {"corners exchanged": 2, "left out": 1, "cut at the border": 1}


def test_repair__another_layout(data_of):
    rng = np.random.default_rng(3)
    written = [np.hstack([rng.integers(30, 60, (4, 2)), rng.integers(10, 20, (4, 2))]) for _ in range(5)]
    written.append(np.array([[10, 10, 40, 40]]))  # would do as corners too
    repaired = repair(data_of(*written), "fix")
    assert boxes_of(repaired) == [np.hstack([p[:, :2], p[:, :2] + p[:, 2:]]).tolist() for p in written]
    (change,) = repaired.changes
    assert change.startswith("labels/1.xml: 20 of 21 boxes do not fit their images as left, top, right, bottom")
    assert change.endswith("; all read so")
    dropped = repair(data_of(*written), "drop")
    assert boxes_of(dropped) == [[]] * 6
    assert dropped.changes[0].endswith("; all boxes left out")


def test_repair__another_layout_in_one_split(data_of):
    """The corners of most boxes of the split would do as well, if they were only exchanged."""
    rng = np.random.default_rng(3)
    good = [np.hstack([c, c + 15]) for c in (rng.integers(0, 60, (4, 2)) for _ in range(60))]
    written = np.hstack([rng.integers(30, 60, (9, 2)), rng.integers(10, 20, (9, 2))])
    data = data_of(*good, written)
    data = replace(data, splits={"train": data.images[:-1], "val": data.images[-1:]})
    repaired = repair(data, "fix")
    assert boxes_of(repaired)[-1] == np.hstack([written[:, :2], written[:, :2] + written[:, 2:]]).tolist()
    assert boxes_of(repaired)[:-1] == [boxes.tolist() for boxes in good]
    (change,) = repaired.changes
    assert change.startswith("labels/61.xml: 9 of 9 boxes do not fit")


def test_repair__rounding_leaves_no_box_without_area(data_of):
    """Shares that differ in the last of their 32 bits may be one and the same number of pixels."""
    shares = np.arange(0.7, 0.70001, 2**-24).astype(np.float32)
    pixels = (shares.astype(np.float64) * 100).astype(np.float32)
    same = int(np.flatnonzero(pixels[1:] == pixels[:-1])[0])
    repaired = repair(data_of([[shares[same], 0.2, shares[same + 1], 0.5]]), "fix")
    assert boxes_of(repaired) == [[]]
    assert repaired.counts == {"made pixels": 1, "left out": 1}


@pytest.mark.parametrize("policy", POLICIES)
def test_repair__anything_becomes_sound(data_of, policy):
    values = [np.nan, np.inf, -np.inf, 3e38, -3e38, -1, -0.25, 0, 0.25, 0.5, 1, 30, 50, 80, 81, 99.5, 100, 101.5, 500]
    rng = np.random.default_rng(0)
    for count in (1, 3, 40, 1000):
        data = data_of(*(rng.choice(values, (count, 4)) for _ in range(3)))
        fixed = repair(data, policy).data
        found = {finding.kind for finding in check_boxes(fixed, InputConfig())}
        assert not found & USELESS
        for annotated in fixed.images:
            assert (annotated.boxes >= 0).all()
            assert (annotated.boxes <= [100, 80, 100, 80]).all()
            assert (annotated.boxes[:, 2:] > annotated.boxes[:, :2]).all()
            assert len(annotated.labels) == len(annotated.difficult) == len(annotated.numbers) == len(annotated.boxes)
        assert not repair(fixed, policy).changes


def test_repair__an_image_in_two_splits_stays_one_object(data_of, annotated_of):
    annotated = annotated_of(1, [GOOD, [5, 5, 5, 9]])
    fixed = repair(data_of(splits={"train": [annotated], "trainval": [annotated]}), "drop").data
    assert fixed.splits["train"][0] is fixed.splits["trainval"][0]
    assert len(fixed.images[0].boxes) == 1


def test_repair__repeated_boxes_only_on_request(data_of, annotated_of):
    data = data_of(annotated_of(1, [GOOD, GOOD, GOOD, [50, 50, 70, 70]], [0, 0, 1, 0]))
    assert repair(data, "fix").changes == []
    repaired = repair(data, "fix", duplicates_too=True)
    assert boxes_of(repaired) == [[GOOD, GOOD, [50, 50, 70, 70]]]
    assert repaired.data.images[0].numbers.tolist() == [1, 3, 4]  # a contradiction is for a person to decide
    assert repaired.changes == ["labels/1.xml: object 2 (cat): box 10,10,40,40 repeats another; left out"]


@pytest.mark.parametrize(
    ("kind", "image", "done"),
    [
        ("unknown-class", None, "not taken over"),
        ("colliding-id", None, "kept"),  # of annotations
        ("colliding-id", Path("a.jpg"), "not taken over"),  # of images
    ],
)
def test_repair__what_the_reader_could_not_take(data_of, kind, image, done):
    finding = Finding(kind, Path("a.json"), "something", 3, image)
    warning = Finding("unlisted-image", Path("b.jpg"), "no annotations")
    repaired = repair(data_of([GOOD], findings=[finding, warning]), "fix")
    assert repaired.changes == [f"a.json: something; {done}"]
    assert repaired.data.findings == []


def test_repair__unreadable_images_are_left_out(data_of):
    data = data_of([GOOD], [GOOD])
    finding = Finding("unreadable-image", data.images[0].path, "damaged", image=data.images[0].path)
    for policy in POLICIES:
        repaired = repair(data, policy, [finding])
        assert [annotated.image_id for annotated in repaired.data.images] == [2]
        assert repaired.changes == ["images/1.png: damaged; image left out"]


@pytest.mark.parametrize(
    ("stated_hw", "boxes", "expected", "words"),
    [
        ((40, 50), [[5, 5, 20, 30]], [[10, 10, 40, 60]], "size corrected, boxes scaled to it"),
        ((160, 200), [[20, 20, 180, 120]], [[10, 10, 90, 60]], "size corrected, boxes scaled to it"),
        ((160, 200), [[20, 20, 80, 60]], [[20, 20, 80, 60]], "size corrected, boxes left as they are"),
        ((80, 90), [[20, 20, 80, 60]], [[20, 20, 80, 60]], "size corrected, boxes left as they are"),
        ((100, 80), [[20, 20, 90, 60]], [[20, 20, 90, 60]], "size corrected, boxes left as they are"),
        ((100, 80), [[20, 20, 60, 95]], None, "image left out"),  # it was turned after it was annotated
        ((300, 300), [[20, 20, 180, 120]], None, "image left out"),
    ],
)
def test_repair__size_of_an_image(data_of, annotated_of, tmp_path, stated_hw, boxes, expected, words):
    noise = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    data = data_of(
        replace(annotated_of(1, boxes, size_hw=stated_hw), path=tmp_path / "a.png", areas=np.ones(1, np.float32))
    )
    diagnosis = check_data(data)
    assert [finding.kind for finding in diagnosis.findings if finding.severity == "error"][:1] == ["size-mismatch"]
    repaired = repair(data, "fix", diagnosis.findings)
    assert repaired.changes[0].endswith(words)
    assert boxes_of(repaired) == ([] if expected is None else [expected])
    assert all(annotated.size_hw == (80, 100) and annotated.areas is None for annotated in repaired.data.images)
    left = [finding.kind for finding in check_data(repaired.data).findings if finding.severity == "error"]
    assert left == (["no-boxes"] if expected is None else [])
    assert repair(data, "drop", diagnosis.findings).data.images == []


def test_repair__the_image_vanished_meanwhile(data_of, annotated_of):
    data = data_of(annotated_of(1, [GOOD]))
    finding = Finding("size-mismatch", Path("1.xml"), "states 1 x 1", image=data.images[0].path)
    assert repair(data, "fix", [finding]).data.images == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_upright__follows_the_pixels(tmp_path, orientation):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[5:15, 20:50] = 255
    tags = Image.Exif()
    tags[274] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=tags)
    left, top, right, bottom = read_image(tmp_path / "a.png").getbbox()
    turned = turn_upright(np.array([[20, 5, 50, 15]], np.float32), orientation, (40, 60))
    assert turned.tolist() == [[left, top, right, bottom]]
    assert turn_upright(np.zeros((0, 4), np.float32), orientation, (40, 60)).shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "expected", "words"),
    [
        ([[10, 6, 40, 26]], [[22, 10, 42, 40]], "size corrected, boxes turned with the image by its EXIF orientation"),
        ([[10, 6, 40, 90]], [[10, 6, 40, 90]], "size corrected, boxes left as they are"),  # they fit the upright one
    ],
)
def test_repair__boxes_of_the_stored_image(data_of, annotated_of, tmp_path, boxes, expected, words):
    tags = Image.Exif()
    tags[274] = 6
    noise = np.random.default_rng(0).integers(0, 255, (48, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg", exif=tags)
    stored = replace(annotated_of(1, boxes, size_hw=(48, 96)), path=tmp_path / "a.jpg")
    report = check_data(data_of(stored))
    assert [finding.kind for finding in report.findings if finding.severity == "error"] == ["size-mismatch"]
    assert "size and probably boxes are of the stored, unrotated image" in report.findings[0].what
    repaired = repair(report.data, "fix", report.findings)
    assert repaired.changes[0].endswith(words)
    assert boxes_of(repaired) == [expected]
    assert repaired.data.images[0].size_hw == (96, 48)
