import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasterrcnn import presets
from fasterrcnn.config import AnchorConfig, InputConfig
from fasterrcnn.data.anchors import fit_anchors, input_boxes, input_labels, measure_recall, read_anchors
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.formats.voc import PascalVoc
from fasterrcnn.errors import UsageError
from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.ops.anchors import cell_anchors, grid_anchors
from fasterrcnn.ops.boxes import iou

SQUARES = AnchorConfig(sizes=((32.0,), (64.0,)), ratios=((1.0,), (1.0,)), rounded=False)
STRIDES = {"efficientnet-lite0-fpn": (8, 16, 32, 64), "resnet50-fpn": (4, 8, 16, 32, 64)}


def record(boxes, difficult=None, size_hw=(100, 200), labels=None) -> AnnotatedImage:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedImage(
        Path("a.png"),
        1,
        size_hw,
        array,
        np.array(labels if labels is not None else [0] * len(array), np.int64),
        np.array(difficult if difficult is not None else [False] * len(array), np.bool_),
    )


def squares(sides, seed=0) -> np.ndarray:
    """Squares at random places of an image of 600 pixels."""
    sides = np.asarray(sides, np.float32)
    corner = np.random.default_rng(seed).uniform(0, 600 - sides[:, None], (len(sides), 2)).astype(np.float32)
    return np.concatenate([corner, corner + sides[:, None]], axis=1)


def test_input_boxes__in_the_frame_of_the_network():
    config = InputConfig(short_side=50, long_side=1000)
    boxes = input_boxes([record([(0, 0, 20, 40)]), record([(100, 10, 300, 90)], size_hw=(200, 400))], config)
    assert boxes.dtype == np.float32
    np.testing.assert_allclose(boxes, [(0, 0, 10, 20), (25, 2.5, 75, 22.5)])


def test_input_boxes__leaves_out_what_is_not_learned():
    config = InputConfig(short_side=100, long_side=200)
    nan, inf = float("nan"), float("inf")
    bad = [(5, 5, 5, 20), (9, 9, 3, 20), (0, 0, nan, 5), (0, 0, inf, 5), (-inf, 0, inf, 5)]
    given_record = record(
        [*bad, (1, 1, 9, 9), (2, 2, 8, 8)], difficult=[False] * 6 + [True], labels=[0, 0, 0, 0, 0, 3, 2]
    )
    np.testing.assert_allclose(input_boxes([given_record], config), [(1, 1, 9, 9)])
    assert input_labels([given_record]).tolist() == [3]


@pytest.mark.parametrize("records", [[], [record([])]])
def test_input_boxes__none(records):
    assert input_boxes(records, InputConfig()).shape == (0, 4)
    assert input_labels(records).shape == (0,)


def test_measure_recall__by_hand():
    # Around the grid points (32, 32) of stride 16 and (64, 64) of stride 32: an exact fit, one that is half as
    # wide as its anchor (IoU 1/2), and one far larger than any anchor.
    boxes = np.array([(16, 16, 48, 48), (48, 32, 80, 96), (0, 0, 512, 512)], np.float32)
    recall = measure_recall(boxes, SQUARES, (16, 32))
    assert recall.boxes == 3
    assert recall.at_50 == pytest.approx(2 / 3)
    assert recall.at_70 == pytest.approx(1 / 3)
    assert recall.mean_iou == pytest.approx((1 + 0.5 + 64**2 / 512**2) / 3)
    # 32 x 32 is medium already: the limit belongs to the larger bin.
    assert [part.boxes for part in recall.by_size.values()] == [0, 2, 1]
    assert recall.by_size["medium"].at_70 == 0.5
    assert recall.by_size["small"].at_50 is None


def test_measure_recall__shift_to_the_grid_counts():
    # The middle between two grid points of stride 32 lies 16 pixels off: 16 of 32 pixels overlap.
    box = np.array([(32, 16, 64, 48)], np.float32)
    one = AnchorConfig(sizes=((32.0,),), ratios=((1.0,),), rounded=False)
    assert measure_recall(box, one, (32,)).mean_iou == pytest.approx(1 / 3)
    assert measure_recall(box, one, (16,)).mean_iou == pytest.approx(1)


