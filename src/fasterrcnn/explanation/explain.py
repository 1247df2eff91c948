"""`explain`: one image through a detector, step by step, and why objects in it were missed."""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from fasterrcnn.data.checks import BadBoxPolicy
from fasterrcnn.errors import UsageError
from fasterrcnn.explanation import lost, page, stages
from fasterrcnn.explanation.diagnosis import Verdict, judge
from fasterrcnn.explanation.figures import Figure
from fasterrcnn.explanation.follow import Rules, follow
from fasterrcnn.explanation.ground_truth import GroundTruth, GroundTruthSource, read_ground_truth
from fasterrcnn.explanation.trace import Trace
from fasterrcnn.files import check_output
from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.loading import load
from fasterrcnn.inference.sources import ImageInput
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
        ground_truth: what is true of the image, where that was said.
        target: the same in the frame of the network input.
        verdicts: what became of every true object.
        min_iou: from which overlap on a box has found an object.
    """

    trace: Trace
    ground_truth: GroundTruth | None = None
    target: Target | None = None
    verdicts: tuple[Verdict, ...] = ()
    min_iou: float = 0.5

    @property
    def counts(self) -> dict[str, int]:
        """How many objects have which verdict, the most frequent first."""
        return dict(Counter(verdict.kind for verdict in self.verdicts).most_common())

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The images of each stage, by name, drawn when they are first asked for."""
        figures: list[Figure | None] = [draw(self.trace) for draw in _STAGES]
        if self.target is not None:
            figures.append(stages.draw_matched(self.trace, self.target))
            figures.append(lost.draw_verdicts(self.trace, self.verdicts))
            figures.append(lost.draw_lost(self.trace, self.verdicts))
        return {figure.name: figure for figure in sorted(filter(None, figures), key=lambda figure: figure.name)}

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON. Boxes of verdicts are in pixels of the network input, detections in the original's."""
        trace = self.trace
        return {
            "image": None if trace.source is None else str(trace.source),
            "preset": trace.preset,
            "classes": list(trace.classes),
            "image_hw": list(trace.original_hw),
            "input_hw": list(trace.input_hw),
            "padded_hw": list(trace.batch.padded_hw),
            "rules": asdict(trace.rules),
            "funnel": trace.funnel,
            "seconds": trace.seconds,
            "shapes": {name: list(shape) for name, shape in trace.shapes.items()},
            "detections": trace.detections.to_records(),
            "ground_truth": None
            if self.ground_truth is None
            else {"objects": len(self.verdicts), "left_out": self.ground_truth.left_out, "min_iou": self.min_iou},
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }

    def __str__(self) -> str:
        funnel = " -> ".join(f"{count:,} {name}" for name, count in self.trace.funnel.items())
        lines = [str(self.trace.detections), funnel]
        lines += [f"{verdict.number} {verdict.name}: {verdict.kind}. {verdict.why}" for verdict in self.verdicts]
        if self.ground_truth is not None:
            lines.append(", ".join(f"{count} {kind}" for kind, count in self.counts.items()) or "no objects")
        return "\n".join(lines)

    def save(self, folder: str | Path) -> Path:
        """Write index.html, explain.json and every image as PNG into a new folder; there whole or not at all.

        Raises:
            UsageError: the folder exists and is not empty.
        """
        return page.write(self, Path(folder))


def explain(
    weights: str | Path | Detector,
    image: ImageInput,
    output: str | Path | None = None,
    *,
    ground_truth: GroundTruthSource | None = None,
    score: float = 0.5,
    min_iou: float = 0.5,
    on_bad_box: BadBoxPolicy = "error",
    **rules: Unpack[Rules],
) -> Explanation:
    """What a detector does with an image, step by step, and where it loses the objects that it misses.

    Args:
        weights: a checkpoint, or a detector.
        image: a file, a Pillow image, an RGB array or tensor.
        output: a new folder for the page and its images; None writes nothing.
        ground_truth: the objects of the image: a JSON list of ``{"box": [x1, y1, x2, y2], "name": "cat"}`` as a file or
            in memory, or a data set that holds the image. In pixels of the original.
        score: a detection needs a higher score, 0..1.
        min_iou: from which overlap on a box has found an object, 0..1.
        on_bad_box: what to do about errors in the data set's boxes of this image: "error", "fix" or "drop".
        **rules: ``nms``, ``nms_threshold``, ``max_detections`` instead of the checkpoint's own.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ImageError: the image cannot be decoded.
        DataError: the ground truth cannot be read, or does not hold the image.
        UsageError: an option that cannot work, or an output folder that is not empty.
    """
    if not 0 < min_iou <= 1:
        raise UsageError(f"min_iou must lie above 0 and be at most 1, not {min_iou}")
    folder = None if output is None else Path(output)
    check_output(folder)
    detector = weights if isinstance(weights, Detector) else load(weights)
    trace = follow(detector, image, score=score, **rules)
    if ground_truth is None:
        explanation = Explanation(trace)
    else:
        known = read_ground_truth(ground_truth, trace.source, trace.classes, trace.original_hw, on_bad_box=on_bad_box)
        target = known.to_input(trace.original_hw, trace.input_hw)
        explanation = Explanation(trace, known, target, tuple(judge(trace, target, min_iou=min_iou)), min_iou)
    if folder is not None:
        explanation.save(folder)
    return explanation
