"""Merged networks against the original ones, with norms that do something."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn import presets
from fasterrcnn.acceleration import accelerate
from fasterrcnn.acceleration.fold_norms import MergedConv2d, fold_batch_norms, merge_frozen_norms
from fasterrcnn.config import changed
from fasterrcnn.model.backbones import Backbone
from fasterrcnn.model.backbones.fpn import FeaturePyramid
from fasterrcnn.model.backbones.mobilenet import MobileNetV3Large
from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d, Norm
from fasterrcnn.model.backbones.resnet import ResNet, Shape
from fasterrcnn.model.backbones.timm_backbone import TimmBackbone

timm = pytest.importorskip("timm")
NAMES = ["tf_efficientnet_lite0", "test_efficientnet", "mobilenetv3_small_050", "test_resnet", "resnet18"]
STRIDES = (8, 16, 32)


def merged(network: nn.Module) -> nn.Module:
    merge_frozen_norms(network)
    return network


def folded_copy(network: nn.Module, *, even_sides: bool = False) -> nn.Module:
    copied = copy.deepcopy(network)
    fold_batch_norms(copied, even_sides=even_sides)
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


@pytest.fixture(scope="module", params=[*NAMES[:-1], pytest.param(NAMES[-1], marks=pytest.mark.slow)])
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
    for even_sides, sizes in ((True, [(64, 96)]), (False, [(64, 96), (33, 97)])):
        folded = folded_copy(body, even_sides=even_sides)
        assert norms_in(folded) == 0
        for image_hw in sizes:
            pixels = torch.randn(1, 3, *image_hw, dtype=torch.float64)
            same(folded(pixels), network(pixels))
        left = sum(isinstance(module, MergedConv2d) for module in folded.modules())
        assert left == 0 or not even_sides
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
    assert count["resnet18"] == 20
    learning = merged(TimmBackbone("test_efficientnet", STRIDES, frozen_norm=False))
    assert not any(isinstance(module, MergedConv2d) for module in learning.modules())


@pytest.mark.parametrize(
    "make",
    [
        lambda n: ResNet(Shape(18), (1, 2, 3, 4), norm=n),
        lambda n: ResNet(Shape(50), (3, 4), norm=n, dilated=True),
        lambda n: ResNet(Shape(50, groups=2, width=16), (2,), norm=n, stride_in_1x1=True),
        lambda n: MobileNetV3Large(norm=n),
    ],
)
def test_merge_frozen_norms__equal_maps_and_gradients(make):
    torch.manual_seed(0)
    original = randomise(make(Norm("frozen"))).double()
    network = merged(copy.deepcopy(original))
    assert norms_in(network) == 0
    assert list(network.state_dict()) == list(original.state_dict())
    pixels = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    ours, theirs = network(pixels), original(pixels)
    same(ours, theirs)
    for maps in (ours, theirs):
        sum(level.square().mean() for level in maps).backward()
    for parameter, expected in zip(network.parameters(), original.parameters(), strict=True):
        assert_close(parameter.grad, expected.grad, rtol=1e-7, atol=1e-9 * float(expected.grad.abs().max()))


def test_merge_frozen_norms__half_the_activations():
    def kept(network):
        storages = {}
        weights = {parameter.data_ptr() for parameter in network.parameters()}

        def pack(tensor):
            if tensor.dim() == 4 and tensor.shape[0] == 1 and tensor.data_ptr() not in weights:  # maps
                storages[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            maps = network(torch.rand(1, 3, 64, 64))
        return sum(storages.values()), maps

    original = ResNet(Shape(50), (1, 2, 3, 4), norm=Norm("frozen"))
    assert kept(merged(copy.deepcopy(original)))[0] < 0.55 * kept(original)[0]


def test_merged_norm__computes_scale_and_shift_once():
    network = merged(ResNet(Shape(18), (1,), norm=Norm("frozen")))
    with torch.inference_mode():
        network(torch.rand(1, 3, 32, 32))
    scale = network.bn1.scale_and_shift()[0]
    assert network.bn1.scale_and_shift()[0] is scale
    network(torch.rand(1, 3, 32, 32))[0].sum().backward()  # what validation computed can be trained with
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["bn1.weight"] *= 3
    network.load_state_dict(state)
    assert_close(network.bn1.scale_and_shift()[0], 3 * scale)
    assert network.double().bn1.scale_and_shift()[0].dtype == torch.float64


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


def test_accelerate__for_inference_leaves_the_original_alone(shrink, lively):
    network = lively(changed(shrink(presets.get("resnet50-fpn-v2", ["a", "b"])), backbone={"neck_channels": 32}))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    norms = norms_in(network)
    assert norms > 50
    assert norms_in(accelerate(network, for_="inference")) == 0
    assert norms_in(network) == norms
    assert_close(dict(network.state_dict()), before)
    assert network.box_head.class_logits.bias.requires_grad


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


def test_fold_batch_norms__follows_the_data_and_not_the_order_of_definition():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm_of_second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.second, self.norm_of_first = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.shared, self.norm_of_shared = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            both = self.norm_of_second(self.second(self.norm_of_first(self.first(x)).relu()))
            shared = self.shared(both)
            return shared + self.norm_of_shared(shared)

    torch.manual_seed(0)
    network = randomise(Crossed())
    folded = folded_copy(network)
    assert norms_in(folded) == 1  # what the shared convolution gives goes elsewhere too
    x = torch.rand(1, 3, 4, 4)
    with torch.no_grad():
        assert_close(folded(x), network(x), rtol=1e-4, atol=1e-5)


def test_fold_batch_norms__weights_that_are_not_used_as_they_are():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    assert norms_in(folded_copy(nn.Sequential(Standardised(3, 3, 1), nn.BatchNorm2d(3)))) == 1


def test_fold_batch_norms__pyramid():
    torch.manual_seed(0)
    body = ResNet(Shape(50), (1, 2), norm=Norm("batch"))
    backbone = randomise(Backbone(body, FeaturePyramid(body.channels, 6, norm=Norm("batch")), 6))
    folded = folded_copy(backbone)
    assert norms_in(folded) == 0
    x = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        for ours, expected in zip(folded(x), backbone(x), strict=True):
            assert_close(ours, expected, rtol=1e-4, atol=1e-4)