def brute_force(boxes, anchors: AnchorConfig, strides, side: int) -> np.ndarray:
    """Best IoU of every box with every anchor there is on maps that cover the image."""
    every = [
        grid_anchors(cell_anchors(s, r, rounded=anchors.rounded), (side // d + 2,) * 2, (d, d))
        for s, r, d in zip(anchors.sizes, anchors.ratios, strides, strict=True)
    ]
    return iou(torch.from_numpy(boxes), torch.cat(every)).amax(dim=1).numpy()


boxes_inside = st.lists(
    st.tuples(st.floats(0, 150), st.floats(0, 150), st.floats(1, 100), st.floats(1, 100)), min_size=1, max_size=8
)


@settings(max_examples=50, deadline=None)
@given(boxes_inside, st.booleans())
def test_measure_recall__as_the_real_anchors(numbers, rounded):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in numbers], np.float32)
    anchors = AnchorConfig(sizes=((11.3, 24.0), (50.0, 71.0)), ratios=((0.4, 1.0, 2.3),) * 2, rounded=rounded)
    expected = brute_force(boxes, anchors, (8, 16), 250)
    recall = measure_recall(boxes, anchors, (8, 16))
    assert recall.mean_iou == pytest.approx(expected.mean(), abs=1e-5)
    for one, best in zip(boxes, expected, strict=True):
        assert measure_recall(one[None], anchors, (8, 16)).mean_iou == pytest.approx(best, abs=1e-5)


def test_measure_recall__no_boxes():
    recall = measure_recall(np.zeros((0, 4), np.float32), SQUARES, (16, 32))
    assert (recall.boxes, recall.at_50, recall.at_70, recall.mean_iou) == (0, None, None, None)
    assert "n/a" in str(recall)


def test_measure_recall__levels_differ():
    with pytest.raises(UsageError, match=r"anchors of 2 levels \(ratios of 2\) for 1 strides"):
        measure_recall(squares([40]), SQUARES, (16,))


def test_fit_anchors__finds_the_only_size_there_is():
    boxes = squares([50] * 60)
    one = AnchorConfig(sizes=((200.0,),), ratios=((1.0,),), strides=(8,), rounded=True)
    fit = fit_anchors(boxes, one, (8,))
    assert not fit.kept
    assert fit.anchors.sizes[0][0] == pytest.approx(50, abs=2)
    assert fit.anchors.ratios[0][0] == pytest.approx(1, abs=0.05)
    assert fit.anchors.strides == (8,)
    assert not fit.anchors.rounded
    assert (fit.before.at_70, fit.after.at_70) == (0, 1)
    assert fit.after == measure_recall(boxes, fit.anchors, (8,))


def test_fit_anchors__rare_class_is_not_given_up():
    # One anchor does for the two sizes of the frequent class, but two would do a little better.
    boxes = np.concatenate([squares([100] * 900), squares([127] * 900, 1), squares([400] * 4, 2)])
    labels = np.repeat([0, 1], [1800, 4])
    two = AnchorConfig(sizes=((97.0, 130.0),), ratios=((1.0,),), strides=(16,))
    rare = [
        measure_recall(boxes[1800:], fit_anchors(boxes, two, (16,), labels=given_labels).anchors, (16,)).at_70
        for given_labels in (None, labels)
    ]
    assert rare == [0, 1]


def test_fit_anchors__objects_within_reach_stay_there():
    # Many boxes of two sizes for two anchors; the few small ones would have to pay.
    boxes = np.concatenate([squares([150] * 300), squares([260] * 300, 1), squares([24] * 12, 2)])
    given_anchors = AnchorConfig(sizes=((24.0, 190.0),), ratios=((1.0,),), strides=(8,), rounded=False)
    fit = fit_anchors(boxes, given_anchors, (8,))
    assert fit.after.by_size["small"].at_50 == fit.before.by_size["small"].at_50 == 1


