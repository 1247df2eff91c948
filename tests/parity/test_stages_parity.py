"""Input, proposals, losses and post-processing, each fed with random numbers, give what torchvision gives."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import rpn as tv_rpn
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

from fasterrcnn.config import resized_hw
from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.losses import RegionLoss, RPNLoss
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator
from fasterrcnn.model.targets import Assigner, sample_regions
from fasterrcnn.ops import boxes
from fasterrcnn.ops.image import make_batch, to_input
from fasterrcnn.structures import Proposals, Target

ALL = 10**6
CLASSES = 4
DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PADDED_HW = (160, 256)
MAPS_HW = [(20, 32), (10, 16), (5, 8)]
SIZES_HW = [(160, 240), (130, 256), (97, 101)]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_boxes(count: int, seed: int, image_hw: tuple[int, int] = PADDED_HW) -> Tensor:
    """Boxes inside the image, most of them far from square; none thinner than a pixel."""
    generator = torch.Generator().manual_seed(seed)
    ends = torch.rand(count, 2, 2, generator=generator) * (torch.tensor([image_hw[1], image_hw[0]]) - 1)
    return torch.cat([ends.amin(dim=1), ends.amax(dim=1) + 1], dim=1)


def make_anchors() -> list[Tensor]:
    generator = AnchorGenerator(((16.0,), (32.0,), (64.0,)), ((0.5, 1.0, 2.0),) * 3)
    return generator(MAPS_HW, PADDED_HW, torch.device("cpu"))


def make_targets() -> list[Target]:
    """Three images, the last one without objects; an object of the first is a copy of another."""
    first = random_boxes(6, 1, SIZES_HW[0])
    first = torch.cat([first, first[:1]])
    second = random_boxes(3, 2, SIZES_HW[1])
    labels = torch.arange(7) % CLASSES
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    return [Target(first, labels), Target(second, labels[:3]), nothing]


def as_torchvision(targets: Sequence[Target]) -> list[dict[str, Tensor]]:
    return [{"boxes": target.boxes, "labels": target.labels + 1} for target in targets]


# ---- input


@pytest.mark.parametrize("limits", [(32, 57), (20, 200), (64, 64)])
def test_input__sizes(limits: tuple[int, int]) -> None:
    transform = GeneralizedRCNNTransform(*limits, list(MEAN), list(STD))
    for image_hw in [(h, w) for h in (7, 31, 32, 33, 64, 97) for w in (5, 32, 40, 57, 111)]:
        resized, _ = transform.resize(torch.zeros(3, *image_hw))
        assert resized_hw(image_hw, *limits) == resized.shape[-2:], image_hw


def test_input__pixels_and_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, *size, generator=generator) for size in ((60, 100), (100, 50), (31, 31))]
    expected, _ = GeneralizedRCNNTransform(48, 80, list(MEAN), list(STD))(images)
    resized = [to_input(i, resized_hw((i.shape[1], i.shape[2]), 48, 80), antialias=False) for i in images]
    batch = make_batch(resized, fill=MEAN, size_divisor=32)
    assert batch.sizes_hw == expected.image_sizes
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close((batch.pixels - mean) / std, expected.tensors, rtol=1e-5, atol=1e-5)


def test_input__boxes() -> None:
    found = random_boxes(20, 3)
    expected = resize_boxes(found, [160, 256], [481, 770])
    torch.testing.assert_close(boxes.scale(found, (160, 256), (481, 770)), expected, rtol=0, atol=0)


# ---- proposals


def torchvision_rpn(**changes: Any) -> tv_rpn.RegionProposalNetwork:
    rules: dict[str, Any] = {
        "fg_iou_thresh": 0.7,
        "bg_iou_thresh": 0.3,
        "batch_size_per_image": ALL,
        "positive_fraction": 0.5,
        "pre_nms_top_n": {"training": ALL, "testing": ALL},
        "post_nms_top_n": {"training": ALL, "testing": ALL},
        "nms_thresh": 0.7,
    }
    return tv_rpn.RegionProposalNetwork(nn.Identity(), nn.Identity(), **(rules | changes)).eval()


def rpn_outputs(images: int) -> tuple[list[Tensor], list[Tensor]]:
    counts = [len(level) for level in make_anchors()]
    logits = [normal(images, count, seed=10 + i) * 3 for i, count in enumerate(counts)]
    deltas = [normal(images, count, 4, seed=20 + i) * 0.7 for i, count in enumerate(counts)]
    return logits, deltas


@pytest.mark.parametrize(
    ("candidates", "proposals", "min_score"),
    [(ALL, ALL, 0.0), (150, 100, 0.0), (300, 30, 0.05), (700, 700, 0.9)],
)
def test_proposals(candidates: int, proposals: int, min_score: float) -> None:
    anchors = make_anchors()
    logits, deltas = rpn_outputs(len(SIZES_HW))
    found = ProposalGenerator(candidates, proposals, 0.7, min_score)(logits, deltas, anchors, SIZES_HW)
    rpn = torchvision_rpn(
        pre_nms_top_n={"testing": candidates}, post_nms_top_n={"testing": proposals}, score_thresh=min_score
    )
    decoded = rpn.box_coder.decode(torch.cat(deltas, dim=1).flatten(0, 1), [torch.cat(anchors)] * len(SIZES_HW))
    expected_boxes, expected_scores = rpn.filter_proposals(
        decoded.view(len(SIZES_HW), -1, 4), torch.cat(logits, dim=1), SIZES_HW, [len(a) for a in anchors]
    )
    for image, wanted_boxes, wanted_scores in zip(found, expected_boxes, expected_scores, strict=True):
        assert len(wanted_boxes) > 10
        torch.testing.assert_close(image.boxes, wanted_boxes, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(image.scores, wanted_scores)


def test_proposals__no_image_has_any() -> None:
    anchors, (logits, deltas) = make_anchors(), rpn_outputs(1)
    logits = [level - 100 for level in logits]
    (found,) = ProposalGenerator(ALL, ALL, 0.7, 0.05)(logits, deltas, anchors, SIZES_HW[:1])
    rpn = torchvision_rpn(score_thresh=0.05)
    decoded = rpn.box_coder.decode(torch.cat(deltas, dim=1)[0], [torch.cat(anchors)]).view(1, -1, 4)
    expected, _ = rpn.filter_proposals(decoded, torch.cat(logits, 1), SIZES_HW[:1], [len(a) for a in anchors])
    torch.testing.assert_close(found.boxes, expected[0])


# ---- losses


@pytest.mark.parametrize("with_objects", [True, False], ids=["objects", "none"])
def test_rpn_loss(with_objects: bool) -> None:
    anchors = torch.cat(make_anchors())
    targets = make_targets() if with_objects else make_targets()[2:]
    logits, deltas = (torch.cat(levels, dim=1) for levels in rpn_outputs(len(targets)))
    ours = [logits.clone().requires_grad_(), deltas.clone().requires_grad_()]
    theirs = [logits.clone().requires_grad_(), deltas.clone().requires_grad_()]
    assigner = Assigner(0.7, 0.3, ALL, 0.5, best_for_each=True)
    *actual, drawn = RPNLoss(assigner)(*ours, anchors, targets)

    rpn = torchvision_rpn()
    per_image = [anchors] * len(targets)
    labels, matched = rpn.assign_targets_to_anchors(per_image, as_torchvision(targets))
    assert bool((torch.cat(labels) == 1).any()) == with_objects
    assert drawn == int((torch.cat(labels) >= 0).sum())
    wanted = rpn.box_coder.encode(matched, per_image)
    expected = rpn.compute_loss(theirs[0].flatten()[:, None], theirs[1].reshape(-1, 4), labels, wanted)
    check_losses(actual, expected, ours, theirs)


def torchvision_heads(**changes: Any) -> RoIHeads:
    rules: dict[str, Any] = {
        "fg_iou_thresh": 0.5,
        "bg_iou_thresh": 0.5,
        "batch_size_per_image": ALL,
        "positive_fraction": 0.25,
        "bbox_reg_weights": None,
        "score_thresh": 0.05,
        "nms_thresh": 0.5,
        "detections_per_img": 100,
    }
    return RoIHeads(None, None, None, **(rules | changes)).eval()


@pytest.mark.parametrize("ious", [(0.5, 0.5), (0.6, 0.2)], ids=["one threshold", "two thresholds"])
@pytest.mark.parametrize("with_objects", [True, False], ids=["objects", "none"])
def test_region_loss(ious: tuple[float, float], with_objects: bool) -> None:
    targets = make_targets() if with_objects else make_targets()[2:]
    proposals = []
    for i, target in enumerate(targets):
        near = boxes.clip(target.boxes.repeat(8, 1) + normal(8 * len(target.boxes), 4, seed=30 + i) * 4, PADDED_HW)
        near = near[boxes.at_least(near, 1.0)]
        proposals.append(torch.cat([random_boxes(80, 40 + i), near]))
    assigner = Assigner(*ious, ALL, 0.25)
    samples = [
        sample_regions(Proposals(p, torch.zeros(len(p))), target, assigner, CLASSES)
        for p, target in zip(proposals, targets, strict=True)
    ]
    heads = torchvision_heads(fg_iou_thresh=ious[0], bg_iou_thresh=ious[1])
    regions, _, labels, wanted = heads.select_training_samples(list(proposals), as_torchvision(targets))
    torch.testing.assert_close([sample.boxes for sample in samples], regions, rtol=0, atol=0)
    own_labels = [torch.where(label == 0, CLASSES, label - 1) for label in labels]  # background last
    torch.testing.assert_close([sample.labels for sample in samples], own_labels)
    check_region_loss(assigner, samples, labels, wanted)


def check_region_loss(assigner: Assigner, samples: list[Any], labels: list[Tensor], wanted: Any) -> None:
    count = sum(len(label) for label in labels)
    logits, deltas = normal(count, CLASSES + 1, seed=50) * 3, normal(count, CLASSES + 1, 4, seed=51)
    ours = [logits.roll(-1, dims=1).requires_grad_(), deltas[:, 1:].clone().requires_grad_()]
    theirs = [logits.clone().requires_grad_(), deltas.flatten(1).requires_grad_()]
    joined = type(samples[0])(
        torch.cat([sample.boxes for sample in samples]),
        torch.cat([sample.labels for sample in samples]),
        torch.cat([sample.target_boxes for sample in samples]),
    )
    *actual, weight = RegionLoss(assigner, DELTA_WEIGHTS)(*ours, joined)
    assert weight == count
    expected = fastrcnn_loss(*theirs, labels, list(wanted))
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
    sum(actual).backward()
    sum(expected).backward()
    torch.testing.assert_close(ours[0].grad, theirs[0].grad.roll(-1, dims=1))
    torch.testing.assert_close(ours[1].grad, theirs[1].grad.unflatten(1, (-1, 4))[:, 1:])


def check_losses(
    actual: Sequence[Tensor], expected: Sequence[Tensor], ours: Sequence[Tensor], theirs: Sequence[Tensor]
) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
    sum(actual).backward()
    sum(expected).backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


# ---- post-processing


@pytest.mark.parametrize(
    ("threshold", "iou", "limit"), [(0.05, 0.5, 100), (0.0, 0.3, 1000), (0.3, 0.7, 15), (0.9999, 0.5, 100)]
)
def test_postprocess(threshold: float, iou: float, limit: int) -> None:
    proposals = [random_boxes(count, 60 + count) for count in (120, 0, 60)]
    logits = normal(180, CLASSES + 1, seed=70) * 2
    deltas = normal(180, CLASSES + 1, 4, seed=71) * 3
    heads = torchvision_heads(score_thresh=threshold, nms_thresh=iou, detections_per_img=limit)
    expected = heads.postprocess_detections(logits, deltas.flatten(1), proposals, SIZES_HW)
    rules = PostProcess(threshold, "class", iou, max_detections=limit)
    counts = [len(p) for p in proposals]
    parts = (logits.roll(-1, dims=1).split(counts), deltas[:, 1:].split(counts))
    actual = rules(*parts, proposals, SIZES_HW, DELTA_WEIGHTS)
    for found, regions, wanted_boxes, wanted_scores, wanted_labels in zip(actual, proposals, *expected, strict=True):
        assert (len(wanted_boxes) > 0) == (len(regions) > 0 and threshold < 0.9)
        torch.testing.assert_close(found.labels, wanted_labels - 1)
        torch.testing.assert_close(found.scores, wanted_scores)
        torch.testing.assert_close(found.boxes, wanted_boxes, rtol=1e-5, atol=1e-3)
