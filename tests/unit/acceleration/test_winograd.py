import shutil

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fasterrcnn.acceleration import autotune, winograd
from fasterrcnn.errors import UsageError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Measurements and kernels of the tests stay out of the user's folder; the kernel is compiled once."""
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path_factory.getbasetemp() / "winograd"))
    autotune._remembered.cache_clear()
    yield
    autotune._remembered.cache_clear()


@pytest.mark.parametrize("size_hw", [(1, 1), (4, 4), (5, 7), (3, 50), (33, 18), (64, 96)])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("chunk", [1, 7, 48])
def test_convolve__is_the_convolution(size_hw, images, chunk):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(images, 32, *size_hw), torch.randn(64, 32, 3, 3), torch.randn(64)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    found = winograd.convolve(x, winograd.transform_weight(weight), bias, chunk)
    assert float((found - exact).abs().max() / exact.abs().max()) < winograd.ERROR_BOUND


def test_convolve__the_stated_bound_holds_for_many_channels():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 512, 25, 34), torch.randn(512, 512, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    found = winograd.convolve(x, winograd.transform_weight(weight), torch.zeros(512))
    assert float((found - exact).abs().max() / exact.abs().max()) < winograd.ERROR_BOUND


def test_convolve__no_images():
    weight = winograd.transform_weight(torch.randn(32, 32, 3, 3))
    assert winograd.convolve(torch.zeros(0, 32, 8, 8), weight, torch.zeros(32)).shape == (0, 32, 8, 8)


def test_convolve__several_threads_give_the_same(request):
    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    x, weight = torch.randn(2, 32, 40, 40), winograd.transform_weight(torch.randn(32, 32, 3, 3))
    torch.set_num_threads(1)
    one = winograd.convolve(x, weight, torch.zeros(32))
    torch.set_num_threads(3)
    torch.testing.assert_close(winograd.convolve(x, weight, torch.zeros(32)), one, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layer", "suits"),
    [
        (nn.Conv2d(32, 64, 3, padding=1), True),
        (nn.Conv2d(32, 64, 3, padding=1, bias=False), True),
        (nn.Conv2d(32, 64, 3, padding=1, stride=2), False),
        (nn.Conv2d(32, 64, 3, padding=2, dilation=2), False),
        (nn.Conv2d(32, 64, 3), False),
        (nn.Conv2d(32, 64, 3, padding=1, padding_mode="reflect"), False),
        (nn.Conv2d(32, 32, 3, padding=1, groups=32), False),
        (nn.Conv2d(32, 64, 1), False),
        (nn.Conv2d(3, 64, 3, padding=1), False),
        (nn.Conv2d(32, 12, 3, padding=1), False),
        (nn.Linear(32, 64), False),
    ],
)
def test_suits(layer, suits):
    assert winograd.suits(layer) is suits


def test_replace_convolutions__leaves_the_rest():
    network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()))
    x = torch.randn(1, 3, 24, 24)
    with torch.inference_mode():
        expected = network(x)
        winograd.replace_convolutions(network)
        assert isinstance(network[0], nn.Conv2d)
        assert isinstance(network[1][0], winograd.WinogradConv)
        torch.testing.assert_close(network(x), expected, rtol=1e-3, atol=1e-3)


def test_library__no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path))
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "/bin/false")
    winograd._library.cache_clear()
    with pytest.raises(UsageError, match=r"/bin/false cannot compile winograd\.cpp"):
        winograd.lanes()
    assert list(tmp_path.iterdir()) == []
    winograd._library.cache_clear()
