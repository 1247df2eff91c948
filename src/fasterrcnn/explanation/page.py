"""The walk through a detector as a folder: a page that needs nothing beside it, its images, its numbers."""

import base64
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from PIL import Image

from fasterrcnn.explanation.diagnosis import ADVICE, MEANINGS
from fasterrcnn.explanation.lost import COLOURS
from fasterrcnn.explanation.trace import STEPS
from fasterrcnn.files import atomic_folder, write_text

if TYPE_CHECKING:
    from fasterrcnn.explanation.explain import Explanation

_FEW_COLOURS = 512
_EFFORT = 4  # of PNG's 9: the last five take most of the time and save little


def write(explanation: "Explanation", folder: Path) -> Path:
    """Write index.html, explain.json and the images; the folder appears when all of it is there.

    Raises:
        UsageError: the folder exists and is not empty.
    """
    with atomic_folder(folder) as temporary:
        for name, figure in explanation.figures.items():
            figure.sheet().save(temporary / f"{name}.png", compress_level=_EFFORT)
        write_text(temporary / "explain.json", json.dumps(explanation.to_dict(), indent=1, ensure_ascii=True))
        write_text(temporary / "index.html", render(explanation))
    return folder


def render(explanation: "Explanation") -> str:
    """The page, images inline."""
    trace = explanation.trace
    template = files("fasterrcnn.explanation").joinpath("templates/explain.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = inline
    return environment.from_string(template).render(
        trace=trace,
        config=_facts(explanation),
        figures=explanation.figures,
        verdicts=explanation.verdicts,
        counts=explanation.counts,
        ground_truth=explanation.ground_truth,
        colours={kind: "rgb({}, {}, {})".format(*colour) for kind, colour in COLOURS.items()},
        meanings=MEANINGS,
        advice=ADVICE,
        steps=STEPS,
    )


def inline(image: Image.Image) -> str:
    """An image as a data URL: PNG for drawings of few colours, JPEG for the rest."""
    buffer = io.BytesIO()
    kind = "png" if image.getcolors(_FEW_COLOURS) else "jpeg"
    image.save(buffer, kind, **({"compress_level": _EFFORT} if kind == "png" else {"quality": 82}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _facts(explanation: "Explanation") -> dict[str, Any]:
    """Numbers that the text needs beside those of the trace."""
    trace = explanation.trace
    model = trace.model
    pooling = model.roi_pooling
    return {
        "name": trace.source.name if trace.source is not None else "image",
        "neck": type(model.backbone.neck).__name__,
        "candidates": model.proposals.candidates,
        "proposals": model.proposals.proposals,
        "rpn_nms": model.proposals.nms_threshold,
        "per_cell": model.anchors.per_cell,
        "positive": model.rpn_loss.assigner.positive_iou,
        "negative": model.rpn_loss.assigner.negative_iou,
        "method": {"align": "RoIAlign", "pool": "RoIPool"}[pooling.method],
        "side": pooling.output_size,
        "pooled_levels": len(pooling.strides),
        "min_iou": explanation.min_iou,
        "total_ms": 1000 * sum(trace.seconds.values()),
    }
