import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasterrcnn.data.checks.boxes import LAYOUTS, Misreading, clip_to_images, find_misreading, fit_images, misreadings
from fasterrcnn.data.formats import FORMATS

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


def test_find_misreading__a_table_that_the_user_said_the_wrong_thing_about():
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
