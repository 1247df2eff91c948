import time
from dataclasses import dataclass

import numpy as np

from fasterrcnn.detections import Detections
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.benchmark import Row, compare, fastest
from fasterrcnn.inference.contest import run_contest


@dataclass(frozen=True)
class Sleeper:
    seconds: float
    fails: bool = False

    def __call__(self):
        if self.fails:
            raise UsageError("cannot take part")

        def work():
            time.sleep(self.seconds)
            return self.seconds

        return work


def test_run_contest__everybody_in_turn():
    one, broken, two = run_contest({"one": Sleeper(0.01), "broken": Sleeper(0, fails=True), "two": Sleeper(0.05)}, 3)
    assert (one.answer, two.answer) == (0.01, 0.05)
    assert broken.failure == "cannot take part"
    assert len(one.seconds) == len(two.seconds) == 3
    assert one.median < two.median <= two.p95
    assert one.peak_bytes > 2**20


def detections(*rows):
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[4] for row in rows], np.float32)
    labels = np.array([row[5] for row in rows], np.int64)
    return Detections(boxes=boxes, scores=scores, labels=labels, classes=("a", "b"), image_hw=(100, 100))


def test_compare():
    one, two = (0, 0, 10, 10, 0.9, 0), (50, 50, 80, 90, 0.8, 1)
    assert compare(detections(one, two), detections(one, two)) == (0, 0, 0)
    assert compare(detections(), detections()) == (0, 0, 0)
    assert compare(detections(one), detections(one, two))[2] == 1
    assert compare(detections(one), detections((0, 0, 10, 10, 0.9, 1)))[2] == 2
    boxes, scores, alone = compare(detections((0, 0, 10, 10.25, 0.75, 0)), detections((0, 0, 10, 10, 0.5, 0)))
    assert (boxes, scores, alone) == (0.25, 0.25, 0)


def test_compare__one_partner_each():
    twice = (0, 0, 10, 10, 0.9, 0)
    assert compare(detections(twice, twice), detections(twice))[2] == 1


def test_fastest__only_what_finds_the_same():
    rows = [
        Row("torch", 1, median=3.0, unmatched=0),
        Row("openvino-int8", 1, median=1.0, unmatched=4),
        Row("torchvision", 1, median=0.5, unmatched=0),
        Row("winograd", 1, median=2.0, unmatched=0),
        Row("compiled", 1, failure="no compiler"),
    ]
    assert fastest(rows) is rows[3]
    assert fastest([]) is None


def test_row__images_per_second():
    assert Row("torch", 1, median=0.25).images_per_second == 4
    assert Row("torch", 1, failure="none").images_per_second is None
