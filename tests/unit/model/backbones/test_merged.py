"""Merged networks against timm's own, with norms that do something."""

import copy

import pytest
import torch

from fasterrcnn.model.backbones.merged import MergedConv2d
from fasterrcnn.model.backbones.norms import fold_batch_norm
from fasterrcnn.model.backbones.timm_backbone import TimmBackbone

timm = pytest.importorskip("timm")
NAMES = ["tf_efficientnet_lite0", "test_efficientnet", "mobilenetv3_small_050", "resnet18"]
STRIDES = (8, 16, 32)


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    """timm's network, and the backbone made of it, in float64."""
    torch.manual_seed(0)
    network = timm.create_model(request.param, features_only=True, out_indices=(2, 3, 4))
    network = timm.layers.freeze_batch_norm_2d(network)
    state = {
        key: torch.rand_like(value) + 0.5 if value.dtype == torch.float32 and value.dim() == 1 else value
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    body = TimmBackbone(request.param, STRIDES)
    assert list(body.network.state_dict()) == list(state)
    body.network.load_state_dict(state)
    return network.double(), body.double()


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("image_hw", [(64, 96), (33, 97), (70, 50)])
def test_body__maps_and_gradients(pair, image_hw):
    network, body = pair
    pixels = torch.randn(2, 3, *image_hw, dtype=torch.float64)
    found, expected = body(pixels), network(pixels)
    same(found, expected)
    for maps, whose in ((found, body.network), (expected, network)):
        whose.zero_grad()
        sum(level.square().mean() for level in maps).backward()
    gradients = [[parameter.grad for parameter in whose.parameters()] for whose in (body.network, network)]
    same(*gradients)


def test_body__folded(pair):
    network, body = pair
    folded = fold_batch_norm(body)
    for image_hw in ((64, 96), (33, 97)):
        pixels = torch.randn(1, 3, *image_hw, dtype=torch.float64)
        same(folded(pixels), network(pixels))
    assert not any(parameter.requires_grad for name, parameter in folded.named_parameters() if "conv_dw" in name)
    same(body(pixels), network(pixels))


def test_body__a_copy_has_its_own_norms(pair):
    _, body = pair
    pixels = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before = body(pixels)
    other = copy.deepcopy(body)
    for module in other.modules():
        if hasattr(module, "running_var"):
            module.running_var.fill_(9.0)
    same(body(pixels), before)
    assert not torch.allclose(other(pixels)[0], before[0])


def test_body__which_are_merged():
    count = {
        name: sum(isinstance(module, MergedConv2d) for module in TimmBackbone(name, STRIDES).modules())
        for name in NAMES
    }
    assert count["tf_efficientnet_lite0"] == 48
    assert count["resnet18"] == 0  # of unknown order
    learning = TimmBackbone("test_efficientnet", STRIDES, frozen_norm=False)
    assert not any(isinstance(module, MergedConv2d) for module in learning.modules())
