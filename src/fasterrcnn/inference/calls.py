"""The options of a call of `Detector.predict`, checked before any image is read."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from fasterrcnn.detections import Detections, labels_of
from fasterrcnn.errors import ImageError, UsageError
from fasterrcnn.inference.options import DetectorOptions, MergeKind
from fasterrcnn.inference.tiling import TilingOptions
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator

_VOTE_FLOOR = 0.05
"""Score threshold of each augmented version, so that a version with a low score still counts in the vote."""


@dataclass(frozen=True)
class Call:
    """The options of one call, complete."""

    postprocess: PostProcess  # of an image
    tiling: TilingOptions | None  # its tiles and augmented versions; None is the unchanged whole image alone
    merge: MergeKind  # how tiles are put together
    limit: int | None  # largest number of detections of an image in tiles; None is no limit
    batch_size: int  # images, or tiles, that pass the network together
    every: int  # which frames of a video
    on_error: Callable[[ImageError], object] | None  # called with the error of each image that cannot be read

    @property
    def pass_postprocess(self) -> PostProcess:
        """Post-processing of one pass; with augmented versions of a region, the score threshold is lower."""
        if self.tiling is None or self.tiling.passes_per_region == 1:
            return self.postprocess
        threshold = min(self.postprocess.score_threshold, _VOTE_FLOOR)
        return dataclasses.replace(self.postprocess, score_threshold=threshold)

    def selection(self, capacity: int, proposals: ProposalGenerator) -> tuple[PostProcess, ProposalGenerator]:
        """Post-processing and proposals of one pass over tiles, with limits that grow with the tiles' capacity."""
        postprocess = self.pass_postprocess
        if capacity == 1:
            return postprocess, proposals
        if not self.limit:
            postprocess = dataclasses.replace(postprocess, max_detections=capacity * postprocess.max_detections)
        return postprocess, dataclasses.replace(
            proposals, candidates=capacity * proposals.candidates, proposals=capacity * proposals.proposals
        )


def complete(options: DetectorOptions, default: PostProcess, classes: Sequence[str], batch_size: int = 1) -> Call:
    """The options of a call, with the checkpoint's own values for those that are not given.

    Args:
        options: those that are given.
        default: the checkpoint's post-processing.
        classes: names; label i means ``classes[i]``.
        batch_size: the one of a call that does not set it.

    Raises:
        UsageError: an option does not exist, or its value is invalid.
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
    tiling = TilingOptions(given.get("tile"), given.get("overlap", TilingOptions.overlap), mirror, scales)
    return Call(
        postprocess=dataclasses.replace(default, **changes),
        tiling=tiling if tiling.tile or tiling.passes_per_region > 1 else None,
        merge=merge,
        limit=given.get("max_detections"),
        batch_size=given.get("batch_size", batch_size),
        every=given.get("every", 1),
        on_error=given.get("on_error"),
    )


def _augmentation(augment: bool | str | float | Sequence[str | float]) -> tuple[bool, tuple[float, ...]]:
    """Whether to mirror, and further sizes."""
    if isinstance(augment, bool):
        return augment, (0.75, 1.25) if augment else ()
    wanted = [augment] if isinstance(augment, str | int | float) else list(augment)
    scales = []
    for transform in wanted:
        if transform == "flip":
            continue
        try:
            scales.append(float(transform))
        except ValueError:
            raise UsageError(f'augment is {transform!r}; there are "flip" and sizes such as 0.75 and 1.25') from None
    return "flip" in wanted, tuple(dict.fromkeys(scale for scale in scales if scale != 1))


def without_errors(
    outcomes: Iterable[Detections | ImageError], log: Callable[[ImageError], object]
) -> Iterator[Detections]:
    """The detections alone; `log` is called with each error."""
    for outcome in outcomes:
        if isinstance(outcome, ImageError):
            log(outcome)
        else:
            yield outcome


def warn_of_error(error: ImageError) -> None:
    """Issue a warning at the place that asks `without_errors` for the next detections."""
    warnings.warn(str(error), stacklevel=3)


def raise_error(error: ImageError) -> None:
    """Raise it."""
    raise error
