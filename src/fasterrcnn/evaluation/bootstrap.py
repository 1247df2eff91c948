"""How far numbers can be trusted: intervals from drawing pictures with replacement (Efron 1979)."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A number and where it would lie with other pictures of the same kind.

    Attributes:
        value: as measured.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """Percentile intervals from drawing pictures with replacement (Efron 1979).

    Attributes:
        samples: how often all pictures were drawn.
        level: share of the samples inside the interval, for example .95.
        seed: of the draws.
        numbers: of "ap", "ap50", "ap75"; one that cannot be measured is left out.
        per_class: AP of each class.
    """

    samples: int
    level: float
    seed: int
    numbers: Mapping[str, Interval]
    per_class: Mapping[str, Interval]


@dataclass(frozen=True)
class Comparison:
    """Other detections on the same pictures: another model's, or this one's with other rules.

    Attributes:
        name: for people: "other.json", "flip", "scales 0.75 1.25", "soft-NMS".
        numbers: COCO's 12 numbers of the other, by name as in `Report`.
        numbers_per_class: AP and AP50 of each class of the other.
        better: this one's number less the other's, with the interval of the paired difference: the same pictures are
            drawn for both. Keys as in `Bootstrap.numbers`. For a variant of the same model: the variant's less
            the plain.
        per_class: the same of the AP of each class.
        samples: how often all pictures were drawn.
        level: share of the samples inside the intervals.
        is_variant: the same weights with other rules, so that differences are the variant's gain.
    """

    name: str
    numbers: Mapping[str, float | None]
    numbers_per_class: Mapping[str, Mapping[str, float | None]]
    better: Mapping[str, Interval]
    per_class: Mapping[str, Interval]
    samples: int
    level: float
    is_variant: bool
