"""Files of MMDetection: recognised by their content, and the same detections as MMDetection's own semantics."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reference_mmdetection as reference
import torch
from reference_bodies import random_image
from reference_mmdetection import CAFFE, Config

from fasterrcnn import build
from fasterrcnn.inference.detector import Detector

NAMES = ("cat", "dog", "owl", "ant", "bee", "cow")
INPUT_HW = (144, 205)
CAFFE_TEXT = """
model = dict(backbone=dict(type='ResNet', depth=50, norm_eval=True, style='caffe'))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
"""
CASES: dict[str, tuple[Config, dict[str, Any]]] = {
    "fpn, release 3": (Config("fpn", proposals=80), {"dataset_meta": {"classes": NAMES, "palette": [(1, 2, 3)] * 6}}),
    "c4, caffe": (Config("c4", proposals=25, **CAFFE), {"CLASSES": NAMES, "config": CAFFE_TEXT}),
    "dc5, caffe": (Config("dc5", proposals=80, **CAFFE), {"CLASSES": NAMES, "config": CAFFE_TEXT}),
}


SLOW = {"c4, caffe", "dc5, caffe"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES])
def test_detections(case: str, tmp_path: Path) -> None:
    config, meta = CASES[case]
    tensors = {key: value.double() for key, value in reference.random_tensors(config).items()}
    reference.calibrate(tensors, config, random_image(*INPUT_HW, seed=1))
    written = {key: value.float() for key, value in tensors.items()}
    path = tmp_path / "epoch_12.pth"
    counters = {"backbone.bn1.num_batches_tracked": torch.tensor(7)}
    torch.save({"meta": {"epoch": 12, **meta}, "state_dict": {**written, **counters}}, path)
    logged: list[str] = []
    model, loaded = build.load_model(path, log=logged.append)
    path.unlink()
    assert logged == [
        f"{path}: resnet50-{config.kind} of MMDetection, 6 classes (cat, dog, owl...), "
        + ("BGR pixels, 0..255 less the mean" if config.style == "caffe" else "RGB pixels, normalised")
    ]
    model.proposals = replace(model.proposals, proposals=config.proposals)
    size = loaded.input.model_copy(update={"short_side": INPUT_HW[0], "long_side": INPUT_HW[1]})
    detector = Detector(model.double(), loaded.model_copy(update={"input": size}), device="cpu")
    rgb = random_image(*INPUT_HW, seed=2)
    found = detector.predict(rgb, score=config.score)
    boxes, scores, labels = reference.detect({key: value.double() for key, value in written.items()}, config, rgb)

    assert found.classes == NAMES
    assert 10 <= len(scores) <= 100
    assert len(labels.unique()) >= 3
    assert len(found) == len(scores)
    ours = torch.from_numpy(found.boxes).double()
    order = (torch.cdist(ours, boxes) + 1e6 * (torch.from_numpy(found.labels)[:, None] != labels)).argmin(dim=0)
    assert len(order.unique()) == len(order)
    torch.testing.assert_close(ours[order], boxes, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(found.scores)[order].double(), scores, rtol=0, atol=1e-5)
