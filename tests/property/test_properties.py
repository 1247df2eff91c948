"""What must hold for any boxes, scores and sizes, whatever hypothesis thinks of."""

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fasterrcnn.config import resized_hw
from fasterrcnn.ops import boxes, matching
from fasterrcnn.ops.boxes import nms, soft_nms
from fasterrcnn.ops.image import make_batch, pad_to
from fasterrcnn.ops.matching import IGNORED, NEGATIVE, match

properties = settings(derandomize=True, deadline=None, max_examples=80, database=None)
SIDE = 256


def from_xywh(rows: list[tuple[float, ...]]) -> Tensor:
    xywh = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)


@st.composite
def any_boxes(draw: st.DrawFn, low: int = 0, high: int = 12) -> Tensor:
    """Boxes with sides of 0.5 to 300 pixels anywhere from -100 to 800."""
    corner = st.floats(-100, 500, width=32)
    side = st.floats(0.5, 300, width=32)
    rows = draw(st.lists(st.tuples(corner, corner, side, side), min_size=low, max_size=high))
    return from_xywh(rows)


@st.composite
def whole_boxes(draw: st.DrawFn, low: int = 0, high: int = 15) -> Tensor:
    """Boxes on whole pixels of a small image: they tie, touch and coincide, and float32 is exact on them."""
    corner, side = st.integers(0, SIDE // 2), st.integers(1, SIDE // 2)
    rows = draw(st.lists(st.tuples(corner, corner, side, side), min_size=low, max_size=high))
    return from_xywh(rows)


def scores_for(found: Tensor) -> st.SearchStrategy[Tensor]:
    scores = st.lists(st.floats(0, 1, width=32), min_size=len(found), max_size=len(found))
    return scores.map(lambda values: torch.tensor(values, dtype=torch.float32))


def groups_for(found: Tensor) -> st.SearchStrategy[Tensor]:
    groups = st.lists(st.integers(0, 2), min_size=len(found), max_size=len(found))
    return groups.map(lambda values: torch.tensor(values, dtype=torch.int64))


sizes_hw = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
thresholds = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 1.0])

# ---- boxes


@properties
@given(any_boxes(low=1), st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]), st.data())
def test_decode_inverts_encode(anchors: Tensor, weights: Any, data: st.DataObject) -> None:
    found = data.draw(any_boxes(low=len(anchors), high=len(anchors)))
    growth = (found[:, 2:] - found[:, :2]) / (anchors[:, 2:] - anchors[:, :2])
    within = growth.log().amax(dim=1) < boxes.MAX_LOG_SCALE
    decoded = boxes.decode(boxes.encode(found, anchors, weights), anchors, weights)
    torch.testing.assert_close(decoded[within], found[within], rtol=1e-5, atol=1e-3)


@properties
@given(any_boxes(), st.floats(4.2, 1e6))
def test_decode__growth_stops_at_the_clamp(anchors: Tensor, wish: float) -> None:
    deltas = torch.tensor([0.0, 0.0, wish, wish]).expand(len(anchors), 4)
    decoded = boxes.decode(deltas, anchors)
    expected = (anchors[:, 2:] - anchors[:, :2]) * (1000 / 16)
    torch.testing.assert_close(decoded[:, 2:] - decoded[:, :2], expected, rtol=1e-4, atol=1e-3)


@properties
@given(any_boxes(), any_boxes())
def test_iou__symmetric_between_0_and_1(a: Tensor, b: Tensor) -> None:
    overlap = boxes.iou(a, b)
    torch.testing.assert_close(overlap, boxes.iou(b, a).T)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-6)).all()
    torch.testing.assert_close(boxes.iou(a, a).diagonal(), torch.ones(len(a)))


@properties
@given(any_boxes(), any_boxes())
def test_intersection_over_area__at_least_iou(a: Tensor, b: Tensor) -> None:
    share = boxes.intersection_over_area(a, b)
    assert (share >= boxes.iou(a, b) - 1e-6).all()
    assert (share <= 1.0001).all()  # corners are known to 6e-5 pixels, sides are 0.5 and more


