import pytest
from pydantic import ValidationError

from fasterrcnn import presets
from fasterrcnn.build import assemble, build_model
from fasterrcnn.config import ModelConfig, RegionConfig, TrainConfig
from fasterrcnn.errors import UsageError

ALL = [*presets.names(), "timm:resnet18"]

# backbone, maps taken from it, neck and its channels, pooling and its side, widths of the head
TABLE = {
    "resnet50-c5": ("resnet50", (4,), "reduction", 256, "pool", 7, (1024, 1024)),
    "resnet50-c4": ("resnet50", (3,), "none", None, "align", 14, ()),
    "resnet50-dc5": ("resnet50", (4,), "none", None, "align", 7, (1024, 1024)),
    "resnet50-fpn": ("resnet50", (1, 2, 3, 4), "fpn", 256, "align", 7, (1024, 1024)),
    "resnet50-fpn-v2": ("resnet50", (1, 2, 3, 4), "fpn", 256, "align", 7, (1024,)),
    "mobilenetv3-large-fpn": ("mobilenetv3-large", None, "fpn", 256, "align", 7, (1024, 1024)),
    "mobilenetv3-large-320-fpn": ("mobilenetv3-large", None, "fpn", 256, "align", 7, (1024, 1024)),
    "efficientnet-lite0-fpn": ("timm:tf_efficientnet_lite0", (8, 16, 32), "fpn", 128, "align", 7, (512, 512)),
    "timm:resnet18": ("timm:resnet18", (8, 16, 32), "fpn", 256, "align", 7, (1024, 1024)),
}


@pytest.mark.parametrize("name", ALL)
def test_presets__documented_numbers(name):
    config = presets.get(name)
    body, maps, neck, channels, pooling, side, widths = TABLE[name]
    backbone, regions = config.backbone, config.regions
    assert (backbone.body, backbone.neck) == (body, neck)
    if maps is not None:
        assert (backbone.strides if body.startswith("timm:") else backbone.stages) == maps
    if channels is not None:
        assert backbone.neck_channels == channels
    assert (regions.pooling, regions.output_size, regions.widths) == (pooling, side, widths)


def test_presets__what_makes_each_special():
    assert presets.get("resnet50-dc5").backbone.dilated
    assert presets.get("resnet50-c4").regions.body == "layer4"
    second = presets.get("resnet50-fpn-v2")
    assert (second.backbone.norm, second.backbone.neck_norm) == ("batch", True)
    assert (second.rpn.convs, second.regions.convs) == (2, 4)
    small = presets.get("mobilenetv3-large-320-fpn")
    assert (small.input.short_side, small.input.long_side) == (320, 640)
    assert small.proposals.proposals == 150


def test_presets__names_are_all_in_the_table():
    assert set(ALL) == set(TABLE)


@pytest.mark.parametrize("name", ALL)
def test_presets__round_trip_through_json(name):
    config = presets.get(name, ["cat", "dog"])
    assert config.preset == name
    assert config.classes == ("cat", "dog")
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50-fnp", "no model is called 'resnet50-fnp': did you mean 'resnet50-fpn'"),
        ("yolo", "no model is called 'yolo': there are resnet50-c5, .* and timm:<name>"),
        ("", "no model is called ''"),
    ],
)
def test_presets__unknown_name(name, message):
    with pytest.raises(UsageError, match=message):
        presets.get(name)


@pytest.mark.parametrize("changes", [{"colour": "red"}, {"input": {"short": 800}}, {"rpn": {"convs": 0}}])
def test_config__unknown_and_impossible_fields(changes):
    with pytest.raises(ValidationError):
        ModelConfig.model_validate({"preset": "x", **changes})


def test_config__cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        presets.get("resnet50-fpn").preset = "other"


def test_config__duplicate_classes():
    with pytest.raises(ValidationError, match="class names repeat: cat, dog, cat"):
        ModelConfig(preset="x", classes=("cat", "dog", "cat"))