def test_fit_anchors__levels_ascend_within_reach_of_their_strides():
    sides = np.random.default_rng(0).uniform(10, 500, 60)
    for strides, levels in (((4, 8, 16, 32, 64), 5), ((32, 32, 64), 3), ((16,), 1)):
        anchors = AnchorConfig(sizes=((32.0, 64.0),) * levels, ratios=((0.5, 1.0, 2.0),) * levels)
        fitted = fit_anchors(squares(sides), anchors, strides).anchors
        flat = [size for level in fitted.sizes for size in level]
        assert flat == sorted(flat)
        assert [len(level) for level in fitted.sizes] == [2] * levels
        assert all(list(level) == sorted(level) and len(level) == 3 for level in fitted.ratios)
        assert min(flat) >= strides[0]
        for level, stride in zip(fitted.sizes[1:], strides[1:], strict=True):
            assert min(level) >= 1.5 * stride - 0.1
        for level, stride in zip(fitted.sizes[:-1], strides[:-1], strict=True):
            assert max(level) <= 16 * stride + 0.1
        assert AnchorGenerator(fitted.sizes, fitted.ratios, None, fitted.rounded).per_cell == 6


def test_fit_anchors__unused_levels_keep_theirs():
    anchors = AnchorConfig(sizes=((32.0,), (64.0,), (400.0,)), ratios=((0.5, 1.0, 2.0),) * 3)
    fit = fit_anchors(squares([20, 22, 25] * 20), anchors, (8, 16, 32))
    assert not fit.kept
    assert fit.anchors.sizes[2] == (400.0,)
    assert fit.anchors.ratios[2] == (0.5, 1.0, 2.0)


@pytest.mark.parametrize("count", [0, 1, 29])
def test_fit_anchors__too_few_boxes(count):
    fit = fit_anchors(squares([50] * count), SQUARES, (16, 32))
    assert fit.kept
    assert fit.anchors == SQUARES
    assert fit.before == fit.after
    assert fit.line() == f"anchors: as they were ({count} boxes, fewer than 30)"


def test_fit_anchors__nothing_better():
    one = AnchorConfig(sizes=((32.0,),), ratios=((1.0,),), strides=(16,), rounded=False)
    exact = np.tile(np.array([(16, 16, 48, 48)], np.float32), (40, 1))
    fit = fit_anchors(exact, one, (16,))
    assert fit.kept
    assert fit.line() == "anchors: as they were (40 boxes, no better ones found)"


def test_fit_anchors__same_seed_same_anchors():
    sides = np.random.default_rng(1).uniform(20, 200, 80)
    first, second = (fit_anchors(squares(sides), SQUARES, (8, 16), seed=3) for _ in range(2))
    assert first == second


def test_fit_anchors__five_thousand_boxes_in_seconds():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 500, (5500, 2))
    boxes = np.concatenate([corner, corner + rng.lognormal(4, 0.7, (5500, 2))], axis=1).astype(np.float32)
    anchors = presets.get("resnet50-fpn").anchors
    started = time.process_time()
    fit = fit_anchors(boxes, anchors, STRIDES["resnet50-fpn"], labels=rng.integers(0, 5, 5500))
    assert time.process_time() - started < 10
    assert fit.after.at_70 > fit.before.at_70
    assert fit.boxes == 5500


@pytest.mark.parametrize(
    ("folder", "preset"), [("bccd/BCCD", "efficientnet-lite0-fpn"), ("road_signs", "resnet50-fpn")]
)
def test_fit_anchors__real_data_held_out_too(shared_data, folder, preset):
    data, config = PascalVoc().read(shared_data / folder), presets.get(preset)
    train = data.split("train")
    fit = fit_anchors(input_boxes(train, config.input), config.anchors, STRIDES[preset], labels=input_labels(train))
    assert fit.after.at_70 > fit.before.at_70
    test = input_boxes(data.split("test"), config.input)
    before, after = (measure_recall(test, anchors, STRIDES[preset]) for anchors in (config.anchors, fit.anchors))
    assert after.at_70 > before.at_70


