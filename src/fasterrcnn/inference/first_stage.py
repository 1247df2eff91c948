"""The proposals of a detector's first stage, to see what it reaches."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.sources import load_picture
from fasterrcnn.ops import boxes, image
from fasterrcnn.ops.sizes import resized_hw


def propose(detector: Detector, paths: Sequence[Path], limit: int) -> Iterator[Float64[np.ndarray, "_ 4"]]:
    """The best proposals of each picture, xyxy in its own pixels, by falling objectness.

    Args:
        detector: whose region proposal network is asked. Its limits are raised: a detector that looks at 300 proposals
            could look at more.
        paths: the pictures.
        limit: most proposals of a picture.
    """
    model, size = copy.copy(detector._model), detector.config.input
    usual = model.proposals
    model.proposals = dataclasses.replace(usual, proposals=limit, candidates=max(limit, usual.candidates))
    for path in paths:
        pixels = load_picture(path)
        original_hw = (pixels.shape[-2], pixels.shape[-1])
        to_hw = resized_hw(original_hw, size.short_side, size.long_side)
        with torch.inference_mode():
            resized = image.to_input(pixels.to(detector.device), to_hw, antialias=size.antialias)
            batch = image.make_batch([resized], fill=size.mean, size_divisor=size.size_divisor)
            (found,) = model.propose(model.features(batch.pixels), batch)
            scaled = boxes.clip(boxes.scale(found.boxes.float(), to_hw, original_hw), original_hw)
        yield scaled.cpu().numpy().astype(np.float64)
