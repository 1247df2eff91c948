"""Why numbers are as they are, where that has a name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fasterrcnn.evaluation.hypotheses import Guess, guess_boxes, guess_classes, guess_pictures, prepare
from fasterrcnn.evaluation.truth import Predictions, Truth

NAMES = (
    "ids-off-by-one",
    "classes-permuted",
    "boxes-xyxy-for-xywh",
    "boxes-xywh-for-xyxy",
    "boxes-by-centre",
    "boxes-axes-swapped",
    "boxes-normalised",
    "boxes-at-network-scale",
    "no-objects",
    "no-detections",
    "scores-under-threshold",
    "scores-all-equal",
    "class-without-objects",
    "class-never-detected",
    "no-truth-of-size",
    "more-objects-than-detections",
)

_SIZES = {"small": "under 32 x 32", "medium": "from 32 x 32 to 96 x 96", "large": "over 96 x 96"}
_SHOWN_BY_DEFAULT = 0.5


@dataclass(frozen=True)
class Diagnosis:
    """Why numbers are as they are, where that has a name.

    Attributes:
        name: one of `NAMES`.
        text: what was seen and what to do, in a few sentences.
        is_mistake: something to mend; otherwise a note that explains a number.
    """

    name: str
    text: str
    is_mistake: bool


def diagnose(
    truth: Truth,
    found: Predictions,
    numbers: Mapping[str, float | None],
    *,
    max_dets: int,
    score_threshold: float | None = None,
) -> tuple[Diagnosis, ...]:
    """Everything that is known about why the numbers are as they are, mistakes first.

    Args:
        truth: the objects.
        found: the detections that count.
        numbers: COCO's 12 by name.
        max_dets: most detections of a picture and class that count.
        score_threshold: the detector did not report anything below it, where that is known.
    """
    mistakes = [Diagnosis(guess.name, text, True) for guess, text in _guesses(truth, found)]
    notes = [
        *_about_nothing(truth, found, score_threshold),
        *_about_scores(found),
        *_about_classes(truth, found),
        *_about_sizes(truth, numbers),
        *_about_limit(truth, max_dets),
    ]
    return (*mistakes, *sorted(notes, key=lambda note: not note.is_mistake))


def _guesses(truth: Truth, found: Predictions) -> Iterator[tuple[Guess, str]]:
    """The one reading of boxes, classes and pictures each that explains far more than the usual one."""
    trial = prepare(truth, found)
    if trial is None:
        return
    usual = trial.reached(trial.found.xywh)
    guesses = [guess_classes(trial)]
    if usual < 0.6:
        of_place = [guess for guess in (guess_pictures(truth, found), guess_boxes(trial)) if guess is not None]
        guesses.append(max(of_place, key=lambda guess: guess.reached, default=None))
    for guess in guesses:
        if guess is not None:
            yield guess, f"{guess.text} {guess.reached:.0%} of the objects would then be found at IoU .50."


def _about_nothing(truth: Truth, found: Predictions, threshold: float | None) -> Iterator[Diagnosis]:
    if truth.crowd.all():
        yield Diagnosis("no-objects", "These pictures hold no object, so nothing can be measured.", True)
    elif not len(found):
        under = "" if threshold is None else f": all scores are under the detector's threshold of {threshold:g}"
        yield Diagnosis(
            "no-detections" if threshold is None else "scores-under-threshold",
            f"There is not a single detection{under}. AP is therefore 0.",
            True,
        )


def _about_scores(found: Predictions) -> Iterator[Diagnosis]:
    if not len(found):
        return
    highest = float(found.scores[0])
    if highest < _SHOWN_BY_DEFAULT:
        yield Diagnosis(
            "scores-under-threshold",
            f"All scores are under {_SHOWN_BY_DEFAULT}, the threshold of `fasterrcnn predict`, which would show"
            f" nothing; the highest is {highest:.3g}. AP only looks at their order.",
            False,
        )
    if len(found) > 1 and highest == found.scores[-1]:
        text = f"All scores are {highest:g}: AP needs an order, and this one is arbitrary."
        yield Diagnosis("scores-all-equal", text, False)


def _about_classes(truth: Truth, found: Predictions) -> Iterator[Diagnosis]:
    objects = np.bincount(truth.labels[~truth.crowd], minlength=len(truth.classes))
    detections = np.bincount(found.labels, minlength=len(truth.classes))
    absent = [name for name, count in zip(truth.classes, objects, strict=True) if not count]
    if absent and objects.any():
        text = f"No object of {_listed(absent)} in these pictures: AP is n/a, and the mean is taken without."
        yield Diagnosis("class-without-objects", text, False)
    silent = [truth.classes[k] for k in ((objects > 0) & (detections == 0)).nonzero()[0]]
    if silent and len(found):
        text = f"No detection of {_listed(silent)}: AP is 0 there, and lowers the mean."
        yield Diagnosis("class-never-detected", text, False)


def _about_sizes(truth: Truth, numbers: Mapping[str, float | None]) -> Iterator[Diagnosis]:
    for size, bounds in _SIZES.items():
        if numbers[f"ap_{size}"] is None and not truth.crowd.all():
            text = f"No object is {size} ({bounds} pixels), so AP and AR of {size} objects are n/a."
            yield Diagnosis("no-truth-of-size", text, False)


def _about_limit(truth: Truth, max_dets: int) -> Iterator[Diagnosis]:
    counts = np.bincount(truth.owners[~truth.crowd], minlength=len(truth.pictures))
    beyond, most = int((counts > max_dets).sum()), int(counts.max(initial=0))
    if beyond:
        yield Diagnosis(
            "more-objects-than-detections",
            f"{beyond} {'picture holds' if beyond == 1 else 'pictures hold'} more objects than the {max_dets}"
            f" detections that count (up to {most}), which may cap recall and AP: measure with --max-dets"
            f" {_round(most)}.",
            False,
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more classes" if len(names) > 5 else "")


def _round(number: int) -> int:
    """The next multiple of a hundred."""
    return -(-number // 100) * 100
