"""Whole detectors, loaded from torchvision's files: the same detections, losses and gradients."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.rpn import AnchorGenerator as TorchvisionAnchors

import fasterrcnn
from fasterrcnn import build
from fasterrcnn.config import AnchorConfig, ModelConfig, resized_hw
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.ops import boxes
from fasterrcnn.ops.image import make_batch, to_input
from fasterrcnn.structures import ImageBatch, RawDetections, Target
from fasterrcnn.weights.torchvision import from_torchvision

ALL = 10**6
SIZES_HW = [(160, 240), (300, 200), (90, 131), (120, 300)]
REGIONS = 60
"""Regions of each image in the losses, and in all of v2, whose head has four convolutions: both sides get as few."""


@dataclass(frozen=True)
class Pair:
    """torchvision's detector, and ours with its weights."""

    theirs: nn.Module
    ours: FasterRCNN
    config: ModelConfig
    limits: tuple[int, int]


PRESETS: dict[str, dict[str, Any]] = {
    "resnet50-fpn": {"min_size": 96, "max_size": 160},
    "resnet50-fpn-v2": {
        "min_size": 160,
        "max_size": 256,
        "rpn_post_nms_top_n_test": REGIONS,
        "box_batch_size_per_image": 64,
    },
    "mobilenetv3-large-fpn": {"min_size": 160, "max_size": 280},
    "mobilenetv3-large-320-fpn": {"min_size": 160, "max_size": 320},
}


