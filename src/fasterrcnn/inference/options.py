"""The options of a call of `Detector.predict`, which are also those of ``fasterrcnn predict``. Needs no torch."""

from collections.abc import Callable, Sequence
from typing import Literal, TypedDict

from fasterrcnn.config import NmsKind
from fasterrcnn.errors import ImageError

MergeKind = Literal["nms", "soft", "ios"]
"""What happens to two overlapping boxes of one class from different tiles: "nms" removes the one with the lower score
where their intersection over union is too large, "ios" where their intersection over the smaller box is; "soft" lowers
its score."""


class PostprocessOptions(TypedDict, total=False):
    """How detections are selected; None is the same as leaving one out.

    Attributes:
        nms: Kind of non-maximum suppression. Default: the checkpoint's.
        nms_threshold: IoU above which the box with the lower score is suppressed, 0 to 1. Default: the checkpoint's.
        max_detections: Largest number of detections of an image. Default: the checkpoint's, with tiles for each tile.
    """

    nms: NmsKind | None
    nms_threshold: float | None
    max_detections: int | None


class PredictOptions(TypedDict, total=False):
    """How images are predicted; None is the same as leaving one out.

    Attributes:
        score: Lowest score, 0 to 1. Default: the checkpoint's; on the command line 0.5.
        classes: Names of the classes to report. Default: all.
        tile: Side of square tiles, in pixels; larger images are predicted in tiles, and as a whole for large objects.
        overlap: Share of a tile's side that overlaps with its neighbour, 0 to 0.9. Default: 0.2.
        merge: How detections of one object in several tiles are merged. Default: nms.
        augment: Test-time augmentation: "flip" for the mirror image, numbers such as 0.75 and 1.25 for other sizes.
        batch_size: Images, or tiles, in a batch. Default: 1; on a CUDA GPU 8, but 1 for cameras and other live images.
        every: Of videos and cameras, predict each n-th frame. Default: 1.
    """

    score: float | None
    classes: Sequence[str] | None
    tile: int | None
    overlap: float | None
    merge: MergeKind | None
    augment: Sequence[str | float] | float | None
    batch_size: int | None
    every: int | None


class DetectorOptions(PredictOptions, PostprocessOptions, total=False):
    """The options of a call of `Detector.predict`: `PredictOptions`, `PostprocessOptions` and ``on_error``.

    ``augment=True`` is the same as ``augment=("flip", 0.75, 1.25)``.

    Attributes:
        on_error: called with the error of each image that cannot be read, which is then left out. Default: the error is
            raised; for folders, globs, videos and cameras it becomes a warning.
    """

    on_error: Callable[[ImageError], object] | None
