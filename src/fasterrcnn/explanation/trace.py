"""Everything that a picture went through in one run of a detector: the very tensors, counts and times.

Axes: a anchors of all levels, k candidates, p proposals, n scored boxes, s shown regions, c channels.
Boxes are xyxy in pixels of the network input unless a name says otherwise.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import torch
from jaxtyping import Bool, Float, Int64
from PIL import Image
from torch import Tensor

from fasterrcnn.data.images import read_picture
from fasterrcnn.detections import Detections
from fasterrcnn.drawing import upright_rgb
from fasterrcnn.inference.detector import Detector, in_original_frame
from fasterrcnn.inference.sources import Picture, load_picture
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.postprocess import NmsKind, PostProcess
from fasterrcnn.structures import ImageBatch, RawDetections

_SHOWN_REGIONS = 8

STEPS = {
    "trunk": "backbone: trunk",
    "features": "backbone: neck",
    "rpn": "region proposal network",
    "anchors": "anchors",
    "candidates": "best anchors, decoded",
    "proposals": "NMS of proposals",
    "pooled": "RoI pooling",
    "head": "box head",
    "scored": "class boxes, decoded",
    "detections": "NMS of detections",
}
"""The steps of a run in their order, and what they are called on a page."""


class Rules(TypedDict, total=False):
    """What decides about detections; what is left out has the checkpoint's own value.

    Attributes:
        nms: "class", "agnostic", "soft-linear" or "soft-gaussian".
        nms_threshold: IoU above which the lower-scored box goes, 0..1.
        max_detections: most detections of the picture.
    """

    nms: NmsKind | None
    nms_threshold: float | None
    max_detections: int | None


@dataclass(frozen=True)
class Trace:
    """One run on one picture. Tensors are on the CPU.

    Attributes:
        picture: the original, upright, RGB.
        source: its file, where there is one.
        preset: name of the architecture.
        model: the network that ran.
        rules: how detections were selected.
        batch: the network input, padding included.
        trunk_maps: of the backbone's trunk, finest first, each (c, h, w).
        maps: of the backbone, finest first, each (c, h, w).
        logits: objectness of the anchors of each level.
        anchors: of each level.
        candidate_index: which of all anchors, level after level, are the best of their level.
        candidate_scores: their objectness, 0..1.
        candidates: their boxes, decoded and clipped.
        good: which candidates are large and likely enough.
        survivors: candidates that NMS left, by falling score; the first ``len(proposals)`` went on.
        proposals: the regions of the second stage.
        shown: which proposals are worth showing: those behind the best detections, then the best others.
        pooled: their maps after RoI pooling.
        class_logits: of every proposal, background last.
        scored_rows: proposal of each scored box.
        scored: boxes of every proposal and class above the score threshold.
        kept: which of them are detections.
        found: the detections.
        detections: the same in the original's pixels.
        seconds: of each of `STEPS`.
        shapes: of the tensors, by name.
    """

    picture: Image.Image
    source: Path | None
    preset: str
    model: FasterRCNN
    rules: PostProcess
    batch: ImageBatch
    trunk_maps: list[Float[Tensor, "_ _ _"]]
    maps: list[Float[Tensor, "_ _ _"]]
    logits: list[Float[Tensor, " _"]]
    anchors: list[Float[Tensor, "_ 4"]]
    candidate_index: Int64[Tensor, " k"]
    candidate_scores: Float[Tensor, " k"]
    candidates: Float[Tensor, "k 4"]
    good: Bool[Tensor, " k"]
    survivors: Int64[Tensor, " _"]
    proposals: Float[Tensor, "p 4"]
    shown: Int64[Tensor, " s"]
    pooled: Float[Tensor, "s _ _ _"]
    class_logits: Float[Tensor, "p _"]
    scored_rows: Int64[Tensor, " n"]
    scored: RawDetections
    kept: Int64[Tensor, " _"]
    found: RawDetections
    detections: Detections
    seconds: dict[str, float]
    shapes: dict[str, tuple[int, ...]]

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
        """Height and width of the picture."""
        return self.detections.image_hw

    @property
    def probabilities(self) -> Float[Tensor, "p _"]:
        """What the head says about every proposal, background last; rows add up to 1."""
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
        return list(fixed or (self.batch.padded_hw[0] // level.shape[-2] for level in self.maps))

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
            f"score above {self.rules.score_threshold:g}": len(self.scored.boxes),
            "detections": len(self.found.boxes),
        }


@torch.no_grad()
def follow(detector: Detector, picture: Picture, *, score: float = 0.5, **rules: Unpack[Rules]) -> Trace:
    """Run a detector on a picture and remember what it does.

    The picture passes the network twice: the first run is not timed, because first runs are slower.

    Args:
        detector: that detects.
        picture: a file, a Pillow picture, an RGB array or tensor, as `Detector.predict` takes it.
        score: a detection needs a higher score, 0..1.
        **rules: see `Rules`.

    Raises:
        ImageError: the picture cannot be decoded.
        UsageError: a rule or the picture is of no use; the message says why.
    """
    changes: dict[str, Any] = {name: value for name, value in rules.items() if value is not None}
    model = detector.model
    selection = dataclasses.replace(model.postprocess, score_threshold=score, **changes)
    pixels = load_picture(picture)
    batch = detector.to_batch([pixels])
    model(batch, selection)
    recorder = _Recorder(detector.device)
    hook = model.backbone.trunk.register_forward_hook(lambda _module, _inputs, maps: recorder("trunk", maps=maps))
    try:
        (found,) = model(batch, selection, observe=recorder)
    finally:
        hook.remove()
    original_hw = (pixels.shape[-2], pixels.shape[-1])
    source = Path(picture) if isinstance(picture, str | Path) else None
    seen = in_original_frame(found, batch.sizes_hw[0], original_hw, detector.classes, source=source)
    return _to_trace(recorder, _to_pil(picture, pixels), detector, selection, batch.to("cpu"), seen)


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
    picture: Image.Image,
    detector: Detector,
    rules: PostProcess,
    batch: ImageBatch,
    detections: Detections,
) -> Trace:
    seen = recorder.values
    first, second, scored = seen["proposals"], seen["head"], seen["scored"]
    survivors, kept = first["survivors"], seen["detections"]["kept"]
    proposals = seen["pooled"]["rois"][:, 1:]
    shown = _worth_showing(scored["rows"][kept], len(proposals))
    return Trace(
        picture=picture,
        source=detections.source,
        preset=detector.config.preset,
        model=detector.model,
        rules=rules,
        batch=batch,
        trunk_maps=[level[0] for level in seen["trunk"]["maps"]],
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
        found=seen["detections"]["found"],
        detections=detections,
        seconds={step: recorder.seconds[step] for step in STEPS},
        shapes=_shapes(batch, seen),
    )


def _worth_showing(rows: Int64[Tensor, " _"], proposals: int) -> Int64[Tensor, " s"]:
    ordered = dict.fromkeys([*rows.tolist(), *range(proposals)])
    return torch.tensor(list(ordered)[:_SHOWN_REGIONS], dtype=torch.int64)


def _shapes(batch: ImageBatch, seen: dict[str, dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    def levels(name: str, maps: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
        return {f"{name}, level {number}": tuple(level.shape) for number, level in enumerate(maps)}

    return {
        "network input": tuple(batch.pixels.shape),
        **levels("trunk map", seen["trunk"]["maps"]),
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
        "detections": tuple(seen["detections"]["found"].boxes.shape),
    }


def _to_pil(picture: Picture, pixels: Tensor) -> Image.Image:
    if isinstance(picture, str | Path):
        return read_picture(Path(picture))
    if isinstance(picture, Image.Image):
        return upright_rgb(picture)
    as_bytes = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().clamp(0, 255).byte()
    return Image.fromarray(cast(Any, as_bytes.permute(1, 2, 0).contiguous().cpu().numpy()))
