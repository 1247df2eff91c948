"""`explain`: one image through a detector, step by step, and why objects in it were missed; as numbers and a page."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from fasterrcnn.config import Precision
from fasterrcnn.data.checks import BadBoxPolicy
from fasterrcnn.errors import UsageError
from fasterrcnn.explanation import stages
from fasterrcnn.explanation.diagnosis import DIAGNOSIS_KINDS, ObjectDiagnosis, diagnose_objects
from fasterrcnn.explanation.figures import POOLING_NAMES, Figure
from fasterrcnn.explanation.ground_truth import GroundTruthSource, ImageGroundTruth, read_image_ground_truth
from fasterrcnn.explanation.trace import Trace, trace_image
from fasterrcnn.files import atomic_folder, check_output, write_text
from fasterrcnn.inference.detector import Detector, load
from fasterrcnn.inference.options import PostprocessOptions
from fasterrcnn.inference.runtimes import RuntimeChoice
from fasterrcnn.inference.sources import ImageInput
from fasterrcnn.reporting.html import PNG_EFFORT, render_page
from fasterrcnn.structures import Target

_STAGES = (
    stages.draw_input,
    stages.draw_body,
    stages.draw_features,
    stages.draw_channels,
    stages.draw_anchors,
    stages.draw_objectness,
    stages.draw_proposals,
    stages.draw_regions,
    stages.draw_pooling,
    stages.draw_classes,
    stages.draw_suppression,
    stages.draw_detections,
    stages.draw_funnel,
    stages.draw_times,
)


@dataclass(frozen=True)
class Explanation:
    """What a detector did with an image.

    Attributes:
        trace: the run, with all its tensors.
        ground_truth: the objects of the image, where they were given.
        target: the same in the frame of the network input.
        diagnoses: what became of every object.
        min_iou: from which overlap on a box has found an object.
    """

    trace: Trace
    ground_truth: ImageGroundTruth | None = None
    target: Target | None = None
    diagnoses: tuple[ObjectDiagnosis, ...] = ()
    min_iou: float = 0.5

    @property
    def counts(self) -> dict[str, int]:
        """How many objects have which kind of diagnosis, the most frequent first."""
        return dict(Counter(diagnosis.kind for diagnosis in self.diagnoses).most_common())

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The figures of the stages, by name, drawn when they are first asked for."""
        figures: list[Figure | None] = [draw(self.trace) for draw in _STAGES]
        if self.target is not None:
            figures.append(stages.draw_matched(self.trace, self.target))
            figures.append(stages.draw_diagnoses(self.trace, self.diagnoses))
            figures.append(stages.draw_lost(self.trace, self.diagnoses))
        return {figure.name: figure for figure in sorted(filter(None, figures), key=lambda figure: figure.name)}

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON: boxes of diagnoses in pixels of the network input, detections in the original's."""
        trace, ground_truth = self.trace, self.ground_truth
        return {
            "image": None if trace.source is None else str(trace.source),
            "preset": trace.preset,
            "runtime": trace.runtime,
            "precision": trace.precision,
            "classes": list(trace.classes),
            "image_hw": list(trace.original_hw),
            "input_hw": list(trace.input_hw),
            "padded_hw": list(trace.batch.padded_hw),
            "postprocess": asdict(trace.postprocess),
            "funnel": trace.funnel,
            "seconds": trace.seconds,
            "shapes": {name: list(shape) for name, shape in trace.shapes.items()},
            "detections": trace.detections.to_records(),
            "ground_truth": None
            if ground_truth is None
            else {"objects": len(self.diagnoses), "left_out": ground_truth.left_out, "min_iou": self.min_iou},
            "diagnoses": [asdict(diagnosis) for diagnosis in self.diagnoses],
        }

    def __str__(self) -> str:
        funnel = " -> ".join(f"{count:,} {name}" for name, count in self.trace.funnel.items())
        lines = [str(self.trace.detections), funnel]
        lines += [f"{item.number} {item.name}: {item.kind}. {item.why}" for item in self.diagnoses]
        if self.ground_truth is not None:
            lines.append(", ".join(f"{count} {kind}" for kind, count in self.counts.items()) or "no objects")
        return "\n".join(lines)

    def save(self, folder: str | Path) -> Path:
        """Write index.html, explain.json and every figure as PNG into a new folder, completely or not at all.

        Raises:
            UsageError: the folder exists and is not empty.
        """
        with atomic_folder(Path(folder)) as temporary:
            for name, figure in self.figures.items():
                figure.sheet().save(temporary / f"{name}.png", compress_level=PNG_EFFORT)
            write_text(temporary / "explain.json", json.dumps(self.to_dict(), indent=1))
            write_text(temporary / "index.html", render_explanation(self))
        return Path(folder)


