"""What a run is worth so far: losses and COCO's average precision on pictures that it does not learn from."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fasterrcnn.data.dataset import DetectionDataset
from fasterrcnn.data.records import AnnotatedData, Record, to_coco
from fasterrcnn.detections import Detections
from fasterrcnn.evaluation.coco import score_detections
from fasterrcnn.inference.describing import in_original_frame
from fasterrcnn.structures import Losses, RawDetections
from fasterrcnn.training.batches import Process, Step

SHOWN = 12
"""Pictures whose detections are kept to be looked at."""


class Validation:
    """Gathers one pass over the validation pictures, over all processes.

    Args:
        data: where classes and category ids come from.
        examples: the validation pictures.
        process: the part that is seen here.
    """

    def __init__(self, data: AnnotatedData, examples: DetectionDataset, process: Process) -> None:
        self.data = data
        self.examples = examples
        self.process = process
        self._truth = to_coco(data, examples.records)
        self.clear()

    def clear(self) -> None:
        """Begin a new pass."""
        self._sums = torch.zeros(8, dtype=torch.float64)
        self._results: list[dict[str, object]] = []
        self._shown: dict[int, Detections] = {}

    def add(self, step: Step, losses: Losses, found: Sequence[RawDetections]) -> None:
        """A batch that was measured."""
        if not step.plan.counts:
            return
        four = torch.stack([value for _, value in losses]).double().cpu()
        weights = losses.weights.double().cpu()
        self._sums += torch.cat([four * weights, weights])
        for index, raw, input_hw in zip(step.plan.indices, found, step.batch.sizes_hw, strict=True):
            record = self.examples.records[index]
            seen = in_original_frame(raw, input_hw, record.size_hw, self.data.classes, source=record.path)
            self._results += seen.to_coco(record.image_id, list(self.data.category_ids))
            if index in self.shown_indices:
                self._shown[index] = seen

    @property
    def shown_indices(self) -> range:
        """The pictures that are looked at, spread over all."""
        return range(0, len(self.examples), max(1, -(-len(self.examples) // SHOWN)))

    def result(self) -> dict[str, float]:
        """Losses by name with "val_" before them, and "ap", "ap50", "ap75", 0..1, or NaN without objects."""
        parts: list[Any] = [(self._sums, self._results, self._shown)]
        if self.process.world > 1:
            parts = [None] * self.process.world
            torch.distributed.all_gather_object(parts, (self._sums, self._results, self._shown))
        sums: Tensor = torch.stack([part[0] for part in parts]).sum(dim=0)
        self._shown = {index: seen for part in parts for index, seen in part[2].items()}
        four = (sums[:4] / sums[4:].clamp(min=torch.finfo(sums.dtype).tiny)).float()
        report = score_detections(self._truth, [row for part in parts for row in part[1]])
        measured = {"ap": report.ap, "ap50": report.ap50, "ap75": report.ap75}
        losses = {f"val_{name}": value for name, value in Losses(*four).as_floats().items()}
        return losses | {name: float("nan") if value is None else value for name, value in measured.items()}

    def shown(self) -> tuple[list[Record], list[Detections]]:
        """Some pictures, and what was found in them in the last pass."""
        indices = sorted(self._shown)
        return [self.examples.records[index] for index in indices], [self._shown[index] for index in indices]
