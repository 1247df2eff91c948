"""Everything that an image went through in one run of a detector: the very tensors, counts and times.

Axes: k candidates, p proposals, n scored boxes, s shown regions, c channels, a anchors of one level.
Boxes are xyxy in pixels of the network input unless a name has another frame in it.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Unpack

import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor

from fasterrcnn.detections import Detections
from fasterrcnn.inference.detector import Detector, as_detections
from fasterrcnn.inference.options import PostprocessOptions
from fasterrcnn.inference.sources import ImageInput, load_image
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.stages import DenseOutputs, Stages
from fasterrcnn.ops import boxes
from fasterrcnn.structures import ImageBatch, RawDetections

STEPS = {
    "body": "backbone: body",
    "features": "backbone: neck",
    "rpn": "region proposal network",
    "dense": "backbone and region proposal network",
    "anchors": "anchors",
    "candidates": "best anchors, decoded",
    "proposals": "NMS of proposals",
    "pooled": "RoI pooling",
    "head": "box head",
    "scored": "class boxes, decoded",
    "detections": "NMS of detections",
}
"""The steps of a run in their order, and their names for people. A runtime that computes the first three in one program
has the step "dense" instead."""

_SHOWN_REGIONS = 8
_SAME_REGION = 0.3  # IoU of two regions that show the same objects


@dataclass(frozen=True)
class Trace:
    """One run on one image. Tensors are on the CPU."""

    image: Image.Image  # the original, upright, RGB
    source: Path | None  # its file, where there is one
    preset: str  # name of the architecture
    runtime: str  # what ran the network
    precision: str  # what the network computed in
    model: FasterRCNN  # the network
    postprocess: PostProcess  # how detections were selected
    batch: ImageBatch  # the network input, padding included
    # Of the backbone's body, finest first, each (c, h, w); empty where the runtime does not show them
    body_maps: list[Float[Tensor, "_ _ _"]]
    # Of the backbone, finest first, each (c, h, w): at least those that regions are pooled from
    maps: list[Float[Tensor, "_ _ _"]]
    grids_hw: tuple[tuple[int, int], ...]  # height and width of the grid of anchors of each level
    logits: list[Float[Tensor, " _"]]  # objectness of the anchors of each level
    anchors: list[Float[Tensor, "_ 4"]]  # of each level
    candidate_index: Int64[Tensor, " k"]  # which of all anchors, level after level, are the best of their level
    candidate_scores: Float[Tensor, " k"]  # their objectness, 0..1
    candidates: Float[Tensor, "k 4"]  # their boxes, decoded and clipped
    good: Bool[Tensor, " k"]  # which candidates are large and likely enough
    survivors: Int64[Tensor, " _"]  # candidates that NMS left, by falling score; the first ``len(proposals)`` went on
    proposals: Float[Tensor, "p 4"]  # the regions of the second stage
    # Which proposals the figures show: those behind the best detections, then the likeliest that show other objects
    shown: Int64[Tensor, " s"]
    pooled: Float[Tensor, "s _ _ _"]  # the maps of the shown ones after RoI pooling
    class_logits: Float[Tensor, "p _"]  # of every proposal, background last
    scored_rows: Int64[Tensor, " n"]  # proposal of each scored box
    scored: RawDetections  # boxes of every proposal and class above the score threshold
    kept: Int64[Tensor, " _"]  # which of them are detections
    input_detections: RawDetections  # the detections, in pixels of the network input
    detections: Detections  # the same in the original's pixels
    seconds: dict[str, float]  # of each step, by the names of `STEPS`
    shapes: dict[str, tuple[int, ...]]  # of the tensors, by name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; label i means ``classes[i]``."""
        return self.detections.classes

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the network input without padding."""
        return self.batch.sizes_hw[0]

    @property
    def original_hw(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.detections.image_hw

    @property
    def probabilities(self) -> Float[Tensor, "p _"]:
        """Of every proposal and class, background last; rows add up to 1."""
        return self.class_logits.softmax(dim=1)

    @property
    def candidate_levels(self) -> Int64[Tensor, " k"]:
        """Level of each candidate's anchor."""
        ends = torch.tensor(list(accumulate(len(level) for level in self.anchors)))
        return torch.searchsorted(ends, self.candidate_index, right=True)

    @property
    def strides(self) -> list[int]:
        """Pixels of the input between the anchors of each level, from top to bottom, as the generator spaces them."""
        fixed = self.model.anchors.strides
        return list(fixed or (self.batch.padded_hw[0] // height for height, _ in self.grids_hw))

    @property
    def funnel(self) -> dict[str, int]:
        """How many boxes were left after each step."""
        return {
            "anchors": sum(len(level) for level in self.anchors),
            "best of each level": len(self.candidates),
            "large and likely enough": int(self.good.sum()),
            "left by NMS": len(self.survivors),
            "proposals": len(self.proposals),
            "boxes, one a class": len(self.proposals) * len(self.classes),
            f"score above {self.postprocess.score_threshold:g}": len(self.scored.boxes),
            "detections": len(self.input_detections.boxes),
        }


@torch.no_grad()
def trace_image(
    detector: Detector, image: ImageInput, *, score: float = 0.5, **selection: Unpack[PostprocessOptions]
) -> Trace:
    """Run a detector on an image, with its own runtime, and keep what each step makes.

    The image passes the network twice: the first run is not timed, because first runs are slower. Detections have
    scores above ``score``, 0..1.

    Raises:
        ImageError: the image cannot be decoded.
        UsageError: an option or the image is invalid; the message names it.
    """
    changes: dict[str, Any] = {name: value for name, value in selection.items() if value is not None}
    model = detector.model
    postprocess = dataclasses.replace(model.postprocess, score_threshold=score, **changes)
    options = detector.config.input.pixels
    pixels = load_image(image, options).pixels
    batch = detector.to_batch([pixels])
    model(batch, postprocess=postprocess, stages=detector.stages)
    recorder = _Recorder(detector.stages, detector.device)
    with recorder.watching():
        (raw,) = model(batch, postprocess=postprocess, stages=recorder, observe=recorder)
    original_hw = (pixels.shape[-2], pixels.shape[-1])
    source = Path(image) if isinstance(image, str | Path) else None
    detections = as_detections(raw, batch.sizes_hw[0], original_hw, detector.classes, source=source, options=options)
    fractions = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return _to_trace(recorder, to_pil_image(fractions), detector, postprocess, batch.to("cpu"), detections)


def to_pil_image(pixels: Float[Tensor, "3 h w"]) -> Image.Image:
    """RGB in 0..1 as a Pillow image."""
    return Image.fromarray((pixels * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())


class _Recorder:
    """Runs the stages of a runtime, and keeps copies of the values of each step and the time since the last one."""

    def __init__(self, stages: Stages, device: torch.device) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.grids_hw: tuple[tuple[int, int], ...] = ()
        self._stages = stages
        self._device = device
        self._last = time.perf_counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Also keep the parts of the dense stage, where the runtime is a network of modules."""
        if not isinstance(self._stages, FasterRCNN):
            yield
            return

        def reporter(step: str) -> Callable[[object, object, list[Tensor]], None]:
            return lambda _module, _inputs, maps: self(step, maps=maps)

        body, backbone = self._stages.backbone.body, self._stages.backbone
        hooks = [body.register_forward_hook(reporter("body")), backbone.register_forward_hook(reporter("features"))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def dense(self, pixels: Tensor) -> DenseOutputs:
        """The runtime's own."""
        outputs = self._stages.dense(pixels)
        self.grids_hw = outputs.sizes_hw
        self("rpn" if "features" in self.values else "dense")
        return outputs

    def head(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """The runtime's own."""
        return self._stages.head(pooled)

    def __call__(self, step: str, **values: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        # The first report of a step counts: that of a hook, which saw all maps, or of the dense stage, which was timed.
        self.seconds.setdefault(step, time.perf_counter() - self._last)
        kept = self.values.setdefault(step, {})
        kept.update({name: _to_cpu(value) for name, value in values.items() if name not in kept})
        self._last = time.perf_counter()


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, RawDetections):
        return RawDetections(value.boxes.cpu(), value.scores.cpu(), value.labels.cpu())
    return [_to_cpu(member) for member in value] if isinstance(value, list | tuple) else value


def _to_trace(
    recorder: _Recorder,
    image: Image.Image,
    detector: Detector,
    postprocess: PostProcess,
    batch: ImageBatch,
    detections: Detections,
) -> Trace:
    values = recorder.values
    first, scored, last = values["proposals"], values["scored"], values["detections"]
    proposals = values["pooled"]["rois"][:, 1:]
    shown = _shown_regions(scored["rows"][last["kept"]], proposals)
    untimed = ("features", "rpn") if "dense" in recorder.seconds else ()
    body_maps = values["body"]["maps"] if "body" in values else []
    return Trace(
        image=image,
        source=detections.source,
        preset=detector.config.preset,
        runtime=detector.runtime,
        precision=detector.precision,
        model=detector.model,
        postprocess=postprocess,
        batch=batch,
        body_maps=[level[0] for level in body_maps],
        # Copies: the next run of a runtime may overwrite its outputs.
        maps=[level[0].float().clone() for level in values["features"]["maps"]],
        grids_hw=recorder.grids_hw,
        logits=[level[0].float().clone() for level in values["rpn"]["logits"]],
        anchors=values["anchors"]["anchors"],
        candidate_index=values["candidates"]["index"][0],
        candidate_scores=first["scores"],
        candidates=first["boxes"],
        good=first["good"],
        survivors=first["survivors"],
        proposals=proposals,
        shown=shown,
        # A copy of a few: all of them may be a gigabyte.
        pooled=values["pooled"]["pooled"][shown].float(),
        class_logits=values["head"]["logits"].float().clone(),
        scored_rows=scored["rows"],
        scored=RawDetections(scored["boxes"], scored["scores"], scored["labels"]),
        kept=last["kept"],
        input_detections=last["detections"],
        detections=detections,
        seconds={step: recorder.seconds[step] for step in STEPS if step in recorder.seconds and step not in untimed},
        shapes=_shapes(batch, values),
    )


def _shown_regions(rows: Int64[Tensor, " _"], proposals: Float[Tensor, "p 4"]) -> Int64[Tensor, " s"]:
    """Proposals behind detections, then the likeliest of those that show other objects than these."""
    chosen = list(dict.fromkeys(rows.tolist()))[:_SHOWN_REGIONS]
    for row in range(len(proposals)):
        if len(chosen) == _SHOWN_REGIONS:
            break
        overlap = boxes.iou(proposals[chosen], proposals[row : row + 1]) if chosen else proposals.new_zeros(1)
        if overlap.max() < _SAME_REGION:
            chosen.append(row)
    return torch.tensor(chosen, dtype=torch.int64)


def _shapes(batch: ImageBatch, values: dict[str, dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    shapes = {"network input": tuple(batch.pixels.shape)}
    for title, step, name in (
        ("backbone map", "body", "maps"),
        ("feature map", "features", "maps"),
        ("objectness logits", "rpn", "logits"),
        ("box deltas", "rpn", "deltas"),
        ("anchors", "anchors", "anchors"),
    ):
        levels = values[step][name] if step in values else ()
        shapes |= {f"{title}, level {number}": tuple(level.shape) for number, level in enumerate(levels)}
    for title, step, name in (
        ("candidates", "candidates", "boxes"),
        ("regions (image, x1, y1, x2, y2)", "pooled", "rois"),
        ("pooled maps", "pooled", "pooled"),
        ("class logits", "head", "logits"),
        ("class box deltas", "head", "deltas"),
        ("scored boxes", "scored", "boxes"),
    ):
        shapes[title] = tuple(values[step][name].shape)
    return {**shapes, "detections": tuple(values["detections"]["detections"].boxes.shape)}
