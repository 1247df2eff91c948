"""The options of a call of `Detector.predict`, checked before any image is read."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from fasterrcnn.detections import labels_of
from fasterrcnn.errors import ImageError, UsageError
from fasterrcnn.inference.options import DetectorOptions, MergeKind
from fasterrcnn.inference.tiling import Looks
from fasterrcnn.model.postprocess import PostProcess

_VOTE_FLOOR = 0.05
"""Several looks report what is as likely as this, so that one that is less sure still has a vote."""


@dataclass(frozen=True)
class Call:
    """The options of one call, complete.

    Attributes:
        rules: post-processing of an image.
        looks: how it is looked at.
        merge: how tiles are put together.
        limit: most detections of an image in tiles; None is no limit.
        batch_size: images, or tiles, that pass the network together.
        every: which frames of a video.
        on_error: is told of each image that cannot be read.
    """

    rules: PostProcess
    looks: Looks
    merge: MergeKind
    limit: int | None
    batch_size: int
    every: int
    on_error: Callable[[ImageError], object] | None

    @property
    def rules_of_a_look(self) -> PostProcess:
        """Post-processing of one look out of several at the same region: it may be less sure than all together."""
        if self.looks.views_of_a_region == 1:
            return self.rules
        return dataclasses.replace(self.rules, score_threshold=min(self.rules.score_threshold, _VOTE_FLOOR))


def complete(options: DetectorOptions, usual: PostProcess, classes: Sequence[str]) -> Call:
    """The options of a call, with the checkpoint's own values where nothing is said.

    Args:
        options: what was said.
        usual: the checkpoint's post-processing.
        classes: names; label i means ``classes[i]``.

    Raises:
        UsageError: an option does not exist, or its value cannot work.
    """
    names = DetectorOptions.__annotations__
    if unknown := set(options) - set(names):
        raise UsageError(f"no option is called {unknown.pop()!r}; there are {', '.join(names)}")
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    renamed = {"score": "score_threshold"}
    changes = {
        renamed.get(name, name): given[name]
        for name in ("score", "nms", "nms_threshold", "max_detections")
        if name in given
    }
    if "classes" in given:
        changes["classes"] = tuple(labels_of(given["classes"], classes))
    for name in ("batch_size", "every"):
        if given.get(name, 1) < 1:
            raise UsageError(f"{name} must be at least 1, not {given[name]}")
    merge = given.get("merge", "nms")
    if merge not in get_args(MergeKind):
        raise UsageError(f"merge is {merge!r}; there are {', '.join(get_args(MergeKind))}")
    mirror, scales = _augmentation(given.get("augment", False))
    return Call(
        rules=dataclasses.replace(usual, **changes),
        looks=Looks(given.get("tile"), given.get("overlap", Looks.overlap), mirror, scales),
        merge=merge,
        limit=given.get("max_detections"),
        batch_size=given.get("batch_size", 1),
        every=given.get("every", 1),
        on_error=given.get("on_error"),
    )


def _augmentation(augment: bool | str | float | Sequence[str | float]) -> tuple[bool, tuple[float, ...]]:
    """Whether to mirror, and further sizes."""
    if isinstance(augment, bool):
        return augment, (0.75, 1.25) if augment else ()
    wanted = [augment] if isinstance(augment, str | int | float) else list(augment)
    scales = []
    for one in wanted:
        if one == "flip":
            continue
        try:
            scales.append(float(one))
        except ValueError:
            raise UsageError(f'augment is {one!r}; there are "flip" and sizes such as 0.75 and 1.25') from None
    return "flip" in wanted, tuple(dict.fromkeys(scale for scale in scales if scale != 1))