@properties
@given(any_boxes(), st.integers(1, 2000))
def test_flip_horizontal__twice_is_nothing(found: Tensor, width: int) -> None:
    once = boxes.flip_horizontal(found, width)
    torch.testing.assert_close(boxes.areas(once), boxes.areas(found), rtol=1e-3, atol=0.1)
    assert boxes.at_least(once, 0.0).all()
    torch.testing.assert_close(boxes.flip_horizontal(once, width), found, rtol=1e-6, atol=1e-3)


@properties
@given(any_boxes(), sizes_hw)
def test_clip__inside_and_only_once(found: Tensor, image_hw: tuple[int, int]) -> None:
    once = boxes.clip(found, image_hw)
    torch.testing.assert_close(boxes.clip(once, image_hw), once, rtol=0, atol=0)
    assert (once >= 0).all()
    assert (once[:, 0::2] <= image_hw[1]).all()
    assert (once[:, 1::2] <= image_hw[0]).all()
    whole = torch.tensor([[0.0, 0.0, image_hw[1], image_hw[0]]])
    inside = boxes.intersection_over_area(found, whole)[:, 0] == 1
    torch.testing.assert_close(once[inside], found[inside], rtol=0, atol=1e-3)


@properties
@given(any_boxes(), sizes_hw, sizes_hw)
def test_scale__there_and_back(found: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> None:
    there = boxes.scale(found, from_hw, to_hw)
    torch.testing.assert_close(boxes.scale(there, to_hw, from_hw), found, rtol=1e-5, atol=1e-4)
    height, width = (float(side) for side in to_hw)
    whole = torch.tensor([[0.0, 0.0, from_hw[1], from_hw[0]]])
    torch.testing.assert_close(boxes.scale(whole, from_hw, to_hw), torch.tensor([[0.0, 0.0, width, height]]))


# ---- suppression


@properties
@given(whole_boxes(), thresholds, st.data())
def test_nms__kept_boxes_stay_and_do_not_overlap(found: Tensor, threshold: float, data: st.DataObject) -> None:
    scores, groups = data.draw(scores_for(found)), data.draw(groups_for(found))
    keep = nms(found, scores, groups, threshold)
    assert len(keep.unique()) == len(keep)
    assert (scores[keep].diff() <= 0).all()
    overlap = boxes.iou(found, found) * (groups[:, None] == groups)
    among_kept = overlap[keep][:, keep].fill_diagonal_(0)
    assert (among_kept <= threshold + 1e-6).all()
    gone = torch.ones(len(found), dtype=torch.bool).index_fill_(0, keep, False)
    better = (overlap[gone][:, keep] > threshold - 1e-6) & (scores[keep] >= scores[gone][:, None])
    assert better.any(dim=1).all(), "what goes is overlapped by something better that stays"
    again = nms(found[keep], scores[keep], groups[keep], threshold)
    torch.testing.assert_close(again, torch.arange(len(keep)))


@properties
@given(whole_boxes(), st.sampled_from(["linear", "gaussian"]), st.integers(1, 20), thresholds, st.data())
def test_soft_nms__never_raises_a_score(
    found: Tensor, method: str, limit: int, min_score: float, data: st.DataObject
) -> None:
    scores, groups = data.draw(scores_for(found)), data.draw(groups_for(found))
    keep, lowered = soft_nms(found, scores, groups, method=method, min_score=min_score, limit=limit)
    assert len(keep) == len(lowered) <= limit
    assert len(keep.unique()) == len(keep)
    assert (lowered <= scores[keep]).all()
    assert (lowered >= min_score).all()
    assert (lowered.diff() <= 0).all()
    alone = ((boxes.iou(found, found) > 0) & (groups[:, None] == groups)).sum(dim=1) == 1
    torch.testing.assert_close(lowered[alone[keep]], scores[keep][alone[keep]], rtol=0, atol=0)
    if len(keep):
        assert lowered[0] == scores.max()


# ---- sampling


@properties
@given(
    st.lists(st.sampled_from([NEGATIVE, IGNORED, 0, 1]), max_size=60),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0]),
    st.integers(0, 5),
)
def test_sample_balanced__quotas(members: list[int], count: int, fraction: float, seed: int) -> None:
    matched = torch.tensor(members, dtype=torch.int64)
    positive, negative = matched >= 0, matched == NEGATIVE
    generator = torch.Generator().manual_seed(seed)
    sample = matching.sample_balanced(positive, negative, count=count, positive_fraction=fraction, generator=generator)
    chosen = sample.sorted()
    assert (chosen.diff() > 0).all(), "sorted, and none twice"
    assert (positive | negative)[chosen].all()
    positives = int(positive[chosen].sum())
    assert positives == min(int(positive.sum()), int(count * fraction))
    assert int(negative[chosen].sum()) == min(int(negative.sum()), count - positives)


