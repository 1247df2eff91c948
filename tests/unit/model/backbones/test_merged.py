"""Merged networks against timm's own, with norms that do something."""

import copy

import pytest
import torch

from fasterrcnn.model.backbones.merged import MergedConv2d
from fasterrcnn.model.backbones.norms import fold_batch_norm
from fasterrcnn.model.backbones.timm_trunk import TimmTrunk

timm = pytest.importorskip("timm")
NAMES = ["tf_efficientnet_lite0", "test_efficientnet", "mobilenetv3_small_050", "resnet18"]
STRIDES = (8, 16, 32)


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    """timm's network, and the trunk made of it, in float64."""
    torch.manual_seed(0)
    network = timm.create_model(request.param, features_only=True, out_indices=(2, 3, 4))
    network = timm.layers.freeze_batch_norm_2d(network)
    state = {
        key: torch.rand_like(value) + 0.5 if value.dtype == torch.float32 and value.dim() == 1 else value
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    trunk = TimmTrunk(request.param, STRIDES)
    assert list(trunk.network.state_dict()) == list(state)
    trunk.network.load_state_dict(state)
    return network.double(), trunk.double()


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("image_hw", [(64, 96), (33, 97), (70, 50)])
def test_trunk__maps_and_gradients(pair, image_hw):
    network, trunk = pair
    pixels = torch.randn(2, 3, *image_hw, dtype=torch.float64)
    found, expected = trunk(pixels), network(pixels)
    same(found, expected)
    for maps, whose in ((found, trunk.network), (expected, network)):
        whose.zero_grad()
        sum(level.square().mean() for level in maps).backward()
    gradients = [[parameter.grad for parameter in whose.parameters()] for whose in (trunk.network, network)]
    same(*gradients)


def test_trunk__folded(pair):
    network, trunk = pair
    folded = fold_batch_norm(trunk)
    for image_hw in ((64, 96), (33, 97)):
        pixels = torch.randn(1, 3, *image_hw, dtype=torch.float64)
        same(folded(pixels), network(pixels))
    assert not any(parameter.requires_grad for name, parameter in folded.named_parameters() if "conv_dw" in name)
    same(trunk(pixels), network(pixels))


def test_trunk__a_copy_has_its_own_norms(pair):
    _, trunk = pair
    pixels = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before = trunk(pixels)
    other = copy.deepcopy(trunk)
    for module in other.modules():
        if hasattr(module, "running_var"):
            module.running_var.fill_(9.0)
    same(trunk(pixels), before)
    assert not torch.allclose(other(pixels)[0], before[0])


def test_trunk__which_are_merged():
    count = {
        name: sum(isinstance(module, MergedConv2d) for module in TimmTrunk(name, STRIDES).modules()) for name in NAMES
    }
    assert count["tf_efficientnet_lite0"] == 48
    assert count["resnet18"] == 0  # of unknown order
    learning = TimmTrunk("test_efficientnet", STRIDES, frozen_norm=False)
    assert not any(isinstance(module, MergedConv2d) for module in learning.modules())
