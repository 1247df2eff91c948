"""How far numbers can be trusted: intervals from drawing images with replacement (Efron 1979)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.metrics.average_precision import Numbers, Ranking, mean_defined


@dataclass(frozen=True)
class Interval:
    """A number and where it would lie with other images of the same kind."""

    value: float  # as measured
    low: float  # lower end of the interval
    high: float  # upper end


@dataclass(frozen=True)
class Bootstrap:
    """Intervals from drawing images with replacement (Efron 1979)."""

    samples: int  # how often all images were drawn
    level: float  # share of the samples inside the interval, for example .95
    seed: int  # of the draws
    numbers: Mapping[str, Interval]  # of "ap", "ap50", "ap75"; one that cannot be measured is left out
    per_class: Mapping[str, Interval]  # AP of each class


@dataclass(frozen=True)
class Comparison:
    """Other detections on the same images: another model's, or this one's with other rules."""

    name: str  # for people: "other.json", "flip", "scales 0.75 1.25", "soft-NMS"
    numbers: Numbers  # COCO's 12 numbers of the other, by name as in `Report`
    numbers_per_class: Mapping[str, Numbers]  # AP and AP50 of each class of the other
    # This one's number less the other's, with the interval of the paired difference: the same images are drawn for
    # both. Keys as in `Bootstrap.numbers`. For a variant of the same model: the variant's less the plain.
    better: Mapping[str, Interval]
    per_class: Mapping[str, Interval]  # the same of the AP of each class
    samples: int  # how often all images were drawn
    level: float  # share of the samples inside the intervals
    is_variant: bool  # the same weights with other rules, so that differences are the variant's gain


LEVEL = 0.95
_NUMBERS = ("ap", "ap50", "ap75")
Samples = Float64[np.ndarray, "samples numbers_and_classes"]


def draw(ranking: Ranking, images: int, samples: int, seed: int) -> Samples:
    """AP, AP50, AP75 and AP of each class for resamples of the images with replacement; the first row is as measured.

    Equal seeds draw the same images, so that two rankings of the same images can be compared row by row.
    """
    if samples < 0:
        raise UsageError(f"bootstrap cannot draw {samples} samples")
    generator = np.random.default_rng(seed)
    rows = [_numbers(ranking.average_precision())]
    for _ in range(samples):
        drawn = generator.integers(images, size=images)
        weights = np.bincount(drawn, minlength=images).astype(np.float64)
        rows.append(_numbers(ranking.average_precision(weights)))
    return np.array(rows)


def estimate(drawn: Samples, classes: Sequence[str], *, seed: int = 0) -> Bootstrap:
    """Intervals of the numbers of one detector."""
    return Bootstrap(len(drawn) - 1, LEVEL, seed, *_intervals(drawn, classes))


def compare_paired(
    name: str, ours: Samples, theirs: Samples, other: tuple[Numbers, Mapping[str, Numbers]], *, is_variant: bool = False
) -> Comparison:
    """The paired difference of two detectors on the same resamples: ours less theirs, or the variant's less the plain.

    Both are drawn with the same seed; ``other`` are the `coco_numbers` of the other detector.
    """
    better = _intervals(theirs - ours if is_variant else ours - theirs, tuple(other[1]))
    return Comparison(name, *other, *better, len(ours) - 1, LEVEL, is_variant)


def _numbers(ap: Float64[np.ndarray, "t k"]) -> list[float]:
    means = (mean_defined(part) for part in (ap, ap[0], ap[5]))
    return [*(np.nan if value is None else value for value in means), *ap.mean(axis=0).tolist()]


def _intervals(drawn: Samples, classes: Sequence[str]) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Intervals of the columns that can be measured; resamples without any object of a class are left out."""

    def of_columns(names: Sequence[str], columns: Samples) -> dict[str, Interval]:
        measured = ((name, column) for name, column in zip(names, columns.T, strict=True) if not np.isnan(column[0]))
        return {name: _interval(float(column[0]), column[1:][~np.isnan(column[1:])]) for name, column in measured}

    return of_columns(_NUMBERS, drawn[:, : len(_NUMBERS)]), of_columns(classes, drawn[:, len(_NUMBERS) :])


def _interval(value: float, drawn: Float64[np.ndarray, " s"]) -> Interval:
    """Bias-corrected percentiles (Efron 1981); NaN without resamples.

    Resamples miss rare classes, and with them what was bad about the mean: they are higher than the number itself. The
    percentiles are moved by as much as the number lies off the middle of the resamples.
    """
    if not len(drawn):
        return Interval(value, math.nan, math.nan)
    normal, count = NormalDist(), len(drawn)
    below = float((drawn < value).sum() + (drawn == value).sum() / 2)
    bias = normal.inv_cdf(min(max(below, 0.5), count - 0.5) / count) if count > 1 else 0.0
    reach = normal.inv_cdf((1 + LEVEL) / 2)
    low, high = np.quantile(drawn, [normal.cdf(2 * bias - reach), normal.cdf(2 * bias + reach)])
    return Interval(value, float(low), float(high))
