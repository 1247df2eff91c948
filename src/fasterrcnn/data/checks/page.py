"""The doctor's findings as one HTML page that needs nothing beside it."""

import base64
import io
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment
from PIL import Image

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import KINDS, Finding
from fasterrcnn.data.images import read_image
from fasterrcnn.errors import ImageError
from fasterrcnn.files import write_text
from fasterrcnn.reporting.drawing import draw_boxes

if TYPE_CHECKING:
    from fasterrcnn.data.checks.check import Diagnosis

_SIDE = 360  # pixels of an image on the page
_IMAGES = 12  # shown of each kind; the words of all findings are there


@dataclass(frozen=True)
class _Shown:
    finding: Finding
    image: str | None


def write_report(diagnosis: "Diagnosis", path: Path) -> None:
    """Write the page: every finding, and for the first of each kind the image with its boxes."""
    records = {record.path: record for record in diagnosis.data.records}
    sections = []
    for kind, found in diagnosis.by_kind().items():
        severity, advice = KINDS[kind]
        drawn = [_draw(diagnosis.data, records, finding) for finding in found[:_IMAGES]]
        shown = [_Shown(f, image) for f, image in zip(found, drawn, strict=False)]
        sections.append({"kind": kind, "severity": severity, "advice": advice, "shown": shown, "rest": found[_IMAGES:]})
    template = files("fasterrcnn.data").joinpath("templates/doctor.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True).from_string(template)
    text = page.render(
        title=f"Data check of {diagnosis.data.root.name}",
        summary=diagnosis.data.summary(),
        counts=diagnosis.counts,
        sections=sections,
    )
    write_text(path, text)


def _draw(data: AnnotatedData, records: dict[Path, AnnotatedImage], finding: Finding) -> str | None:
    """The image of a finding with its boxes, as a data URL; the box that is meant keeps its name."""
    if finding.image is None:
        return None
    try:
        image = read_image(finding.image)
    except ImageError:
        return None
    scale = min(1.0, _SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    record = records.get(finding.image)
    if record is not None:
        small = _with_boxes(data, record, small, scale, finding.annotation)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _with_boxes(
    data: AnnotatedData, record: AnnotatedImage, image: Image.Image, scale: float, annotation: int | None
) -> Image.Image:
    boxes = record.boxes * scale
    # What Pillow cannot draw is left to the words.
    good = np.isfinite(boxes).all(axis=1) & (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
    good &= (np.abs(boxes) < 10_000).all(axis=1)
    numbers = np.arange(1, len(boxes) + 1) if record.numbers is None else record.numbers
    meant = numbers == annotation if annotation is not None else np.zeros(len(boxes), dtype=np.bool_)
    order = [i for i in np.argsort(meant, kind="stable").tolist() if good[i]]
    captions = [data.classes[record.labels[i]] if meant[i] or annotation is None else "" for i in order]
    return draw_boxes(image, boxes[order], record.labels[order], captions)
