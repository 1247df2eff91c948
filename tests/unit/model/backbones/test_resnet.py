import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision import models

from fasterrcnn.errors import MissingExtraError, UsageError
from fasterrcnn.model.backbones import Backbone
from fasterrcnn.model.backbones.fpn import FeaturePyramid, Reduction
from fasterrcnn.model.backbones.mobilenet import MobileNetV3Large
from fasterrcnn.model.backbones.norms import FrozenBatchNorm2d, Norm
from fasterrcnn.model.backbones.resnet import Bottleneck, ResNet, Shape
from fasterrcnn.model.backbones.timm_backbone import TimmBackbone

FROZEN = Norm()


def check_shapes(body: nn.Module, side: int = 96) -> None:
    with torch.no_grad():
        maps = body(torch.zeros(1, 3, side, 2 * side))
    expected = [(1, c, side // s, 2 * side // s) for c, s in zip(body.channels, body.strides, strict=True)]
    assert [tuple(level.shape) for level in maps] == expected


@pytest.mark.parametrize(
    ("outputs", "dilated", "channels", "strides"),
    [
        ((1, 2, 3, 4), False, (256, 512, 1024, 2048), (4, 8, 16, 32)),
        ((3,), False, (1024,), (16,)),
        ((4,), False, (2048,), (32,)),
        ((4,), True, (2048,), (16,)),
        ((2, 4), True, (512, 2048), (8, 16)),
    ],
)
def test_resnet__channels_and_strides(outputs, dilated, channels, strides):
    with torch.device("meta"):
        body = ResNet(Shape(50), outputs, norm=FROZEN, dilated=dilated)
        check_shapes(body)
    assert body.channels == channels
    assert body.strides == strides


def test_resnet__dilation_is_in_all_blocks_of_stage_4():
    with torch.device("meta"):
        body = ResNet(Shape(50), (4,), norm=FROZEN, dilated=True)
    assert [block.conv2.dilation for block in body.layer4] == [(2, 2)] * 3
    assert [block.conv2.dilation for block in body.layer3] == [(1, 1)] * 6


@pytest.mark.parametrize(("in_1x1", "strides"), [(False, [(1, 1), (2, 2)]), (True, [(2, 2), (1, 1)])])
def test_resnet__place_of_the_stride(in_1x1, strides):
    block = ResNet(Shape(50), (2,), norm=FROZEN, stride_in_1x1=in_1x1).layer2[0]
    assert [block.conv1.stride, block.conv2.stride] == strides


def test_resnet__later_stages_are_not_built():
    body = ResNet(Shape(50), (2,), norm=FROZEN)
    assert not hasattr(body, "layer3")
    assert len(body.stages()) == 3


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("resnet18", models.resnet18),
        ("resnet34", models.resnet34),
        ("resnet50", models.resnet50),
        ("wide-resnet50-2", models.wide_resnet50_2),
        ("resnext50-32x4d", models.resnext50_32x4d),
    ],
)
def test_resnet__same_names_and_shapes_as_torchvision(name, oracle):
    assert str(Shape.of(name)) == name
    with torch.device("meta"):
        oracle = oracle(weights=None).state_dict()
        ours = ResNet(Shape.of(name), (4,), norm=Norm("batch")).state_dict()
    shapes = {key: value.shape for key, value in oracle.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == shapes


def test_resnet__of_18_layers_computes_what_torchvision_computes():
    oracle = models.resnet18(weights=None).eval()
    ours = ResNet(Shape(18), (1, 2, 3, 4), norm=Norm("batch")).eval()
    ours.load_state_dict({key: value for key, value in oracle.state_dict().items() if not key.startswith("fc.")})
    x = torch.rand(1, 3, 64, 96)
    expected = torch.nn.Sequential(*list(oracle.children())[:-2])(x)
    assert_close(ours(x)[3], expected)
    assert ours.channels == (64, 128, 256, 512)


def test_bottleneck__shortcut_alone():
    block = Bottleneck(8, 2, 8, stride=1, dilation=1, groups=1, norm=FROZEN, stride_in_1x1=False)
    block.bn3.weight.zero_()
    x = torch.rand(1, 8, 4, 4)
    assert_close(block(x), x)


def test_mobilenet__shapes():
    body = MobileNetV3Large(norm=FROZEN)
    check_shapes(body)
    assert sum(len(stage) for stage in body.stages()) == len(body.layers)


def test_feature_pyramid__shapes_of_odd_maps():
    pyramid = FeaturePyramid((4, 8, 16), 6)
    sizes = [(13, 21), (7, 11), (4, 6)]
    maps = pyramid([torch.rand(2, c, *size) for c, size in zip((4, 8, 16), sizes, strict=True)])
    assert [tuple(level.shape) for level in maps] == [(2, 6, *size) for size in [*sizes, (2, 3)]]
    assert_close(maps[3], maps[2][:, :, ::2, ::2])


def test_feature_pyramid__coarse_maps_flow_down():
    pyramid = FeaturePyramid((1, 1), 1)
    with torch.no_grad():
        for conv in pyramid.lateral:
            conv[0].weight.fill_(1.0)
        for conv in pyramid.output:
            conv[0].weight.zero_()
            conv[0].weight[0, 0, 1, 1] = 1.0
    fine, coarse = torch.zeros(1, 1, 4, 4), torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    first, second, extra = pyramid([fine + 10, coarse])
    assert_close(first, 10 + coarse.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert_close(second, coarse)
    assert_close(extra, coarse[:, :, :1, :1])


def test_feature_pyramid__norms_replace_biases():
    assert FeaturePyramid((4,), 6, norm=Norm("batch")).output[0][0].bias is None
    assert FeaturePyramid((4,), 6).output[0][0].bias is not None


def test_reduction__is_a_1x1_convolution_with_relu():
    reduction = Reduction((8, 4), 2)
    first, second = reduction([torch.rand(1, 8, 5, 3), torch.rand(1, 4, 2, 2)])
    assert first.shape == (1, 2, 5, 3)
    assert second.shape == (1, 2, 2, 2)
    assert first.min() >= 0


@pytest.mark.parametrize(("name", "strides"), [("test_resnet", (4, 8, 16, 32)), ("test_efficientnet", (8, 32))])
def test_timm_backbone__shapes(name, strides):
    body = TimmBackbone(name, strides)
    assert body.strides == strides
    check_shapes(body)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in body.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in TimmBackbone(name, strides, frozen_norm=False).modules())


def test_timm_backbone__unknown_network():
    with pytest.raises(UsageError, match=r"timm has no network 'resnet5000_a'; close: .*resnet|see timm.list_models"):
        TimmBackbone("resnet5000_a", (8, 16, 32))


def test_timm_backbone__no_feature_maps_of_that_stride():
    with pytest.raises(UsageError, match=r"timm's test_resnet has maps of strides \[2, 4, 8, 16, 32\], not \[8, 64\]"):
        TimmBackbone("test_resnet", (8, 64))


def test_timm_backbone__network_without_a_pyramid_of_maps():
    with pytest.raises(UsageError, match=r"timm's test_vit (cannot give feature maps|has maps of strides)"):
        TimmBackbone("test_vit", (8, 16, 32))


def test_timm_backbone__without_timm(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r'timm is not installed: pip install "fasterrcnn\[timm\]"'):
        TimmBackbone("test_resnet", (8, 16, 32))


def learning(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("stages", [0, 1, 2, 5])
def test_freeze__first_stages_stop_learning(stages):
    with torch.device("meta"):
        backbone = Backbone(ResNet(Shape(50), (4,), norm=FROZEN), nn.Identity(), 2048)
    everything = learning(backbone)
    backbone.freeze(stages)
    prefixes = tuple(f"body.{name}." for name in ("conv1", "layer1", "layer2", "layer3", "layer4")[:stages])
    assert learning(backbone) == {name for name in everything if not prefixes or not name.startswith(prefixes)}


@pytest.mark.parametrize(
    "body", [lambda: MobileNetV3Large(norm=FROZEN), lambda: TimmBackbone("test_efficientnet", (8, 16, 32))]
)
def test_freeze__all_stages_of_other_bodies(body):
    backbone = Backbone(body(), nn.Conv2d(1, 1, 1), 1)
    backbone.freeze(1)
    assert learning(backbone.body)
    backbone.freeze(100)
    assert learning(backbone) == {"neck.weight", "neck.bias"}


def test_initialise__random_frozen_resnet_keeps_its_scale():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (last,) = ResNet(Shape(50), (4,), norm=FROZEN)(x)
    assert 0.01 < float(last.std()) < 100
    assert isinstance(ResNet(Shape(50), (1,), norm=FROZEN).bn1, FrozenBatchNorm2d)
