"""COCO's numbers against pycocotools on random data sets, and what must hold for every data set."""

import contextlib
import copy
import io
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fasterrcnn.evaluation.analysis import MeasurementOrigin, analyse
from fasterrcnn.evaluation.ground_truth import read_ground_truth, read_results
from fasterrcnn.evaluation.matching import find_pairs, same_class
from fasterrcnn.evaluation.metrics.average_precision import mean_defined, rank_matches
from fasterrcnn.evaluation.metrics.error_kinds import ERRORS, IGNORED, MISSED, RIGHT, count_confusions
from fasterrcnn.evaluation.metrics.slices import SIZES, slice_by_size
from fasterrcnn.evaluation.report import make_report, score_detections

IDS = [3, 7, 8, 40, 41]
CATEGORIES = [{"id": i, "name": f"c{i}"} for i in (2, 5, 6)]
FEW = settings(derandomize=True, max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
QUICK = settings(derandomize=True, max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def splits(draw, ties: bool = True):
    """A data set and results: crowds, empty images, images without results, sparse ids, equal scores."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    side = draw(st.sampled_from([40, 120, 300]))

    def box() -> list[float]:
        return [float(chance.randint(0, side)) for _ in range(2)] + [float(chance.randint(1, side)) for _ in range(2)]

    objects = [
        {"image_id": chance.choice(IDS[1:]), "category_id": chance.choice([2, 5]), "bbox": box()}
        for _ in range(draw(st.integers(0, 14)))
    ]
    for number, row in enumerate(objects, start=1):
        row |= {"id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": int(chance.random() < 0.15)}
    detections = []
    for number in range(draw(st.integers(0, 30))):
        near = chance.choice(objects) if objects and chance.random() < 0.7 else None
        shifted = box() if near is None else [v + chance.choice([0, 0, 1, 3]) for v in near["bbox"]]
        image = chance.choice(IDS[:4]) if near is None else near["image_id"]
        score = chance.choice([0.1, 0.5, 0.9]) if ties else (number + 1) / 64
        detections.append({"image_id": image, "category_id": chance.choice([2, 5, 6]), "bbox": shifted, "score": score})
    images = [{"id": i, "width": 2 * side, "height": 2 * side} for i in IDS]
    return {"images": images, "annotations": objects, "categories": CATEGORIES}, detections


def pycocotools_evaluation(dataset, detections, areas=None):
    """Evaluated and accumulated; of other ranges of areas than COCO's where they are given."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = coco.COCO()
        ground_truth.dataset = copy.deepcopy(dataset)
        ground_truth.createIndex()
        evaluation = cocoeval.COCOeval(
            ground_truth, ground_truth.loadRes(copy.deepcopy(detections)) if detections else coco.COCO(), "bbox"
        )
        if areas is not None:
            evaluation.params.areaRng, evaluation.params.areaRngLbl = areas, [str(area) for area in areas]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def official(dataset, detections) -> list[float]:
    """The 12 numbers of pycocotools; -1 where there is nothing."""
    evaluation = pycocotools_evaluation(dataset, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return evaluation.stats.tolist()


def whole(dataset, detections, samples: int = 0):
    ground_truth = read_ground_truth(dataset)
    origin = MeasurementOrigin("", "", "", "", 100)
    analysis = analyse(ground_truth, read_results(ground_truth, detections), origin, samples=samples)
    return make_report(ground_truth, analysis.numbers, analysis.per_class, analysis)


@QUICK
@given(splits())
def test_coco__as_pycocotools(split):
    dataset, detections = split
    ours = [-1 if value is None else value for value in score_detections(dataset, detections).numbers.values()]
    assert ours == pytest.approx(official(dataset, detections), abs=1e-12)


@QUICK
@given(splits())
def test_ranking__as_coco(split):
    # The arithmetic behind intervals, slices and curves gives COCO's numbers too.
    dataset, detections = split
    report = score_detections(dataset, detections)
    ground_truth = read_ground_truth(dataset)
    predictions = read_results(ground_truth, detections)
    pairs = same_class(find_pairs(ground_truth, predictions), ground_truth, predictions)
    ranking = rank_matches(ground_truth, predictions, pairs)
    ap = ranking.average_precision()
    for ours, expected in ((mean_defined(ap), report.ap), (mean_defined(ap[0]), report.ap50)):
        assert ours == (None if expected is None else pytest.approx(expected, abs=1e-12))


@FEW
@given(splits())
def test_slices__as_pycocotools(split):
    # Its areas include both bounds; a slice does not include the upper one.
    dataset, detections = split
    ground_truth = read_ground_truth(dataset)
    areas = [
        [low**2, np.nextafter(min(low_of_next, 1e5) ** 2, 0)]
        for low, low_of_next in pairwise([*SIZES.values(), np.inf])
    ]
    evaluation = pycocotools_evaluation(dataset, detections, areas)
    precision, recall = (evaluation.eval[name][..., -1] for name in ("precision", "recall"))
    expected = {}
    for part, name in enumerate(SIZES):
        numbers = (precision[:, :, :, part], precision[0, :, :, part], recall[:, :, part])
        if (recall[:, :, part] > -1).any():
            expected[name] = tuple(pytest.approx(values[values > -1].mean(), abs=1e-12) for values in numbers)
    ours = {
        one.name: (one.ap, one.ap50, one.recall)
        for one in slice_by_size(ground_truth, read_results(ground_truth, detections))
    }
    assert ours == expected


@QUICK
@given(splits(), st.integers(0, 2**32))
def test_ranking__weights_are_copies_of_images(split, seed):
    # An image that counts twice is the image and a copy of it.
    dataset, detections = split
    times = np.random.default_rng(seed).integers(0, 3, len(IDS))
    ground_truth = read_ground_truth(dataset)
    predictions = read_results(ground_truth, detections)
    pairs = same_class(find_pairs(ground_truth, predictions), ground_truth, predictions)
    weighted = rank_matches(ground_truth, predictions, pairs).average_precision(times.astype(float))
    copies = [(100 * image + copy, image) for image, count in zip(IDS, times, strict=True) for copy in range(count)]
    many = {
        "images": [{"id": i} for i, _ in copies],
        "categories": CATEGORIES,
        "annotations": [
            {**a, "image_id": i} for i, old in copies for a in dataset["annotations"] if a["image_id"] == old
        ],
    }
    rows = [{**r, "image_id": i} for i, old in copies for r in detections if r["image_id"] == old]
    report = score_detections(many, rows)
    if len({row["score"] for row in detections}) == len(detections):  # the order of equal scores would differ
        expected = report.ap
        assert mean_defined(weighted) == (None if expected is None else pytest.approx(expected, abs=1e-12))


@FEW
@given(splits(ties=False), st.integers(0, 2**32))
def test_report__order_is_of_no_importance(split, seed):
    dataset, detections = split
    shuffled = copy.deepcopy(dataset)
    chance = random.Random(seed)
    for rows in shuffled.values():
        chance.shuffle(rows)
    ours, theirs = (
        whole(dataset, detections).to_dict(),
        whole(shuffled, chance.sample(detections, len(detections))).to_dict(),
    )
    assert ours == theirs


@FEW
@given(splits())
def test_report__a_perfect_detector(split):
    dataset, _ = split
    # Objects of one class that overlap by half could be taken for each other.
    kept = {(a["image_id"], a["category_id"]): a for a in dataset["annotations"]}
    dataset = {**dataset, "annotations": list(kept.values())}
    detections = [{**a, "score": 0.5} for a in kept.values() if not a["iscrowd"]]
    report = whole(dataset, detections, samples=3)
    assert all(value is None or value == pytest.approx(1) for value in report.numbers.values())
    if detections:
        assert report.analysis.curves.best_overall.f1 == 1
        assert report.analysis.confusion.matrix.trace() == len(detections)
        assert set(report.analysis.costs.counts.values()) == {0}
        assert all(one.low == one.value == one.high for one in report.analysis.bootstrap.numbers.values())


@FEW
@given(splits())
def test_report__everything_adds_up(split):
    dataset, detections = split
    report = whole(dataset, detections)
    analysis = report.analysis
    error_kinds, matrix = analysis.error_kinds, analysis.confusion.matrix
    assert matrix.sum() == report.objects + matrix[-1].sum()
    assert (error_kinds.kinds == RIGHT).sum() == (error_kinds.object_kinds == RIGHT).sum()
    assert (error_kinds.object_kinds == IGNORED).sum() == sum(a["iscrowd"] for a in dataset["annotations"])
    assert not (error_kinds.kinds == MISSED).any()
    counted = sum(analysis.costs.counts[kind] for kind in ERRORS if kind != "missed")
    assert counted + (error_kinds.kinds == RIGHT).sum() + (error_kinds.kinds == IGNORED).sum() == len(detections)
    assert analysis.calibration.counts.sum() == len(detections) - (error_kinds.kinds == IGNORED).sum()
    lost = [value for value in analysis.costs.lost.values() if value is not None]
    assert all(0 <= value <= 1 - analysis.costs.ap50 + 1e-9 for value in lost)


@FEW
@given(splits(ties=False))
def test_confusion_and_calibration__as_hotcoco(split):
    import hotcoco

    dataset, detections = split
    dataset = {**dataset, "annotations": [{**a, "iscrowd": 0} for a in dataset["annotations"]]}
    if not detections or not dataset["annotations"]:
        return
    ground_truth = read_ground_truth(dataset)
    predictions = read_results(ground_truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = hotcoco.COCO(copy.deepcopy(dataset))
        evaluation = hotcoco.COCOeval(theirs, theirs.load_res(copy.deepcopy(detections)), "bbox")
        evaluation.run()
    pairs = find_pairs(ground_truth, predictions)
    ours = count_confusions(ground_truth, predictions, pairs).matrix
    assert ours.sum() == np.array(evaluation.confusion_matrix()["matrix"]).sum()
    report = whole(dataset, detections)
    assert report.analysis.calibration.ece == pytest.approx(evaluation.calibration()["ece"])


@FEW
@given(splits(ties=False), st.integers(0, 2**32))
def test_errors_and_confusion__as_hotcoco(split, seed):
    # Without crowds, equal overlaps and overlaps of exactly .10 or .50; docs/evaluation.md lists what differs there.
    import hotcoco

    rng = np.random.default_rng(seed)
    dataset, detections = (
        [{**row, "bbox": [v + rng.uniform(0, 0.1) for v in row["bbox"]]} for row in rows]
        for rows in ([{**a, "iscrowd": 0} for a in split[0]["annotations"]], split[1])
    )
    dataset = {**split[0], "annotations": dataset}
    if not detections or not dataset["annotations"]:
        return
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = hotcoco.COCO(copy.deepcopy(dataset))
        evaluation = hotcoco.COCOeval(theirs, theirs.load_res(copy.deepcopy(detections)), "bbox")
        evaluation.run()
    analysis = whole(dataset, detections).analysis
    ground_truth = read_ground_truth(dataset)
    predictions = read_results(ground_truth, detections)
    matrix = count_confusions(ground_truth, predictions, find_pairs(ground_truth, predictions)).matrix
    np.testing.assert_array_equal(matrix, np.array(evaluation.confusion_matrix()["matrix"]))
    tide = evaluation.tide_errors()
    names = dict(zip(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), ERRORS, strict=True)) | {"FP": "false positives"}
    assert analysis.costs.ap50 == pytest.approx(tide["ap_base"])
    assert analysis.costs.counts == {names[key]: count for key, count in tide["counts"].items()}
    found_ones = np.unique(ground_truth.labels[analysis.error_kinds.object_kinds == RIGHT])
    if set(found_ones) == set(ground_truth.labels):  # hotcoco keeps a class in the mean that would lose all its objects
        names["FN"] = "false negatives"
    else:
        del names["Miss"]
    for key, name in names.items():
        assert analysis.costs.lost[name] == pytest.approx(tide["delta_ap"][key], abs=1e-9)
