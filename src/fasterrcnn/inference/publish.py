"""Publishing a detector on the Hugging Face Hub, with a model card that says what it is and how to use it."""

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fasterrcnn.build import load_model
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.weights import download, native
from fasterrcnn.weights.detectron2 import Style
from fasterrcnn.weights.pickles import reason

_CARD = "README.md"
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class Origin(NamedTuple):
    """What a detector was read from.

    Attributes:
        path: the file.
        style: colours and strides that were said of it, as in `build.load_model`.
    """

    path: Path
    style: Style | None = None


def publish(
    source: Origin | None,
    config: ModelConfig,
    repository: str,
    *,
    token: str | None = None,
    private: bool = False,
    message: str | None = None,
) -> str:
    """Upload the detector of a file; see `fasterrcnn.Detector.push_to_hub`.

    Returns:
        Address of the repository.
    """
    if not _NAME.fullmatch(repository):
        raise UsageError(f"{repository!r} names no repository: write user/repository")
    if source is None:
        raise UsageError("this detector was made in memory: save its network, fasterrcnn.load the file, publish that")
    hf = download.client()
    with tempfile.TemporaryDirectory() as folder:
        write_repository(Path(folder), source, config, repository)
        try:
            api = hf.HfApi(endpoint=download.endpoint(), token=token, library_name="fasterrcnn")
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=message or "Detector made with fasterrcnn"
            )
        except Exception as error:  # its client raises kinds of several libraries
            raise WeightsError(
                f"{repository}: cannot be published ({reason(error)}); hf auth login, or token="
            ) from None
    return str(address)


def write_repository(folder: Path, source: Origin, config: ModelConfig, repository: str) -> None:
    """Write what a repository of the Hub holds: ``model.safetensors`` and the model card.

    Args:
        folder: to write into.
        source: what the detector was loaded from; where a run's model card lies beside it, it is taken over.
        config: of the detector, with the names of its classes.
        repository: ``user/repository``.
    """
    file = source.path
    notes: Mapping[str, Any] = {"source": file.name}
    if native.is_ours(file):
        notes = native.load(file)[2]
    model, _ = load_model(file, style=source.style)
    native.save(folder / download.FILE, model, config, notes)
    parameters = sum(parameter.numel() for parameter in model.state_dict().values())
    beside = file.parent / _CARD
    of_run = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else ""
    own = of_run.startswith("---\n") and "library_name: fasterrcnn" in of_run.partition("\n---")[0]
    card = _of_run(of_run, file.name, repository) if own else model_card(config, repository, parameters, notes)
    (folder / _CARD).write_text(card, encoding="utf-8")


def model_card(config: ModelConfig, repository: str, parameters: int, notes: Mapping[str, Any]) -> str:
    """Markdown with the front matter that the Hub reads; names that users gave are escaped.

    Args:
        config: of the detector.
        repository: ``user/repository``.
        parameters: how many numbers it has.
        notes: of its checkpoint: ``data``, ``epoch``, ``ap``, ``ap50``, ``start``, ``source``, where they are known.
    """
    size = config.input
    about = (
        f"A Faster R-CNN ({_plain(config.preset)}, {parameters:,} numbers) that finds objects of "
        f"{len(config.classes):,} classes. Images are resized so that the short side has {size.short_side:,} pixels "
        f"and the long one at most {size.long_side:,}. Boxes come back in the pixels of the image."
    )
    limits = (
        "- It knows images like those that it learned from: measure it on your own before you rely on it.\n"
        "- Scores are no probabilities: they order the detections. Choose a threshold on labelled images.\n"
        "- No person's safety, health or rights should depend on its detections alone."
    )
    classes = _table(("label", "class"), [(str(label), _plain(name)) for label, name in enumerate(config.classes)])
    known = [(name, _plain(_shown(notes[key]))) for key, name in _NOTES.items() if notes.get(key) is not None]
    sections = [
        _front_matter(config, repository, notes),
        f"# {_plain(repository.partition('/')[2])}",
        about,
        _use(repository),
        f"## Where it comes from\n\n{_table(('', ''), known) if known else 'Its file does not log.'}",
        f"## Classes\n\n{classes}",
        f"## Limits\n\n{limits}",
        "The licence is for the owner of the model to choose, and to add to the head of this file.",
    ]
    return "\n\n".join(sections) + "\n"


_NOTES = {
    "data": "data set",
    "epoch": "epoch",
    "ap": "AP (IoU .50 to .95), validation",
    "ap50": "AP50, validation",
    "start": "start weights",
    "source": "source",
}


def _front_matter(config: ModelConfig, repository: str, notes: Mapping[str, Any]) -> str:
    name = repository.partition("/")[2]
    head: dict[str, Any] = {
        "library_name": "fasterrcnn",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "faster-rcnn", "pytorch", " ".join(config.preset.split())],
    }
    measured = [
        {"type": kind, "value": float(notes[key]), "name": label}
        for key, kind, label in (("ap", "map", "AP"), ("ap50", "map_50", "AP50"))
        if isinstance(notes.get(key), int | float)
    ]
    if measured:
        data = " ".join(str(notes.get("data", "own data")).split())
        result = {"task": {"type": "object-detection"}, "dataset": {"name": data, "type": data}, "metrics": measured}
        head["model-index"] = [{"name": name, "results": [result]}]
    text: str = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---"


def _of_run(card: str, file: str, repository: str) -> str:
    """The card of a run, told from the Hub: its file has another name there, and the other files stay at home."""
    card = card.replace(f'load("{file}")', f'load("hf://{repository}")')
    card = card.replace(f"predict {file} ", f"predict hf://{repository} ").replace(
        f"evaluate {file} ", f"evaluate hf://{repository} "
    )
    return card.partition("\n## Files\n")[0].rstrip() + "\n"


def _use(repository: str) -> str:
    python = (
        "from fasterrcnn import Detector\n"
        f"detector = Detector.from_pretrained({json.dumps(repository)})\n"
        'detector.predict("photo.jpg", score=0.5).save("photo-with-boxes.jpg")'
    )
    command = f"fasterrcnn predict hf://{repository} photo.jpg -o seen"
    install = 'pip install "fasterrcnn[hub]"'
    return f"## How to use it\n\n```\n{install}\n```\n\n```python\n{python}\n```\n\n```\n{command}\n```"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):  # of a converted file: its name, family and hash
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """Any text as Markdown that shows it as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", " ".join(text.split()))
