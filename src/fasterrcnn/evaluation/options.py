"""The options of `evaluate`, which are also those of ``fasterrcnn evaluate``. Needs no torch."""

from collections.abc import Sequence
from typing import Any, TypedDict

from fasterrcnn.errors import UsageError

MAX_DETS = 100  # detections of an image and class that count, by falling score, unless more are asked for

SAMPLES = 500  # resamples of the images for the intervals


class EvaluateOptions(TypedDict, total=False):
    """Options of each call of `evaluate`.

    Attributes:
        flip: Also evaluate with test-time augmentation by the mirror image.
        scales: Also evaluate with test-time augmentation at these multiples of the input size: 0.75 1.25 ...
        soft_nms: Also evaluate with Gaussian soft-NMS.
        max_dets: Largest number of detections of an image and class that count. Default: 100, as COCO.
        proposals: Also evaluate the region proposal network, on at most 500 images. Default: yes.
        bootstrap: Resamples of the images for the intervals, 0 for none. Default: 500.
        seed: Seed of the resamples. Default: 0.
        voc_pixels: In Pascal VOC's numbers, corners count as pixels: width = x2 - x1 + 1.
    """

    flip: bool
    scales: Sequence[float]
    soft_nms: bool
    max_dets: int
    proposals: bool
    bootstrap: int
    seed: int
    voc_pixels: bool


DEFAULTS: EvaluateOptions = {
    "flip": False,
    "scales": (),
    "soft_nms": False,
    "max_dets": MAX_DETS,
    "proposals": True,
    "bootstrap": SAMPLES,
    "seed": 0,
    "voc_pixels": False,
}


def complete_evaluate_options(options: EvaluateOptions) -> EvaluateOptions:
    """The options of a call, with `DEFAULTS` for those that are not given.

    Raises:
        UsageError: an option does not exist, or its value cannot work.
    """
    unknown = set(options) - set(DEFAULTS)
    if unknown:
        raise UsageError(f"no option is called {unknown.pop()!r}; there are {', '.join(DEFAULTS)}")
    wanted: EvaluateOptions = {**DEFAULTS, **options}
    wanted["scales"] = tuple(float(scale) for scale in wanted["scales"])
    if wanted["max_dets"] < 1:
        raise UsageError(f"max_dets must be at least 1, not {wanted['max_dets']}")
    if wanted["bootstrap"] < 0:
        raise UsageError(f"bootstrap must be 0 or more resamples, not {wanted['bootstrap']}")
    for scale in wanted["scales"]:
        if not 0.1 <= scale <= 10:
            raise UsageError(f"a scale must lie in 0.1..10, not {scale:g}")
    return wanted


def to_arguments(wanted: EvaluateOptions) -> list[str]:
    """The options as on the command line, without defaults."""
    words = []
    defaults: dict[str, Any] = {**DEFAULTS}
    given: dict[str, Any] = {name: value for name, value in wanted.items() if value != defaults[name]}
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *(f"{item:g}" for item in (value if isinstance(value, tuple) else (value,)))]
    return words
