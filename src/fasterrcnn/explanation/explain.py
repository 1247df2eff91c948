"""`explain`: one picture through a detector, step by step, and why objects in it were missed."""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from fasterrcnn.data.doctor import Policy
from fasterrcnn.data.folders import check_output
from fasterrcnn.errors import UsageError
from fasterrcnn.explanation import first_stage, lost, page, second_stage
from fasterrcnn.explanation.figures import Figure
from fasterrcnn.explanation.follow import Rules, follow
from fasterrcnn.explanation.trace import Trace
from fasterrcnn.explanation.truth import Truth, TruthSource, read_truth
from fasterrcnn.explanation.verdicts import Verdict, judge
from fasterrcnn.inference.detector import Detector
from fasterrcnn.inference.loading import load
from fasterrcnn.inference.sources import Picture
from fasterrcnn.structures import Target

_STAGES = (
    first_stage.draw_input,
    first_stage.draw_trunk,
    first_stage.draw_features,
    first_stage.draw_channels,
    first_stage.draw_anchors,
    first_stage.draw_objectness,
    first_stage.draw_proposals,
    second_stage.draw_regions,
    second_stage.draw_pooling,
    second_stage.draw_classes,
    second_stage.draw_suppression,
    second_stage.draw_detections,
    second_stage.draw_funnel,
    second_stage.draw_times,
)


@dataclass(frozen=True)
class Explanation:
    """What a detector did with a picture.

    Attributes:
        trace: the run, with all its tensors.
        truth: what is true of the picture, where that was said.
        target: the same in the frame of the network input.
        verdicts: what became of every true object.
        min_iou: from which overlap on a box has found an object.
    """

    trace: Trace
    truth: Truth | None = None
    target: Target | None = None
    verdicts: tuple[Verdict, ...] = ()
    min_iou: float = 0.5

    @property
    def counts(self) -> dict[str, int]:
        """How many objects have which verdict, the most frequent first."""
        return dict(Counter(verdict.kind for verdict in self.verdicts).most_common())

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The pictures of each stage, by name, drawn when they are first asked for."""
        figures: list[Figure | None] = [draw(self.trace) for draw in _STAGES]
        if self.target is not None:
            figures.append(first_stage.draw_matched(self.trace, self.target))
            figures.append(lost.draw_verdicts(self.trace, self.verdicts))
            figures.append(lost.draw_lost(self.trace, self.verdicts))
        return {figure.name: figure for figure in sorted(filter(None, figures), key=lambda figure: figure.name)}

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON. Boxes of verdicts are in pixels of the network input, detections in the original's."""
        trace = self.trace
        return {
            "picture": None if trace.source is None else str(trace.source),
            "preset": trace.preset,
            "classes": list(trace.classes),
            "picture_hw": list(trace.original_hw),
            "input_hw": list(trace.input_hw),
            "padded_hw": list(trace.batch.padded_hw),
            "rules": asdict(trace.rules),
            "funnel": trace.funnel,
            "seconds": trace.seconds,
            "shapes": {name: list(shape) for name, shape in trace.shapes.items()},
            "detections": trace.detections.to_records(),
            "truth": None
            if self.truth is None
            else {"objects": len(self.verdicts), "left_out": self.truth.left_out, "min_iou": self.min_iou},
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }

    def __str__(self) -> str:
        funnel = " -> ".join(f"{count:,} {name}" for name, count in self.trace.funnel.items())
        lines = [str(self.trace.detections), funnel]
        lines += [f"{verdict.number} {verdict.name}: {verdict.kind}. {verdict.why}" for verdict in self.verdicts]
        if self.truth is not None:
            lines.append(", ".join(f"{count} {kind}" for kind, count in self.counts.items()) or "no objects")
        return "\n".join(lines)

    def save(self, folder: str | Path) -> Path:
        """Write index.html, explain.json and every picture as PNG into a new folder; there whole or not at all.

        Raises:
            UsageError: the folder exists and is not empty.
        """
        return page.write(self, Path(folder))


def explain(
    weights: str | Path | Detector,
    picture: Picture,
    output: str | Path | None = None,
    *,
    truth: TruthSource | None = None,
    score: float = 0.5,
    min_iou: float = 0.5,
    on_bad_box: Policy = "error",
    **rules: Unpack[Rules],
) -> Explanation:
    """What a detector does with a picture, step by step, and where it loses the objects that it misses.

    Args:
        weights: a checkpoint, or a detector.
        picture: a file, a Pillow picture, an RGB array or tensor.
        output: a new folder for the page and its pictures; None writes nothing.
        truth: the objects of the picture: a JSON list of ``{"box": [x1, y1, x2, y2], "name": "cat"}`` as a file or in
            memory, or a data set that holds the picture. In pixels of the original.
        score: a detection needs a higher score, 0..1.
        min_iou: from which overlap on a box has found an object, 0..1.
        on_bad_box: what to do about errors in the data set's boxes of this picture: "error", "fix" or "drop".
        **rules: ``nms``, ``nms_threshold``, ``max_detections`` instead of the checkpoint's own.

    Raises:
        WeightsError: the checkpoint cannot be read.
        ImageError: the picture cannot be decoded.
        DataError: the truth cannot be read, or does not hold the picture.
        UsageError: an option that cannot work, or an output folder that is not empty.
    """
    if not 0 < min_iou <= 1:
        raise UsageError(f"min_iou must lie above 0 and be at most 1, not {min_iou}")
    folder = None if output is None else Path(output)
    check_output(folder)
    detector = weights if isinstance(weights, Detector) else load(weights)
    trace = follow(detector, picture, score=score, **rules)
    if truth is None:
        explanation = Explanation(trace)
    else:
        known = read_truth(truth, trace.source, trace.classes, trace.original_hw, on_bad_box=on_bad_box)
        target = known.to_input(trace.original_hw, trace.input_hw)
        explanation = Explanation(trace, known, target, tuple(judge(trace, target, min_iou=min_iou)), min_iou)
    if folder is not None:
        explanation.save(folder)
    return explanation
