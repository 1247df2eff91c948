import numpy as np
import pytest

from fasterrcnn.evaluation.metrics.slices import slice_by_size

BOX, FAR = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 20.0, 20.0)


def test_slices__a_mistake_counts_where_it_belongs(make_ground_truth, make_predictions, report_of):
    ground_truth = make_ground_truth((1, 1, 0, 0, 20, 20), (2, 1, 0, 0, 50, 50), images=3)
    predictions = make_predictions(
        ground_truth, (3, 1, 0.95, 0, 0, 50, 50), (1, 1, 0.9, 0, 0, 20, 20), (2, 1, 0.8, 0, 0, 50, 50)
    )
    analysis = report_of(ground_truth, predictions).analysis
    by_size = {one.name: (one.objects, one.ap) for one in analysis.by_size}
    assert by_size == {"16 to 32 px": (1, pytest.approx(1.0)), "32 to 64 px": (1, pytest.approx(0.5))}
    # Image 3 has no object, so that its mistake belongs to no number of objects.
    assert [(one.name, one.images, one.ap) for one in analysis.by_count] == [("1 object", 2, pytest.approx(1.0))]
    assert [(one.name, one.objects) for one in analysis.by_aspect] == [("2:3 to 3:2", 2)]


def test_slices__an_object_of_another_slice_only_where_no_other_is_free(make_ground_truth, make_predictions):
    ground_truth = make_ground_truth((1, 1, 0, 0, 34, 34), (1, 1, 0, 0, 30, 30))
    predictions = make_predictions(ground_truth, *[(1, 1, score, 0, 0, 34, 34) for score in (0.9, 0.8, 0.7)])
    # The larger one is overlapped best by all; among the small ones it is not asked for: the first detection takes the
    # other one, with IoU 900/1156 = .78, and the second takes it. The third is no mistake, it is itself too large.
    small, large = slice_by_size(ground_truth, predictions)
    assert (small.ap50, small.ap, small.recall) == pytest.approx((1, 0.6, 0.6))
    assert (large.ap50, large.ap, large.recall) == pytest.approx((1, 1, 1))
    # For a detection that is itself small, matching nothing is a mistake.
    predictions = make_predictions(ground_truth, (1, 1, 0.9, 50, 50, 20, 20), (1, 1, 0.8, 0, 0, 30, 30))
    assert slice_by_size(ground_truth, predictions)[0].ap50 == pytest.approx(0.5)


def test_slices__coco_sizes_add_up(make_ground_truth, make_predictions, report_of):
    rng = np.random.default_rng(1)
    boxes = [(1 + i % 4, 1 + i % 2, *rng.uniform(0, 200, 2), *rng.uniform(10, 150, 2)) for i in range(60)]
    ground_truth = make_ground_truth(*boxes, images=4, size=(400, 400))
    predictions = make_predictions(
        ground_truth, *[(p, c, rng.uniform(), *np.add(b, rng.normal(0, 3, 4))) for p, c, *b in boxes]
    )
    report = report_of(ground_truth, predictions)
    counts = sum(one.objects for one in report.analysis.by_size)
    assert counts == sum(one.objects for one in report.analysis.by_aspect) == report.objects == 60
