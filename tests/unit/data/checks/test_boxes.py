import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasterrcnn.config import InputConfig
from fasterrcnn.data.checks.boxes import (
    LAYOUTS,
    Misreading,
    check_boxes,
    check_values,
    classify,
    clip_to_images,
    find_duplicate_boxes,
    find_misreading,
    fit_images,
    interpret,
    misreadings,
    tabulate,
)
from fasterrcnn.data.formats import FORMATS

GOOD = [10, 10, 40, 40]
SMALL_INPUT = InputConfig(short_side=80, long_side=100)  # images as they are


def kinds_of(data, config=SMALL_INPUT):
    return [finding.kind for finding in check_boxes(data, config)]


def test_tabulate__rows_know_where_they_come_from(data_of, annotated_of):
    table = tabulate(
        data_of(annotated_of(1, [GOOD, GOOD], [1, 0]), [], annotated_of(3, [[0, 0, 5, 5]], size_hw=(30, 20)))
    )
    assert table.boxes.tolist() == [GOOD, GOOD, [0, 0, 5, 5]]
    assert (table.labels.tolist(), table.owners.tolist()) == ([1, 0, 0], [0, 0, 2])
    assert (table.indices.tolist(), table.sizes.tolist()) == ([0, 1, 0], [[100, 80], [100, 80], [20, 30]])


@pytest.mark.parametrize("images", [(), ([],), ([], [])])
def test_check_boxes__nothing_there(data_of, images):
    assert kinds_of(data_of(*images)) == []


@pytest.mark.parametrize(
    ("box", "kind", "words"),
    [
        ([np.nan, 1, 20, 20], "not-finite", "box nan,1,20,20 is not finite"),
        ([1, 1, np.inf, 20], "not-finite", "box 1,1,inf,20 is not finite"),
        ([50, 40, 50, 40], "point-box", "box 50,40,50,40 is a point"),
        ([0, 0, 0, 0], "point-box", "is a point"),
        ([50, 40, 50, 60], "flat-box", "box 50,40,50,60 has no area"),
        ([10, 60, 40, 20], "inverted-box", "box 10,60,40,20 has its second corner before the first"),
        ([60, 50, 60, 20], "inverted-box", "second corner before the first"),
        ([60, 50, 30, 20], "inverted-box", r"first \(as left, top, width, height it would fit\)"),
        ([100, 10, 120, 30], "outside-box", "box 100,10,120,30 lies outside the image of 100 x 80"),
        ([99.5, 10, 120, 30], "outside-box", "lies outside"),  # half a column of it is in the image
        ([-30, -30, 0.5, 20], "outside-box", "lies outside"),
        ([500, 500, 600, 600], "outside-box", "lies outside"),
        ([80, 10, 120, 30], "over-border", "box 80,10,120,30 reaches over the image of 100 x 80"),
        ([-1.5, 10, 20, 30], "over-border", "reaches over"),
        ([10, 10, 1e30, 30], "over-border", "reaches over"),
        ([0.1, 0.2, 0.5, 0.9], "normalised-box", "seems to be in shares of the image of 100 x 80"),
        ([0, 0, 1, 0.5], "normalised-box", "seems to be in shares"),
        ([0, 0, 100, 80], "whole-image", "covers the whole image of 100 x 80"),
        ([-0.5, -0.5, 100.5, 80.5], "whole-image", "covers the whole image"),
        ([10, 10, 17, 17], "tiny-box", "is 7.0 pixels wide and high"),
    ],
)
def test_check_boxes__each_kind(data_of, box, kind, words):
    (finding,) = check_boxes(data_of([GOOD], [GOOD, box]), SMALL_INPUT)
    assert finding.kind == kind
    assert (finding.file.name, finding.image.name, finding.annotation) == ("2.xml", "2.png", 2)
    assert finding.what.startswith("object 2 (cat): box ")
    assert re.search(words, finding.what)


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 30, 30],
        [70, 50, 100, 80],
        [-1, -1, 30, 30],  # tools that count from 1
        [70, 50, 101, 81],
        [98, 1, 100, 79],  # a pole
        [0, 0, 100, 79],
        [0.25, 0.5, 30.75, 30.5],
    ],
)
def test_check_boxes__nothing_wrong(data_of, box):
    assert kinds_of(data_of([box])) == []


