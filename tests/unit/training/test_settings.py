import pytest
import yaml

from fasterrcnn import presets
from fasterrcnn.config import TrainConfig
from fasterrcnn.errors import UsageError
from fasterrcnn.training import prepare

GIVEN = {"data": "x", "model": "timm:test_efficientnet"}


def test_resolve__defaults():
    assert prepare.resolve(GIVEN) == TrainConfig(data="x", model=presets.get("timm:test_efficientnet"))


def test_resolve__recipe_then_what_is_given_then_assignments(monkeypatch):
    recipe = {"epochs": 10, "augmentation": "light", "ema": 0.9, "seed": 3}
    monkeypatch.setitem(prepare.TRAINING_RECIPES, "quick", recipe)
    chosen = prepare.resolve(
        {**GIVEN, "recipe": "quick", "augmentation": "strong", "ema": 0.8, "seed": 4}, ["ema=0.7", "seed=5"]
    )
    assert (chosen.recipe, chosen.epochs, chosen.augmentation, chosen.ema, chosen.seed) == (
        "quick",
        10,
        "strong",
        0.7,
        5,
    )


@pytest.mark.parametrize("recipe", prepare.TRAINING_RECIPES)
def test_resolve__recipes_have_only_what_exists(recipe):
    chosen = prepare.resolve({**GIVEN, "recipe": recipe})
    assert {name: getattr(chosen, name) for name in prepare.TRAINING_RECIPES[recipe]} == prepare.TRAINING_RECIPES[
        recipe
    ]


def test_resolve__recipe_in_an_assignment(monkeypatch):
    monkeypatch.setitem(prepare.TRAINING_RECIPES, "best", {"epochs": 77})
    assert prepare.resolve(GIVEN, ["recipe=best"]).epochs == 77
    assert prepare.resolve({**GIVEN, "epochs": 5}, ["recipe=best"]).epochs == 5


def test_resolve__input_size_of_a_recipe(monkeypatch):
    monkeypatch.setitem(prepare._INPUT_SCALES, "quick", 0.5)
    given = {**GIVEN, "recipe": "quick"}
    assert prepare.resolve(given).short_side == 240
    assert prepare.resolve({**given, "short_side": 96}).short_side == 96
    assert prepare.resolve({**given, "long_side": 96}).short_side is None


def test_resolve__model_of_any_kind():
    name = "efficientnet-lite0-fpn"
    preset = presets.get(name)
    for model in (name, preset, {"preset": name}, preset.model_dump()):
        assert prepare.resolve({**GIVEN, "model": model}).model == preset


def test_resolve__part_of_a_model():
    changed = prepare.resolve({**GIVEN, "model": {"preset": "resnet50-fpn", "regions": {"widths": [64]}}}).model
    old = presets.get("resnet50-fpn")
    assert changed == old.model_copy(update={"regions": old.regions.model_copy(update={"widths": (64,)})})


@pytest.mark.parametrize(
    "model", ["resnet50-fpn", {"preset": "resnet50-fpn", "rpn": {"convs": 2}}, presets.get("resnet50-fpn")]
)
def test_resolve__nested_assignment(model):
    changed = prepare.resolve({**GIVEN, "model": model}, ["model.regions.box_loss=giou"]).model
    plain = prepare.resolve({**GIVEN, "model": model}).model
    assert plain.regions.box_loss == "smooth_l1"
    assert changed == plain.model_copy(update={"regions": plain.regions.model_copy(update={"box_loss": "giou"})})


def test_resolve__nested_assignments_meet():
    changes = ["model.regions.beta=0", "model.regions.widths=[64, 32]", "model.postprocess.max_detections=7"]
    model = prepare.resolve(GIVEN, changes).model
    assert (model.regions.beta, model.regions.widths, model.postprocess.max_detections) == (0, (64, 32), 7)
    assert model.regions.aligned  # as in the preset


