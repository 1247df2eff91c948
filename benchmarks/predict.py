"""A whole prediction of resnet50-fpn at 800x1066 on the CPU against torchvision's model with the same weights.

python benchmarks/predict.py
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from compare import alternate, base_parser, report
from torchvision.models.detection import fasterrcnn_resnet50_fpn

import fasterrcnn
from fasterrcnn.build import load_model

ROUNDS = 7
SIDES, TINY_SIDES = (800, 1333), (96, 160)
"""Of the network's input, at most: the shorter and the longer."""


def lively_model(sides: tuple[int, int] = SIDES) -> torch.nn.Module:
    """torchvision's detector with random weights that detect something: norms that keep the signal's size."""
    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=91, min_size=sides[0], max_size=sides[1]
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn3.weight"):
                parameter.fill_(0.25)
        model.rpn.head.cls_logits.weight *= 30
        model.rpn.head.bbox_pred.weight *= 5
        model.roi_heads.box_predictor.cls_score.weight *= 40
        model.roi_heads.box_predictor.bbox_pred.weight *= 5
    return model


def make_parser() -> argparse.ArgumentParser:
    return base_parser(__doc__)


def main(command: Sequence[str] | None = None) -> None:
    """Check that both sides agree, then time them alternately."""
    arguments = make_parser().parse_args(command)
    sides, rounds = (TINY_SIDES, 1) if arguments.tiny else (SIDES, ROUNDS)
    theirs = lively_model(sides)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pth"
        torch.save(theirs.state_dict(), file)
        model, config = load_model(file)
    size = config.input.model_copy(update={"short_side": sides[0], "long_side": sides[1]})
    ours = fasterrcnn.Detector(model, config.model_copy(update={"input": size}), device="cpu")
    image = torch.rand(3, 480, 640)
    image = torch.nn.functional.avg_pool2d(image[None], 9, 1, 4)[0] * 2 % 1

    def run_theirs() -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return theirs([image])[0]

    def run_ours() -> fasterrcnn.Detections:
        return ours.predict(image)

    expected, found = run_theirs(), run_ours()
    assert len(found) == len(expected["boxes"]) > 10, f"{len(found)} and {len(expected['boxes'])} detections"
    assert (torch.from_numpy(found.labels) + 1 == expected["labels"]).all()
    deviation = float((torch.from_numpy(found.boxes) - expected["boxes"]).abs().max())
    difference = float((torch.from_numpy(found.scores) - expected["scores"]).abs().max())
    assert deviation < 0.01, deviation
    assert difference < 1e-5, difference
    numbers = alternate(run_ours, run_theirs, rounds)
    numbers |= {"detections": len(found), "largest_box_deviation": deviation, "largest_score_deviation": difference}
    at = "{}x{}".format(*size.resized_hw((480, 640)))
    report("predict", {f"resnet50-fpn, 640x480 image at {at}": numbers}, arguments.output)


if __name__ == "__main__":
    main()