def test_classify__a_box_is_in_one_mask_at_most(data_of):
    rng = np.random.default_rng(0)
    values = np.array([-50.0, -1, -0.5, 0, 0.5, 1, 50, 79, 80, 81, 99.5, 100, 101, 500, 1e30, np.nan, np.inf, -np.inf])
    masks = classify(tabulate(data_of(rng.choice(values, (5000, 4)))))
    counts = np.sum(list(masks.values()), axis=0)
    assert set(counts.tolist()) == {0, 1}
    assert all(mask.any() for mask in masks.values())


def test_check_boxes__what_is_tiny_depends_on_the_input(data_of):
    data = data_of([[10, 10, 14, 14]])
    assert kinds_of(data, InputConfig(short_side=80, long_side=100)) == ["tiny-box"]
    assert kinds_of(data, InputConfig(short_side=160, long_side=1000)) == []  # 8 x 8
    assert kinds_of(data, InputConfig(short_side=160, long_side=100)) == ["tiny-box"]  # the long side limits


def test_check_boxes__two_pixels_show_nothing_however_large_the_input(data_of):
    assert kinds_of(data_of([[10, 10, 12, 12]]), InputConfig(short_side=800, long_side=1333)) == ["tiny-box"]
    assert kinds_of(data_of([[10, 10, 12, 13]]), InputConfig(short_side=800, long_side=1333)) == []


def test_check_boxes__tiny_states_the_side_that_is_too_short(data_of):
    (finding,) = check_boxes(data_of([[10, 10, 60, 11]]), InputConfig(short_side=800, long_side=1333))
    assert finding.what.endswith("is 50 pixels wide and 1 high in the original image")


def test_check_boxes__no_other_layout_for_a_few_over_the_border(data_of, annotated_of):
    """In square images they would fit with x and y exchanged, which shows nothing."""
    boxes = [GOOD, [20, 10, 60, 83]] * 2
    found = check_boxes(data_of(annotated_of(1, [GOOD] * 1 + boxes[1:2], size_hw=(80, 84))), SMALL_INPUT)
    assert [finding.what.partition("reaches")[2] for finding in found] == [" over the image of 84 x 80"]


def test_check_boxes__one_finding_that_all_are_in_another_layout(data_of):
    """Left, top, width, height in Pascal VOC."""
    rng = np.random.default_rng(3)
    images = [np.hstack([rng.integers(30, 60, (4, 2)), rng.integers(10, 20, (4, 2))]) for _ in range(5)]
    (finding,) = check_boxes(data_of(*images), SMALL_INPUT)
    assert finding.kind == "wrong-format"
    assert (finding.file.name, finding.annotation) == ("1.xml", 1)
    assert "20 of 20 boxes do not fit their images as left, top, right, bottom" in finding.what
    assert "but they do as left, top, width, height; for example object 1 (cat): box " in finding.what


def test_check_boxes__shares_in_another_layout(data_of):
    """Both are reported, each box once."""
    rng = np.random.default_rng(3)
    images = [np.hstack([rng.uniform(0.5, 0.7, (4, 2)), rng.uniform(0.2, 0.29, (4, 2))]) for _ in range(3)]
    meant = interpret(tabulate(data_of(*images)))
    assert [finding.kind for finding in meant.findings] == ["normalised-box"] * 12 + ["wrong-format"]
    expected = np.vstack([np.hstack([p[:, :2], p[:, :2] + p[:, 2:]]) * (100, 80, 100, 80) for p in images])
    np.testing.assert_allclose(meant.table.boxes, expected, rtol=1e-5)


def test_check_boxes__the_whole_image_among_shares(data_of):
    kinds = kinds_of(data_of([[0, 0, 1, 1], [0.1, 0.1, 0.5, 0.5], [0.5, 0.2, 0.7, 0.9]]))
    assert kinds == ["normalised-box"] * 3 + ["whole-image"]
    assert kinds_of(data_of([[0, 0, 1, 1], GOOD])) == ["tiny-box"]


def test_check_boxes__yolo_is_not_asked_for_pixels(data_of):
    """Its boxes are pixels already, whatever was written."""
    assert kinds_of(data_of([[0.1, 0.2, 0.5, 0.9]], data_format="YOLO")) == ["tiny-box"]


