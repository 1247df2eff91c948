"""An explanation as a folder: a page that needs nothing beside it, its figures, its numbers."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fasterrcnn.explanation.diagnosis import DIAGNOSIS_KINDS, ObjectDiagnosis
from fasterrcnn.explanation.figures import Figure
from fasterrcnn.explanation.ground_truth import ImageGroundTruth
from fasterrcnn.explanation.trace import Trace
from fasterrcnn.files import atomic_folder, write_text
from fasterrcnn.reporting.html import render_page

_PNG_EFFORT = 4  # of 9: the rest takes most of the time and saves little


def write_explanation(
    folder: Path,
    trace: Trace,
    figures: Mapping[str, Figure],
    numbers: Mapping[str, Any],
    ground_truth: ImageGroundTruth | None = None,
    diagnoses: Sequence[ObjectDiagnosis] = (),
    min_iou: float = 0.5,
) -> Path:
    """Write index.html, explain.json and the figures into a new folder, completely or not at all.

    Args:
        folder: the new folder.
        trace: the run.
        figures: of its stages, by name.
        numbers: for explain.json.
        ground_truth: the objects of the image, where they were given.
        diagnoses: what became of each object.
        min_iou: from which overlap on a box has found an object.

    Raises:
        UsageError: the folder exists and is not empty.
    """
    with atomic_folder(folder) as temporary:
        for name, figure in figures.items():
            figure.sheet().save(temporary / f"{name}.png", compress_level=_PNG_EFFORT)
        write_text(temporary / "explain.json", json.dumps(numbers, indent=1, ensure_ascii=True))
        page = render_explanation(trace, figures, ground_truth, diagnoses, min_iou)
        write_text(temporary / "index.html", page)
    return folder


def render_explanation(
    trace: Trace,
    figures: Mapping[str, Figure],
    ground_truth: ImageGroundTruth | None,
    diagnoses: Sequence[ObjectDiagnosis],
    min_iou: float,
) -> str:
    """The page as text, figures inside; see `write_explanation`."""
    return render_page(
        "fasterrcnn.explanation",
        "explain.html",
        trace=trace,
        config=_model_facts(trace),
        name=trace.source.name if trace.source is not None else "image",
        total_ms=1000 * sum(trace.seconds.values()),
        figures=figures,
        ground_truth=ground_truth,
        diagnoses=diagnoses,
        counts=dict(Counter(diagnosis.kind for diagnosis in diagnoses).most_common()),
        min_iou=min_iou,
        kinds=DIAGNOSIS_KINDS,
    )


def _model_facts(trace: Trace) -> dict[str, Any]:
    """Numbers of the network that the text needs."""
    model = trace.model
    return {
        "neck": type(model.backbone.neck).__name__,
        "candidates": model.proposals.candidates,
        "proposals": model.proposals.proposals,
        "rpn_nms": model.proposals.nms_threshold,
        "per_cell": model.anchors.per_cell,
        "positive": model.rpn_loss.assigner.positive_iou,
        "negative": model.rpn_loss.assigner.negative_iou,
        "method": {"align": "RoIAlign", "pool": "RoIPool"}[model.roi_pooling.method],
        "side": model.roi_pooling.output_size,
        "pooled_levels": len(model.roi_pooling.strides),
    }
