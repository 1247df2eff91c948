"""Detectron2's Faster R-CNN when it detects, as plain functions on tensors under its names.

Written from its code's meaning, for tests: it uses torch and torchvision's operations and nothing of the library.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from reference_bodies import BLOCKS, Dice, State, frozen_norm, run_stage
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms, roi_align

RPN, BOX = "proposal_generator.rpn_head", "roi_heads.box_predictor"
RATIOS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Config:
    """The options of its configuration files that decide what is detected."""

    kind: str  # "FPN", "C4" or "DC5"
    classes: int = 6
    depth: int = 50
    groups: int = 1
    width: int = 64
    stride_in_1x1: bool = True
    input_format: str = "BGR"
    pixel_mean: tuple[float, float, float] = (103.530, 116.280, 123.675)
    pixel_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    short: int = 800
    long: int = 1333
    fc: int = 1024
    proposals: int = 1000
    score: float = 0.05

    @property
    def body(self) -> str:
        return "backbone.bottom_up" if self.kind == "FPN" else "backbone"

    @property
    def sizes(self) -> list[list[float]]:
        octaves = [32.0, 64.0, 128.0, 256.0, 512.0]
        return [[size] for size in octaves] if self.kind == "FPN" else [octaves]

    @property
    def strides(self) -> list[int]:
        return [4, 8, 16, 32, 64] if self.kind == "FPN" else [16]

    def block(self, stage: int, number: int, layer: str) -> str:
        """Its name of a layer, called as torchvision calls it, of a block of stage 1..4."""
        place = "roi_heads.res5" if self.kind == "C4" and stage == 4 else f"{self.body}.res{stage + 1}"
        layers = {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
        layers |= {f"bn{i}": f"conv{i}.norm" for i in (1, 2, 3)}
        return f"{place}.{number}.{layers.get(layer, layer)}"


def random_tensors(config: Config, seed: int = 0) -> State:
    """A checkpoint's "model" with random numbers, calibrated so that it detects."""
    dice = Dice(seed)
    dice.conv(f"{config.body}.stem.conv1", 64, 3, 7)
    dice.state[f"{config.body}.stem.conv1.weight"] /= 60 / config.pixel_std[0]
    dice.norm(f"{config.body}.stem.conv1.norm", 64)
    for stage, blocks in enumerate(BLOCKS[config.depth], start=1):
        dice.stage(stage, blocks, partial(config.block, stage), config.groups, config.width)
    channels = {"FPN": 256, "C4": 1024, "DC5": 2048}[config.kind]
    if config.kind == "FPN":
        for level in (2, 3, 4, 5):
            dice.conv(f"backbone.fpn_lateral{level}", 256, 64 * 2**level, 1, bias=True, gain=1.0)
            dice.conv(f"backbone.fpn_output{level}", 256, 256, 3, bias=True, gain=1.0)
    anchors = len(config.sizes[0]) * len(RATIOS)
    dice.conv(f"{RPN}.conv", channels, channels, 3, bias=True)
    dice.conv(f"{RPN}.objectness_logits", anchors, channels, 1, bias=True)
    dice.conv(f"{RPN}.anchor_deltas", 4 * anchors, channels, 1, bias=True)
    if config.kind != "C4":
        dice.linear("roi_heads.box_head.fc1", config.fc, channels * 49)
        dice.linear("roi_heads.box_head.fc2", config.fc, config.fc)
    dice.linear(f"{BOX}.cls_score", config.classes + 1, 2048 if config.kind == "C4" else config.fc)
    dice.linear(f"{BOX}.bbox_pred", 4 * config.classes, 2048 if config.kind == "C4" else config.fc)
    return dice.state


@torch.no_grad()
def calibrate(tensors: State, config: Config, rgb: Tensor, background: float = 2.5) -> None:
    """Scale the last layers so that, on this image, scores differ and boxes move as those of a trained network."""
    features, image_hw = features_of(tensors, config, preprocess(rgb, config))
    logits, deltas = rpn_outputs(tensors, features)
    rescale(tensors, f"{RPN}.objectness_logits", torch.cat(logits), 2.0)
    rescale(tensors, f"{RPN}.anchor_deltas", torch.cat(deltas), 0.2)
    boxes = propose(tensors, config, features, image_hw)
    scores, moves = box_outputs(tensors, config, features, boxes)
    rescale(tensors, f"{BOX}.cls_score", scores, 1.5)
    rescale(tensors, f"{BOX}.bbox_pred", moves, 1.0)
    tensors[f"{BOX}.cls_score.bias"][-1] += background


def rescale(tensors: State, name: str, output: Tensor, deviation: float) -> None:
    """Mean 0 and this deviation for each output channel, as far as this image goes."""
    flat = output.reshape(-1, output.shape[-1]) if output.shape[-1] != 4 else output.reshape(-1, 4)
    channels = len(tensors[f"{name}.bias"])
    if flat.shape[1] == channels:
        mean, spread = flat.mean(dim=0), flat.std(dim=0)
    else:
        mean, spread = flat.mean().expand(channels), flat.std().expand(channels)
    weight = tensors[f"{name}.weight"]
    weight *= (deviation / spread).view(-1, *[1] * (weight.dim() - 1))
    tensors[f"{name}.bias"] = (tensors[f"{name}.bias"] - mean) * deviation / spread


