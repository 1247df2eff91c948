import time

import numpy as np
import pytest

from fasterrcnn import presets
from fasterrcnn.config import AnchorConfig
from fasterrcnn.data.anchors import fit_anchors, input_boxes, input_labels, measure_recall, read_anchors
from fasterrcnn.data.formats.voc import PascalVoc
from fasterrcnn.errors import UsageError
from fasterrcnn.model.anchors import AnchorGenerator

SQUARES = AnchorConfig(sizes=((32.0,), (64.0,)), ratios=((1.0,), (1.0,)), rounded=False)


STRIDES = {"efficientnet-lite0-fpn": (8, 16, 32, 64), "resnet50-fpn": (4, 8, 16, 32, 64)}


def squares(sides, seed=0) -> np.ndarray:
    """Squares at random places of an image of 600 pixels."""
    sides = np.asarray(sides, np.float32)
    corner = np.random.default_rng(seed).uniform(0, 600 - sides[:, None], (len(sides), 2)).astype(np.float32)
    return np.concatenate([corner, corner + sides[:, None]], axis=1)


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


@pytest.mark.slow
def test_fit_anchors__five_thousand_boxes_in_seconds():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 500, (5500, 2))
    boxes = np.concatenate([corner, corner + rng.lognormal(4, 0.7, (5500, 2))], axis=1).astype(np.float32)
    anchors = presets.get("resnet50-fpn").anchors
    started = time.process_time()
    fit = fit_anchors(boxes, anchors, STRIDES["resnet50-fpn"], labels=rng.integers(0, 5, 5500))
    assert time.process_time() - started < 30
    assert fit.after.at_70 > fit.before.at_70
    assert fit.boxes == 5500


@pytest.mark.slow
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
