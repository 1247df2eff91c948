"""`Detector`: load a checkpoint, give it pictures, get boxes in their pixels."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import torch
from PIL import Image
from torch import Tensor

from fasterrcnn.build import load_model
from fasterrcnn.config import ModelConfig
from fasterrcnn.detections import Detections, labels_of
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.publish import publish
from fasterrcnn.inference.sources import Picture, find_files, is_many, load_picture
from fasterrcnn.model.backbones.norms import fold_batch_norm
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.postprocess import NmsKind, PostProcess
from fasterrcnn.ops import boxes, image
from fasterrcnn.structures import RawDetections
from fasterrcnn.weights import hub
from fasterrcnn.weights.names import locate


def load(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    preset: str | None = None,
    norm_eps: float | None = None,
    device: str | None = None,
) -> "Detector":
    """A detector from a checkpoint.

    Args:
        path: a file of this library (.safetensors), or a state_dict of one of torchvision's Faster R-CNN
            detectors (.pth), whose architecture is recognised by its keys; the folder of a run; or a name that
            `fasterrcnn.weights.names.locate` knows: ``resnet50-fpn`` (torchvision's COCO weights),
            ``detectron2/faster_rcnn_R_50_FPN_3x``, ``hf://user/repository``.
        classes: names of the classes; torchvision's files have none, so they are called ``class_0``...; the
            names of published COCO weights are known.
        preset: architecture of a torchvision file whose keys do not tell ("mobilenetv3-large-320-fpn").
        norm_eps: eps of its batch norms; 0 for a file fine-tuned from torchvision's COCO ``resnet50-fpn``.
        device: "cpu", "cuda", "mps"; default is the best there is.

    Raises:
        WeightsError: the file cannot be downloaded or read, or does not fit.
    """
    found = locate(path)
    model, config = load_model(
        found.path,
        classes=found.classes if classes is None else classes,
        preset=found.preset if preset is None else preset,
        norm_eps=found.norm_eps if norm_eps is None else norm_eps,
    )
    if classes is None and found.classes is not None:
        config = config.with_classes(found.classes, found.category_ids)
    return Detector(model, config, device=device, source=found.path)


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the fastest kind of this machine: cuda, mps or cpu.

    Raises:
        UsageError: no device is called so, or this machine has none of that kind.
    """
    if name is None:
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else mps)
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]})") from None


class Options(TypedDict, total=False):
    """What can be said at each call of `Detector.predict`.

    Attributes:
        score: lowest score, 0..1.
        classes: names of the classes to report.
        nms: "class", "agnostic", "soft-linear" or "soft-gaussian".
        nms_threshold: IoU above which the lower-scored box goes, 0..1.
        max_detections: most detections of a picture.
        batch_size: pictures that pass the network together.
    """

    score: float | None
    classes: Sequence[str] | None
    nms: NmsKind | None
    nms_threshold: float | None
    max_detections: int | None
    batch_size: int


