"""Merged networks against timm's own, with norms that do something."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn.acceleration import accelerate
from fasterrcnn.acceleration.fold_norms import MergedConv2d, fold_batch_norms, merge_frozen_norms
from fasterrcnn.model.backbones.fpn import FeaturePyramid
from fasterrcnn.model.backbones.mobilenet import MobileNetV3Large
from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d, Norm
from fasterrcnn.model.backbones.resnet import ResNet, Shape
from fasterrcnn.model.backbones.timm_backbone import TimmBackbone

timm = pytest.importorskip("timm")
NAMES = ["tf_efficientnet_lite0", "test_efficientnet", "mobilenetv3_small_050", "resnet18"]
STRIDES = (8, 16, 32)


def merged(network: nn.Module) -> nn.Module:
    merge_frozen_norms(network)
    return network


def folded_copy(network: nn.Module) -> nn.Module:
    copied = copy.deepcopy(network)
    fold_batch_norms(copied)
    return copied


@torch.no_grad()
def randomise(network: nn.Module) -> nn.Module:
    """Statistics and affine parts as of a trained network."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            module.weight.uniform_(0.5, 1.0, generator=generator)
            module.bias.uniform_(-0.3, 0.3, generator=generator)
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.8, 2.0, generator=generator)
    return network.eval()


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d) for m in network.modules())


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
    body = merged(TimmBackbone(request.param, STRIDES))
    assert list(body.network.state_dict()) == list(state)
    body.network.load_state_dict(state)
    return network.double(), body.double()


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.detach().abs().max()))


@pytest.mark.parametrize("image_hw", [(64, 96), (33, 47)])
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
    folded = folded_copy(body)
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
        name: sum(isinstance(module, MergedConv2d) for module in merged(TimmBackbone(name, STRIDES)).modules())
        for name in NAMES
    }
    assert count["tf_efficientnet_lite0"] == 48
    assert count["resnet18"] == 0  # of unknown order
    learning = merged(TimmBackbone("test_efficientnet", STRIDES, frozen_norm=False))
    assert not any(isinstance(module, MergedConv2d) for module in learning.modules())


@pytest.mark.parametrize("kind", ["frozen", "batch"])
@pytest.mark.parametrize("make", [lambda n: ResNet(Shape(50), (2, 3), norm=n), lambda n: MobileNetV3Large(norm=n)])
def test_fold_batch_norms__equal_outputs(kind, make):
    torch.manual_seed(0)
    body = randomise(make(Norm(kind)))
    folded = folded_copy(body)
    assert norms_in(folded) == 0
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, oracle in zip(folded(x), body(x), strict=True):
            assert_close(ours, oracle, rtol=1e-4, atol=1e-4 * float(oracle.abs().max()))


def test_accelerate__for_inference_leaves_the_original_alone():
    body = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    network = nn.ModuleDict({"body": body, "box_head": nn.ModuleDict({"body": nn.Sequential(nn.Flatten())})})
    before = {key: value.clone() for key, value in body.state_dict().items()}
    assert norms_in(accelerate(network, for_="inference")) == 0
    assert norms_in(body) == 1
    assert_close(dict(body.state_dict()), before)
    assert body[0].bias.requires_grad


def test_fold_batch_norms__convolution_with_bias_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)).eval()
    with torch.no_grad():
        network[0].weight.fill_(3.0)
        network[0].bias.fill_(5.0)
        network[1].running_mean.fill_(1.0)
        network[1].running_var.fill_(4.0)
        network[1].weight.fill_(6.0)
        network[1].bias.fill_(-2.0)
    folded = folded_copy(network)  # (3 x + 5 - 1) / 2 * 6 - 2
    assert_close(folded[0].weight.flatten(), torch.tensor([9.0]), check_stride=False)
    assert_close(folded[0].bias, torch.tensor([10.0]))


def test_fold_batch_norms__only_where_a_convolution_comes_before():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3))
    assert norms_in(folded_copy(network)) == 1


def test_fold_batch_norms__pyramid():
    torch.manual_seed(0)
    pyramid = randomise(FeaturePyramid((4, 8), 6, norm=Norm("batch")))
    maps = [torch.rand(1, 4, 8, 8), torch.rand(1, 8, 4, 4)]
    folded = folded_copy(pyramid)
    assert norms_in(folded) == 0
    with torch.no_grad():
        assert_close(folded(maps), pyramid(maps), rtol=1e-4, atol=1e-5)


def test_fold_batch_norms__network_of_unknown_order_stays():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    network.defines_layers_out_of_order = True
    assert norms_in(folded_copy(nn.Sequential(network))) == 1
