import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from fasterrcnn import presets
from fasterrcnn.acceleration import accelerate, fused_convs
from fasterrcnn.acceleration.flat_graphs import flatten, trace
from fasterrcnn.acceleration.fused_convs import fuse_convs, fusion_works
from fasterrcnn.acceleration.onednn_layers import AddUpsampled, FusedConv

BFLOAT16 = pytest.param(
    torch.bfloat16, marks=pytest.mark.skipif(not fusion_works(torch.bfloat16), reason="no bfloat16 in oneDNN here")
)
PRESETS = [
    "mobilenetv3-large-320-fpn",
    "efficientnet-lite0-fpn",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("resnet50-c4", "resnet18-fpn", "resnet50-fpn-v2", "resnet50-dc5")
    ),
]


@pytest.fixture(params=[torch.float32, BFLOAT16])
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def fused(module, x):
    """The module as a flat graph with fused layers, and what it gives."""
    graph = fx.GraphModule(module, trace(module))
    fused_convs._fuse(graph)
    return graph, graph(x)


def maps(dtype, *shape):
    values = torch.linspace(-1, 1, torch.Size(shape).numel()).sin().view(shape)
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def layers(graph):
    return [layer for layer in graph.children() if isinstance(layer, FusedConv | AddUpsampled)]


class Block(nn.Module):
    """A residual block of two convolutions, or of one that reads the shortcut itself."""

    def __init__(self, *, convs, reads_later):
        super().__init__()
        self.stem, self.last = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.convs = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(convs)))
        self.reads_later = reads_later

    def forward(self, x):
        x = F.relu(self.stem(x), inplace=True)
        y = self.convs(x)
        y += x
        y = F.relu(y, inplace=True)
        return self.last(x) + self.last(y) if self.reads_later else self.last(y)


@pytest.mark.parametrize(
    ("convs", "reads_later", "in_place"), [(2, False, True), (2, True, False), (1, False, False), (1, True, False)]
)
def test_fuse__shortcut_is_overwritten_only_where_nothing_reads_it(convs, reads_later, in_place, dtype):
    block, x = Block(convs=convs, reads_later=reads_later).to(dtype), maps(dtype, 2, 16, 8, 12)
    expected = block(x)
    graph, ours = fused(block, x)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    after_sum = layers(graph)[convs]
    assert after_sum.activation.name == "relu"
    assert after_sum.in_place == in_place


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.Hardswish(), nn.Sigmoid()])
def test_fuse__activation(activation, dtype):
    network = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), activation, nn.Conv2d(16, 8, 1)).to(dtype)
    network[0].weight.mul_(20)  # so that ReLU6 cuts
    x = maps(dtype, 1, 8, 9, 14)
    expected = network(x)
    graph, ours = fused(network, x)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    assert layers(graph)[0].activation.name != "none" or isinstance(activation, nn.Sigmoid)


def test_fuse__value_that_others_read_too_keeps_its_activation_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return F.relu(y) - y

    network, x = Twice(), maps(torch.float32, 1, 4, 5, 5)
    expected = network(x)
    graph, ours = fused(network, x)
    torch.testing.assert_close(ours, expected)
    assert layers(graph)[0].activation.name == "none"


def test_fuse__sum_with_something_that_may_be_smaller_stays():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.shift = nn.Conv2d(4, 4, 1), nn.Parameter(torch.ones(1, 4, 1, 1))

        def forward(self, x):
            return self.conv(x) + self.shift

    network, x = Shifted(), maps(torch.float32, 1, 4, 5, 5)
    torch.testing.assert_close(fused(network, x)[1], network(x))


@pytest.mark.parametrize("coarse_hw", [(4, 6), (8, 3), (3, 5)])
def test_add_upsampled__as_interpolate(coarse_hw, dtype):
    fine, coarse = maps(dtype, 2, 16, 8, 12), maps(dtype, 2, 16, *coarse_hw)
    expected = fine + F.interpolate(coarse, size=(8, 12), mode="nearest")
    assert torch.equal(AddUpsampled()(fine, coarse), expected)


@pytest.mark.parametrize("preset", PRESETS)
def test_fuse_convs__computes_what_the_model_does(preset, shrink, lively, batch_of):
    model = accelerate(lively(shrink(presets.get(preset, ["a", "b", "c"]))), for_="inference").requires_grad_(False)
    ours = fuse_convs(flatten(model))
    pixels = batch_of((64, 96), (64, 96)).pixels
    side, channels = model.roi_pooling.output_size, model.backbone.channels
    pooled = torch.rand(20, channels, side, side).contiguous(memory_format=torch.channels_last)
    pairs = list(zip(ours.head(pooled), model.head(pooled), strict=True))
    of_ours, of_model = ours.dense(pixels), model.dense(pixels)
    for name in ("features", "logits", "deltas"):
        pairs += zip(getattr(of_ours, name), getattr(of_model, name), strict=True)
    for value, expected in pairs:
        largest = float(expected.abs().max())
        torch.testing.assert_close(value / largest, expected / largest, rtol=0, atol=2e-5)
    assert any(isinstance(layer, FusedConv) for layer in ours.modules())


def test_fuse_convs__without_the_operators_the_graph_stays(tiny_model, monkeypatch):
    monkeypatch.setattr(fused_convs, "fusion_works", lambda _: False)
    ours = fuse_convs(flatten(accelerate(tiny_model, for_="inference")))
    assert not any(isinstance(layer, FusedConv) for layer in ours.modules())


def test_fusion_works__other_numbers_are_refused(monkeypatch):
    monkeypatch.setattr(FusedConv, "forward", lambda _self, x, _shortcut=None: x)
    assert not fusion_works.__wrapped__(torch.float32)


def test_fusion_works__operators_that_are_not_there(monkeypatch):
    def refuse(_self, _x, _shortcut=None):
        raise AttributeError("no such operator")

    monkeypatch.setattr(FusedConv, "forward", refuse)
    assert not fusion_works.__wrapped__(torch.float32)