@pytest.mark.parametrize(
    ("other", "labels", "expected"),
    [
        (GOOD, [0, 0], [("duplicate-box", "repeats object 1 (cat)")]),
        ([11, 10, 40, 40], [0, 0], [("duplicate-box", "repeats object 1 (cat)")]),  # IoU 29 / 30
        ([9.5, 10, 40, 40], [0, 0], [("duplicate-box", "repeats object 1 (cat)")]),
        (GOOD, [0, 1], [("contradiction", "is that of object 1 (cat) too")]),
        ([14, 10, 40, 40], [0, 0], []),  # IoU 26 / 30
        ([10, 10, 40, 36], [0, 0], []),
    ],
)
def test_check_boxes__copies(data_of, annotated_of, other, labels, expected):
    found = check_boxes(data_of([GOOD], annotated_of(2, [GOOD, other], labels)), SMALL_INPUT)
    assert [finding.kind for finding in found] == [kind for kind, _ in expected]
    for finding, (_, words) in zip(found, expected, strict=True):
        assert (finding.annotation, finding.file.name) == (2, "2.xml")
        assert finding.what.endswith(words)


def test_find_copies__against_every_pair(data_of):
    rng = np.random.default_rng(5)
    images = []
    for count in (0, 1, 30, 60):
        corner = rng.integers(0, 4, (count, 2)) * 10
        images.append(np.hstack([corner, corner + rng.integers(38, 44, (count, 2))]))
    table = tabulate(data_of(*images))
    sound = rng.random(len(table.boxes)) < 0.9
    expected = {}
    for later in range(len(table.boxes)):
        for earlier in range(later):
            a, b = table.boxes[earlier], table.boxes[later]
            shared = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
            union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
            same_image = table.owners[earlier] == table.owners[later]
            if same_image and sound[earlier] and sound[later] and shared / union >= 0.9:
                expected.setdefault(later, earlier)
    assert expected
    assert find_duplicate_boxes(table, sound) == expected


def test_check_values__only_what_decides(data_of):
    data = data_of([GOOD, GOOD, [0, 0, 100, 80], [10, 10, 11, 11], [5, 5, 5, 9]])
    assert [finding.kind for finding in check_values(data)] == ["flat-box"]


def test_check_boxes__damaged_values_stay_out_of_the_arithmetic(data_of):
    """Warnings of numpy are errors here."""
    values = [np.nan, np.inf, -np.inf, 3e38, -3e38, 0, 50]
    boxes = np.random.default_rng(0).choice(values, (2000, 4))
    assert len(kinds_of(data_of(boxes[:1000], boxes[1000:]))) > 1900


BOX = [10.0, 20.0, 40.0, 30.0]  # left, top, right, bottom
WRITTEN = {
    "xyxy": [10, 20, 40, 30],
    "xywh": [10, 20, 30, 10],
    "cxcywh": [25, 25, 30, 10],
    "yxyx": [20, 10, 30, 40],
    "yxhw": [20, 10, 10, 30],
    "cycxhw": [25, 25, 10, 30],
}
FORMATS_BY_TITLE = {form.title: form for form in FORMATS.values()}
READ_AS = {"Pascal VOC": "xyxy", "COCO": "xywh", "YOLO": "cxcywh"}


