"""The findings of a data check as one HTML page that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.findings import FINDING_KINDS, Finding
from fasterrcnn.errors import ImageError
from fasterrcnn.files import write_text
from fasterrcnn.images import read_image
from fasterrcnn.reporting.drawing import draw_boxes
from fasterrcnn.reporting.html import render_page

_SIDE = 360  # pixels of an image on the page
_MAX_IMAGES = 12  # shown of each kind; all findings stand there as text


@dataclass(frozen=True)
class _Example:
    finding: Finding
    image: Image.Image | None


def write_check_page(
    path: Path, data: AnnotatedData, findings: Mapping[str, Sequence[Finding]], counts: Mapping[str, int]
) -> None:
    """Write every finding, and for the first of each kind the image with its boxes.

    Args:
        path: the file; its folder is made if need be.
        data: the data set that was checked.
        findings: those of each kind, in the order in which the page shows them.
        counts: how many findings have which severity.
    """
    images = {image.path: image for image in data.images}
    sections = []
    for kind, of_kind in findings.items():
        severity, advice = FINDING_KINDS[kind]
        examples = [_Example(finding, _draw(data, images, finding)) for finding in of_kind[:_MAX_IMAGES]]
        rest = of_kind[_MAX_IMAGES:]
        sections.append(
            {
                "kind": kind,
                "severity": severity,
                "advice": advice,
                "count": len(of_kind),
                "examples": examples,
                "rest": rest,
            }
        )
    page = render_page(
        "fasterrcnn.data",
        "check.html",
        title=f"Data check of {data.root.name}",
        summary=data.summary(),
        counts=counts,
        sections=sections,
    )
    write_text(path, page)


def _draw(data: AnnotatedData, images: Mapping[Path, AnnotatedImage], finding: Finding) -> Image.Image | None:
    """The image of a finding with its boxes; the box that is meant keeps its name."""
    if finding.image is None:
        return None
    try:
        pil_image = read_image(finding.image)
    except ImageError:
        return None
    scale = min(1.0, _SIDE / max(pil_image.size))
    small = pil_image.resize((max(1, round(pil_image.width * scale)), max(1, round(pil_image.height * scale))))
    annotated = images.get(finding.image)
    return small if annotated is None else _with_boxes(small, annotated, scale, data.classes, finding.annotation)


def _with_boxes(
    pil_image: Image.Image,
    annotated: AnnotatedImage,
    scale: float,
    classes: Sequence[str],
    annotation: int | None,
) -> Image.Image:
    boxes = annotated.boxes * scale
    # Boxes that Pillow cannot draw are described by the text alone.
    is_drawable = np.isfinite(boxes).all(axis=1) & (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
    is_drawable &= (np.abs(boxes) < 10_000).all(axis=1)
    numbers = np.arange(1, len(boxes) + 1) if annotated.numbers is None else annotated.numbers
    is_meant = numbers == annotation if annotation is not None else np.zeros(len(boxes), dtype=np.bool_)
    order = [i for i in np.argsort(is_meant, kind="stable").tolist() if is_drawable[i]]  # the meant one on top
    captions = [classes[annotated.labels[i]] if is_meant[i] or annotation is None else "" for i in order]
    return draw_boxes(pil_image, boxes[order], annotated.labels[order], captions)
