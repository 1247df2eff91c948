"""MMDetection's Faster R-CNN when it detects, as plain functions on tensors under its names.

Written from its code's meaning, for tests: it uses torch and torchvision's operations and nothing of the library.
Images come at the size of the network input; how OpenCV resizes has a test of its own.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from reference_bodies import BLOCKS, Dice, State, frozen_norm, run_stage
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

HEAD = "roi_head.bbox_head"
CAFFE = {"style": "caffe", "to_rgb": False, "mean": (103.530, 116.280, 123.675), "std": (1.0, 1.0, 1.0)}


@dataclass(frozen=True)
class Config:
    """What its configuration files set for detecting."""

    kind: str  # "fpn", "c4" or "dc5"
    classes: int = 6
    style: str = "pytorch"
    to_rgb: bool = True
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    fc: int = 64
    proposals: int = 1000
    score: float = 0.05

    @property
    def strides(self) -> list[int]:
        return [4, 8, 16, 32, 64] if self.kind == "fpn" else [16]

    @property
    def scales(self) -> list[float]:
        return [8.0] if self.kind == "fpn" else [2.0, 4.0, 8.0, 16.0, 32.0]

    def block(self, stage: int, number: int, layer: str) -> str:
        shared = self.kind == "c4" and stage == 4
        return f"{'roi_head.shared_head' if shared else 'backbone'}.layer{stage}.{number}.{layer}"


def random_tensors(config: Config, seed: int = 0) -> State:
    """A checkpoint's "state_dict" with random numbers."""
    dice = Dice(seed)
    dice.conv("backbone.conv1", 64, 3, 7)
    dice.state["backbone.conv1.weight"] /= 60 / config.std[0]
    dice.norm("backbone.bn1", 64)
    for stage, blocks in enumerate(BLOCKS[50], start=1):
        dice.stage(stage, blocks, partial(config.block, stage), 1, 64)
    channels = {"fpn": 256, "c4": 1024, "dc5": 2048}[config.kind]
    if config.kind == "fpn":
        for level in range(4):
            dice.conv(f"neck.lateral_convs.{level}.conv", 256, 256 * 2**level, 1, bias=True, gain=1.0)
            dice.conv(f"neck.fpn_convs.{level}.conv", 256, 256, 3, bias=True, gain=1.0)
    anchors = 3 * len(config.scales)
    dice.conv("rpn_head.rpn_conv", channels, channels, 3, bias=True)
    dice.conv("rpn_head.rpn_cls", anchors, channels, 1, bias=True)
    dice.conv("rpn_head.rpn_reg", 4 * anchors, channels, 1, bias=True)
    width = config.fc
    if config.kind == "c4":
        width = 2048
    else:
        dice.linear(f"{HEAD}.shared_fcs.0", width, channels * 49)
        dice.linear(f"{HEAD}.shared_fcs.1", width, width)
    dice.linear(f"{HEAD}.fc_cls", config.classes + 1, width)
    dice.linear(f"{HEAD}.fc_reg", 4 * config.classes, width)
    return dice.state


@torch.no_grad()
def calibrate(tensors: State, config: Config, rgb: Tensor, background: float = 2.5) -> None:
    """Scale the last layers so that scores differ and boxes move; deltas stay where growth is not cut."""
    features = features_of(tensors, config, preprocess(rgb, config))
    hidden = [conv(level, tensors, "rpn_head.rpn_conv", padding=1).relu() for level in features]
    for name, deviation in (("rpn_head.rpn_cls", 2.0), ("rpn_head.rpn_reg", 0.2)):
        outputs = torch.cat([conv(level, tensors, name).transpose(0, 1).flatten(1) for level in hidden], dim=1)
        rescale(tensors, name, outputs.T, deviation)
    boxes = propose(tensors, config, features, (rgb.shape[1], rgb.shape[2]))
    scores, moves = box_outputs(tensors, config, features, boxes)
    rescale(tensors, f"{HEAD}.fc_cls", scores, 1.5)
    rescale(tensors, f"{HEAD}.fc_reg", moves, 1.0)
    tensors[f"{HEAD}.fc_cls.bias"][-1] += background


def rescale(tensors: State, name: str, output: Tensor, deviation: float) -> None:
    mean, spread = output.mean(dim=0), output.std(dim=0)
    weight = tensors[f"{name}.weight"]
    weight *= (deviation / spread).view(-1, *[1] * (weight.dim() - 1))
    tensors[f"{name}.bias"] = (tensors[f"{name}.bias"] - mean) * deviation / spread


