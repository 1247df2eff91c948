import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fasterrcnn import presets
from fasterrcnn.config import TrainConfig, changed
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.formats import read_data
from fasterrcnn.errors import DataError, UsageError
from fasterrcnn.training import prepare
from fasterrcnn.weights import native

PRESET = presets.get("timm:test_efficientnet")


def settings(**changes) -> TrainConfig:
    return TrainConfig(**{"data": "x", "model": PRESET, "weights": None, **changes})


def record(number, boxes, size_hw=(300, 400)) -> AnnotatedImage:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return AnnotatedImage(
        path=Path(f"{number}.jpg"),
        image_id=number,
        size_hw=size_hw,
        boxes=xyxy,
        labels=np.zeros(len(xyxy), np.int64),
        difficult=np.zeros(len(xyxy), np.bool_),
    )


def tall_boxes(count: int) -> list[AnnotatedImage]:
    """Objects five times as tall as wide, which no preset has anchors for."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (count, 2))
    widths = rng.uniform(20, 40, (count, 1))
    return [record(i, np.hstack([c, c + w * [1, 5]])) for i, (c, w) in enumerate(zip(corners, widths, strict=True))]


@pytest.fixture
def folder(tmp_path):
    """A COCO file with one good box and one whose corners are exchanged."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    good = {"id": 1, "image_id": 5, "category_id": 18, "bbox": [5, 6, 10, 12]}
    bad = {"id": 2, "image_id": 5, "category_id": 18, "bbox": [20, 20, -10, -5]}
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 40, "height": 30}],
        "annotations": [good, bad],
        "categories": [{"id": 18, "name": "cat"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path


def test_open_data__refuses_errors(folder):
    message = r"(?s)1 error in .*train\.json: annotation 2 \(cat\): box 20,20,10,15 has its second corner.*--on-bad-box"
    with pytest.raises(DataError, match=message):
        prepare.open_data(folder, settings(), lambda line: None)


@pytest.mark.parametrize(("policy", "boxes"), [("fix", [[5, 6, 15, 18], [10, 15, 20, 20]]), ("drop", [[5, 6, 15, 18]])])
def test_open_data__fixes_and_logs(folder, policy, boxes):
    lines = []
    data = prepare.open_data(folder, settings(on_bad_box=policy), lines.append).data
    np.testing.assert_array_equal(data.split("train")[0].boxes, np.array(boxes, np.float32))
    assert lines[0].startswith("COCO, 1 image, 1 class (cat)")
    assert lines[1] in ("note: corners exchanged: 1", "note: left out: 1")
    assert "annotation 2 (cat)" in lines[2]


def test_open_data__many_changes_are_counted(tmp_path):
    points = [record(i, [[5, 5, 5, 5], [1, 1, 9, 9]]) for i in range(30)]
    lines = []
    data = AnnotatedData(tmp_path, "test", ("cat",), {"train": points})
    opened = prepare.open_data(data, settings(), lines.append).data
    assert [len(r.boxes) for r in opened.split("train")] == [1] * 30
    assert lines[1] == "note: left out: 30"
    assert len(lines) == 12
    assert lines[-1] == "note: and 21 more, all in data.txt of the run"


def test_start_config__category_ids_travel(folder):
    model = prepare.start_config(read_data(folder), settings())
    assert (model.classes, model.category_ids) == (("cat",), (18,))


@pytest.mark.parametrize(
    ("name", "weights", "norm"),
    [
        ("resnet50-fpn", None, "group"),
        ("resnet50-fpn", "imagenet", "frozen"),
        ("resnet50-fpn-v2", "imagenet", "batch"),
        ("timm:test_efficientnet", None, "batch"),
    ],
)
def test_start_config__norms_suit_the_start_weights(folder, name, weights, norm):
    chosen = settings(model=presets.get(name), weights=weights)
    assert prepare.start_config(read_data(folder), chosen).backbone.norm == norm


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ({}, (480, 800)),
        ({"short_side": 240}, (240, 400)),
        ({"long_side": 1000}, (480, 1000)),
        ({"short_side": 96, "long_side": 100}, (96, 100)),
    ],
)
def test_start_config__input_size(folder, sides, expected):
    size = prepare.start_config(read_data(folder), settings(**sides)).input
    assert (size.short_side, size.long_side) == expected