def render_explanation(explanation: Explanation) -> str:
    """The page as text, figures inside."""
    trace, model = explanation.trace, explanation.trace.model
    return render_page(
        "fasterrcnn.explanation",
        "explain.html",
        explanation=explanation,
        trace=trace,
        model=model,
        figures=explanation.figures,
        ground_truth=explanation.ground_truth,
        diagnoses=explanation.diagnoses,
        neck=type(model.backbone.neck).__name__,
        method=POOLING_NAMES[model.roi_pooling.method],
        kinds=DIAGNOSIS_KINDS,
    )


def explain(
    weights: str | Path | Detector,
    image: ImageInput,
    output: str | Path | None = None,
    *,
    ground_truth: GroundTruthSource | None = None,
    score: float = 0.5,
    min_iou: float = 0.5,
    on_bad_box: BadBoxPolicy = "error",
    runtime: RuntimeChoice | None = None,
    precision: Precision | None = None,
    **selection: Unpack[PostprocessOptions],
) -> Explanation:
    """What a detector does with an image, step by step, and where it loses the objects that it misses.

    Args:
        weights: a checkpoint, or a detector, whose own runtime is followed.
        image: a file, a Pillow image, an RGB array or tensor.
        output: a new folder for the page and its figures; None writes nothing.
        ground_truth: the objects of the image: a JSON list of ``{"box": [x1, y1, x2, y2], "name": "cat"}`` as a file or
            in memory, or a data set that holds the image. In pixels of the original.
        score: a detection needs a higher score, 0..1.
        min_iou: from which overlap on a box has found an object, 0..1.
        on_bad_box: treatment of errors in the data set's boxes of this image: "error", "fix" or "drop".
        runtime: what runs the network of a checkpoint, as in `fasterrcnn.load`.
        precision: of its layers, likewise.
        **selection: ``nms``, ``nms_threshold``, ``max_detections`` instead of the checkpoint's own.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ImageError: the image cannot be decoded.
        DataError: the ground truth cannot be read, or does not hold the image.
        UsageError: an invalid option, or an output folder that is not empty.
    """
    if not 0 < min_iou <= 1:
        raise UsageError(f"min_iou must lie above 0 and be at most 1, not {min_iou}")
    folder = None if output is None else Path(output)
    check_output(folder)
    if isinstance(weights, Detector) and runtime not in (None, "auto", weights.runtime):
        raise UsageError(f"the detector runs on {weights.runtime}, not on {runtime}; load it with that runtime")
    if isinstance(weights, Detector) and precision not in (None, "auto", weights.precision):
        raise UsageError(f"the detector computes in {weights.precision}, not {precision}; load it with that precision")
    if not isinstance(weights, Detector):
        weights = load(weights, runtime=runtime, precision=precision or "float32")
    trace = trace_image(weights, image, score=score, **selection)
    if ground_truth is None:
        explanation = Explanation(trace)
    else:
        objects = read_image_ground_truth(
            ground_truth, trace.source, trace.classes, trace.original_hw, on_bad_box=on_bad_box
        )
        target = objects.to_input(trace.original_hw, trace.input_hw)
        diagnoses = diagnose_objects(trace, target, min_iou=min_iou)
        explanation = Explanation(trace, objects, target, tuple(diagnoses), min_iou)
    if folder is not None:
        explanation.save(folder)
    return explanation
