"""Training on a CPU: torchvision's model and reference loop against ours, from the same start and images.

python benchmarks/training.py DATA [--epochs 2] [--seeds 3] [--split val] [--every 1] [--side both]
    [--precision float32]

DATA has a split train. In alternation, once for each seed, both sides (or one, "ours" or "theirs") learn from all
training images, or from every second, third..., for the same number of epochs. Theirs: torchvision's FasterRCNN and
the loop of its references/detection (SGD, warm-up over the first epoch, steps at 16/26 and 22/26 of the run, flips),
its rate scaled to a batch of 4. Ours: `fasterrcnn.fit` with its defaults. Same backbone and weights, pyramid, head,
proposals and regions. With --precision bf16, theirs runs under autocast and ours with that setting; "auto" is ours.
Prints images per second while learning, and AP by one evaluator.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from fasterrcnn.cli.options import configure_process
from fasterrcnn.images import read_image

configure_process()

import timm
import torch
from compare import base_parser, report
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.transforms.functional import pil_to_tensor

import fasterrcnn
from fasterrcnn import presets
from fasterrcnn.build import build_model
from fasterrcnn.config import ModelConfig, Precision
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage, to_coco
from fasterrcnn.data.checks import check_and_repair
from fasterrcnn.evaluation.report import Report, score_detections
from fasterrcnn.training.prepare import resolve, start_config

MODEL, BATCH = "efficientnet-lite0-fpn", 4
TINY_SHORT_SIDE = 64


class Backbone(nn.Module):
    """A backbone of timm, its batch norms frozen, under torchvision's pyramid."""

    def __init__(self, body: nn.Module, channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(channels, out_channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn({str(level): one for level, one in enumerate(self.body(pixels))})
        return maps


class Images(torch.utils.data.Dataset):
    """As torchvision's loop wants them: tensors in 0..1, boxes in pixels, labels from 1; flipped half of the time."""

    def __init__(self, records: list[AnnotatedImage]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        record = self.records[index]
        pixels, boxes = pil_to_tensor(read_image(record.path)).float() / 255, torch.from_numpy(record.boxes)
        if random.random() < 0.5:
            pixels = pixels.flip(-1)
            boxes = torch.stack(
                [pixels.shape[-1] - boxes[:, 2], boxes[:, 1], pixels.shape[-1] - boxes[:, 0], boxes[:, 3]], 1
            )
        return pixels, {"boxes": boxes, "labels": torch.from_numpy(record.labels) + 1}


def their_model(config: ModelConfig, seed: int) -> FasterRCNN:
    torch.manual_seed(seed)
    state = build_model(config, weights="imagenet").backbone.body.network.state_dict()
    network = timm.create_model(config.backbone.body.removeprefix("timm:"), features_only=True, out_indices=(2, 3, 4))
    network = timm.layers.freeze_batch_norm_2d(network)
    network.load_state_dict(state)
    network.conv_stem.requires_grad_(False)
    channels = network.feature_info.channels()
    assign = config.regions.assign
    return FasterRCNN(
        Backbone(network, channels, config.backbone.neck_channels),
        min_size=config.input.short_side,
        max_size=config.input.long_side,
        image_mean=list(config.input.mean),
        image_std=list(config.input.std),
        rpn_anchor_generator=AnchorGenerator(config.anchors.sizes, config.anchors.ratios),
        rpn_pre_nms_top_n_train=config.proposals.training_candidates,
        rpn_post_nms_top_n_train=config.proposals.training_proposals,
        rpn_pre_nms_top_n_test=config.proposals.candidates,
        rpn_post_nms_top_n_test=config.proposals.proposals,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], config.regions.output_size, config.regions.sampling_ratio),
        box_head=TwoMLPHead(config.backbone.neck_channels * config.regions.output_size**2, config.regions.widths[0]),
        box_predictor=FastRCNNPredictor(config.regions.widths[-1], len(config.classes) + 1),
        box_batch_size_per_image=assign.count,
    )


def train_theirs(
    model: FasterRCNN, records: list[AnnotatedImage], seed: int, epochs: int, precision: Precision
) -> float:
    """Learn as torchvision's references do; seconds."""
    random.seed(seed)
    torch.manual_seed(seed)
    loader = DataLoader(Images(records), BATCH, shuffle=True, collate_fn=lambda rows: tuple(zip(*rows, strict=True)))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.02 * BATCH / 16, momentum=0.9, weight_decay=1e-4)
    drops = [round(epochs * part / 26) for part in (16, 22)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, 0.1)
    model.train()
    started = time.perf_counter()
    for epoch in range(epochs):
        steps = min(1000, len(loader) - 1)
        warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.001, total_iters=steps) if epoch == 0 else None
        for images, targets in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                losses = sum(model(list(images), list(targets)).values())
            optimizer.zero_grad()
            losses.backward()
            optimizer.step()
            if warm_up is not None:
                warm_up.step()
        schedule.step()
    return time.perf_counter() - started


