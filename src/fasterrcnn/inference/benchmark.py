"""How fast each runtime is here in each precision, what memory it takes, and how far its detections lie from those of
`torch` in float32.

Every competitor runs in a process of its own, and they predict in turn, so that a busy machine slows all of them alike.
Torch is imported in these processes only, after their preparation.

Axes: h w pixels, n detections.
"""

import multiprocessing
import pickle
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import UInt8

from fasterrcnn.config import Precision
from fasterrcnn.detections import Detections
from fasterrcnn.errors import FasterRCNNError
from fasterrcnn.inference.runtimes import RuntimeName, has_precision, runtime_names

if TYPE_CHECKING:
    from fasterrcnn.inference.detector import Detector

BOX_TOLERANCE, SCORE_TOLERANCE = 0.5, 1e-3
"""How far boxes, in pixels, and scores of float32 may lie apart and still count as equal."""

LIKELY = 0.5
"""Score from which on detections in 16 bits or integers must have a partner in float32, and the other way round."""

_MEMORY_UNIT = 1024 if sys.platform == "linux" else 1
"""Bytes in which a system counts a process's largest memory."""


class Predictor(Protocol):
    """What is measured: `fasterrcnn.Detector`, or anything else that detects."""

    def predict(self, image: Any, /) -> Detections:
        """Detections of an image (height, width, 3) of bytes."""


MakePredictor = Callable[[int], Predictor]
"""Makes what is measured, for a number of threads, in the process that measures it; can be pickled."""


@dataclass(frozen=True)
class MakeDetector:
    """Loads a checkpoint with one runtime and precision."""

    weights: str | Path  # the checkpoint
    runtime: RuntimeName  # what runs the network
    options: Mapping[str, Any]  # further ones of `fasterrcnn.load`
    precision: Precision = "float32"  # what the network computes in
    device: str = "cpu"  # where

    @property
    def name(self) -> str:
        """Of the competitor."""
        return self.runtime if self.precision == "float32" else f"{self.runtime} {self.precision}"

    def __call__(self, threads: int) -> "Detector":
        """The detector."""
        from fasterrcnn.inference.detector import load  # noqa: PLC0415 - torch is imported in the process that measures

        how: dict[str, Any] = {"device": self.device, "runtime": self.runtime, "precision": self.precision}
        return load(self.weights, threads=threads, **how, **self.options)


@dataclass
class Competitor:
    """One process and what was measured of it."""

    name: str  # of the runtime, or of another way to predict
    detections: Detections | None = None  # of its first prediction
    ready_seconds: float = 0.0  # from the start of the process to that prediction, imports and compiling included
    ap: float | None = None  # average precision, where it was asked for
    seconds: list[float] = field(default_factory=list)  # of each round
    # of each round, of all threads together: what a busy machine disturbs least
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0  # largest memory of the process
    failure: str | None = None  # why it could not take part

    @property
    def p95(self) -> float:
        """Seconds that 95 of 100 rounds do not exceed."""
        return sorted(self.seconds)[min(len(self.seconds) - 1, round(0.95 * (len(self.seconds) - 1) + 0.49))]


@dataclass(frozen=True)
class BenchmarkRow:
    """One runtime and precision with one number of threads; a column without a number could not be measured."""

    runtime: str  # its name, or that of another competitor
    threads: int  # of torch and of the runtime
    precision: str = "float32"  # what the network computed in
    median: float | None = None  # seconds of an image in memory, from pixels to boxes
    p95: float | None = None  # seconds that 95 of 100 images do not exceed
    processor: float | None = None  # seconds that all threads together worked, median
    ready: float | None = None  # seconds from the start of a process to its first boxes
    peak_mib: float | None = None  # largest memory of its process
    detections: int | None = None  # how many there are in the image
    # largest distance of a box from `torch`'s in float32, in pixels, among those that both have
    box_deviation: float | None = None
    score_deviation: float | None = None  # largest difference of their scores
    unmatched: int | None = None  # detections of one that the other does not have
    unmatched_likely: int | None = None  # those of them with a score of at least `LIKELY`
    ap: float | None = None  # average precision, where data was given
    failure: str | None = None  # why there are no numbers

    @property
    def images_per_second(self) -> float | None:
        """Images in a second, one after the other."""
        return None if not self.median else 1 / self.median


