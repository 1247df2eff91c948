"""Publishing a detector on the Hugging Face Hub, with a model card that describes it and shows how to use it."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fasterrcnn.build import load_model
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import UsageError, WeightsError, first_line
from fasterrcnn.reporting.model_card import HUB, ModelCard, checkpoint_sections, read_sections, render_model_card
from fasterrcnn.weights import download, native
from fasterrcnn.weights.detectron2 import BackboneStyle

_CARD = "README.md"
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class Origin(NamedTuple):
    """What a detector was read from."""

    path: Path  # the file
    style: BackboneStyle | None = None  # its colours and strides where they were given, as in `build.load_model`


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
        except Exception as error:  # its client raises errors of several libraries
            raise WeightsError(
                f"{repository}: cannot be published ({first_line(error)}); hf auth login, or token="
            ) from None
    return str(address)


def write_repository(folder: Path, source: Origin, config: ModelConfig, repository: str) -> None:
    """Write the files of a repository of the Hub: ``model.safetensors`` and the model card.

    The sections of a run's model card beside the source are taken over.
    """
    file = source.path
    notes: Mapping[str, Any] = {"source": file.name}
    if native.is_ours(file):
        notes = native.load_checkpoint(file)[2]
    model, _ = load_model(file, style=source.style)
    native.save_checkpoint(folder / download.HUB_FILE, model, config, notes)
    card_of_run = file.parent / _CARD
    text = card_of_run.read_text(encoding="utf-8", errors="replace") if card_of_run.is_file() else ""
    card = ModelCard(
        name=repository.partition("/")[2],
        preset=config.preset,
        classes=config.classes,
        parameters=sum(parameter.numel() for parameter in model.state_dict().values()),
        short_side=config.input.short_side,
        long_side=config.input.long_side,
        address=f"{HUB}{repository}",
        sections=read_sections(text) or checkpoint_sections(notes, config.classes),
        notes=notes,
    )
    (folder / _CARD).write_text(render_model_card(card), encoding="utf-8")