def test_with_anchors__fitted_and_logged():
    lines = []
    model = prepare.with_anchors(PRESET, tall_boxes(100), settings(), lines.append)
    assert model.anchors != PRESET.anchors
    assert max(model.anchors.ratios[0]) > 3
    assert len(lines) == 1
    assert "100 boxes" in lines[0]


@pytest.mark.parametrize(
    ("options", "fitted"),
    [
        ({"weights": None}, True),
        ({"weights": "imagenet"}, True),
        ({"weights": "coco"}, False),
        ({"weights": "run/last.safetensors"}, False),
        ({"weights": "coco", "anchors": "auto"}, True),
        ({"weights": None, "anchors": "preset"}, False),
    ],
)
def test_with_anchors__when(monkeypatch, options, fitted):
    calls = []
    real = prepare.anchors.fit_anchors

    def fit_few(boxes, *arguments, **options):
        """Records the call; boxes that are too few are left to the preset's anchors, which is quick."""
        calls.append(len(boxes))
        return real(boxes[:5], *arguments, **{**options, "labels": options["labels"][:5]})

    monkeypatch.setattr(prepare.anchors, "fit_anchors", fit_few)
    prepare.with_anchors(PRESET, tall_boxes(100), settings(**options), lambda line: None)
    assert calls == ([100] if fitted else [])


def test_with_anchors__too_few_boxes():
    lines = []
    assert prepare.with_anchors(PRESET, tall_boxes(5), settings(), lines.append) == PRESET
    assert lines == ["anchors: as they were (5 boxes, fewer than 30)"]


def test_with_anchors__from_a_file(tmp_path):
    mine = PRESET.anchors.model_copy(update={"ratios": ((0.4, 1.0, 3.0),) * 4})
    file = tmp_path / "anchors.yaml"
    file.write_text(yaml.safe_dump({"anchors": mine.model_dump(mode="json")}))
    model = prepare.with_anchors(PRESET, [], settings(anchors=str(file)), lambda line: None)
    assert model.anchors == mine
    with pytest.raises(UsageError, match=r"absent\.yaml"):
        prepare.with_anchors(PRESET, [], settings(anchors="absent.yaml"), lambda line: None)


OWN = PRESET.model_copy(update={"anchors": PRESET.anchors.model_copy(update={"ratios": ((0.4, 1.0, 3.0),) * 4})})


@pytest.mark.parametrize(
    ("choice", "expected", "line"),
    [(None, OWN, "anchors: those of the start weights"), ("preset", PRESET, "anchors: those of the preset")],
)
def test_with_anchors__of_a_trained_detector(choice, expected, line):
    lines = []
    chosen = settings(weights="run/last.safetensors", anchors=choice)
    assert prepare.with_anchors(OWN, tall_boxes(100), chosen, lines.append) == expected
    assert lines == [line]


def test_start_config__what_a_detector_was_trained_with(folder, tmp_path, tiny_model, tiny_config):
    trained = changed(tiny_config, anchors={"sizes": ((20.0,), (40.0,), (80.0,), (170.0,))})
    native.save_checkpoint(tmp_path / "own.safetensors", tiny_model, trained)
    weights = str(tmp_path / "own.safetensors")
    model = prepare.start_config(read_data(folder), settings(weights=weights))
    assert model.anchors == trained.anchors
    assert (model.input.short_side, model.input.long_side) == (64, 96)
    assert (model.backbone.neck_channels, model.regions.widths) == (32, (32, 32))
    at_480 = prepare.start_config(read_data(folder), settings(weights=weights, short_side=480))  # the preset's size
    assert (at_480.input.short_side, at_480.input.long_side) == (480, 720)


def test_choose_images__shared_images():
    train, val = record(1, [[1, 1, 9, 9]]), record(2, [[1, 1, 9, 9]])
    both = AnnotatedData(Path("root"), "test", ("cat",), {"train": [train, val], "val": [val]})
    assert prepare.choose_images(both, settings()) == ([train, val], [])
    with pytest.raises(UsageError, match=r"1 images are in 'train' and in 'val', for example 2\.jpg"):
        prepare.choose_images(both, settings(val_split="val"))