def benchmark(
    weights: str | Path,
    image: UInt8[np.ndarray, "h w 3"],
    runtimes: Sequence[RuntimeName],
    *,
    threads: Sequence[int],
    rounds: int = 10,
    precisions: Sequence[Precision] = ("float32",),
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    others: Mapping[str, MakePredictor] | None = None,
    average_precision: Callable[[Any], float | None] | None = None,
    prepare: Callable[[], object] | None = None,
    log: Callable[[str], object] | None = None,
) -> list[BenchmarkRow]:
    """Measure runtimes in turn, each in a process of its own.

    Args:
        weights: the checkpoint.
        image: RGB.
        runtimes: their names.
        threads: numbers of threads; with each of them all runtimes are compared.
        rounds: images that each predicts.
        precisions: in which each runtime is measured, as far as it has them on the device.
        device: where: "cpu", or for the runtime torch "cuda" or "mps".
        options: further ones of `fasterrcnn.load`.
        others: further competitors by name, for example the model of another library.
        average_precision: called once with the `Detector` of each runtime, in its process; can be pickled.
        prepare: called first in each process, before torch is imported.
        log: called with a line about what is done now.
    """
    rows = []
    wanted = [
        MakeDetector(weights, name, options or {}, precision, device)
        for name in runtimes
        for precision in precisions
        if has_precision(name, precision, device)
    ]
    reference_maker = MakeDetector(weights, "torch", options or {}, device=device)
    detectors = {maker.name: maker for maker in (reference_maker, *wanted)}
    for count in threads:
        makers: dict[str, MakePredictor] = {**(others or {}), **detectors}
        competitors = run_in_turn(
            makers, image, threads=count, rounds=rounds, average_precision=average_precision, prepare=prepare, log=log
        )
        reference = next(competitor for competitor in competitors if competitor.name == "torch")
        shown = {*(others or {}), *(maker.name for maker in wanted)}
        rows += [
            _row(competitor, detectors.get(competitor.name), reference, count)
            for competitor in competitors
            if competitor.name in shown
        ]
    return rows


def run_in_turn(
    makers: Mapping[str, MakePredictor],
    image: UInt8[np.ndarray, "h w 3"],
    *,
    threads: int,
    rounds: int,
    average_precision: Callable[[Any], float | None] | None = None,
    prepare: Callable[[], object] | None = None,
    log: Callable[[str], object] | None = None,
) -> list[Competitor]:
    """Competitors predict in turn, round after round; each gets ready alone before the first round.

    Args:
        makers: what is measured, by name.
        image: RGB.
        threads: number of threads of each.
        rounds: images that each predicts.
        average_precision: see `benchmark`; only a `MakeDetector` has one.
        prepare: see `benchmark`.
        log: see `benchmark`.
    """
    log = log or (lambda _: None)
    context = multiprocessing.get_context("spawn")
    competitors: list[Competitor] = []
    running: list[tuple[Competitor, Connection, SpawnProcess]] = []
    for name, maker in makers.items():
        log(f"{name}: getting ready")
        competitors.append(competitor := Competitor(name))
        here, there = context.Pipe()
        measure = average_precision if isinstance(maker, MakeDetector) else None
        work = pickle.dumps((maker, measure))  # read in the process after its preparation
        process = context.Process(target=_serve, args=(there, work, image, threads, prepare), daemon=True)
        started = time.perf_counter()
        process.start()
        there.close()
        try:
            competitor.failure, competitor.detections = here.recv()
            competitor.ready_seconds = time.perf_counter() - started
            if competitor.failure is None:
                competitor.failure, competitor.ap = here.recv()
        except EOFError:
            competitor.failure = "its process died, perhaps for lack of memory"
        if competitor.failure is None:
            running.append((competitor, here, process))
        else:
            process.join()
    try:
        for number in range(rounds):
            log(f"round {number + 1} of {rounds}")
            for competitor, here, _ in running:
                here.send("predict")
                seconds, cpu_seconds = here.recv()
                competitor.seconds.append(seconds)
                competitor.cpu_seconds.append(cpu_seconds)
    finally:
        for competitor, here, process in running:
            here.send("end")
            competitor.peak_bytes = here.recv()
            process.join()
    return competitors


