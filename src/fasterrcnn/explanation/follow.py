"""Run a detector on one image and remember what each step makes.

Axes: p proposals, s shown regions.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor

from fasterrcnn.detections import Detections
from fasterrcnn.explanation.figures import to_pil
from fasterrcnn.explanation.trace import STEPS, Trace
from fasterrcnn.inference.detector import Detector, in_original_frame
from fasterrcnn.inference.sources import ImageInput, load_image
from fasterrcnn.model.postprocess import NmsKind, PostProcess
from fasterrcnn.ops import boxes
from fasterrcnn.structures import ImageBatch, RawDetections

_SHOWN_REGIONS = 8
_SAME = 0.3  # IoU of two regions that show the same thing


class Rules(TypedDict, total=False):
    """What decides about detections; what is left out has the checkpoint's own value.

    Attributes:
        nms: "class", "agnostic", "soft-linear" or "soft-gaussian".
        nms_threshold: IoU above which the lower-scored box goes, 0..1.
        max_detections: most detections of the image.
    """

    nms: NmsKind | None
    nms_threshold: float | None
    max_detections: int | None


@torch.no_grad()
def follow(detector: Detector, image: ImageInput, *, score: float = 0.5, **rules: Unpack[Rules]) -> Trace:
    """Run a detector on an image and remember what it does.

    The image passes the network twice: the first run is not timed, because first runs are slower.

    Args:
        detector: that detects.
        image: a file, a Pillow image, an RGB array or tensor, as `Detector.predict` takes it.
        score: a detection needs a higher score, 0..1.
        **rules: see `Rules`.

    Raises:
        ImageError: the image cannot be decoded.
        UsageError: a rule or the image is of no use; the message says why.
    """
    changes: dict[str, Any] = {name: value for name, value in rules.items() if value is not None}
    model = detector.model
    selection = dataclasses.replace(model.postprocess, score_threshold=score, **changes)
    pixels = load_image(image).pixels
    batch = detector.to_batch([pixels])
    model(batch, postprocess=selection)
    recorder = _Recorder(detector.device)
    hook = model.backbone.body.register_forward_hook(lambda _module, _inputs, maps: recorder("body", maps=maps))
    try:
        (found,) = model(batch, postprocess=selection, observe=recorder)
    finally:
        hook.remove()
    original_hw = (pixels.shape[-2], pixels.shape[-1])
    source = Path(image) if isinstance(image, str | Path) else None
    seen = in_original_frame(found, batch.sizes_hw[0], original_hw, detector.classes, source=source)
    return _to_trace(recorder, to_pil(_as_fractions(pixels)), detector, selection, batch.to("cpu"), seen)


def _as_fractions(pixels: Tensor) -> Tensor:
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels


class _Recorder:
    """Keeps what it is told, and the time since it was last told something."""

    def __init__(self, device: torch.device) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self._device = device
        self._last = time.perf_counter()

    def __call__(self, step: str, **values: Any) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[step] = time.perf_counter() - self._last
        self.values[step] = {name: _to_cpu(value) for name, value in values.items()}
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
    rules: PostProcess,
    batch: ImageBatch,
    detections: Detections,
) -> Trace:
    seen = recorder.values
    first, second, scored = seen["proposals"], seen["head"], seen["scored"]
    survivors, kept = first["survivors"], seen["detections"]["kept"]
    proposals = seen["pooled"]["rois"][:, 1:]
    shown = _worth_showing(scored["rows"][kept], proposals)
    return Trace(
        image=image,
        source=detections.source,
        preset=detector.config.preset,
        model=detector.model,
        rules=rules,
        batch=batch,
        body_maps=[level[0] for level in seen["body"]["maps"]],
        maps=[level[0] for level in seen["features"]["maps"]],
        logits=[level[0].float() for level in seen["rpn"]["logits"]],
        anchors=seen["anchors"]["anchors"],
        candidate_index=seen["candidates"]["index"][0],
        candidate_scores=first["scores"],
        candidates=first["boxes"],
        good=first["good"],
        survivors=survivors,
        proposals=proposals,
        shown=shown,
        # A copy of a few: all of them may be a gigabyte.
        pooled=seen["pooled"]["pooled"][shown].float(),
        class_logits=second["logits"].float(),
        scored_rows=scored["rows"],
        scored=RawDetections(scored["boxes"], scored["scores"], scored["labels"]),
        kept=kept,
        found=seen["detections"]["detections"],
        detections=detections,
        seconds={step: recorder.seconds[step] for step in STEPS},
        shapes=_shapes(batch, seen),
    )


def _worth_showing(rows: Int64[Tensor, " _"], proposals: Float[Tensor, "p 4"]) -> Int64[Tensor, " s"]:
    """Proposals behind detections, then the likeliest of those that show something else than these."""
    chosen = list(dict.fromkeys(rows.tolist()))[:_SHOWN_REGIONS]
    for row in range(len(proposals)):
        if len(chosen) == _SHOWN_REGIONS:
            break
        overlap = boxes.iou(proposals[chosen], proposals[row : row + 1]) if chosen else proposals.new_zeros(1)
        if overlap.max() < _SAME:
            chosen.append(row)
    return torch.tensor(chosen, dtype=torch.int64)


def _shapes(batch: ImageBatch, seen: dict[str, dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    def levels(name: str, maps: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
        return {f"{name}, level {number}": tuple(level.shape) for number, level in enumerate(maps)}

    return {
        "network input": tuple(batch.pixels.shape),
        **levels("backbone map", seen["body"]["maps"]),
        **levels("feature map", seen["features"]["maps"]),
        **levels("objectness logits", seen["rpn"]["logits"]),
        **levels("box deltas", seen["rpn"]["deltas"]),
        **levels("anchors", seen["anchors"]["anchors"]),
        "candidates": tuple(seen["candidates"]["boxes"].shape),
        "regions (image, x1, y1, x2, y2)": tuple(seen["pooled"]["rois"].shape),
        "pooled maps": tuple(seen["pooled"]["pooled"].shape),
        "class logits": tuple(seen["head"]["logits"].shape),
        "class box deltas": tuple(seen["head"]["deltas"].shape),
        "scored boxes": tuple(seen["scored"]["boxes"].shape),
        "detections": tuple(seen["detections"]["detections"].boxes.shape),
    }