@pytest.fixture(scope="module")
def fitted():
    return fit_anchors(squares(np.linspace(20, 150, 60)), SQUARES, (8, 16))


def test_save__yaml_comes_back(fitted, tmp_path):
    fitted.save(tmp_path / "new" / "anchors.yaml")
    assert read_anchors(tmp_path / "new" / "anchors.yaml") == fitted.anchors
    assert fitted.to_yaml().splitlines()[1] == "anchors:"


def test_save__page_has_the_plot_and_both_tables(fitted, tmp_path):
    fitted.save(tmp_path / "anchors.html")
    page = (tmp_path / "anchors.html").read_text(encoding="utf-8")
    assert "Recall before" in page
    assert "Recall after" in page
    assert page.count('r="2"') == 60
    assert fitted.line().replace(">", "&gt;") in page


def test_save__page_of_no_boxes(tmp_path):
    fit_anchors(squares([]), SQUARES, (8, 16)).save(tmp_path / "anchors.html")
    page = (tmp_path / "anchors.html").read_text(encoding="utf-8")
    assert "Recall before" in page
    assert "Recall after" not in page


def test_save__other_kinds_of_file(fitted, tmp_path):
    with pytest.raises(UsageError, match=r"anchors\.txt: the anchors can be written as \.yaml or \.html"):
        fitted.save(tmp_path / "anchors.txt")


def test_fit__as_words_and_as_json(fitted):
    import json

    logged = json.loads(json.dumps(fitted.to_dict()))
    assert AnchorConfig.model_validate(logged["anchors"]) == fitted.anchors
    assert logged["after"]["by_size"]["small"]["boxes"] == fitted.after.by_size["small"].boxes
    assert str(fitted).splitlines()[0] == fitted.line()
    assert "reach IoU 0.7" in fitted.line()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("anchors: [", "not a readable YAML file"),
        ("model: 3", 'no section "anchors" with sizes and ratios'),
        ("- 1", 'no section "anchors"'),
        ("anchors: {sizes: big}", r"anchors\.sizes: Input should be a valid tuple"),
        ("anchors: {size: [[1]]}", r"anchors\.size: Extra inputs are not permitted"),
        ("anchors: {sizes: [[8]], ratios: [[1], [1]]}", "must be of the same levels, not 1, 2"),
        ("anchors: {sizes: [[8]], ratios: [[1]], strides: [4, 8]}", "must be of the same levels, not 1, 1, 2"),
        ("anchors: {sizes: [[8], [8, 16]], ratios: [[1], [1]]}", r"every level needs as many anchors .*, not 1, 2"),
        ("anchors: {sizes: [[]], ratios: [[1]]}", r"every level needs as many anchors .*, not 0"),
        ("anchors: {sizes: [], ratios: []}", "must be of the same levels, not 0, 0"),
        ("anchors: {sizes: [[-8]], ratios: [[1]]}", "must be above zero, not -8"),
        ("anchors: {sizes: [[8]], ratios: [[.inf]]}", "must be above zero, not inf"),
        ("anchors: {sizes: [[8]], ratios: [[.nan]]}", "must be above zero, not nan"),
        ("anchors: {sizes: [[8]], ratios: [[1]], strides: [0]}", "must be above zero, not 0"),
    ],
)
def test_read_anchors__what_is_wrong(tmp_path, text, message):
    file = tmp_path / "anchors.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=rf"anchors\.yaml: .*{message}") as caught:
        read_anchors(file)
    assert "\n" not in str(caught.value)


def test_read_anchors__no_such_file(tmp_path):
    with pytest.raises(UsageError, match=r"absent\.yaml: not a readable YAML file .*No such file"):
        read_anchors(tmp_path / "absent.yaml")


def test_read_anchors__other_sections_do_not_matter(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("model: x\nanchors: {sizes: [[8, 16]], ratios: [[1]]}\n", encoding="utf-8")
    assert read_anchors(file).sizes == ((8.0, 16.0),)
