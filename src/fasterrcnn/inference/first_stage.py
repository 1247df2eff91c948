"""The proposals of a detector's first stage, to see what it reaches."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.sources import load_picture
from fasterrcnn.ops import boxes


def propose(detector: Detector, paths: Sequence[Path], limit: int) -> Iterator[Float64[np.ndarray, "_ 4"]]:
    """The best proposals of each picture, xyxy in its own pixels, by falling objectness.

    Args:
        detector: whose region proposal network is asked. Its limits are raised: a detector that looks at 300 proposals
            could look at more.
        paths: the pictures.
        limit: most proposals of a picture.
    """
    usual = detector.model.proposals
    more = dataclasses.replace(usual, proposals=limit, candidates=max(limit, usual.candidates))
    for path in paths:
        picture = load_picture(path)
        batch = detector.to_batch([picture.pixels])
        with torch.inference_mode():
            (found,) = detector.model.propose(detector.model.features(batch.pixels), batch, more)
        scaled = boxes.clip(boxes.scale(found.boxes.float(), batch.sizes_hw[0], picture.hw), picture.hw)
        yield scaled.cpu().numpy().astype(np.float64)
