"""The detections of one image from those of all looks at it."""

from collections.abc import Sequence

from fasterrcnn.inference.calls import Call
from fasterrcnn.inference.fusion import join, pieces_of, vote
from fasterrcnn.inference.tiling import View, cut_sides
from fasterrcnn.structures import RawDetections


def combine(
    found: Sequence[RawDetections], views: Sequence[View], image_hw: tuple[int, int], call: Call
) -> RawDetections:
    """Looks at one region vote; then regions are joined.

    The look at the whole image beside its tiles counts for what is too large to fit into the overlap of two tiles:
    everything smaller, some tile sees whole, and better.

    Args:
        found: detections of each look, in pixels of the image.
        views: the looks; those at one region follow each other, that at the whole image comes first.
        image_hw: height and width of the image.
        call: how to combine them.
    """
    looks = call.looks.views_of_a_region
    regions = [
        found[start] if looks == 1 else vote(found[start : start + looks], call.rules)
        for start in range(0, len(found), looks)
    ]
    if len(regions) == 1:
        return regions[0]
    whole, *tiles = regions
    overlap = call.looks.overlap * (call.looks.tile or 0)
    large = (whole.boxes[:, 2:] - whole.boxes[:, :2]).amax(dim=1) > overlap
    regions = [RawDetections(whole.boxes[large], whole.scores[large], whole.labels[large]), *tiles]
    cut = [cut_sides(one.boxes, view, image_hw) for one, view in zip(regions, views[::looks], strict=True)]
    return join(pieces_of(regions, cut), call.rules, call.merge, limit=call.limit)