def test_choose_images__trainval():
    train = record(1, [[1, 1, 9, 9]])
    data = AnnotatedData(Path("root"), "test", ("cat",), {"test": [record(2, [])], "trainval": [train]})
    assert prepare.choose_images(data, settings()) == ([train], [])


BALANCED = PRESET.with_classes(["cat", "dog", "owl"])


def labelled(*labels, difficult=()) -> AnnotatedImage:
    boxes = [[1, 1, 9, 9]] * len(labels)
    marks = np.array([i in difficult for i in range(len(labels))], np.bool_)
    return replace(record(1, boxes), labels=np.array(labels, np.int64), difficult=marks)


def test_with_class_balance__weights_by_hand():
    records = [labelled(0, 0, 0, 1), labelled(0, 1, 2, 2, difficult=[1, 2, 3])]
    # Four cats and one dog; the owls are difficult, which counts as one of them: 1/2, 1, 1.
    # The mean over the five objects is (4 * 1/2 + 1 * 1) / 5 = 3/5.
    model = prepare.with_class_balance(BALANCED, records, settings(class_balance="weights"))
    assert model.regions.class_weights == (0.8333, 1.6667, 1.6667, 1.0)
    assert model == BALANCED.model_copy(update={"regions": model.regions})


def test_with_class_balance__focal():
    model = prepare.with_class_balance(BALANCED, [labelled(0)], settings(class_balance="focal"))
    assert model.regions == BALANCED.regions.model_copy(update={"focal_gamma": 2.0})


@pytest.mark.parametrize("kind", ["none", "repeat"])
def test_with_class_balance__loss_stays(kind):
    assert prepare.with_class_balance(BALANCED, [labelled(0, 1)], settings(class_balance=kind)) == BALANCED


@pytest.mark.parametrize(
    ("kind", "own"), [("focal", {"focal_gamma": 0.5}), ("weights", {"class_weights": (1.0, 2.0, 3.0, 0.5)})]
)
def test_with_class_balance__settings_of_the_model_stay(kind, own):
    model = BALANCED.model_copy(update={"regions": BALANCED.regions.model_copy(update=own)})
    assert prepare.with_class_balance(model, [labelled(0, 1)], settings(class_balance=kind)) == model


def test_prepare_run__patience_needs_validation(folder):
    chosen = settings(on_bad_box="drop", patience=3)
    with pytest.raises(UsageError, match=r"patience waits for a better AP, .* validation split with objects"):
        prepare.prepare_run(folder, chosen, lambda line: None)


@pytest.mark.parametrize("patience", [3, None])
@pytest.mark.parametrize("difficult", [True, False])
def test_prepare_run__validation_without_objects_that_count(photo, tmp_path, patience, difficult):
    records = []
    for number in (1, 2):
        photo((30, 40), number).save(tmp_path / f"{number}.png")
        boxes = [[1, 1, 20, 20]] if number == 1 or difficult else []
        records.append(replace(record(number, boxes, (30, 40)), path=tmp_path / f"{number}.png"))
    val = replace(records[1], difficult=np.ones(len(records[1].boxes), np.bool_))
    data = AnnotatedData(tmp_path, "test", ("cat",), {"train": [records[0]], "val": [val]})
    lines = []
    if patience is None:
        assert prepare.prepare_run(data, settings(), lines.append).val_images == [val]
    else:
        with pytest.raises(UsageError, match=r"needs a validation split with objects \(--val-split\)"):
            prepare.prepare_run(data, settings(patience=patience), lines.append)
    assert any(line.startswith("note: no AP, because no image of the validation split") for line in lines)