@torch.no_grad()
def detect(tensors: State, config: Config, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels 0..K-1 of an image that has the size of the network input."""
    image_hw = (rgb.shape[1], rgb.shape[2])
    features = features_of(tensors, config, preprocess(rgb, config))
    rois = propose(tensors, config, features, image_hw)
    logits, deltas = box_outputs(tensors, config, features, rois)
    scores = logits.softmax(dim=-1)[:, :-1]
    boxes = decode(rois[:, None].expand(-1, config.classes, -1).reshape(-1, 4), deltas.reshape(-1, 4), image_hw, True)
    boxes, flat = boxes.view(-1, 4), scores.reshape(-1)
    labels = torch.arange(config.classes).expand(len(rois), -1).reshape(-1)
    wanted = flat > config.score
    boxes, flat, labels = boxes[wanted], flat[wanted], labels[wanted]
    kept = batched_nms(boxes, flat, labels, 0.5)[:100]
    return boxes[kept], flat[kept], labels[kept]


def preprocess(rgb: Tensor, config: Config) -> Tensor:
    image = rgb if config.to_rgb else rgb.flip(0)
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (config.mean, config.std))
    normalised = (image.double() - mean) / std
    return F.pad(normalised, (0, -rgb.shape[2] % 32, 0, -rgb.shape[1] % 32))  # pad_size_divisor=32, all of them


def features_of(tensors: State, config: Config, image: Tensor) -> list[Tensor]:
    x = F.conv2d(image[None], tensors["backbone.conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(frozen_norm(x, tensors, "backbone.bn1").relu(), kernel_size=3, stride=2, padding=1)
    maps = []
    for stage in range(1, 4 if config.kind == "c4" else 5):
        dilated = config.kind == "dc5" and stage == 4
        x = res_stage(x, tensors, config, stage, stride=1 if stage == 1 or dilated else 2, dilation=1 + dilated)
        maps.append(x)
    if config.kind != "fpn":
        return maps[-1:]
    laterals = [conv(maps[i], tensors, f"neck.lateral_convs.{i}.conv") for i in range(4)]
    for i in range(3, 0, -1):
        laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size=laterals[i - 1].shape[2:], mode="nearest")
    outs = [conv(laterals[i], tensors, f"neck.fpn_convs.{i}.conv", padding=1) for i in range(4)]
    return [*outs, F.max_pool2d(outs[-1], 1, stride=2)]


def res_stage(x: Tensor, tensors: State, config: Config, stage: int, *, stride: int, dilation: int = 1) -> Tensor:
    name, caffe = partial(config.block, stage), config.style == "caffe"
    options = {"stride": stride, "dilation": dilation, "groups": 1, "stride_in_1x1": caffe}
    return run_stage(x, tensors, name, BLOCKS[50][stage - 1], **options)


def conv(x: Tensor, tensors: State, name: str, padding: int = 0) -> Tensor:
    return F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=padding)


def linear(x: Tensor, tensors: State, name: str) -> Tensor:
    return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def priors(level: Tensor, stride: int, scales: list[float]) -> Tensor:
    """Ratio after ratio, and for each ratio scale after scale, around the upper left corner of every cell."""
    h_ratios = torch.tensor([0.5, 1.0, 2.0]).sqrt()
    w_ratios = 1 / h_ratios
    ws = (stride * w_ratios[:, None] * torch.tensor(scales)[None]).view(-1)
    hs = (stride * h_ratios[:, None] * torch.tensor(scales)[None]).view(-1)
    base = torch.stack([-0.5 * ws, -0.5 * hs, 0.5 * ws, 0.5 * hs], dim=-1)
    y, x = torch.meshgrid(torch.arange(level.shape[-2]) * stride, torch.arange(level.shape[-1]) * stride, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (base + shifts).reshape(-1, 4).double()


def decode(anchors: Tensor, deltas: Tensor, image_hw: tuple[int, int], region: bool) -> Tensor:
    """delta2bbox: deviations .1 .1 .2 .2 for regions, growth and shrinking cut at 1000/16, clipped to the image."""
    deltas = deltas * torch.tensor([0.1, 0.1, 0.2, 0.2] if region else [1.0] * 4, dtype=torch.float64)
    limit = abs(math.log(16 / 1000))
    centre, size = (anchors[:, :2] + anchors[:, 2:]) * 0.5, anchors[:, 2:] - anchors[:, :2]
    centre, size = centre + size * deltas[:, :2], size * deltas[:, 2:].clamp(-limit, limit).exp()
    x1y1, x2y2 = centre - size * 0.5, centre + size * 0.5
    border = torch.tensor([image_hw[1], image_hw[0]])
    return torch.cat([x1y1.clamp(min=0).minimum(border), x2y2.clamp(min=0).minimum(border)], dim=1)


def propose(tensors: State, config: Config, features: list[Tensor], image_hw: tuple[int, int]) -> Tensor:
    before = 1000 if config.kind == "fpn" else 6000
    boxes, scores, levels = [], [], []
    for number, level in enumerate(features):
        hidden = conv(level, tensors, "rpn_head.rpn_conv", padding=1).relu()
        score = conv(hidden, tensors, "rpn_head.rpn_cls")[0].permute(1, 2, 0).reshape(-1).sigmoid()
        deltas = conv(hidden, tensors, "rpn_head.rpn_reg")[0].permute(1, 2, 0).reshape(-1, 4)
        anchors = priors(level, config.strides[number], config.scales)
        ranked, index = score.sort(descending=True)
        index = index[:before]
        boxes.append(decode(anchors[index], deltas[index], image_hw, False))
        scores.append(ranked[:before])
        levels.append(torch.full((len(index),), number))
    found, ranks, level_of = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
    valid = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    found, ranks, level_of = found[valid], ranks[valid], level_of[valid]
    return found[batched_nms(found, ranks, level_of, 0.7)[: config.proposals]]


def box_outputs(tensors: State, config: Config, features: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
    side = 14 if config.kind == "c4" else 7
    scale = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level_of = torch.floor(torch.log2(scale / 56 + 1e-6)).clamp(0, 3).long() * (config.kind == "fpn")
    pooled = features[0].new_zeros(len(boxes), features[0].shape[1], side, side)
    for number in level_of.unique():
        here = level_of == number
        ratio = 1 / config.strides[int(number)]
        pooled[here] = roi_align(features[int(number)], rois[here], side, ratio, sampling_ratio=0, aligned=True)
    if config.kind == "c4":
        hidden = res_stage(pooled, tensors, config, 4, stride=2)
        hidden = F.avg_pool2d(hidden, 7).flatten(1)
    else:
        hidden = linear(pooled.flatten(1), tensors, f"{HEAD}.shared_fcs.0").relu()
        hidden = linear(hidden, tensors, f"{HEAD}.shared_fcs.1").relu()
    return linear(hidden, tensors, f"{HEAD}.fc_cls"), linear(hidden, tensors, f"{HEAD}.fc_reg")
