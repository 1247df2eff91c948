"""Why numbers are as they are: mistakes in boxes, classes or ids, and notes about what was measured.

A mistake is guessed by reading the detections otherwise; a guess counts where far more objects are reached.

Axes: i images, g objects, n detections, m pairs of the two in one image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import hotcoco
import numpy as np
from jaxtyping import Float64, Int64

from fasterrcnn.detections import match_names
from fasterrcnn.evaluation.ground_truth import GroundTruth, Predictions, place_in_group
from fasterrcnn.evaluation.matching import find_pairs, match_detections, overlap, same_image

_MOST_IMAGES = 100
_Boxes = Float64[np.ndarray, "n 4"]


@dataclass(frozen=True)
class Guess:
    """A reading of the detections under which they fit the objects far better."""

    name: str  # of the mistake: one of `NAMES`
    text: str  # what was taken for what, and what to do
    reached: float  # share of the objects that are then reached at IoU .50


@dataclass(frozen=True)
class Trial:
    """Some images with their strongest detections, to try guesses on."""

    ground_truth: GroundTruth  # without crowds
    predictions: Predictions  # at most twice as many as there are objects
    detections: Int64[np.ndarray, " m"]  # of each pair
    objects: Int64[np.ndarray, " m"]  # of each pair

    def reached(self, xywh: _Boxes) -> float:
        """Share of the objects that any of these boxes overlaps by half."""
        return float((self._best(xywh) >= 0.5).mean())

    @property
    def reached_as_they_are(self) -> float:
        """Share of the objects that the boxes reach without any guess."""
        return self.reached(self.predictions.xywh)

    def closeness(self, xywh: _Boxes) -> float:
        """Mean overlap of the objects with the nearest of these boxes."""
        return float(self._best(xywh).mean())

    def _best(self, xywh: _Boxes) -> Float64[np.ndarray, " g"]:
        nearest = np.zeros(len(self.ground_truth))
        no_crowd = np.zeros(len(self.objects), np.bool_)
        overlaps = overlap(xywh[self.detections], self.ground_truth.xywh[self.objects], no_crowd)
        np.maximum.at(nearest, self.objects, overlaps)
        return nearest


def is_far_better(reached: float, baseline: float) -> bool:
    """Whether a guess explains what is seen: half as many objects again, and a fifth of all."""
    return reached >= baseline + 0.2 and reached >= 1.5 * baseline


def prepare_trial(ground_truth: GroundTruth, predictions: Predictions) -> Trial | None:
    """Some images to try guesses on; None where there is nothing to try."""
    holders = np.unique(ground_truth.owners[~ground_truth.crowd])
    if not len(holders) or not len(predictions):
        return None
    step = -(-len(holders) // _MOST_IMAGES)
    chosen = np.isin(np.arange(len(ground_truth.images)), holders[::step])
    kept = chosen[ground_truth.owners] & ~ground_truth.crowd
    columns = ("owners", "labels", "xywh", "areas", "crowd", "numbers")
    some = replace(ground_truth, **{name: getattr(ground_truth, name)[kept] for name in columns})
    wanted = some.objects_per_image * 2
    strongest = predictions.take(place_in_group(predictions.owners) < wanted[predictions.owners])
    pairs = list(same_image(strongest.owners, some.owners, len(ground_truth.images)))
    if not len(strongest) or not pairs:
        return None
    return Trial(some, strongest, *(np.concatenate(part) for part in zip(*pairs, strict=True)))


def guess_boxes(trial: Trial) -> Guess | None:
    """The best reading of the boxes that is far better than the boxes as they are."""
    readings = (*_layouts(trial), *_scales(trial))
    return _best([Guess(name, text, trial.reached(boxes)) for name, text, boxes in readings], trial)


def guess_classes(trial: Trial) -> Guess | None:
    """Classes exchanged for each other, or all ids off by one."""
    ground_truth, predictions = trial.ground_truth, trial.predictions
    matched = match_detections(find_pairs(ground_truth, predictions, 0.5), ground_truth.crowd, len(predictions), 0.5)
    hit = matched >= 0
    table = np.zeros((len(ground_truth.classes), len(ground_truth.classes)))
    np.add.at(table, (predictions.labels[hit], ground_truth.labels[matched[hit]]), 1)
    stated, meant = (side.astype(np.int64) for side in hotcoco.primitives.lsap(table, maximize=True))
    reached = float(table[stated, meant].sum()) / len(ground_truth)
    moved = (stated != meant) & (table[stated, meant] > 0)
    if not moved.any() or not is_far_better(reached, float(table.trace()) / len(ground_truth)):
        return None
    ids = np.array(ground_truth.category_ids)
    shifts = np.unique(ids[meant[moved]] - ids[stated[moved]])
    if len(shifts) == 1 and abs(shifts[0]) == 1 and moved.sum() > 1:
        change = "1 has to be added to" if shifts[0] == 1 else "1 has to be subtracted from"
        return Guess("ids-off-by-one", f"The category ids are off by one: {change} each.", reached)
    names = ground_truth.classes
    renamed = [f"{names[a]} means {names[b]}" for a, b in zip(stated[moved], meant[moved], strict=True)]
    listed = ", ".join(renamed[:6]) + (" ..." if len(renamed) > 6 else "")
    advice = "Compare the order of the class names that the detector was trained with."
    return Guess("classes-permuted", f"The classes are permuted: {listed}. {advice}", reached)


def guess_images(ground_truth: GroundTruth, predictions: Predictions, baseline: Trial) -> Guess | None:
    """Image ids off by one."""
    ids = ground_truth.images.ids
    guesses = []
    for shift, change in ((1, "added to"), (-1, "subtracted from")):
        places = np.searchsorted(ids, ids[predictions.owners] + shift).clip(max=len(ids) - 1)
        exists = ids[places] == ids[predictions.owners] + shift
        moved = replace(predictions, owners=places).take(exists)
        if trial := prepare_trial(ground_truth, moved):
            text = f"The image ids are off by one: 1 has to be {change} each."
            guesses.append(Guess("ids-off-by-one", text, trial.reached_as_they_are))
    return _best(guesses, baseline)


def _best(guesses: Sequence[Guess], baseline: Trial) -> Guess | None:
    """The guess that reaches most objects, if it is far better than the detections as they are."""
    best = max(guesses, key=lambda guess: guess.reached, default=None)
    return best if best and is_far_better(best.reached, baseline.reached_as_they_are) else None


def _layouts(trial: Trial) -> Iterator[tuple[str, str, _Boxes]]:
    """Other meanings of the four numbers."""
    a, b, c, d = trial.predictions.xywh.T
    readings = {
        "The boxes are xyxy (left, top, right, bottom) where xywh (left, top, width, height) is expected": (
            "boxes-xyxy-for-xywh",
            (a, b, c - a, d - b),
        ),
        "The boxes were xywh (left, top, width, height) and have been converted as if they were xyxy": (
            "boxes-xywh-for-xyxy",
            (a, b, a + c, b + d),
        ),
        "The boxes are given by their centres (x, y of the centre, width, height)": (
            "boxes-by-centre",
            (a - c / 2, b - d / 2, c, d),
        ),
        "x and y are exchanged": ("boxes-axes-swapped", (b, a, d, c)),
    }
    for text, (name, columns) in readings.items():
        yield name, f"{text}.", np.stack(columns, axis=1)


def _scales(trial: Trial) -> Iterator[tuple[str, str, _Boxes]]:
    """The boxes in pixels of resized images: one factor for all, or one short or long side, or one square."""
    sizes = trial.ground_truth.images.sizes_hw[trial.predictions.owners].astype(np.float64)
    height, width = sizes[:, 0], sizes[:, 1]
    if not (sizes > 0).all():
        height = width = np.ones(len(sizes))
    boxes = trial.predictions.xywh
    text = "The boxes are shares of the image's width and height, 0 to 1, where pixels are expected."
    yield "boxes-normalised", text, boxes * np.stack([width, height, width, height], axis=1)
    short, long = np.minimum(height, width), np.maximum(height, width)
    families = {
        "divided by {:.3g}": np.ones((len(boxes), 2)),
        "brought back from a short side of {:.0f} pixels": np.stack([short, short], axis=1),
        "brought back from a long side of {:.0f} pixels": np.stack([long, long], axis=1),
        "brought back from a square of {:.0f} pixels": np.stack([width, height], axis=1),
    }
    for words, unit in families.items():
        around = float(np.median(unit))
        factors = np.tile(unit, 2) / around
        best = max(np.geomspace(1 / 8, 8, 141), key=lambda s: trial.closeness(boxes * factors / s))
        best = max(best * np.linspace(0.97, 1.03, 25), key=lambda s: trial.closeness(boxes * factors / s))
        if abs(best - 1) > 0.02 or np.ptp(factors) > 0:
            text = f"The boxes are at network scale, in pixels of a resized image: they fit when {words}."
            yield "boxes-at-network-scale", text.format(best * around), boxes * factors / best


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
    "class-names-differ",
    "class-unknown-to-detector",
    "class-not-in-data",
    "no-ground-truth-of-size",
    "more-objects-than-detections",
)

_SIZES = {"small": "under 32 x 32", "medium": "from 32 x 32 to 96 x 96", "large": "over 96 x 96"}
_SHOWN_BY_DEFAULT = 0.5


@dataclass(frozen=True)
class Diagnosis:
    """Why numbers are as they are, where that has a name."""

    name: str  # one of `NAMES`
    text: str  # what was seen and what to do, in a few sentences
    is_mistake: bool  # something to fix; otherwise a note that explains a number


def diagnose(
    ground_truth: GroundTruth,
    predictions: Predictions,
    numbers: Mapping[str, float | None],
    *,
    max_dets: int,
    score_threshold: float | None = None,
) -> tuple[Diagnosis, ...]:
    """Everything that is known about why the numbers are as they are, mistakes first.

    The detector did not report anything below the score threshold, where that is known.
    """
    notes = [
        *_about_nothing(ground_truth, predictions, score_threshold),
        *_about_scores(predictions),
        *_about_classes(ground_truth, predictions),
        *_about_sizes(ground_truth, numbers),
        *_about_limit(ground_truth, max_dets),
    ]
    return (*_mistakes(ground_truth, predictions), *sorted(notes, key=lambda note: not note.is_mistake))


def _mistakes(ground_truth: GroundTruth, predictions: Predictions) -> Iterator[Diagnosis]:
    """The one reading of boxes, classes and images each that explains far more than the detections as they are."""
    trial = prepare_trial(ground_truth, predictions)
    if trial is None:
        return
    guesses = [guess_classes(trial)]
    if trial.reached_as_they_are < 0.6:
        of_place = [guess_images(ground_truth, predictions, trial), guess_boxes(trial)]
        guesses.append(max(filter(None, of_place), key=lambda guess: guess.reached, default=None))
    for guess in filter(None, guesses):
        text = f"{guess.text} {guess.reached:.0%} of the objects would then be found at IoU .50."
        yield Diagnosis(guess.name, text, True)


def _about_nothing(ground_truth: GroundTruth, predictions: Predictions, threshold: float | None) -> Iterator[Diagnosis]:
    if ground_truth.crowd.all():
        yield Diagnosis("no-objects", "These images hold no object, so nothing can be measured.", True)
    elif not len(predictions):
        name, under = "no-detections", ""
        if threshold is not None:
            name, under = "scores-under-threshold", f": all scores are under the detector's threshold of {threshold:g}"
        yield Diagnosis(name, f"There is not a single detection{under}. AP is therefore 0.", True)


def _about_scores(predictions: Predictions) -> Iterator[Diagnosis]:
    if not len(predictions):
        return
    highest = float(predictions.scores[0])
    if highest < _SHOWN_BY_DEFAULT:
        text = (
            f"All scores are under {_SHOWN_BY_DEFAULT}, the threshold of `fasterrcnn predict`, which would show"
            f" nothing; the highest is {highest:.3g}. AP depends on their order only."
        )
        yield Diagnosis("scores-under-threshold", text, False)
    if len(predictions) > 1 and highest == predictions.scores[-1]:
        text = f"All scores are {highest:g}: AP needs an order, and this one is arbitrary."
        yield Diagnosis("scores-all-equal", text, False)


def _about_classes(ground_truth: GroundTruth, predictions: Predictions) -> Iterator[Diagnosis]:
    objects = ground_truth.objects_per_class
    detections = np.bincount(predictions.labels, minlength=len(ground_truth.classes))
    absent = [name for name, count in zip(ground_truth.classes, objects, strict=True) if not count]
    if absent and objects.any():
        text = f"No object of {_listed(absent)} in these images: AP is n/a, and the mean is taken without."
        yield Diagnosis("class-without-objects", text, False)
    silent = [ground_truth.classes[k] for k in ((objects > 0) & (detections == 0)).nonzero()[0]]
    if silent and len(predictions):
        text = f"No detection of {_listed(silent)}: AP is 0 there, and lowers the mean."
        yield Diagnosis("class-never-detected", text, False)


def _about_sizes(ground_truth: GroundTruth, numbers: Mapping[str, float | None]) -> Iterator[Diagnosis]:
    for size, bounds in _SIZES.items():
        if numbers[f"ap_{size}"] is None and not ground_truth.crowd.all():
            text = f"No object is {size} ({bounds} pixels), so AP and AR of {size} objects are n/a."
            yield Diagnosis("no-ground-truth-of-size", text, False)


def _about_limit(ground_truth: GroundTruth, max_dets: int) -> Iterator[Diagnosis]:
    counts = ground_truth.objects_per_image
    beyond, largest = int((counts > max_dets).sum()), int(counts.max(initial=0))
    if beyond:
        text = (
            f"{beyond} {'image holds' if beyond == 1 else 'images hold'} more objects than the {max_dets}"
            f" detections that count (up to {largest}), which may cap recall and AP: measure with --max-dets"
            f" {-(-largest // 100) * 100}."
        )
        yield Diagnosis("more-objects-than-detections", text, False)


def diagnose_names(classes: Sequence[str], data_classes: Sequence[str]) -> tuple[Diagnosis, ...]:
    """Notes about classes of a detector and of a data set that were matched by another spelling, or have no partner."""
    matched = match_names(classes, data_classes)
    respelled = [f"{own} as {other}" for own, other in matched.items() if own != other]
    unknown = [name for name in data_classes if name not in matched.values()]
    surplus = [name for name in classes if name not in matched]
    notes = (
        ("class-names-differ", respelled, "Spelled otherwise in the data set, and taken for the same: {}."),
        ("class-unknown-to-detector", unknown, "The detector does not have {} of the data set, and cannot find them."),
        ("class-not-in-data", surplus, "The data set does not have {} of the detector: they are not counted."),
    )
    return tuple(Diagnosis(name, text.format(_listed(names)), False) for name, names, text in notes if names)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more classes" if len(names) > 5 else "")