def test_resolve__model_alone_in_assignments():
    chosen = prepare.resolve({"data": "x"}, ["model.preset=resnet50-fpn", "model.rpn.convs=2"])
    assert (chosen.model.preset, chosen.model.rpn.convs) == ("resnet50-fpn", 2)


def test_resolve__what_is_given_is_left_alone():
    given = {**GIVEN, "model": {"preset": "resnet50-fpn", "regions": {"beta": 0.5}}, "reading": {"format": "coco"}}
    before = yaml.safe_dump(given)
    prepare.resolve(given, ["model.regions.beta=0.1", "reading.format=voc", "epochs=3"])
    assert yaml.safe_dump(given) == before


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("learning_rate=1e-4", "learning_rate", 1e-4),
        ("learning_rate=2E-3", "learning_rate", 2e-3),
        ("epochs=3", "epochs", 3),
        ("drops=[0.5, 0.75]", "drops", (0.5, 0.75)),
        ("weights=null", "weights", None),
        ("weights=", "weights", None),
        ("weights=run/a=b.pth", "weights", "run/a=b.pth"),
        ("train_norms=true", "train_norms", True),
        ("freeze=backbone", "freeze", "backbone"),
        ("freeze=2", "freeze", 2),
        ("reading.box_format=xywh", "reading.box_format", "xywh"),
    ],
)
def test_resolve__values_of_assignments(assignment, name, value):
    resolved = prepare.resolve(GIVEN, [assignment])
    for part in name.split("."):
        resolved = getattr(resolved, part)
    assert resolved == value
    assert type(resolved) is type(value)


def test_resolve__the_last_assignment_counts():
    assert prepare.resolve(GIVEN, ["epochs=3", "epochs=4"]).epochs == 4


@pytest.mark.parametrize("assignment", ["epochs", "=3", "", "model..beta=3", ".epochs=3", "epochs.=3"])
def test_resolve__no_assignment(assignment):
    with pytest.raises(UsageError, match=r"^'.*': give name=value, for example epochs=12 or model\.regions"):
        prepare.resolve(GIVEN, [assignment])