def read(numbers, layout):
    """What a reader makes of the numbers, by the textbook."""
    a, b, c, d = np.array(numbers, np.float64).reshape(-1, 4).T
    corners = {
        "xyxy": (a, b, c, d),
        "xywh": (a, b, a + c, b + d),
        "cxcywh": (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
    }
    return np.stack(corners[layout], axis=1)


@pytest.mark.parametrize("written", LAYOUTS)
@pytest.mark.parametrize("read_as", READ_AS.values())
def test_reread__gives_the_box_that_was_meant(written, read_as):
    boxes = Misreading(read_as, written).reread(read(WRITTEN[written], read_as))
    np.testing.assert_allclose(boxes, [BOX])


def test_reread__no_boxes():
    assert Misreading("xyxy", "cycxhw").reread(np.zeros((0, 4))).shape == (0, 4)


def test_misreadings__what_a_format_can_be_taken_for():
    assert len(misreadings(FORMATS_BY_TITLE["COCO"])) == len(misreadings(FORMATS_BY_TITLE["Pascal VOC"])) == 5
    assert misreadings(FORMATS_BY_TITLE["YOLO"]) == [Misreading("cxcywh", "xyxy"), Misreading("cxcywh", "xywh")]
    assert Misreading("xywh", "xyxy") in misreadings(FORMATS_BY_TITLE["CSV"])
    assert Misreading("xyxy", "xywh") in misreadings(FORMATS_BY_TITLE["CSV"])


def spread(rng, count, width=640, height=480):
    """xyxy boxes all over an image."""
    near = rng.uniform(0, 0.8, (count, 2))
    far = near + (1 - near) * rng.uniform(0.1, 1, (count, 2))
    return np.hstack([near, far]) * (width, height, width, height)


def written_as(xyxy, layout):
    near, far = xyxy[:, :2], xyxy[:, 2:]
    base = {"xyxy": far, "yxyx": far}.get(layout, far - near)
    first = (near + far) / 2 if layout.startswith("c") else near
    order = [1, 0, 3, 2] if layout in ("yxyx", "yxhw", "cycxhw") else [0, 1, 2, 3]
    return np.hstack([first, base])[:, order]


@pytest.mark.parametrize("data_format", READ_AS)
@pytest.mark.parametrize("written", LAYOUTS)
@settings(derandomize=True, deadline=None, max_examples=25, database=None)
@given(st.integers(0, 2**31), st.integers(30, 300))
def test_find_misreading__knows_every_layout(data_format, written, seed, count):
    boxes = spread(np.random.default_rng(seed), count)
    sizes = np.full((count, 2), (640.0, 480.0))
    found = find_misreading(
        FORMATS_BY_TITLE[data_format], read(written_as(boxes, written), READ_AS[data_format]), sizes
    )
    if written == READ_AS[data_format]:
        assert found is None
    elif data_format != "YOLO" or written in READ_AS.values():
        assert found == Misreading(READ_AS[data_format], written)


def test_find_misreading__a_table_whose_format_the_user_stated_wrongly():
    boxes = spread(np.random.default_rng(0), 50)
    found = find_misreading(FORMATS_BY_TITLE["CSV"], read(boxes, "xywh"), np.full((50, 2), (640.0, 480.0)))
    assert found == Misreading("xywh", "xyxy")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_find_misreading__two_mistakes_are_no_layout(count):
    boxes = np.array([[60.0, 50, 30, 20]] * count).reshape(-1, 4)
    assert find_misreading(FORMATS_BY_TITLE["Pascal VOC"], boxes, np.full((count, 2), (100.0, 80.0))) is None


def test_find_misreading__single_mistakes_among_many_are_no_layout():
    boxes = spread(np.random.default_rng(1), 200)
    boxes[:9] = [600, 400, 30, 20]
    assert find_misreading(FORMATS_BY_TITLE["Pascal VOC"], boxes, np.full((200, 2), (640.0, 480.0))) is None


def test_find_misreading__must_explain_nearly_all_misfits():
    sizes = np.full((20, 2), (100.0, 80.0))
    boxes = np.array([[60.0, 50, 30, 20]] * 20)  # would fit as left, top, width, height
    assert find_misreading(FORMATS_BY_TITLE["Pascal VOC"], boxes, sizes) == Misreading("xyxy", "xywh")
    boxes[:3] = [60, 50, 190, 170]  # which fits in no layout
    assert find_misreading(FORMATS_BY_TITLE["Pascal VOC"], boxes, sizes) is None


def test_find_misreading__what_fits_in_no_layout():
    boxes = np.array([[90.0, 70, 190, 170]] * 5 + [[np.nan] * 4, [np.inf] * 4])
    assert find_misreading(FORMATS_BY_TITLE["Pascal VOC"], boxes, np.full((7, 2), (100.0, 80.0))) is None


def test_fit__a_pixel_over_the_border_is_no_misfit():
    boxes = np.array([[-1.0, 0, 50, 81], [0, 0, 101.5, 80], [5, 5, 5, 20], [50, 5, 20, 20], [0, 0, 100, 80]])
    assert fit_images(boxes, np.full((5, 2), (100.0, 80.0))).tolist() == [True, False, False, False, True]


def test_clip__each_at_its_own_image():
    boxes = np.array([[-5.0, -5, 200, 200], [-5, -5, 200, 200]])
    assert clip_to_images(boxes, np.array([[100.0, 80], [30, 40]])).tolist() == [[0, 0, 100, 80], [0, 0, 30, 40]]