# ---- from an image to detections


@torch.no_grad()
def detect(tensors: State, config: Config, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes in the image's pixels, scores and classes 0..K-1, as its predictor reports them."""
    features, image_hw = features_of(tensors, config, preprocess(rgb, config))
    boxes = propose(tensors, config, features, image_hw)
    logits, deltas = box_outputs(tensors, config, features, boxes)
    found, scores, classes = select(logits, deltas, boxes, image_hw, config)
    scale = torch.tensor([rgb.shape[2] / image_hw[1], rgb.shape[1] / image_hw[0]] * 2)
    found = clip(found * scale, (rgb.shape[1], rgb.shape[2]))
    kept = (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
    return found[kept], scores[kept], classes[kept]


def preprocess(rgb: Tensor, config: Config) -> Tensor:
    """(3, h, w) in its order of colours, normalised, not padded."""
    image = rgb.permute(1, 2, 0).numpy()
    if config.input_format == "BGR":
        image = image[:, :, ::-1]
    h, w = image.shape[:2]
    scale = config.short * 1.0 / min(h, w)
    newh, neww = (config.short, scale * w) if h < w else (scale * h, config.short)
    if max(newh, neww) > config.long:
        scale = config.long * 1.0 / max(newh, neww)
        newh, neww = newh * scale, neww * scale
    neww, newh = int(neww + 0.5), int(newh + 0.5)
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((neww, newh), Image.BILINEAR))
    pixels = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
    mean, std = torch.tensor(config.pixel_mean).view(-1, 1, 1), torch.tensor(config.pixel_std).view(-1, 1, 1)
    return (pixels.double() - mean) / std


def features_of(tensors: State, config: Config, image: Tensor) -> tuple[list[Tensor], tuple[int, int]]:
    """Feature maps, and the size of the image without padding."""
    h, w = image.shape[-2:]
    if config.kind == "FPN":  # only the pyramid asks for sizes that can be halved five times
        image = F.pad(image, (0, -w % 32, 0, -h % 32))
    x = image[None].contiguous(memory_format=torch.channels_last)  # rounds as other convolutions of that layout do
    stem = f"{config.body}.stem.conv1"
    x = frozen_norm(F.conv2d(x, tensors[f"{stem}.weight"], stride=2, padding=3), tensors, f"{stem}.norm").relu()
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    maps = []
    for stage in range(1, 4 if config.kind == "C4" else 5):
        dilated = config.kind == "DC5" and stage == 4
        x = res_stage(x, tensors, config, stage, stride=1 if stage == 1 or dilated else 2, dilation=1 + dilated)
        maps.append(x)
    return (pyramid(tensors, maps) if config.kind == "FPN" else maps[-1:]), (h, w)


def res_stage(x: Tensor, tensors: State, config: Config, stage: int, *, stride: int, dilation: int = 1) -> Tensor:
    return run_stage(
        x,
        tensors,
        partial(config.block, stage),
        BLOCKS[config.depth][stage - 1],
        stride=stride,
        dilation=dilation,
        groups=config.groups,
        stride_in_1x1=config.stride_in_1x1,
    )


def conv(x: Tensor, tensors: State, name: str, padding: int = 0) -> Tensor:
    return F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=padding)


def pyramid(tensors: State, maps: list[Tensor]) -> list[Tensor]:
    """P2 to P6."""
    above = conv(maps[3], tensors, "backbone.fpn_lateral5")
    levels = [conv(above, tensors, "backbone.fpn_output5", padding=1)]
    for level in (4, 3, 2):
        lateral = conv(maps[level - 2], tensors, f"backbone.fpn_lateral{level}")
        above = lateral + F.interpolate(above, scale_factor=2.0, mode="nearest")
        levels.insert(0, conv(above, tensors, f"backbone.fpn_output{level}", padding=1))
    return [*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2, padding=0)]


