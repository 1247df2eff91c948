import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from fasterrcnn.acceleration import depthwise as module
from fasterrcnn.acceleration.depthwise import depthwise


@pytest.fixture(params=["compiled", "3x3 parts"])
def kernel(request, monkeypatch):
    """With the C++ kernel, and as where there is no compiler."""
    if request.param == "3x3 parts":
        monkeypatch.setattr(module, "_library", lambda: None)
    elif module._library() is None:
        pytest.skip("no C++ compiler")


def leaves(map_hw: tuple[int, int], side: int, zeros: int = 0, channels: int = 6) -> list[torch.Tensor]:
    """Maps of two images, kernels whose first rows and columns are zeros, biases."""
    generator = torch.Generator().manual_seed(side)
    weight = torch.randn(channels, 1, side, side, generator=generator)
    weight[:, :, :zeros] = 0
    weight[..., :zeros] = 0
    maps = torch.randn(2, channels, *map_hw, generator=generator).contiguous(memory_format=torch.channels_last)
    return [maps, weight, torch.randn(channels, generator=generator)]


@pytest.mark.parametrize("map_hw", [(12, 16), (7, 9), (1, 1), (2, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("side", "zeros"), [(3, 0), (4, 1), (5, 0), (6, 1), (7, 0), (9, 0), (4, 0)])
@pytest.mark.parametrize("channels", [6, 24, 32])
def test_depthwise__output_and_gradients(threads, kernel, map_hw, stride, side, zeros, channels):
    ours = [tensor.requires_grad_() for tensor in leaves(map_hw, side, zeros, channels)]
    theirs = [tensor.detach().double().requires_grad_() for tensor in ours]
    padding = side // 2
    expected = F.conv2d(*theirs, stride, padding, groups=channels)
    found = depthwise(*ours, stride=stride, padding=padding, zeros=zeros)
    assert_close(found, expected.float())
    towards = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    expected.backward(towards.double())
    found.backward(towards)
    theirs[1].grad[:, :, :zeros] = 0
    theirs[1].grad[..., :zeros] = 0
    for our, their in zip(ours, theirs, strict=True):
        assert_close(our.grad, their.grad.float(), atol=1e-4, rtol=1e-4)


def test_depthwise__only_the_gradients_that_are_wanted():
    maps, weight, _ = leaves((8, 8), 5)
    depthwise(maps, weight.requires_grad_(), None, stride=1, padding=2).sum().backward()
    assert weight.grad is not None
    assert maps.grad is None


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("side", "zeros"), [(3, 0), (4, 1), (5, 0)])
def test_depthwise__bfloat16(stride, side, zeros):
    ours = [tensor.bfloat16().float().requires_grad_() for tensor in leaves((9, 12), side, zeros)]
    theirs = [tensor.detach().clone().requires_grad_() for tensor in ours]
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise(*ours, stride=stride, padding=side // 2, zeros=zeros)
    assert found.dtype == torch.bfloat16
    expected = F.conv2d(*theirs, stride, side // 2, groups=6)
    assert_close(found.float(), expected, atol=0.05, rtol=0.01)
    found.sum().backward()
    expected.sum().backward()
    theirs[1].grad[:, :, :zeros] = 0
    theirs[1].grad[..., :zeros] = 0
    for our, their in zip(ours, theirs, strict=True):
        assert our.grad.dtype == torch.float32
        assert_close(our.grad, their.grad, atol=1e-4, rtol=1e-4)


def test_depthwise__maps_in_bfloat16_get_such_gradients():
    maps, weight, _ = leaves((9, 12), 5)
    maps = maps.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        depthwise(maps, weight.requires_grad_(), None, stride=1, padding=2).sum().backward()
    assert (maps.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("kind", ["float64", "no gradient", "autocast"])
def test_depthwise__otherwise_it_is_torchs_own(kind):
    tensors = leaves((8, 8), 5)
    if kind == "float64":
        tensors = [tensor.double() for tensor in tensors]
    with torch.set_grad_enabled(kind != "no gradient"), torch.autocast("cpu", torch.bfloat16, kind == "autocast"):
        tensors[1].requires_grad_()
        assert torch.equal(depthwise(*tensors, stride=2, padding=2), F.conv2d(*tensors, 2, 2, groups=6))


@pytest.mark.skipif(module._library() is None, reason="no C++ compiler")
def test_depthwise__bits_do_not_depend_on_the_number_of_threads(request):
    before = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(before))
    gradients = []
    for number in (1, 3):
        torch.set_num_threads(number)
        maps, weight, _ = leaves((20, 24), 5, channels=80)
        depthwise(maps, weight.requires_grad_(), None, stride=1, padding=2).square().sum().backward()
        gradients.append(weight.grad)
    assert torch.equal(*gradients)


def test_depthwise__no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path))
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "/bin/false")
    module._library.cache_clear()
    try:
        assert module._library() is None
    finally:
        module._library.cache_clear()
