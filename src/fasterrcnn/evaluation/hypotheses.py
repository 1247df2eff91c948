"""What if boxes, classes or ids meant something else? A guess counts where far more objects are reached.

Axes: i pictures, g objects, n detections, m pairs of the two in one picture.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import hotcoco
import numpy as np
from jaxtyping import Float64, Int64

from fasterrcnn.evaluation.matching import find_pairs, match, overlap, same_picture
from fasterrcnn.evaluation.truth import Predictions, Truth

_MOST_PICTURES = 100
_Boxes = Float64[np.ndarray, "n 4"]


@dataclass(frozen=True)
class Guess:
    """A reading of the detections under which they fit the objects far better.

    Attributes:
        name: of the mistake, as in `fasterrcnn.evaluation.diagnoses`.
        text: what was taken for what, and what to do.
        reached: share of the objects that are then reached at IoU .50.
    """

    name: str
    text: str
    reached: float


@dataclass(frozen=True)
class Trial:
    """Some pictures with their strongest detections, to try guesses on.

    Attributes:
        truth: without crowds.
        found: at most twice as many as there are objects.
        detections: of each pair.
        objects: of each pair.
    """

    truth: Truth
    found: Predictions
    detections: Int64[np.ndarray, " m"]
    objects: Int64[np.ndarray, " m"]

    def reached(self, xywh: _Boxes) -> float:
        """Share of the objects that any of these boxes overlaps by half."""
        return float((self._best(xywh) >= 0.5).mean())

    def closeness(self, xywh: _Boxes) -> float:
        """Mean overlap of the objects with the nearest of these boxes."""
        return float(self._best(xywh).mean())

    def _best(self, xywh: _Boxes) -> Float64[np.ndarray, " g"]:
        nearest = np.zeros(len(self.truth))
        nobody = np.zeros(len(self.objects), np.bool_)
        overlaps = overlap(xywh[self.detections], self.truth.xywh[self.objects], nobody)
        np.maximum.at(nearest, self.objects, overlaps)
        return nearest


def is_far_better(reached: float, usual: float) -> bool:
    """Whether a guess explains what is seen: half as many objects again, and a fifth of all."""
    return reached >= usual + 0.2 and reached >= 1.5 * usual


def prepare(truth: Truth, found: Predictions) -> Trial | None:
    """Some pictures to try guesses on; None where there is nothing to try."""
    holders = np.unique(truth.owners[~truth.crowd])
    if not len(holders) or not len(found):
        return None
    step = -(-len(holders) // _MOST_PICTURES)
    chosen = np.isin(np.arange(len(truth.pictures)), holders[::step])
    kept = chosen[truth.owners] & ~truth.crowd
    some = replace(
        truth,
        **{name: getattr(truth, name)[kept] for name in ("owners", "labels", "xywh", "areas", "crowd", "numbers")},
    )
    wanted = np.bincount(some.owners, minlength=len(truth.pictures)) * 2
    strongest = found.take(_place_in_picture(found) < wanted[found.owners])
    pairs = list(same_picture(strongest.owners, some.owners, len(truth.pictures)))
    if not len(strongest) or not pairs:
        return None
    return Trial(some, strongest, *(np.concatenate(part) for part in zip(*pairs, strict=True)))


def guess_boxes(trial: Trial) -> Guess | None:
    """The best reading of the boxes that is far better than the usual one."""
    usual = trial.reached(trial.found.xywh)
    guesses = [Guess(name, text, trial.reached(boxes)) for name, text, boxes in (*_layouts(trial), *_scales(trial))]
    best = max(guesses, key=lambda guess: guess.reached)
    return best if is_far_better(best.reached, usual) else None


def guess_classes(trial: Trial) -> Guess | None:
    """Classes exchanged for each other, or all ids off by one."""
    truth, found = trial.truth, trial.found
    matched = match(find_pairs(truth, found, 0.5), truth, len(found), 0.5)
    hit = matched >= 0
    table = np.zeros((len(truth.classes), len(truth.classes)))
    np.add.at(table, (found.labels[hit], truth.labels[matched[hit]]), 1)
    said, meant = (side.astype(np.int64) for side in hotcoco.primitives.lsap(table, maximize=True))
    reached = float(table[said, meant].sum()) / len(truth)
    moved = (said != meant) & (table[said, meant] > 0)
    if not moved.any() or not is_far_better(reached, float(table.trace()) / len(truth)):
        return None
    ids = np.array(truth.category_ids)
    shifts = np.unique(ids[meant[moved]] - ids[said[moved]])
    if len(shifts) == 1 and abs(shifts[0]) == 1 and moved.sum() > 1:
        change = "1 has to be added to" if shifts[0] == 1 else "1 has to be subtracted from"
        return Guess("ids-off-by-one", f"The category ids are off by one: {change} each.", reached)
    renamed = [f"{truth.classes[a]} means {truth.classes[b]}" for a, b in zip(said[moved], meant[moved], strict=True)]
    listed = ", ".join(renamed[:6]) + (" ..." if len(renamed) > 6 else "")
    text = (
        f"The classes are permuted: {listed}. Compare the order of the class names that the detector was trained with."
    )
    return Guess("classes-permuted", text, reached)


def guess_pictures(truth: Truth, found: Predictions) -> Guess | None:
    """Image ids off by one."""
    ids = truth.pictures.ids
    best: Guess | None = None
    usual = prepare(truth, found)
    for shift, change in ((1, "added to"), (-1, "subtracted from")):
        places = np.searchsorted(ids, ids[found.owners] + shift).clip(max=len(ids) - 1)
        exists = ids[places] == ids[found.owners] + shift
        moved = replace(found, owners=places).take(exists)
        trial = prepare(truth, moved)
        if usual is None or trial is None:
            continue
        reached = trial.reached(trial.found.xywh)
        if is_far_better(reached, usual.reached(usual.found.xywh)) and (best is None or reached > best.reached):
            best = Guess("ids-off-by-one", f"The image ids are off by one: 1 has to be {change} each.", reached)
    return best


def _layouts(trial: Trial) -> Iterator[tuple[str, str, _Boxes]]:
    """Other meanings of the four numbers."""
    a, b, c, d = trial.found.xywh.T
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
    """The boxes in pixels of resized pictures: one factor for all, or one short or long side, or one square."""
    sizes = trial.truth.pictures.sizes_hw[trial.found.owners].astype(np.float64)
    height, width = sizes[:, 0], sizes[:, 1]
    if not (sizes > 0).all():
        height = width = np.ones(len(sizes))
    boxes = trial.found.xywh
    yield (
        "boxes-normalised",
        "The boxes are shares of the picture's width and height, 0 to 1, where pixels are expected.",
        boxes * np.stack([width, height, width, height], axis=1),
    )
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
            text = f"The boxes are at network scale, in pixels of a resized picture: they fit when {words}."
            yield "boxes-at-network-scale", text.format(best * around), boxes * factors / best


def _place_in_picture(found: Predictions) -> Int64[np.ndarray, " n"]:
    """0 for the best-scored detection of its picture, 1 for the next."""
    order = np.argsort(found.owners, kind="stable")
    owners = found.owners[order]
    place = np.empty(len(found), np.int64)
    place[order] = np.arange(len(found)) - np.searchsorted(owners, owners)
    return place
