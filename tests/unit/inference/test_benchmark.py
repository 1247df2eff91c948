import time
from dataclasses import dataclass

import numpy as np
import pytest

from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.benchmark import (
    BenchmarkRow,
    Competitor,
    Deviation,
    MakeDetector,
    compare_detections,
    fastest_row,
    run_in_turn,
)

IMAGE = np.zeros((2, 3, 3), np.uint8)


@dataclass(frozen=True)
class Sleeper:
    """Makes itself, in the process that measures it."""

    seconds: float
    fails: bool = False
    threads: int = 0

    def __call__(self, threads):
        if self.fails:
            raise UsageError("cannot take part")
        return Sleeper(self.seconds, threads=threads)

    def predict(self, image):
        time.sleep(self.seconds)
        return detections((0, 0, image.shape[1], image.shape[0], self.threads / 10, 0))


def test_run_in_turn():
    makers = {"one": Sleeper(0.01), "broken": Sleeper(0, fails=True), "two": Sleeper(0.05)}
    log = []
    one, broken, two = run_in_turn(makers, IMAGE, threads=3, rounds=3, log=log.append)
    for competitor, seconds in ((one, 0.01), (two, 0.05)):
        assert competitor.detections.boxes.tolist() == [[0, 0, 3, 2]]
        assert competitor.detections.scores == pytest.approx([0.3])
        assert len(competitor.seconds) == len(competitor.cpu_seconds) == 3
        assert min(competitor.seconds) >= seconds
        assert competitor.ready_seconds >= seconds
        assert sorted(competitor.seconds)[1] <= competitor.p95 <= max(competitor.seconds)
        assert competitor.peak_bytes > 2**20
        assert competitor.failure is None
    assert broken.failure == "cannot take part"
    assert log[:3] == ["one: getting ready", "broken: getting ready", "two: getting ready"]
    assert log[3:] == ["round 1 of 3", "round 2 of 3", "round 3 of 3"]


def test_competitor__p95():
    assert Competitor("a", seconds=[0.5]).p95 == 0.5
    assert Competitor("a", seconds=[float(n) for n in range(100, 0, -1)]).p95 == 96
    assert Competitor("a", seconds=[3.0, 1.0, 2.0]).p95 == 3


def detections(*rows):
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[4] for row in rows], np.float32)
    labels = np.array([row[5] for row in rows], np.int64)
    return Detections(boxes=boxes, scores=scores, labels=labels, classes=("a", "b"), image_hw=(100, 100))


def test_compare_detections():
    one, two = (0, 0, 10, 10, 0.75, 0), (50, 50, 80, 90, 0.5, 1)
    assert compare_detections(detections(one, two), detections(one, two)) == Deviation(0.0, 0.0, ())
    assert compare_detections(detections(), detections()) == Deviation(0.0, 0.0, ())
    assert compare_detections(detections(one), detections(one, two)).alone == (0.5,)
    assert compare_detections(detections(one), detections((0, 0, 10, 10, 0.25, 1))).alone == (0.75, 0.25)
    moved = compare_detections(detections((0, 0, 10, 10.25, 0.75, 0)), detections((0, 0, 10, 10, 0.5, 0)))
    assert moved == Deviation(0.25, 0.25, ())


def test_compare_detections__each_partner_counts_once():
    twice = (0, 0, 10, 10, 0.75, 0)
    assert compare_detections(detections(twice, twice), detections(twice)).alone == (0.75,)


def row(runtime="torch", median=1.0, *, unmatched=0, likely=0, **fields):
    return BenchmarkRow(runtime, 1, median=median, unmatched=unmatched, unmatched_likely=likely, **fields)


def test_fastest_row__float32_has_equal_detections():
    rows = [
        row("torch", 3.0),
        row("openvino", 1.0, unmatched=4),
        row("torchvision", 0.5),
        row("winograd", 2.0),
        BenchmarkRow("compiled", 1, failure="no compiler"),
    ]
    assert fastest_row(rows) is rows[3]
    assert fastest_row([]) is None


@pytest.mark.parametrize("half", [{"precision": "bf16"}, {"runtime": "openvino-int8"}])
def test_fastest_row__without_data_likely_detections_decide(half):
    exact = row(median=2.0)
    near, far = row(unmatched=4, **half), row(unmatched=4, likely=1, **half)
    assert fastest_row([exact, near]) is near
    assert fastest_row([exact, far]) is exact


def test_fastest_row__with_data_ap_decides():
    exact = row(median=2.0, ap=0.75)
    half = row(precision="bf16", ap=0.5, likely=9, unmatched=9)
    assert fastest_row([exact, half]) is exact
    assert fastest_row([exact, half], ap_loss=0.25) is half
    assert fastest_row([half]) is None  # nothing to compare its AP with, and other detections


@pytest.mark.parametrize(("precision", "name"), [("float32", "torch"), ("bf16", "torch bf16")])
def test_make_detector__named_for_the_table(precision, name):
    assert MakeDetector("weights", "torch", {}, precision).name == name


def test_benchmark_row__images_per_second():
    assert BenchmarkRow("torch", 1, median=0.25).images_per_second == 4
    assert BenchmarkRow("torch", 1, failure="none").images_per_second is None
