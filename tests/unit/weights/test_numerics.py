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


def test_differences__names_both_sides():
    preset = presets.get("resnet50-fpn")
    assert native.differences(preset, preset) == {}
    assert native.differences(preset, changed(preset, regions={"aligned": True})) == {"regions.aligned": (False, True)}