SLOW = ("resnet50-fpn-v2", "mobilenetv3-large-fpn")
"""Presets whose parts the others have as well, or that take long."""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PRESETS]
)
def pair(
    request: pytest.FixtureRequest, calibrated: Callable[..., nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    preset = request.param
    theirs = calibrated(preset, **PRESETS[preset])
    path = tmp_path_factory.mktemp("weights") / f"{preset}.pth"
    ours, config = load(theirs.state_dict(), path, preset=preset if "320" in preset else None)
    assert config.preset == preset
    if preset == "resnet50-fpn-v2":
        ours.proposals = replace(ours.proposals, proposals=REGIONS)
    return Pair(theirs, ours, config, (PRESETS[preset]["min_size"], PRESETS[preset]["max_size"]))


def load(state: dict[str, Tensor], path: Path, preset: str | None = None) -> tuple[FasterRCNN, ModelConfig]:
    torch.save(state, path)
    ours, config = build.load_model(path, preset=preset)
    path.unlink()
    return ours.eval(), config


# ---- detections


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_detections(pair: Pair, size_hw: tuple[int, int], random_image: Callable[..., Tensor]) -> None:
    check_detections(pair, random_image(size_hw, 77))


@torch.no_grad()
def check_detections(pair: Pair, image: Tensor) -> None:
    (expected,) = pair.theirs([image])
    assert 5 <= len(expected["labels"]) < 100, "several, but no more than are reported"
    assert len(expected["labels"].unique()) >= 3
    image_hw = (image.shape[1], image.shape[2])
    batch = as_batch([image], pair)
    (found,) = pair.ours(batch)
    assert len(found.labels) == len(expected["labels"])
    assert (found.scores.diff() <= 0).all()
    found = RawDetections(boxes.scale(found.boxes, batch.sizes_hw[0], image_hw), found.scores, found.labels)
    order = partners(found, expected)
    torch.testing.assert_close(found.labels[order], expected["labels"] - 1)
    torch.testing.assert_close(found.boxes[order], expected["boxes"], rtol=0, atol=0.01)
    torch.testing.assert_close(found.scores[order], expected["scores"], rtol=0, atol=1e-5)


def partners(found: RawDetections, expected: dict[str, Tensor]) -> Tensor:
    """Which of ours is which of theirs, one to one: scores that differ by rounding only may change places."""
    distance = torch.cdist(found.boxes, expected["boxes"])
    distance += 1e6 * (found.labels[:, None] + 1 != expected["labels"])
    order = distance.argmin(dim=0)
    assert len(order.unique()) == len(order)
    assert (order - torch.arange(len(order))).abs().max() <= 1
    return order


def as_batch(images: list[Tensor], pair: Pair) -> ImageBatch:
    sizes = [resized_hw((image.shape[1], image.shape[2]), *pair.limits) for image in images]
    resized = [to_input(image, size, antialias=False) for image, size in zip(images, sizes, strict=True)]
    return make_batch(resized, fill=pair.config.input.mean, size_divisor=pair.config.input.size_divisor)


# ---- losses


def make_objects(images: list[Tensor]) -> list[dict[str, Tensor]]:
    """Objects of every label, from 8 pixels to most of the image; none in the last image."""
    generator = torch.Generator().manual_seed(5)
    objects = []
    for image in images:
        limit = torch.tensor([image.shape[2], image.shape[1]]) - 8
        ends = torch.rand(6, 2, 2, generator=generator) * limit
        corners = torch.cat([ends.amin(dim=1), ends.amax(dim=1) + 8], dim=1)
        objects.append({"boxes": corners, "labels": 1 + torch.arange(6) % 5})
    objects[-1] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return objects


def test_losses_and_gradients(pair: Pair, random_image: Callable[..., Tensor]) -> None:
    images = [random_image(size_hw, 20 + i) for i, size_hw in enumerate(SIZES_HW[:3])]
    objects = make_objects(images)
    take_all(pair)
    expected = torchvision_losses(pair.theirs, images, objects)

    batch = as_batch(images, pair)
    targets = []
    for image, found, to_hw in zip(images, objects, batch.sizes_hw, strict=True):
        scaled = boxes.scale(found["boxes"], (image.shape[1], image.shape[2]), to_hw)
        targets.append(Target(scaled, found["labels"] - 1))
    actual = pair.ours.losses(batch, targets)
    names = {
        "objectness": "loss_objectness",
        "rpn_boxes": "loss_rpn_box_reg",
        "classes": "loss_classifier",
        "boxes": "loss_box_reg",
    }
    for name, loss in actual:
        assert loss > 0
        torch.testing.assert_close(loss, expected[names[name]], rtol=1e-5, atol=0, msg=lambda m, n=name: f"{n}: {m}")
    actual.total.backward()
    sum(expected.values()).backward()
    check_gradients(pair)


def take_all(pair: Pair) -> None:
    """No dice: every candidate is drawn. And few regions, to save time."""
    pair.theirs.rpn.fg_bg_sampler.batch_size_per_image = ALL
    pair.theirs.roi_heads.fg_bg_sampler.batch_size_per_image = ALL
    pair.theirs.rpn._post_nms_top_n["training"] = REGIONS
    ours = pair.ours
    ours.rpn_loss = replace(ours.rpn_loss, assigner=replace(ours.rpn_loss.assigner, count=ALL))
    ours.region_loss = replace(ours.region_loss, assigner=replace(ours.region_loss.assigner, count=ALL))
    ours.training_proposals = replace(ours.training_proposals, proposals=REGIONS)


def torchvision_losses(model: nn.Module, images: list[Tensor], objects: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    losses = model(images, objects)
    model.eval()
    return losses


def check_gradients(pair: Pair) -> None:
    """Every parameter's, within 1 %: a unit that rounding lifts over zero has a gradient on one side only.

    (torchvision in float32 differs from itself in float64 by up to 0.4 %.)
    """
    expected = from_torchvision({name: p.grad for name, p in pair.theirs.named_parameters()})
    for name, parameter in pair.ours.named_parameters():
        assert parameter.grad is not None, name
        assert float(expected[name].norm()) > 0, name
        assert float((parameter.grad - expected[name]).norm() / expected[name].norm()) < 0.01, name


# ---- files


def test_class_rows__background_first_becomes_last(pair: Pair) -> None:
    predictor, head = pair.theirs.roi_heads.box_predictor, pair.ours.box_head
    for part in ("weight", "bias"):
        logits, own_logits = getattr(predictor.cls_score, part), getattr(head.class_logits, part)
        assert torch.equal(own_logits[-1], logits[0])
        assert torch.equal(own_logits[:-1], logits[1:])
        assert torch.equal(getattr(head.box_deltas, part), getattr(predictor.bbox_pred, part)[4:])


def test_old_layout__norms_without_eps(
    calibrated: Callable[..., nn.Module], random_image: Callable[..., Tensor], tmp_path: Path
) -> None:
    theirs = calibrated("resnet50-fpn", norm_eps=1e-12, **PRESETS["resnet50-fpn"])
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0  # as torchvision's overwrite_eps does to the frozen norms of its published weights
    state = theirs.state_dict()
    old = {old_name(name): value for name, value in state.items() if "num_batches_tracked" not in name}
    assert not set(old) <= set(state)
    theirs.load_state_dict(old)  # the names are those that torchvision renames itself
    ours, config = load(old, tmp_path / "old.pth")
    assert config.backbone.norm_eps == 0
    image = random_image(SIZES_HW[0], 78)
    check_detections(Pair(theirs, ours, config, (96, 160)), image)

    other, other_config = load(state, tmp_path / "new.pth")
    assert other_config.backbone.norm_eps == 1e-5
    with torch.no_grad():
        change = ours.features(image[None])[0] - other.features(image[None])[0]
    assert change.abs().max() > 1e-3, "eps is too small to be seen: the comparison above proves nothing"


def old_name(name: str) -> str:
    """Before torchvision 0.13: one module less around the convolutions of the pyramid and of the RPN."""
    if ".fpn." in name:
        return name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
    return name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet34", marks=pytest.mark.slow)])
def test_detections__of_a_shallow_resnet_with_own_anchors(name: str, tmp_path: Path) -> None:
    """As people build it: `resnet_fpn_backbone`, an anchor generator, other sizes of the input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = resnet_fpn_backbone(backbone_name=name, weights=None)
        sizes, ratios = tuple((float(8 * 2**level),) for level in range(5)), ((0.5, 0.8, 1.0, 1.25, 2.0),) * 5
        theirs = TorchvisionFasterRCNN(
            backbone,
            num_classes=4,
            rpn_anchor_generator=TorchvisionAnchors(sizes, ratios),
            min_size=96,
            max_size=160,
            box_score_thresh=0.0,
        ).eval()
    torch.save(theirs.state_dict(), tmp_path / "own.pth")
    anchors = AnchorConfig(sizes=sizes, ratios=ratios)
    detector = fasterrcnn.load(tmp_path / "own.pth", anchors=anchors, short_side=96, long_side=160, device="cpu")
    assert detector.config.preset == f"{name}-fpn"
    image = torch.rand(3, 120, 200, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (expected,) = theirs([image])
    detections = detector.predict(image, score=0.0)
    assert len(detections) == len(expected["scores"]) > 0
    torch.testing.assert_close(torch.from_numpy(detections.scores), expected["scores"], rtol=1e-4, atol=1e-5)
