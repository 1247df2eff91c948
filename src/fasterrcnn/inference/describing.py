"""What the network found, as `Detections` in the pixels of the picture."""

from collections.abc import Sequence
from pathlib import Path

from fasterrcnn.detections import Detections
from fasterrcnn.inference.sources import Loaded
from fasterrcnn.inference.views import View, to_picture
from fasterrcnn.structures import RawDetections


def describe(found: RawDetections, picture: Loaded, classes: tuple[str, ...]) -> Detections:
    """Detections that are in the frame of the upright picture, with what is known of it."""
    return Detections(
        boxes=found.boxes.cpu().numpy(),
        scores=found.scores.cpu().numpy(),
        labels=found.labels.cpu().numpy(),
        classes=classes,
        image_hw=picture.hw,
        source=picture.source,
        image=picture.image,
        frame=picture.frame,
        seconds=picture.seconds,
    )


def in_original_frame(
    found: RawDetections,
    input_hw: tuple[int, int],
    original_hw: tuple[int, int],
    classes: Sequence[str],
    *,
    source: Path | None = None,
) -> Detections:
    """What was found in a network input, in the pixels of the picture that it was made of.

    Args:
        found: in the frame of the input.
        input_hw: size of the input without padding.
        original_hw: size of the upright picture.
        classes: names; label i means ``classes[i]``.
        source: file of the picture, if it has one.
    """
    height, width = original_hw
    seen = to_picture(found, View((0, 0, width, height), input_hw))
    return Detections(
        boxes=seen.boxes.cpu().numpy(),
        scores=seen.scores.cpu().numpy(),
        labels=seen.labels.cpu().numpy(),
        classes=tuple(classes),
        image_hw=original_hw,
        source=source,
    )