def test_presets__duplicate_classes():
    with pytest.raises(UsageError, match="class names repeat: cat, dog, cat"):
        presets.get("resnet50-fpn", ["cat", "dog", "cat"])


def test_build_model__duplicate_classes(tiny_config):
    with pytest.raises(UsageError, match="class names repeat: cat, dog, cat"):
        build_model(tiny_config, ["cat", "dog", "cat"], weights=None)


def test_build_model__no_classes():
    with pytest.raises(UsageError, match=r'a model needs classes, for example classes=\["cat", "dog"\]'):
        build_model("resnet50-fpn", weights=None)


def test_build_model__classes_instead_of_the_configurations(tiny_config):
    assert build_model(tiny_config, ["bee"], weights=None).classes == ("bee",)
    assert build_model(tiny_config, weights=None).classes == tiny_config.classes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"body": "vgg16"}, "no backbone is called 'vgg16'"),
        ({"norm": "group"}, "a timm backbone keeps its own norms"),
    ],
)
def test_assemble__backbone_that_cannot_be(tiny_config, changes, message):
    backbone = tiny_config.backbone.model_copy(update=changes)
    with pytest.raises(UsageError, match=message):
        assemble(tiny_config.model_copy(update={"backbone": backbone}))


@pytest.mark.parametrize(("weights", "message"), [((1.0, 2.0, 3.0), "3 class weights for 3 classes and background: 4")])
def test_assemble__class_weights_for_every_class(tiny_config, weights, message):
    regions = tiny_config.regions.model_copy(update={"class_weights": weights})
    with pytest.raises(UsageError, match=message):
        assemble(tiny_config.model_copy(update={"regions": regions}))


def test_assemble__anchors_for_other_levels(tiny_config):
    anchors = tiny_config.anchors.model_copy(update={"sizes": ((32.0,),), "ratios": ((1.0,),), "strides": (8,)})
    with pytest.raises(UsageError):
        assemble(tiny_config.model_copy(update={"anchors": anchors}))


def test_assemble__timm_backbone_without_neck(tiny_config, batch_of):
    backbone = tiny_config.backbone.model_copy(update={"neck": "none", "strides": (16,)})
    anchors = tiny_config.anchors.model_copy(update={"sizes": ((32.0,),), "ratios": ((1.0,),), "strides": (16,)})
    network = assemble(tiny_config.model_copy(update={"backbone": backbone, "anchors": anchors}))
    assert len(network(batch_of((64, 64)))) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0},
        {"augmentation": "wild"},
        {"learning_rate": 0},
        {"optimizer": "lion"},
        {"colour": 1},
        {"seed": -1},
        {"freeze": -1},
        {"freeze": "body"},
        {"ema": 1},
        {"drops": (0.5, 1.5)},
        {"reading": {"colour": 1}},
        {"model": "resnet50-fpn"},
    ],
)
def test_train_config__impossible_values(values):
    with pytest.raises(ValidationError):
        TrainConfig(**{"data": "x", "model": ModelConfig(preset="y"), **values})


def test_train_config__possible_values():
    made = TrainConfig(data="x", model=ModelConfig(preset="y"))
    assert (made.optimizer, made.learning_rate, made.weight_decay) == ("adamw", 5e-4, 0.02)


def test_train_config__rates_of_sgd():
    model = ModelConfig(preset="y")
    sgd = TrainConfig(data="x", model=model, optimizer="sgd")
    assert (sgd.learning_rate, sgd.weight_decay) == (5e-3, 1e-4)
    own = TrainConfig(data="x", model=model, optimizer="sgd", learning_rate=0.1)
    assert (own.learning_rate, own.weight_decay) == (0.1, 1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"freeze": "backbone", "weights": None}, r'freeze="backbone" with random weights would learn from noise'),
    ],
)
def test_train_config__frozen_parts_agree(values, message):
    with pytest.raises(ValidationError, match=message):
        TrainConfig(data="x", model=ModelConfig(preset="y"), **values)


def test_region_config__impossible_values():
    with pytest.raises(ValidationError):
        RegionConfig(pooling="mean")
