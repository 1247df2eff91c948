import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn.acceleration import sampled_conv
from fasterrcnn.acceleration.sampled_conv import SampledConv2d, use_sampled_convs
from fasterrcnn.model.rpn import RegionProposalNetwork


def gradients(conv: nn.Module, x: torch.Tensor, towards: torch.Tensor) -> list[torch.Tensor]:
    """Of the maps, the kernels and the biases."""
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad(conv(x), [x, *conv.parameters()], towards.to(x)))


def case(map_hw: tuple[int, int], cells: list[tuple[int, int, int]]) -> tuple[nn.Conv2d, SampledConv2d, list]:
    """Torch's layer in float64 and ours, maps of two images, and a gradient at the given cells (image, row, column)."""
    torch.manual_seed(0)
    ours = SampledConv2d(6, 4, 3, padding=1)
    theirs = nn.Conv2d(6, 4, 3, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 6, *map_hw).contiguous(memory_format=torch.channels_last)
    towards = torch.zeros(2, 4, *map_hw)
    for image, row, column in cells:
        towards[image, :, row, column] = torch.randn(4)
    return theirs.double(), ours, [x, towards]


CORNERS = [(0, 0, 0), (0, 7, 9), (1, 0, 9), (1, 7, 0)]


@pytest.mark.parametrize("cells", [[], CORNERS, [(0, 3, 4), (0, 3, 5), (0, 4, 4), (1, 3, 4)]])
def test_sampled_conv__gradients(threads, cells):
    theirs, ours, (x, towards) = case((8, 10), cells)
    for found, expected in zip(gradients(ours, x, towards), gradients(theirs, x.double(), towards), strict=True):
        assert_close(found, expected.float())


@pytest.mark.parametrize("map_hw", [(1, 1), (1, 9), (5, 2)])
def test_sampled_conv__maps_without_an_inside(monkeypatch, map_hw):
    monkeypatch.setattr(sampled_conv, "_MAX_SHARE", 1.0)
    every = [(image, row, column) for image in range(2) for row in range(map_hw[0]) for column in range(map_hw[1])]
    theirs, ours, (x, towards) = case(map_hw, every)
    for found, expected in zip(gradients(ours, x, towards), gradients(theirs, x.double(), towards), strict=True):
        assert_close(found, expected.float())


def test_sampled_conv__many_cells_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(sampled_conv, "_neighbours", None)
    theirs, ours, (x, towards) = case((8, 10), [(0, row, column) for row in range(8) for column in range(10)])
    for found, expected in zip(gradients(ours, x, towards), gradients(theirs, x.double(), towards), strict=True):
        assert_close(found, expected.float())


def test_sampled_conv__bfloat16_keeps_float32_gradients_of_the_weights():
    theirs, ours, (x, towards) = case((8, 10), CORNERS)
    with torch.autocast("cpu", torch.bfloat16):
        out = ours(x)
    assert out.dtype == torch.bfloat16
    out.backward(towards.bfloat16())
    _, expected, _ = gradients(theirs, x.double(), towards)
    assert ours.weight.grad.dtype == torch.float32
    assert_close(ours.weight.grad, expected.float(), atol=0.05, rtol=0.02)


def test_sampled_conv__without_gradients_it_is_torchs_own():
    theirs, ours, (x, _) = case((8, 10), [])
    with torch.no_grad():
        assert torch.equal(ours(x), theirs.float()(x))


def test_use_sampled_convs__keeps_the_state():
    rpn = RegionProposalNetwork(6, 3, convs=2)
    state = {name: value.clone() for name, value in rpn.state_dict().items()}
    use_sampled_convs(rpn)
    assert all(isinstance(conv, SampledConv2d) for conv in rpn.convs)
    assert list(rpn.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in rpn.state_dict().items())