def fastest_row(rows: Sequence[BenchmarkRow], ap_loss: float = 0.003) -> BenchmarkRow | None:
    """The fastest row that is as exact as one may ask for; other competitors do not count.

    With AP, it is at most `ap_loss` below that of `torch` in float32. Without it, and without that row, float32 has the
    same detections, and other numbers have all those that are likely.
    """
    ours = [row for row in rows if row.failure is None and row.runtime in runtime_names()]
    exact_ap = next((row.ap for row in ours if (row.runtime, row.precision) == ("torch", "float32")), None)

    def is_exact(row: BenchmarkRow) -> bool:
        if row.ap is not None and exact_ap is not None:
            return row.ap >= exact_ap - ap_loss
        if row.precision == "float32" and row.runtime != "openvino-int8":
            return row.unmatched == 0
        return row.unmatched_likely == 0

    return min(filter(is_exact, ours), key=lambda row: row.median or float("inf"), default=None)


@dataclass(frozen=True)
class Deviation:
    """How far detections are from the expected ones."""

    boxes: float  # largest distance in pixels, among pairs
    scores: float  # largest difference of their scores
    alone: tuple[float, ...]  # scores of the detections of either side that have no partner


def compare_detections(detections: Detections, expected: Detections) -> Deviation:
    """Detections beside those that were expected.

    A partner has the same label, the nearest box, and no other partner; boxes further apart than a twentieth of
    their size are none.
    """
    box_deviation, score_deviation, alone = 0.0, 0.0, []
    free = set(range(len(expected)))
    for box, score, label in zip(detections.boxes, detections.scores, detections.labels, strict=True):
        near = [(float(np.abs(expected.boxes[i] - box).max()), i) for i in free if expected.labels[i] == label]
        distance, partner = min(near, default=(float("inf"), -1))
        if distance > max(BOX_TOLERANCE, 0.05 * float(np.sqrt((box[2] - box[0]) * (box[3] - box[1])))):
            alone.append(float(score))
            continue
        free.remove(partner)
        box_deviation = max(box_deviation, distance)
        score_deviation = max(score_deviation, abs(float(score - expected.scores[partner])))
    return Deviation(box_deviation, score_deviation, (*alone, *(float(expected.scores[i]) for i in free)))


def _row(competitor: Competitor, maker: MakeDetector | None, reference: Competitor, threads: int) -> BenchmarkRow:
    runtime, precision = (competitor.name, "float32") if maker is None else (maker.runtime, maker.precision)
    if competitor.detections is None or competitor.failure is not None:
        return BenchmarkRow(runtime, threads, precision, failure=competitor.failure)
    row = BenchmarkRow(
        runtime=runtime,
        threads=threads,
        precision=precision,
        median=statistics.median(competitor.seconds),
        p95=competitor.p95,
        processor=statistics.median(competitor.cpu_seconds),
        ready=competitor.ready_seconds,
        peak_mib=competitor.peak_bytes / 2**20,
        detections=len(competitor.detections),
        ap=competitor.ap,
    )
    if reference.detections is None:
        return row
    deviation = compare_detections(competitor.detections, reference.detections)
    return replace(
        row,
        box_deviation=deviation.boxes,
        score_deviation=deviation.scores,
        unmatched=len(deviation.alone),
        unmatched_likely=sum(score >= LIKELY for score in deviation.alone),
    )


def _serve(
    there: Connection,
    work: bytes,
    image: UInt8[np.ndarray, "h w 3"],
    threads: int,
    prepare: Callable[[], object] | None,
) -> None:
    """What a process does: it gets ready, sends its first detections and AP, then predicts at each request."""
    if prepare is not None:
        prepare()
    try:
        make, average_precision = pickle.loads(work)
        predictor = make(threads)
        there.send((None, predictor.predict(image)))
        there.send((None, None if average_precision is None else average_precision(predictor)))
    except (FasterRCNNError, RuntimeError) as error:
        there.send((str(error).partition("\n")[0] or type(error).__name__, None))
        return
    while there.recv() == "predict":
        started, cpu_started = time.perf_counter(), time.process_time()
        predictor.predict(image)
        there.send((time.perf_counter() - started, time.process_time() - cpu_started))
    there.send(_peak_bytes())


def _peak_bytes() -> int:
    """Largest memory of this process; Linux's getrusage counts that of the process that started it, too."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MEMORY_UNIT