class Detector:
    """A model ready to predict: batch norms folded, no gradients, no state between calls.

    Args:
        model: a network; it is copied, later training does not reach the detector.
        config: what the network was built from.
        device: "cpu", "cuda", "mps"; default is the best there is.
        source: file that the network was read from; `push_to_hub` reads it again, for folding changed the weights.
    """

    def __init__(
        self, model: FasterRCNN, config: ModelConfig, *, device: str | None = None, source: Path | None = None
    ) -> None:
        self.config = config
        self.source = source
        self.device = choose_device(device)
        self._model = fold_batch_norm(model).to(self.device).eval().requires_grad_(False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; label i means ``classes[i]``."""
        return self.config.classes

    @classmethod
    def from_pretrained(cls, repository: str, *, token: str | None = None, device: str | None = None) -> "Detector":
        """A detector from the Hugging Face Hub; ``fasterrcnn.load("hf://user/repository")`` does the same.

        Args:
            repository: ``user/repository``, with ``@revision`` or ``/file`` behind it if need be.
            token: of a user who may read it; default is that of ``hf auth login``.
            device: "cpu", "cuda", "mps"; default is the best there is.

        Raises:
            WeightsError: it cannot be downloaded or read.
            MissingExtraError: huggingface_hub is not installed.
        """
        return load(hub.pull(repository.removeprefix("hf://"), token=token), device=device)

    def push_to_hub(
        self, repository: str, *, token: str | None = None, private: bool = False, message: str | None = None
    ) -> str:
        """Publish the detector: its weights as ``model.safetensors``, and a model card with what is known of it.

        A detector that was loaded from the folder of a run takes the card of the run along.

        Args:
            repository: ``user/repository``; made where it does not exist.
            token: of a user who may write to it; default is that of ``hf auth login``.
            private: whether a new repository is.
            message: of the commit.

        Returns:
            Address of the repository.

        Raises:
            UsageError: the detector was not loaded from a file.
            WeightsError: the server refuses; the message says why.
            MissingExtraError: huggingface_hub is not installed.
        """
        return publish(self.source, self.config, repository, token=token, private=private, message=message)

    def __repr__(self) -> str:
        return f"Detector({self.config.preset}, {len(self.classes)} classes, {self.device})"

    @overload
    def predict(self, source: Sequence[Picture], **options: Unpack[Options]) -> list[Detections]: ...
    @overload
    def predict(self, source: Picture, **options: Unpack[Options]) -> Any: ...
    def predict(self, source: Any, **options: Unpack[Options]) -> Any:
        """Find objects.

        Args:
            source: a file, a Pillow picture, an RGB uint8 array (height, width, 3) or an RGB tensor
                (3, height, width; uint8 or float in 0..1); a list of these; a folder or a glob.
            **options: see `Options`; what is left out has the checkpoint's own value.

        Returns:
            `Detections` for one picture, a list for a list, an iterator for a folder or a glob. Boxes are in
            the pixels of the original picture.

        Raises:
            ImageError: a picture cannot be decoded.
            UsageError: an option or a picture is of no use; the message says why.
        """
        if is_many(source):
            return self.stream(find_files(source), **options)
        if isinstance(source, list | tuple):
            return list(self.stream(source, **options))
        return next(self.stream([source], **options))

    def stream(self, pictures: Sequence[Picture], **options: Unpack[Options]) -> Iterator[Detections]:
        """As `predict` of a list, but one after the other, so that memory stays the same."""
        size = options.get("batch_size", 1)
        if size < 1:
            raise UsageError(f"batch_size must be at least 1, not {size}")
        rules = self._rules(options)
        starts = range(0, len(pictures), size)
        return (found for start in starts for found in self._detect(pictures[start : start + size], rules))

    def _rules(self, options: Options) -> PostProcess:
        """The model's own post-processing with the call's options in it."""
        unknown = set(options) - set(Options.__annotations__)
        if unknown:
            raise UsageError(f"no option is called {unknown.pop()!r}; there are {', '.join(Options.__annotations__)}")
        names = options.get("classes")
        given = {
            "score_threshold": options.get("score"),
            "classes": None if names is None else tuple(labels_of(names, self.classes)),
            "nms": options.get("nms"),
            "nms_threshold": options.get("nms_threshold"),
            "max_detections": options.get("max_detections"),
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(self._model.postprocess, **changes)

    @torch.inference_mode()
    def _detect(self, pictures: Sequence[Picture], rules: PostProcess) -> list[Detections]:
        loaded = [load_picture(picture) for picture in pictures]
        size = self.config.input
        inputs = [
            image.to_input(
                pixels.to(self.device),
                image.resized_hw(_hw(pixels), size.short_side, size.long_side),
                antialias=size.antialias,
            )
            for pixels in loaded
        ]
        batch = image.make_batch(inputs, fill=size.mean, size_divisor=size.size_divisor)
        return [
            in_original_frame(found, input_hw, _hw(pixels), self.classes, **_origin(picture, pixels))
            for found, input_hw, pixels, picture in zip(
                self._model(batch, rules), batch.sizes_hw, loaded, pictures, strict=True
            )
        ]


def in_original_frame(
    found: RawDetections,
    input_hw: tuple[int, int],
    original_hw: tuple[int, int],
    classes: Sequence[str],
    *,
    source: Path | None = None,
    picture: Image.Image | None = None,
) -> Detections:
    """What was found in a network input, in the pixels of the picture that it was made of.

    Args:
        found: in the frame of the input.
        input_hw: size of the input without padding.
        original_hw: size of the upright picture.
        classes: names; label i means ``classes[i]``.
        source: file of the picture, if it has one.
        picture: the picture itself, where there is no file.
    """
    xyxy = boxes.clip(boxes.scale(found.boxes.float(), input_hw, original_hw), original_hw)
    return Detections(
        boxes=xyxy.cpu().numpy(),
        scores=found.scores.float().cpu().numpy(),
        labels=found.labels.cpu().numpy(),
        classes=tuple(classes),
        image_hw=original_hw,
        source=source,
        image=picture,
    )


def _hw(pixels: Tensor) -> tuple[int, int]:
    return pixels.shape[-2], pixels.shape[-1]


def _to_pil(pixels: Tensor) -> Image.Image:
    as_bytes = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().clamp(0, 255).byte()
    return Image.fromarray(as_bytes.permute(1, 2, 0).contiguous().cpu().numpy())


def _origin(picture: Picture, pixels: Tensor) -> dict[str, Any]:
    """Where a picture can be seen again: its file, or itself."""
    if isinstance(picture, str | Path):
        return {"source": Path(str(picture))}
    return {"picture": picture if isinstance(picture, Image.Image) else _to_pil(pixels)}
