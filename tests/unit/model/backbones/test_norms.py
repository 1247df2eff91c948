import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn.model.backbones.fpn import FeaturePyramid
from fasterrcnn.model.backbones.mobilenet import MobileNetV3Large
from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d, Norm, fold_batch_norm, make_norm
from fasterrcnn.model.backbones.resnet import ResNet, Shape


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


def test_frozen_batch_norm__equals_batch_norm_in_eval():
    ours, oracle = FrozenBatchNorm2d(6, 1e-3), nn.BatchNorm2d(6, 1e-3)
    randomise(ours)
    oracle.load_state_dict(ours.state_dict(), strict=False)
    x = torch.rand(2, 6, 4, 5)
    assert_close(ours(x), oracle.eval()(x))
    assert_close(ours.train()(x), oracle(x))


def test_frozen_batch_norm__does_not_learn():
    norm = FrozenBatchNorm2d(6)
    assert list(norm.parameters()) == []
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
    before = norm.running_mean.clone()
    norm.train()(torch.rand(4, 6, 3, 3) + 5)
    assert_close(norm.running_mean, before)
    assert repr(norm) == "FrozenBatchNorm2d(6, eps=1e-05)"


def test_frozen_batch_norm__empty_batch_of_regions():
    assert FrozenBatchNorm2d(6)(torch.zeros(0, 6, 3, 3)).shape == (0, 6, 3, 3)


@pytest.mark.parametrize(
    ("kind", "expected"), [("frozen", FrozenBatchNorm2d), ("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)]
)
def test_make_norm__kinds(kind, expected):
    norm = make_norm(Norm(kind, 1e-3), 64)
    assert isinstance(norm, expected)
    assert norm.eps == 1e-3


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 16), (24, 8), (7, 1)])
def test_make_norm__groups_divide_the_channels(channels, groups):
    assert make_norm(Norm("group"), channels).num_groups == groups


@pytest.mark.parametrize("kind", ["frozen", "batch"])
@pytest.mark.parametrize("make", [lambda n: ResNet(Shape(50), (2, 3), norm=n), lambda n: MobileNetV3Large(norm=n)])
def test_fold_batch_norm__equal_outputs(kind, make):
    torch.manual_seed(0)
    body = randomise(make(Norm(kind)))
    folded = fold_batch_norm(body)
    assert norms_in(folded) == 0
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, oracle in zip(folded(x), body(x), strict=True):
            assert_close(ours, oracle, rtol=1e-4, atol=1e-4 * float(oracle.abs().max()))


def test_fold_batch_norm__leaves_the_original_alone():
    body = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    before = {key: value.clone() for key, value in body.state_dict().items()}
    fold_batch_norm(body)
    assert norms_in(body) == 1
    assert_close(dict(body.state_dict()), before)
    assert body[0].bias.requires_grad


def test_fold_batch_norm__convolution_with_bias_by_hand():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)).eval()
    with torch.no_grad():
        network[0].weight.fill_(3.0)
        network[0].bias.fill_(5.0)
        network[1].running_mean.fill_(1.0)
        network[1].running_var.fill_(4.0)
        network[1].weight.fill_(6.0)
        network[1].bias.fill_(-2.0)
    folded = fold_batch_norm(network)  # (3 x + 5 - 1) / 2 * 6 - 2
    assert_close(folded[0].weight.flatten(), torch.tensor([9.0]), check_stride=False)
    assert_close(folded[0].bias, torch.tensor([10.0]))


def test_fold_batch_norm__only_where_a_convolution_comes_before():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3))
    assert norms_in(fold_batch_norm(network)) == 1


def test_fold_batch_norm__pyramid():
    torch.manual_seed(0)
    pyramid = randomise(FeaturePyramid((4, 8), 6, norm=Norm("batch")))
    maps = [torch.rand(1, 4, 8, 8), torch.rand(1, 8, 4, 4)]
    folded = fold_batch_norm(pyramid)
    assert norms_in(folded) == 0
    with torch.no_grad():
        assert_close(folded(maps), pyramid(maps), rtol=1e-4, atol=1e-5)


def test_fold_batch_norm__network_of_unknown_order_stays():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    network.defines_layers_out_of_order = True
    assert norms_in(fold_batch_norm(nn.Sequential(network))) == 1