def test_prepare_run__all_is_decided_and_logged(folder):
    lines = []
    setup = prepare.prepare_run(folder, settings(on_bad_box="drop", short_side=240, epochs=3), lines.append)
    assert (setup.config.model.classes, setup.config.model.input.short_side) == (("cat",), 240)
    assert [len(r.boxes) for r in setup.images] == [1]
    assert setup.val_images == []
    assert lines[-1].startswith("recipe standard: 3 epochs of 1 images, short side 240, ")
    assert prepare.prepare_resumed(folder, setup.config, lambda line: None).config == setup.config


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
        (
            {},
            ["freeze=all"],
            "freeze: Input should be a valid integer, unable to parse string as an integer or 'backbone'",
        ),
        ({}, ["drops=[0.5, 2]"], "drops.1: Input should be less than or equal to 1 (given: 2)"),
        ({}, ["model.rpn.convs=0"], "model.rpn.convs: Input should be greater than 0 (given: 0)"),
        ({}, ["model.preset=resnet50-fnp"], "no model is called 'resnet50-fnp': did you mean 'resnet50-fpn'?"),
        ({"model": "yolo"}, [], "no model is called 'yolo'"),
        ({"model": {"rpn": {}}}, [], "model: name a preset (resnet50-c5, "),
        ({"model": 3}, [], "model: name a preset"),
        ({"model": None}, [], "model: name a preset"),
        ({"recipe": "slow"}, [], "recipe: Input should be 'quick', 'standard' or 'best' (given: 'slow')"),
        ({"recipe": ["quick"]}, [], "recipe: "),
        ({"freeze": -1}, [], "freeze: Input should be greater than or equal to 0 or 'backbone' (given: -1)"),
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


@pytest.fixture
def thermal(tmp_path):
    """A COCO file with one image of values from 30000 to 31020."""
    values = np.linspace(30000, 31020, 1200).astype(np.uint16).reshape(30, 40)
    Image.fromarray(values).save(tmp_path / "a.png")
    box = {"id": 1, "image_id": 5, "category_id": 18, "bbox": [5, 6, 10, 12]}
    image = {"id": 5, "file_name": "a.png", "width": 40, "height": 30}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 18, "name": "cat"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path


def test_prepare_run__range_of_the_training_images_is_kept(thermal):
    lines = []
    setup = prepare.prepare_run(thermal, settings(), lines.append)
    low, high = setup.config.model.input.pixel_range
    assert (low, high) == pytest.approx((30000, 31020), abs=5)
    assert any(line.startswith("pixel range: 3000") for line in lines)
    pixels, _ = setup.dataset[0]
    assert len(pixels.unique()) > 200
    again = prepare.resolve(yaml.safe_load(prepare.dump_settings(setup.config)))
    assert again.model.input.pixel_range == (low, high)


def test_prepare_run__range_and_bands_by_hand(thermal):
    lines = []
    setup = prepare.prepare_run(thermal, settings(pixel_range=(0, 40000), bands=(1, 1, 1)), lines.append)
    assert setup.config.model.input.pixels == ((0, 40000), (1, 1, 1))
    assert not any("pixel range" in line for line in lines)


def test_prepare_run__images_of_eight_bits_have_no_range(folder):
    lines = []
    setup = prepare.prepare_run(folder, settings(on_bad_box="fix"), lines.append)
    assert setup.config.model.input.pixel_range is None
    assert not any("pixel range" in line for line in lines)


@pytest.mark.parametrize("pixel_range", [(5, 5), (6, 5), (0, float("inf")), (float("nan"), 1)])
def test_resolve__impossible_range(pixel_range):
    with pytest.raises(UsageError, match="pixel_range"):
        prepare.resolve({"data": "x", "model": "resnet50-fpn", "pixel_range": pixel_range})


@pytest.mark.parametrize(
    ("wanted", "device", "has_tiles", "capability", "expected"),
    [
        (None, "cpu", True, None, "float32"),
        ("float32", "cpu", True, None, "float32"),
        ("bf16", "cpu", False, None, "bf16"),
        ("auto", "cpu", True, None, "bf16"),
        ("auto", "cpu", False, None, "float32"),
        ("auto", "mps", True, None, "float32"),
        (None, "cuda", True, (7, 5), "fp16"),
        ("auto", "cuda", True, (8, 0), "bf16"),
        ("float32", "cuda", True, (9, 0), "float32"),
    ],
)
def test_with_precision__what_the_device_is_fastest_with(monkeypatch, wanted, device, has_tiles, capability, expected):
    monkeypatch.setattr(prepare, "has_bf16_tiles", lambda: has_tiles)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    lines = []
    config = prepare.with_precision(settings(precision=wanted), torch.device(device), lines.append)
    assert config.precision == expected
    is_chosen = wanted == "auto" or (wanted is None and device == "cuda")
    kind = "CPU" if device == "cpu" else "GPU"
    assert lines == ([f"precision: {expected}, the fastest on this {kind}"] if is_chosen else [])