def rpn_outputs(tensors: State, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Of each level: logits (h * w * anchors), deltas (h * w * anchors, 4)."""
    logits, deltas = [], []
    for level in features:
        hidden = conv(level, tensors, f"{RPN}.conv", padding=1).relu()
        logits.append(conv(hidden, tensors, f"{RPN}.objectness_logits").permute(0, 2, 3, 1).flatten())
        moves = conv(hidden, tensors, f"{RPN}.anchor_deltas")
        n, _, h, w = moves.shape
        deltas.append(moves.view(n, -1, 4, h, w).permute(0, 3, 4, 1, 2).reshape(-1, 4))
    return logits, deltas


def anchors_of(level: Tensor, stride: int, sizes: list[float]) -> Tensor:
    """Size after size, and for each size ratio after ratio, around the upper left corner of every cell."""
    cell = []
    for size in sizes:
        area = size**2.0
        for ratio in RATIOS:
            w = math.sqrt(area / ratio)
            h = ratio * w
            cell.append([-w / 2.0, -h / 2.0, w / 2.0, h / 2.0])
    y = torch.arange(0, level.shape[-2] * stride, step=stride, dtype=torch.float32)
    x = torch.arange(0, level.shape[-1] * stride, step=stride, dtype=torch.float32)
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x.reshape(-1), y.reshape(-1), x.reshape(-1), y.reshape(-1)], dim=1)
    return (shifts[:, None] + torch.tensor(cell)[None]).reshape(-1, 4).to(level.dtype)


def apply_deltas(deltas: Tensor, boxes: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """(n, 4 k) deltas on (n, 4) boxes."""
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    centre_x, centre_y = boxes[:, 0] + 0.5 * widths, boxes[:, 1] + 0.5 * heights
    dx, dy, dw, dh = (deltas[:, i::4] / weight for i, weight in enumerate(weights))
    limit = math.log(1000.0 / 16)
    x, y = dx * widths[:, None] + centre_x[:, None], dy * heights[:, None] + centre_y[:, None]
    w, h = dw.clamp(max=limit).exp() * widths[:, None], dh.clamp(max=limit).exp() * heights[:, None]
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], dim=-1).reshape(deltas.shape)


def clip(boxes: Tensor, image_hw: tuple[int, int]) -> Tensor:
    h, w = image_hw
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1.clamp(0, w), y1.clamp(0, h), x2.clamp(0, w), y2.clamp(0, h)], dim=-1)


def propose(tensors: State, config: Config, features: list[Tensor], image_hw: tuple[int, int]) -> Tensor:
    """The best proposals of all levels."""
    before = 1000 if config.kind == "FPN" else 6000
    logits, deltas = rpn_outputs(tensors, features)
    boxes, scores, levels = [], [], []
    for number, (level_logits, level_deltas) in enumerate(zip(logits, deltas, strict=True)):
        anchors = anchors_of(features[number], config.strides[number], config.sizes[number])
        decoded = apply_deltas(level_deltas, anchors, (1.0, 1.0, 1.0, 1.0))
        best, index = level_logits.topk(min(before, len(level_logits)))
        boxes.append(decoded[index])
        scores.append(best)
        levels.append(torch.full((len(index),), number))
    candidates, ranks, level_of = clip(torch.cat(boxes), image_hw), torch.cat(scores), torch.cat(levels)
    good = (candidates[:, 2] > candidates[:, 0]) & (candidates[:, 3] > candidates[:, 1])
    candidates, ranks, level_of = candidates[good], ranks[good], level_of[good]
    return candidates[batched_nms(candidates, ranks, level_of, 0.7)[: config.proposals]]


def levels_of(boxes: Tensor) -> Tensor:
    """0 for P2 to 3 for P5."""
    sizes = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    return torch.floor(4 + torch.log2(sizes / 224 + 1e-8)).clamp(2, 5).long() - 2


def box_outputs(tensors: State, config: Config, features: list[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Class logits (p, k + 1) and deltas (p, 4 k) of the proposals of one image."""
    rois = torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1)
    side = 14 if config.kind == "C4" else 7
    if config.kind == "FPN":
        pooled = features[0].new_zeros(len(boxes), 256, side, side)
        for number in range(4):
            here = levels_of(boxes) == number
            scale = 1 / config.strides[number]
            pooled[here] = roi_align(features[number], rois[here], side, scale, sampling_ratio=0, aligned=True)
    else:
        pooled = roi_align(features[0], rois, side, 1 / 16, sampling_ratio=0, aligned=True)
    if config.kind == "C4":
        pooled = pooled.contiguous(memory_format=torch.channels_last)
        hidden = res_stage(pooled, tensors, config, 4, stride=2).mean(dim=[2, 3])
    else:
        hidden = linear(pooled.flatten(1), tensors, "roi_heads.box_head.fc1").relu()
        hidden = linear(hidden, tensors, "roi_heads.box_head.fc2").relu()
    return linear(hidden, tensors, f"{BOX}.cls_score"), linear(hidden, tensors, f"{BOX}.bbox_pred")


def linear(x: Tensor, tensors: State, name: str) -> Tensor:
    return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def select(
    logits: Tensor, deltas: Tensor, proposals: Tensor, image_hw: tuple[int, int], config: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """The 100 best after NMS within each class; background is the last column."""
    boxes = apply_deltas(deltas, proposals, (10.0, 10.0, 5.0, 5.0)).view(len(proposals), -1, 4)
    boxes = clip(boxes, image_hw)
    scores = F.softmax(logits, dim=-1)[:, :-1]
    wanted = scores > config.score
    classes = wanted.nonzero()[:, 1]
    boxes, scores = boxes[wanted], scores[wanted]
    kept = batched_nms(boxes, scores, classes, 0.5)[:100]
    return boxes[kept], scores[kept], classes[kept]
