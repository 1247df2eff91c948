from fasterrcnn import presets
from fasterrcnn.config import ModelConfig, changed
from fasterrcnn.weights import native
from fasterrcnn.weights.detectron2 import CAFFE, with_detectron2_numerics


def test_fields__exist():
    for part, names in native.NUMERIC_FIELDS.items():
        fields = set(type(getattr(ModelConfig(preset="x"), part)).model_fields)
        assert set(names) <= fields


def test_taken_over__from_detectron2():
    preset = presets.get("resnet50-fpn", ["cat"])
    trained = CAFFE.applied(with_detectron2_numerics(presets.get("resnet50-fpn", ["cat", "dog"])))
    config = native.with_numerics_of(preset, trained)
    assert native.differences(config, trained) == {}
    assert config.classes == ("cat",)
    assert config.backbone.stride_in_1x1
    assert native.with_numerics_of(config, trained) == config


def test_taken_over__what_was_chosen_stays():
    preset = presets.get("resnet50-fpn")
    chosen = changed(preset, regions={"box_loss": "giou"}, input={"short_side": 320}, anchors={"ratios": ((1.0,),) * 5})
    config = native.with_numerics_of(chosen, with_detectron2_numerics(preset))
    assert config.regions.box_loss == "giou"
    assert config.regions.aligned
    assert config.input.short_side == 320
    assert config.anchors == chosen.anchors


def test_taken_over__by_a_network_of_ones_own():
    own = presets.get("resnet50-c4").model_copy(update={"preset": "mine"})
    assert (
        native.differences(native.with_numerics_of(own, with_detectron2_numerics(own)), with_detectron2_numerics(own))
        == {}
    )


def fitted(config, smallest=20.0):
    """The detector as a run from random weights leaves it: other anchors, norms, layers and input size."""
    sizes = tuple((smallest * 2**level,) for level in range(len(config.anchors.sizes)))
    return changed(
        config,
        input={"short_side": 288, "long_side": 480},
        backbone={"norm": "group", "neck_channels": 64},
        anchors={"sizes": sizes, "strides": (4, 8, 16, 32, 64), "rounded": False},
        rpn={"convs": 2},
        regions={"widths": (32,), "output_size": 5},
    )


def test_taken_over__all_that_belongs_to_the_tensors_of_the_same_preset():
    preset = presets.get("resnet50-fpn", ["cat"])
    assert native.with_numerics_of(preset, fitted(presets.get("resnet50-fpn", ["dog"]))) == fitted(preset)


def test_taken_over__settings_go_before_it():
    preset = presets.get("resnet50-fpn")
    chosen = changed(preset, input={"short_side": 640}, anchors={"ratios": ((1.0,),) * 5}, rpn={"convs": 3})
    config = native.with_numerics_of(chosen, fitted(preset))
    assert config.anchors == chosen.anchors
    assert (config.input.short_side, config.rpn.convs) == (640, 3)
    assert config.backbone.norm == "group"


def test_taken_over__layers_of_another_preset_are_not():
    preset = presets.get("resnet50-fpn")
    trained = fitted(presets.get("resnet101-fpn"))
    config = native.with_numerics_of(preset, trained)
    assert (config.backbone.norm, config.regions.widths, config.input.short_side) == ("frozen", (1024, 1024), 800)
    assert config.anchors == preset.anchors


def test_differences__names_both_sides():
    preset = presets.get("resnet50-fpn")
    assert native.differences(preset, preset) == {}
    assert native.differences(preset, changed(preset, regions={"aligned": True})) == {"regions.aligned": (False, True)}
