"""Looking on while the network works: each step says what it has just made to whoever wants to know.

An observer is called with the name of a step and the step's values by name, the very tensors that the network goes on
with: do not change them. Steps that treat one image after the other speak once for each image.

    features      maps: what the backbone gives, finest first
    rpn           logits, deltas: of every anchor, level by level
    anchors       anchors: level by level
    candidates    index (b k): which of all anchors, level after level, are the best of their level; boxes (b k 4)
    proposals     of one image: boxes and scores of the candidates, clipped; good: which are large and likely enough;
                  survivors: those that NMS leaves, by falling score; kept: how many of these become proposals
    pooled        rois, pooled: maps of one size
    head          logits, deltas: of every region
    scored        of one image: rows, labels, scores, boxes: of every region and class above the threshold
    detections    of one image: kept: which of the scored boxes are reported; found
"""

from collections.abc import Callable

Observer = Callable[..., None]
"""Called as ``observe("rpn", logits=..., deltas=...)``."""


def unobserved(step: str, **values: object) -> None:
    """Nobody looks on."""