# ---- matching


@st.composite
def matching_rules(draw: st.DrawFn) -> dict[str, Any]:
    low, high = sorted(draw(st.tuples(thresholds, thresholds)))
    return {"positive_iou": high, "negative_iou": low, "best_for_each": draw(st.booleans())}


@properties
@given(whole_boxes(), whole_boxes(high=8), matching_rules(), st.booleans(), st.integers(1, 40))
def test_match__chunks_change_nothing(
    anchors: Tensor, gt_boxes: Tensor, rules: dict[str, Any], zero_overlap: bool, pairs: int
) -> None:
    whole = match(anchors, gt_boxes, **rules, zero_overlap=zero_overlap)
    inside = matching.inside_ignored(anchors, gt_boxes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_CHUNK_PAIRS", pairs)
        torch.testing.assert_close(match(anchors, gt_boxes, **rules, zero_overlap=zero_overlap), whole)
        torch.testing.assert_close(matching.inside_ignored(anchors, gt_boxes), inside)


@properties
@given(whole_boxes(), whole_boxes(low=1, high=8), matching_rules())
def test_match__rules(anchors: Tensor, gt_boxes: Tensor, rules: dict[str, Any]) -> None:
    matched = match(anchors, gt_boxes, **rules)
    assume(len(anchors) > 0)
    overlap = boxes.iou(anchors, gt_boxes)
    best, index = overlap.max(dim=1)
    positive = matched >= 0
    torch.testing.assert_close(matched[positive], index[positive])
    assert positive[best >= rules["positive_iou"]].all()
    if not rules["best_for_each"]:
        assert (matched[best < rules["negative_iou"]] == NEGATIVE).all()
        between = (best >= rules["negative_iou"]) & (best < rules["positive_iou"])
        assert (matched[between] == IGNORED).all()
        return
    for column in overlap.T:
        assert column.max() == 0 or positive[column == column.max()].all()
    extra = positive & (best < rules["positive_iou"])
    assert ((overlap == overlap.amax(dim=0)) & (overlap > 0))[extra].any(dim=1).all()


# ---- sizes


@properties
@given(sizes_hw, st.integers(1, 1500), st.integers(1, 1500))
def test_resized_hw__fits_both_limits(image_hw: tuple[int, int], short_side: int, long_side: int) -> None:
    resized = resized_hw(image_hw, short_side, long_side)
    assert 1 <= min(resized) <= short_side
    assert max(resized) <= long_side
    assert min(resized) >= short_side - 1 or max(resized) >= long_side - 1, "as large as the limits allow"
    scale = min(short_side / min(image_hw), long_side / max(image_hw))
    for before, after in zip(image_hw, resized, strict=True):
        assert abs(after - before * scale) <= 1


@properties
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4), st.sampled_from([1, 8, 32]))
def test_make_batch__pads_at_the_bottom_and_right(sizes: list[tuple[int, int]], divisor: int) -> None:
    images = [torch.full((3, *size), 0.5 + i) for i, size in enumerate(sizes)]
    batch = make_batch(images, fill=(0.1, 0.2, 0.3), size_divisor=divisor)
    assert batch.sizes_hw == sizes
    assert batch.padded_hw == tuple(pad_to(max(side), divisor) for side in zip(*sizes, strict=True))
    for pixels, image, (height, width) in zip(batch.pixels, images, sizes, strict=True):
        torch.testing.assert_close(pixels[:, :height, :width], image)
        fill = torch.tensor([0.1, 0.2, 0.3])[:, None]
        torch.testing.assert_close(pixels[:, height:].flatten(1), fill.expand(3, pixels[0, height:].numel()))
        torch.testing.assert_close(pixels[:, :, width:].flatten(1), fill.expand(3, pixels[0, :, width:].numel()))
