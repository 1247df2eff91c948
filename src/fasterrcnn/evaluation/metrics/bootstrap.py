"""How far numbers can be trusted: intervals from drawing images with replacement (Efron 1979)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.metrics.average_precision import Ranking, mean_over_classes


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
    numbers: Mapping[str, float | None]  # COCO's 12 numbers of the other, by name as in `Report`
    numbers_per_class: Mapping[str, Mapping[str, float | None]]  # AP and AP50 of each class of the other
    # This one's number less the other's, with the interval of the paired difference: the same images are drawn for
    # both. Keys as in `Bootstrap.numbers`. For a variant of the same model: the variant's less the plain.
    better: Mapping[str, Interval]
    per_class: Mapping[str, Interval]  # the same of the AP of each class
    samples: int  # how often all images were drawn
    level: float  # share of the samples inside the intervals
    is_variant: bool  # the same weights with other rules, so that differences are the variant's gain


LEVEL, SEED = 0.95, 0

_Numbers = tuple[Mapping[str, float | None], Mapping[str, Mapping[str, float | None]]]
"""COCO's 12 numbers, and AP and AP50 of each class."""

_NUMBERS = ("ap", "ap50", "ap75")
Samples = Float64[np.ndarray, "samples numbers_and_classes"]


def draw(ranking: Ranking, images: int, samples: int, seed: int) -> Samples:
    """AP, AP50, AP75 and AP of each class for resamples of the images with replacement; the first row is as measured.

    Equal seeds draw the same images, so that two rankings of the same images can be compared row by row.

    Raises:
        UsageError: the number of samples is below 0.
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


def estimate(drawn: Samples, classes: Sequence[str], *, seed: int = 0, level: float = LEVEL) -> Bootstrap:
    """Intervals of the numbers of one detector."""
    numbers, per_class = _intervals(drawn, classes, level)
    return Bootstrap(len(drawn) - 1, level, seed, numbers, per_class)


def compare_paired(
    name: str, ours: Samples, theirs: Samples, other: _Numbers, *, is_variant: bool = False, level: float = LEVEL
) -> Comparison:
    """The paired difference of two detectors on the same resamples: ours less theirs, or the variant's less the plain.

    Args:
        theirs: of the other one, with the same seed.
        is_variant: the other is this detector with other rules.
    """
    classes = tuple(other[1])
    numbers, per_class = _intervals(theirs - ours if is_variant else ours - theirs, classes, level)
    return Comparison(name, *other, numbers, per_class, len(ours) - 1, level, is_variant)


def _numbers(ap: Float64[np.ndarray, "t k"]) -> list[float]:
    means = (mean_over_classes(part) for part in (ap, ap[0], ap[5]))
    return [*(np.nan if value is None else value for value in means), *ap.mean(axis=0).tolist()]


def _intervals(drawn: Samples, classes: Sequence[str], level: float) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Intervals of the columns that can be measured; resamples without any object of a class are left out."""
    predictions: dict[int, Interval] = {}
    for column in (~np.isnan(drawn[0])).nonzero()[0].tolist():
        value, others = drawn[0, column], drawn[1:, column]
        low, high = _interval(others[~np.isnan(others)], value, level)
        predictions[column] = Interval(float(value), low, high)
    numbers = {name: predictions[i] for i, name in enumerate(_NUMBERS) if i in predictions}
    return numbers, {name: predictions[i] for i, name in enumerate(classes, start=len(_NUMBERS)) if i in predictions}


def _interval(drawn: Float64[np.ndarray, " s"], value: float, level: float) -> tuple[float, float]:
    """Bias-corrected percentiles (Efron 1981); NaN without resamples.

    Resamples miss rare classes, and with them what was bad about the mean: they are higher than the number itself. The
    percentiles are moved by as much as the number lies off the middle of the resamples.
    """
    if not len(drawn):
        return math.nan, math.nan
    normal, count = NormalDist(), len(drawn)
    below = float((drawn < value).sum() + (drawn == value).sum() / 2)
    bias = normal.inv_cdf(min(max(below, 0.5), count - 0.5) / count) if count > 1 else 0.0
    reach = normal.inv_cdf((1 + level) / 2)
    low, high = np.quantile(drawn, [normal.cdf(2 * bias - reach), normal.cdf(2 * bias + reach)])
    return float(low), float(high)