@torch.inference_mode()
def score_theirs(model: FasterRCNN, data: AnnotatedData, records: list[AnnotatedImage]) -> Report:
    model.eval()
    results = []
    for record in records:
        (found,) = model([pil_to_tensor(read_image(record.path)).float() / 255])
        for (x1, y1, x2, y2), label, score in zip(
            found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True
        ):
            category = data.category_ids[label - 1]
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": record.image_id, "category_id": category, "bbox": box, "score": score})
    return score_detections(to_coco(data, records), results)


def learn_theirs(
    config: ModelConfig, data: AnnotatedData, split: str, seed: int, epochs: int, precision: Precision
) -> dict[str, float]:
    model = their_model(config, seed)
    records = data.split("train")
    seconds = train_theirs(model, records, seed, epochs, precision)
    return row("theirs", epochs * len(records) / seconds, score_theirs(model, data, data.split(split)))


def learn_ours(
    data: AnnotatedData, split: str, seed: int, epochs: int, short_side: int | None, precision: Precision
) -> dict[str, float]:
    records = data.split("train")
    to_learn = replace(data, splits={"train": records})  # or it would be measured after each epoch
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run = fasterrcnn.fit(
            to_learn, model=MODEL, output=Path(folder) / "run", epochs=epochs, batch_size=BATCH, seed=seed,
            short_side=short_side, precision=precision, logger="none",
            on_epoch=lambda measured: seconds.append(measured["seconds"]),
        )  # fmt: skip
        scores = fasterrcnn.evaluate(run.best, data, split=split)
    return row("ours", epochs * len(records) / sum(seconds), scores)


def row(side: str, images_per_second: float, scores: Report) -> dict[str, float]:
    numbers = {"images_per_second": images_per_second, "ap": scores.ap, "ap50": scores.ap50, "ap75": scores.ap75}
    return {f"{side}_{name}": number or 0.0 for name, number in numbers.items()}


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="val")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--side", choices=("both", "ours", "theirs"), default="both")
    return parser


def main(command: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(command)
    short_side = None
    if options.tiny:
        options.epochs, options.seeds, short_side = 1, 1, TINY_SHORT_SIDE
    data = check_and_repair(fasterrcnn.read_data(options.data), "fix").data
    data = replace(data, splits={**data.splits, "train": data.split("train")[:: options.every]})
    settings = resolve({"data": "", "model": MODEL, "short_side": short_side})
    config = start_config(replace(data, splits={"train": data.split("train")}), settings)
    assert presets.get(MODEL).regions.assign.count == config.regions.assign.count
    rows: list[dict[str, float]] = []
    for seed in range(options.seeds):
        one: dict[str, float] = {}
        if options.side != "ours":
            one |= learn_theirs(config, data, options.split, seed, options.epochs, options.precision)
        if options.side != "theirs":
            one |= learn_ours(data, options.split, seed, options.epochs, short_side, options.precision)
        if options.side == "both":
            one["ratio"] = one["ours_images_per_second"] / one["theirs_images_per_second"]
        rows.append(one)
        print(f"seed {seed}:", one, flush=True)
    medians = {name: statistics.median(one[name] for one in rows) for name in rows[0]}
    whole = {f"seed {seed}": one for seed, one in enumerate(rows)} | {"median": medians}
    report("training", whole, options.output)


if __name__ == "__main__":
    main()
