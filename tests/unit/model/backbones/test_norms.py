import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d, Norm, make_norm


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