@pytest.mark.parametrize(
    ("values", "assignments", "message"),
    [
        ({"epoch": 3}, [], "there is no setting 'epoch': did you mean 'epochs'?"),
        ({}, ["learning_rat=3"], "there is no setting 'learning_rat': did you mean 'learning_rate'?"),
        ({}, ["model.region.beta=3"], "there is no setting 'model.region': did you mean 'regions'?"),
        ({}, ["model.regions.box_los=l1"], "there is no setting 'model.regions.box_los': did you mean 'box_loss'?"),
        (
            {"model": {"preset": "resnet50-fpn", "rpn": {"assign": {"cuont": 3}}}},
            [],
            "there is no setting 'model.rpn.assign.cuont': did you mean 'count'?",
        ),
        ({"reading": {"formt": "coco"}}, [], "there is no setting 'reading.formt': did you mean 'format'?"),
        (
            {},
            ["reading.zzz=1"],
            "there is no setting 'reading.zzz': there are format, images, classes, columns, box_format",
        ),
        ({"epochs": 0}, [], "epochs: Input should be greater than 0 (given: 0)"),
        ({}, ["epochs=many"], "(given: 'many')"),
        ({}, ["drops=[0.5, 2]"], "drops.1: Input should be less than or equal to 1 (given: 2)"),
        ({}, ["model.rpn.convs=0"], "model.rpn.convs: Input should be greater than 0 (given: 0)"),
        ({}, ["model.preset=resnet50-fnp"], "no model is called 'resnet50-fnp': did you mean 'resnet50-fpn'?"),
        ({"model": "yolo"}, [], "no model is called 'yolo'"),
        ({"model": {"rpn": {}}}, [], "model: name a preset (resnet50-c5, "),
        ({"model": 3}, [], "model: name a preset"),
        ({"model": None}, [], "model: name a preset"),
        ({"recipe": "slow"}, [], "recipe: Input should be 'quick', 'standard' or 'best' (given: 'slow')"),
        ({"recipe": ["quick"]}, [], "recipe: "),
        ({"freeze": "backbone", "weights": None}, [], 'freeze="backbone" with random weights would learn'),
    ],
)
def test_resolve__mistakes_are_one_line(values, assignments, message):
    with pytest.raises(UsageError) as caught:
        prepare.resolve({**GIVEN, **values}, assignments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_resolve__no_data():
    with pytest.raises(UsageError, match=r"^data: Field required"):
        prepare.resolve({"model": "resnet50-fpn"})


def test_read_settings__what_resolve_takes(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("data: x\nmodel:\n  preset: resnet50-fpn\n  regions: {box_loss: giou}\nepochs: 3 # few\n")
    chosen = prepare.resolve({**prepare.read_settings(file), "epochs": 4})
    assert (chosen.model.regions.box_loss, chosen.epochs) == ("giou", 4)


def test_read_settings__number_that_yaml_takes_for_a_word(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("data: x\nmodel: resnet50-fpn\nlearning_rate: 1e-4\n")
    assert prepare.resolve(prepare.read_settings(file)).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"mine\.yaml: No such file or directory$"),
        (b"", r"mine\.yaml: holds no settings; lines like 'epochs: 12' are needed$"),
        (b"- epochs", r"mine\.yaml: holds no settings"),
        (b"3: 4", r"mine\.yaml: holds no settings"),
        (b"epochs: [3\nseed: 4", r"mine\.yaml: no YAML \([^\n]+\)$"),
        (b"a: !!python/object:os.system {}", r"mine\.yaml: no YAML \([^\n]+\)$"),
        (b"epochs: \xff", r"mine\.yaml: no YAML \([^\n]+\)$"),
        (b"epochs: many", r"mine\.yaml: epochs: Input should be a valid integer"),
        (b"lerning_rate: 0.1", r"mine\.yaml: there is no setting 'lerning_rate': did you mean 'learning_rate'\?"),
    ],
)
def test_read_settings__mistakes_name_the_file(tmp_path, content, message):
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        prepare.read_settings(file)


@pytest.mark.parametrize("name", [*presets.names(), "timm:resnet18"])
def test_dump__reads_back_equal(tmp_path, name):
    changes = ["learning_rate=1e-5", "model.regions.box_loss=giou", "drops=[0.1, 0.7]", "weights=ü/ö.pth"]
    chosen = prepare.resolve({"data": "x: y", "model": name, "reading": {"columns": {"x1": "left"}}}, changes)
    file = tmp_path / prepare.SETTINGS_FILE
    file.write_text(prepare.dump_settings(chosen), encoding="utf-8")
    assert prepare.resolve(prepare.read_settings(file)) == chosen
    assert prepare.dump_settings(prepare.resolve(prepare.read_settings(file))) == prepare.dump_settings(chosen)


def test_dump__of_classes_and_anchors(tmp_path):
    model = presets.get("resnet50-fpn", ["yes", "3", "a: b"])
    model = model.model_copy(update={"category_ids": (7, 8, 9)})
    model = model.model_copy(update={"anchors": model.anchors.model_copy(update={"sizes": ((31.7, 1e-7),) * 5})})
    chosen = prepare.resolve({"data": "x", "model": model, "weights": None})
    (tmp_path / "a.yaml").write_text(prepare.dump_settings(chosen))
    assert prepare.resolve(prepare.read_settings(tmp_path / "a.yaml")) == chosen
    assert chosen.model == model


@pytest.mark.parametrize("recipe", prepare.TRAINING_RECIPES)
def test_dump__a_recipe_is_not_applied_again(tmp_path, recipe):
    chosen = prepare.resolve({**GIVEN, "recipe": recipe, "epochs": 123, "short_side": 77})
    (tmp_path / "a.yaml").write_text(prepare.dump_settings(chosen))
    assert prepare.resolve(prepare.read_settings(tmp_path / "a.yaml")) == chosen
