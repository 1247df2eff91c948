"""How fast each runtime is here, what memory it takes, and how far its answers lie from those of `torch`.

Axes: h w pixels, n detections.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fasterrcnn.detections import Detections
from fasterrcnn.inference.contest import Competitor, run_contest
from fasterrcnn.inference.runtimes import RuntimeName

PIXELS, SCORE = 0.5, 1e-3
"""How far boxes and scores of float32 may lie apart and still count as equal."""


@dataclass(frozen=True)
class Row:
    """One runtime with one number of threads; a column without a number could not be measured.

    Attributes:
        runtime: its name, or a way to run torchvision's model.
        threads: of torch and of the runtime.
        median: seconds of an image in memory, from pixels to boxes.
        p95: seconds that 95 of 100 images do not exceed.
        processor: seconds that all threads together worked, median.
        ready: seconds from the start of a process to its first boxes.
        peak_mib: largest memory of its process.
        detections: found in the image.
        box_deviation: largest distance of a box from `torch`'s, in pixels, among those that both found.
        score_deviation: largest difference of their scores.
        unmatched: detections of one that the other does not have.
        ap: average precision, where data was given.
        failure: why there are no numbers.
    """

    runtime: str
    threads: int
    median: float | None = None
    p95: float | None = None
    processor: float | None = None
    ready: float | None = None
    peak_mib: float | None = None
    detections: int | None = None
    box_deviation: float | None = None
    score_deviation: float | None = None
    unmatched: int | None = None
    ap: float | None = None
    failure: str | None = None

    @property
    def images_per_second(self) -> float | None:
        """One image after the other."""
        return None if not self.median else 1 / self.median


@dataclass(frozen=True)
class Program:
    """What a process of the contest does; can be pickled.

    Attributes:
        weights: the checkpoint.
        options: of `load_model`.
        runtime: name of a runtime or of a rival.
        threads: of everything.
        image: to look at.
        data: an annotated data set and its split, to measure AP on once; None does not.
    """

    weights: str | Path
    options: dict[str, Any]
    runtime: str
    threads: int
    image: UInt8[np.ndarray, "h w 3"]
    data: tuple[Path, str] | None = None

    def __call__(self) -> Callable[[], tuple[Detections, float | None]]:
        """The work: one image. Its first answer has AP with it."""
        import torch  # noqa: PLC0415 - in the process, after its preparation

        from fasterrcnn.evaluation.evaluate import evaluate  # noqa: PLC0415
        from fasterrcnn.inference.loading import load  # noqa: PLC0415

        torch.set_num_threads(self.threads)
        if self.runtime.startswith("torchvision"):
            return self._rival()
        runtime: Any = self.runtime
        detector = load(self.weights, device="cpu", runtime=runtime, threads=self.threads, **self.options)
        left = [] if self.data is None else [self.data]

        def work() -> tuple[Detections, float | None]:
            ap = None
            if left:
                data, split = left.pop()
                ap = evaluate(detector, data, split=split).ap
            return detector.predict(self.image), ap

        return work

    def _rival(self) -> Callable[[], tuple[Detections, float | None]]:
        from fasterrcnn.build import load_model  # noqa: PLC0415
        from fasterrcnn.inference.rivals import make_rival, torchvision_model  # noqa: PLC0415

        name: Any = self.runtime
        model, config = load_model(self.weights, **self.options)
        detect = make_rival(name, torchvision_model(model, config), config.classes, self.threads)
        return lambda: (detect(self.image), None)


def benchmark(
    weights: str | Path,
    image: UInt8[np.ndarray, "h w 3"],
    runtimes: Sequence[RuntimeName | str],
    *,
    threads: Sequence[int],
    rounds: int = 10,
    options: dict[str, Any] | None = None,
    data: tuple[Path, str] | None = None,
    prepare: Callable[[], object] | None = None,
    log: Callable[[str], object] | None = None,
) -> list[Row]:
    """Measure runtimes alternately, each in a process of its own.

    Args:
        weights: the checkpoint.
        image: RGB.
        runtimes: names of runtimes and rivals.
        threads: numbers of threads; all runtimes of one number run in one contest.
        rounds: images that each looks at.
        options: of `load_model`.
        data: an annotated data set and a split, for AP.
        prepare: called first in each process.
        log: is told what happens.
    """
    rows = []
    for count in threads:
        programs = {name: Program(weights, options or {}, name, count, image, data) for name in ("torch", *runtimes)}
        competitors = run_contest({**programs}, rounds, prepare=prepare, log=log)
        rows += [_row(one, competitors[0], count) for one in competitors if one.name in runtimes]
    return rows


def fastest(rows: Sequence[Row]) -> Row | None:
    """The runtime to use: the fastest whose detections are those of `torch`."""
    equal = [row for row in rows if row.failure is None and not row.unmatched and not row.runtime.startswith("torchv")]
    return min(equal, key=lambda row: row.median or float("inf"), default=None)


def compare(found: Detections, expected: Detections) -> tuple[float, float, int]:
    """Largest deviation of boxes and of scores among pairs, and the number of detections without a partner.

    A partner has the same label, the nearest box, and no other partner; boxes further apart than a twentieth of
    their size are none.
    """
    boxes, scores, free = 0.0, 0.0, set(range(len(expected)))
    alone = 0
    for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
        near = [(float(np.abs(expected.boxes[i] - box).max()), i) for i in free if expected.labels[i] == label]
        distance, partner = min(near, default=(float("inf"), -1))
        if distance > max(PIXELS, 0.05 * float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))):
            alone += 1
            continue
        free.remove(partner)
        boxes = max(boxes, distance)
        scores = max(scores, abs(float(score - expected.scores[partner])))
    return boxes, scores, alone + len(free)


def _row(one: Competitor, reference: Competitor, threads: int) -> Row:
    if one.failure is not None:
        return Row(one.name, threads, failure=one.failure)
    found, ap = one.answer
    boxes, scores, unmatched = compare(found, reference.answer[0]) if reference.failure is None else (None, None, None)
    return Row(
        runtime=one.name,
        threads=threads,
        median=one.median,
        p95=one.p95,
        processor=one.processor_median,
        ready=one.ready_seconds,
        peak_mib=one.peak_bytes / 2**20,
        detections=len(found),
        box_deviation=boxes,
        score_deviation=scores,
        unmatched=unmatched,
        ap=ap,
    )
