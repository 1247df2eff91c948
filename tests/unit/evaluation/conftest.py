"""Small data sets with known answers."""

from collections.abc import Callable, Sequence

import pytest

from fasterrcnn.evaluation.analysis import MeasurementOrigin, analyse
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions, read_ground_truth, read_results
from fasterrcnn.evaluation.report import Report, make_report

Row = Sequence[float]


@pytest.fixture(scope="session")
def make_ground_truth() -> Callable[..., GroundTruth]:
    """Ground truth from (image, class, left, top, width, height) and 1 for a crowd; images and classes from 1."""

    def make(*objects: Row, images: int = 2, classes: Sequence[str] = ("cat", "dog"), size=(100, 100)) -> GroundTruth:
        rows = [
            {"id": i, "image_id": o[0], "category_id": o[1], "bbox": list(o[2:6]), "iscrowd": int(len(o) > 6)}
            for i, o in enumerate(objects, start=1)
        ]
        image_rows = [
            {"id": i, "file_name": f"{i}.jpg", "height": size[0], "width": size[1]} for i in range(1, images + 1)
        ]
        categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
        return read_ground_truth({"images": image_rows, "annotations": rows, "categories": categories})

    return make


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., Predictions]:
    """Detections from (image, class, score, left, top, width, height)."""

    def make(ground_truth: GroundTruth, *detections: Row, max_dets: int = 100) -> Predictions:
        rows = [{"image_id": d[0], "category_id": d[1], "score": d[2], "bbox": list(d[3:])} for d in detections]
        return read_results(ground_truth, rows, max_dets)

    return make


@pytest.fixture(scope="session")
def report_of() -> Callable[..., Report]:
    """The whole report of detections; without resamples unless asked for."""

    def make(
        ground_truth: GroundTruth, predictions: Predictions, *, max_dets: int = 100, samples: int = 0, **rest
    ) -> Report:
        origin = MeasurementOrigin("fasterrcnn evaluate", "data", "test", "results.json", max_dets)
        analysis = analyse(ground_truth, predictions, origin, samples=samples, **rest)
        return make_report(ground_truth, analysis.numbers, analysis.per_class, analysis)

    return make
