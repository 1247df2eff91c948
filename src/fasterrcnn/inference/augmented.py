"""Several looks at each picture: its mirror image, and other sizes."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fasterrcnn.detections import Detections
from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.sources import load_picture
from fasterrcnn.ops.boxes import flip_horizontal
from fasterrcnn.ops.nms import nms


def stream_augmented(
    detector: Detector, paths: Sequence[Path], *, flip: bool, scales: Sequence[float], max_detections: int
) -> Iterator[Detections]:
    """Detections of all looks at each picture together, the weaker of overlapping ones dropped.

    Args:
        detector: it looks once as always, and again for each of these.
        paths: the pictures.
        flip: look at the mirror image.
        scales: look at the picture with the sides of the network input multiplied by each of these.
        max_detections: most detections of a picture.
    """
    detectors = [detector, *(_at_scale(detector, scale) for scale in scales)]
    return (_join(detector, _looks(detectors, path, flip, max_detections), max_detections) for path in paths)


def _at_scale(detector: Detector, scale: float) -> Detector:
    """The same network with a larger or smaller input."""
    size = detector.config.input
    sides = {"short_side": max(1, round(size.short_side * scale)), "long_side": max(1, round(size.long_side * scale))}
    scaled = copy.copy(detector)
    scaled.config = detector.config.model_copy(update={"input": size.model_copy(update=sides)})
    return scaled


def _looks(detectors: Sequence[Detector], path: Path, flip: bool, limit: int) -> Iterator[Detections]:
    pixels = load_picture(path)
    for detector in detectors:
        yield detector.predict(path, max_detections=limit)
    if flip:
        mirrored = detectors[0].predict(pixels.flip(-1), max_detections=limit)
        flipped = flip_horizontal(torch.from_numpy(mirrored.boxes), mirrored.image_hw[1]).numpy()
        yield replace(mirrored, boxes=flipped)


def _join(detector: Detector, looks: Iterator[Detections], limit: int) -> Detections:
    first, *others = looks
    together = [first, *others]
    boxes, scores, labels = (
        np.concatenate([getattr(one, name) for one in together]) for name in ("boxes", "scores", "labels")
    )
    threshold = detector.config.postprocess.nms_threshold
    found = nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), threshold)
    keep = found[:limit].numpy()
    return replace(first, boxes=boxes[keep], scores=scores[keep], labels=labels[keep])
