"""Names of tensors are a promise: checkpoints are read by them."""

import pytest
import torch

from fasterrcnn import presets
from fasterrcnn.build import assemble

PAIR = ("weight", "bias")
RPN = {f"rpn.{layer}.{part}" for layer in ("convs.0", "objectness", "deltas") for part in PAIR}
OUTPUTS = {f"box_head.{layer}.{part}" for layer in ("class_logits", "box_deltas") for part in PAIR}
TWO_LAYERS = {f"box_head.body.{number}.{part}" for number in (1, 3) for part in PAIR}
PYRAMID = {f"backbone.neck.{side}.{n}.0.{part}" for side in ("lateral", "output") for n in range(4) for part in PAIR}


def keys_of(preset: str) -> set[str]:
    with torch.device("meta"):
        return set(assemble(presets.get(preset, ["cat", "dog"])).state_dict())


@pytest.mark.parametrize("preset", [*presets.names(), "timm:resnet18"])
def test_state_dict__parts(preset):
    keys = keys_of(preset)
    assert {key.split(".")[0] for key in keys} == {"backbone", "rpn", "box_head"}
    assert keys >= RPN | OUTPUTS
    assert {".".join(key.split(".")[:2]) for key in keys if key.startswith("backbone.")} <= {
        "backbone.body",
        "backbone.neck",
    }


def test_state_dict__all_but_the_body_of_resnet50_fpn():
    keys = {key for key in keys_of("resnet50-fpn") if not key.startswith("backbone.body.")}
    assert keys == RPN | OUTPUTS | TWO_LAYERS | PYRAMID


def test_state_dict__body_of_resnet50_has_torchvisions_names():
    body = {key.removeprefix("backbone.body.") for key in keys_of("resnet50-fpn")}
    assert {"conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer4.2.conv3.weight"} <= body


def test_state_dict__head_of_resnet50_c4():
    assert "box_head.body.stage.2.conv3.weight" in keys_of("resnet50-c4")
