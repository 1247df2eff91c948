"""Model cards: Markdown with the front matter that the Hugging Face Hub reads; the texts are in ``templates``.

A card has a head, which names the model and shows how to use it, and sections. `training_sections` makes those of a
training run, `checkpoint_sections` those of a file that only its header describes, and `read_sections` takes them from
a card that was written earlier. Names that users gave are escaped: they break neither tables nor the front matter.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from fasterrcnn.reporting.charts import Number

HUB = "hf://"  # addresses of the Hub begin with it

_USE, _FILES = "How to use it", "Files"
_PACKAGES = ("fasterrcnn", "python", "torch", "torchvision", "pytorch-lightning", "numpy", "timm")


@dataclass(frozen=True)
class ModelCard:
    """What a card holds."""

    name: str  # of the model
    preset: str  # of its architecture
    classes: Sequence[str]  # names
    parameters: int  # how many numbers it has
    short_side: int  # of the network input, in pixels
    long_side: int  # the most that the other side may have
    address: str  # what `fasterrcnn.load` takes: a file in the folder of the card, or ``hf://user/repository``
    sections: Mapping[str, str]  # heading -> Markdown
    # Of the checkpoint; where it has ``ap`` and ``ap50``, the front matter lists them under ``data``
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingFacts:
    """What the card of a training run reports."""

    data_name: str  # of the data set; without the path, for cards are published
    data_format: str  # of its files, for people
    # Numbers of each split that was used, name -> value, "images" among them; the first split was trained on
    splits: Mapping[str, Mapping[str, int]]
    fingerprint: str  # of the images and objects that were trained on
    weights: str | None  # start weights: "imagenet", "coco", a file, or None for random numbers
    preset: str  # name of the architecture
    body: str  # of its backbone
    settings: Mapping[str, object]  # those that matter, name -> value
    max_epochs: int  # that were asked for
    epochs: int  # that were run
    seconds: float  # that it took
    environment: Mapping[str, Any]  # software and machine, `describe_environment` of a run folder
    result: Mapping[str, Number]  # the row of metrics.csv of the epoch whose weights are meant: the best, or the last
    command: str  # repeats the run
    files: Mapping[str, str]  # of the folder, and what each holds


def render_model_card(card: ModelCard) -> str:
    """The card as Markdown with YAML front matter."""
    repository = card.address.removeprefix(HUB) if card.address.startswith(HUB) else ""
    return _render("model_card.md", card=card, repository=repository, front_matter=_front_matter(card))


def training_sections(facts: TrainingFacts) -> dict[str, str]:
    """Results, data, training, limits, licence and files of a training run."""
    text = _render(
        "training.md",
        facts=facts,
        is_measured=math.isfinite(facts.result.get("ap", math.nan)),
        packages=_PACKAGES,
        start_file=Path(facts.weights or "").name,  # cards are published: no path
    )
    return _split_sections(text)


def checkpoint_sections(notes: Mapping[str, Any], classes: Sequence[str]) -> dict[str, str]:
    """Source, classes, limits and licence of a checkpoint without a training run; the notes are those of its header."""
    return _split_sections(_render("checkpoint.md", notes=notes, classes=classes))


def read_sections(card: str) -> dict[str, str] | None:
    """The sections of a card that this module wrote, by heading; None for any other text.

    Left out is what only holds in the card's own folder: how to use it, and the list of files.
    """
    head, separator, body = card.removeprefix("---\n").partition("\n---\n")
    if not card.startswith("---\n") or not separator or "library_name: fasterrcnn" not in head.split("\n"):
        return None
    return {name: text for name, text in _split_sections(body).items() if name not in (_USE, _FILES)}


def _split_sections(markdown: str) -> dict[str, str]:
    """Heading of the second level -> text below it; lines inside of code are no headings."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        if fence:
            fence = "" if line == fence else fence
        elif match := re.match("`{3,}", line):
            fence = match[0]
        elif line.startswith("## "):
            lines = sections.setdefault(line[3:], [])
            continue
        lines.append(line)
    return {name: "\n".join(text).strip() for name, text in sections.items()}


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
    return text


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("fasterrcnn.reporting"),
        autoescape=False,  # Markdown: every text goes through `plain` or `fenced`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _plain, "fenced": _fenced, "quoted": json.dumps}
    environment.filters |= {"measured": _measured, "duration": _duration, "note": _note}
    return environment


def _render(template: str, **values: object) -> str:
    return _templates().get_template(template).render(**values)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Any text as Markdown that shows it as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", _one_line(text))


def _fenced(text: str, language: str = "") -> str:
    """A block of code; its fence is longer than any row of backticks inside."""
    fence = "`" * max(3, 1 + max((len(row) for row in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _measured(value: Number | None) -> str:
    return f"{value:.3f}" if value is not None and math.isfinite(value) else "not measured"


def _note(value: object) -> str:
    if isinstance(value, Mapping):  # of a converted file: its name, family and hash
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    for size, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} seconds"
