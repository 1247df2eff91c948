"""`load` and `Detector`: give it images, get boxes in their pixels."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fasterrcnn.acceleration import accelerate
from fasterrcnn.build import load_model
from fasterrcnn.config import AnchorConfig, ModelConfig, Precision, with_pixels
from fasterrcnn.data.anchors import read_anchors
from fasterrcnn.detections import Detections
from fasterrcnn.errors import ImageError, UsageError
from fasterrcnn.inference.batches import (
    batches_by_size,
    batches_of_tiles,
    default_batch_size,
    load_batches,
    prefetch,
)
from fasterrcnn.inference.calls import Call, complete, raise_error, warn_of_error, without_errors
from fasterrcnn.inference.devices import as_memory_error, choose_device, use_threads
from fasterrcnn.inference.options import DetectorOptions
from fasterrcnn.inference.publish import Origin, publish
from fasterrcnn.inference.quantization import quantize_parts, quantized_parts
from fasterrcnn.inference.runtime_choice import choose_runtime
from fasterrcnn.inference.runtimes import RuntimeChoice, make_runtime
from fasterrcnn.inference.sources import ImageInput, LoadedImage, batch_of_images, is_many, is_video, load_image
from fasterrcnn.inference.tiling import TilingOptions, combine, crop_tile, to_image_coordinates
from fasterrcnn.inference.video import files_and_frames
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.model.postprocess import to_frame
from fasterrcnn.model.stages import Stages
from fasterrcnn.ops.image import make_batch
from fasterrcnn.structures import ImageBatch, RawDetections
from fasterrcnn.weights import download
from fasterrcnn.weights.catalog import locate
from fasterrcnn.weights.detectron2 import BackboneStyle

_WINDOW = 16
"""Batches among which images of a stream are exchanged so that those of one size go together."""


class Detector:
    """A model ready to predict: batch norms folded, no gradients, no state between calls.

    One detector may be used from several threads, and pickled into other processes.

    Args:
        model: a network; it is copied, later training does not reach the detector.
        config: what the network was built from.
        device: "cpu", "cuda", "mps"; default is the best available one that the runtime supports.
        threads: CPU threads of torch. They belong to the process: the last detector that sets a number decides.
        runtime: what runs the network; see `fasterrcnn.load`.
        quantized: the result of `quantize_parts`, for the runtime "openvino-int8".
        source: the file of the network; `push_to_hub` reads it again, because folding the norms changed the weights.
        precision: of the network's layers: "float32", "bf16" (torch and OpenVINO), "fp16" (GPUs), or "auto": the
            fastest on this machine whose numbers stay near those of float32.
        log: called with one line that states what "auto" took.

    Attributes:
        runtime: what really runs the network, never "auto".
        precision: what it really computes in, never "auto".
    """

    def __init__(
        self,
        model: FasterRCNN,
        config: ModelConfig,
        *,
        device: str | None = None,
        threads: int | None = None,
        runtime: RuntimeChoice = "torch",
        quantized: Mapping[str, Tensor] | None = None,
        source: Origin | None = None,
        precision: Precision = "float32",
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self.source = source
        self.device = choose_device(device or (None if runtime in ("torch", "auto") else "cpu"))
        self.threads = threads
        use_threads(threads)
        self._model = accelerate(model, for_="inference").to(self.device).eval().requires_grad_(False)
        self._quantized = quantized
        self.runtime, self.precision = choose_runtime(
            runtime, precision, self._model, config.input, threads=threads, quantized=quantized, log=log
        )
        self._default_call = complete({}, self._model.postprocess, self.classes)
        self._stages = self._make_stages()

    def _make_stages(self) -> Stages:
        return make_runtime(
            self.runtime, self._model, threads=self.threads, quantized=self._quantized, precision=self.precision
        )

    def __getstate__(self) -> dict[str, Any]:
        # A compiled program belongs to its process; another process compiles its own.
        return {key: value for key, value in self.__dict__.items() if key != "_stages"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        use_threads(self.threads)
        self._stages = self._make_stages()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; label i means ``classes[i]``."""
        return self.config.classes

    @property
    def model(self) -> FasterRCNN:
        """The network that detects, batch norms folded; to inspect, not to change."""
        return self._model

    @property
    def stages(self) -> Stages:
        """What runs the two heavy parts of the network: ``detector.model(batch, stages=detector.stages)``."""
        return self._stages

    @classmethod
    def from_pretrained(cls, repository: str, *, token: str | None = None, **options: Any) -> "Detector":
        """A detector from the Hugging Face Hub; ``fasterrcnn.load("hf://user/repository")`` does the same.

        Args:
            repository: ``user/repository``, with ``@revision`` or ``/file`` behind it if need be.
            token: of a user who may read it; default is that of ``hf auth login``.
            **options: those of `load`, such as ``device`` and ``precision``.

        Raises:
            WeightsError: it cannot be downloaded or read.
            MissingExtraError: huggingface_hub is not installed.
        """
        return load(download.pull(repository.removeprefix("hf://"), token=token), **options)

    def push_to_hub(
        self, repository: str, *, token: str | None = None, private: bool = False, message: str | None = None
    ) -> str:
        """Publish the weights as ``model.safetensors``, with a model card: the run's own, or one made from the file.

        Args:
            repository: ``user/repository``; made where it does not exist.
            token: of a user who may write to it; default is that of ``hf auth login``.
            private: whether a new repository is.
            message: of the commit.

        Returns:
            Its address.

        Raises:
            UsageError: the detector was not loaded from a file.
            WeightsError: the server refuses; the message has the reason.
            MissingExtraError: huggingface_hub is not installed.
        """
        return publish(self.source, self.config, repository, token=token, private=private, message=message)

    def __repr__(self) -> str:
        way = f"{self.device}, {self.runtime}, {self.precision}"
        return f"Detector({self.config.preset}, {len(self.classes)} classes, {way})"

    @overload
    def predict(self, source: Sequence[ImageInput], **options: Unpack[DetectorOptions]) -> list[Detections]: ...
    @overload
    def predict(self, source: ImageInput | int, **options: Unpack[DetectorOptions]) -> Any: ...
    def predict(self, source: Any, **options: Unpack[DetectorOptions]) -> Any:
        """Find objects.

        Args:
            source: an image: a file, the bytes of a file, a Pillow image, an RGB array (height, width, 3) or an RGB
                tensor (3, height, width), both uint8 or float in 0..1; or a list of these; or a folder, a glob, a
                video file or the number of a camera.
            **options: see `DetectorOptions`; an option that is not given has the checkpoint's own value.

        Returns:
            `Detections` for one image; a list for a list, in its order; an iterator for a folder, glob, video or
            camera, which keeps no more than a few images in memory. Boxes are in the pixels of the original image.

        Raises:
            ImageError: an image cannot be decoded.
            DataError: there are no images.
            UsageError: an option or an image is invalid; the message has the reason.
            MissingExtraError: videos need PyAV, cameras OpenCV.
        """
        if is_many(source) or is_video(source):
            return self.stream(source, **options)
        call = self._complete(options, source)
        if isinstance(source, list | tuple):
            outcomes = self._outcomes(source, call, window=len(source))
            return list(without_errors(outcomes, call.on_error or raise_error))
        return self._detect([load_image(source, self.config.input.pixels)], call)[0]

    def stream(
        self, source: ImageInput | int | Iterable[ImageInput], **options: Unpack[DetectorOptions]
    ) -> Iterator[Detections]:
        """As `predict` of many images, but one after the other, so that memory stays the same.

        Args:
            source: a folder, glob, video or camera, or any images one after the other.
            **options: see `DetectorOptions`.
        """
        call = self._complete(options, source)
        log = call.on_error or (warn_of_error if isinstance(source, str | Path | int) else raise_error)
        return without_errors(self.outcomes(source, **options), log)

    def outcomes(
        self, source: ImageInput | int | Iterable[ImageInput], **options: Unpack[DetectorOptions]
    ) -> Generator[Detections | ImageError, None, None]:
        """As `stream`, but an image that cannot be read has its error in its place."""
        call = self._complete(options, source)
        window = call.batch_size if is_video(source) else _WINDOW * call.batch_size  # frames have one size
        images: Iterable[Any]
        if isinstance(source, str | Path | int):
            images = files_and_frames(source, call.every)
        else:
            images = [source] if isinstance(source, bytes | np.ndarray | Tensor | Image.Image) else source
        return self._outcomes(images, call, window=window)

    def warmup(self, image_hw: tuple[int, int] | None = None, **options: Unpack[DetectorOptions]) -> None:
        """Predict once on a grey image, so that the first real one of that size does not wait for preparations.

        Args:
            image_hw: height and width of the images to come; default is the network's own input size.
            **options: those of the calls to come.
        """
        height, width = image_hw or (self.config.input.short_side, self.config.input.short_side)
        size = options.get("batch_size") or 1
        self.predict([np.full((height, width, 3), 128, np.uint8)] * size, **options)

    def _outcomes(
        self, images: Iterable[Any], call: Call, window: int
    ) -> Generator[Detections | ImageError, None, None]:
        """In the order of the images, which are batched by size and read ahead."""
        batches = batches_by_size(images, call.batch_size, window, self.config.input)
        done: dict[int, Detections | ImageError] = {}
        next_number = 0
        loading = load_batches(batches, self.config.input.pixels, self.device)
        with closing(loading), closing(prefetch(loading)) as loaded:
            for numbers, batch in loaded:
                detections = iter(self._detect([image for image in batch if isinstance(image, LoadedImage)], call))
                for number, image in zip(numbers, batch, strict=True):
                    done[number] = image if isinstance(image, ImageError) else next(detections)
                while next_number in done:
                    yield done.pop(next_number)
                    next_number += 1

    def to_batch(self, images: Sequence[Tensor]) -> ImageBatch:
        """Whole images, as `load_image` reads them, as input of the network: resized, padded, on its device."""
        return batch_of_images(images, self.config.input, self.device)

    def _detect(self, images: Sequence[LoadedImage], call: Call) -> list[Detections]:
        """Detections of images that are in memory."""
        try:
            return self._pass(images, call) if images else []
        except (RuntimeError, MemoryError) as error:
            advice = "take a smaller batch_size, tiles, or a smaller short_side"
            raise as_memory_error(error, UsageError, advice) from None

    @torch.inference_mode()
    def _pass(self, images: Sequence[LoadedImage], call: Call) -> list[Detections]:
        if call.tiling is not None:
            detected = self._detect_in_tiles(images, call, call.tiling)
            frames_hw = [image.hw for image in images]
        else:
            batch = self.to_batch([image.pixels for image in images])
            detected = self._model(batch, stages=self._stages, postprocess=call.postprocess)
            frames_hw = batch.sizes_hw
        return [
            as_detections(raw, frame_hw, image.hw, self.classes, **image.origin)
            for raw, frame_hw, image in zip(detected, frames_hw, images, strict=True)
        ]

    def _detect_in_tiles(self, images: Sequence[LoadedImage], call: Call, tiling: TilingOptions) -> list[RawDetections]:
        """Detections in pixels of each image: the tiles of all images, batch by batch, then combined."""
        config = self.config.input
        tiles_of_images = [tiling.tiles(image.hw, config) for image in images]
        queue = [(image, tile) for image, tiles in zip(images, tiles_of_images, strict=True) for tile in tiles]
        in_image: list[RawDetections] = []  # of every tile in the queue
        for part in batches_of_tiles(queue, call.batch_size):
            inputs = [crop_tile(image.pixels, tile, config, self.device) for image, tile in part]
            batch = make_batch(inputs, fill=config.mean, size_divisor=config.size_divisor)
            postprocess, proposals = call.selection(part[0][1].capacity, self._model.proposals)
            raw = self._model(batch, stages=self._stages, postprocess=postprocess, proposals=proposals)
            in_image += [to_image_coordinates(in_tile, tile) for in_tile, (_, tile) in zip(raw, part, strict=True)]
        results = iter(in_image)
        return [
            combine(
                list(islice(results, len(tiles))), tiles, image.hw, tiling, call.postprocess, call.merge, call.limit
            )
            for image, tiles in zip(images, tiles_of_images, strict=True)
        ]

    def _complete(self, options: DetectorOptions, source: object) -> Call:
        if not options and self.device.type != "cuda":
            return self._default_call
        size = default_batch_size(source, self.device)
        return complete(options, self._model.postprocess, self.classes, size)


def load(
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    preset: str | None = None,
    norm_eps: float | None = None,
    style: BackboneStyle | None = None,
    anchors: AnchorConfig | str | Path | None = None,
    short_side: int | None = None,
    long_side: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    runtime: RuntimeChoice | None = None,
    precision: Precision = "float32",
    pixel_range: tuple[float, float] | None = None,
    bands: tuple[int, int, int] | None = None,
    calibration: Any = None,
    log: Callable[[str], None] | None = None,
) -> Detector:
    """A detector from a checkpoint.

    Args:
        path: a file of this library, torchvision, Detectron2 or MMDetection; the folder of a run; or a name as
            ``resnet50-fpn``, ``detectron2/faster_rcnn_R_50_FPN_3x`` or ``hf://user/repository`` (`weights.catalog`).
        classes: names of the classes. Where a file has none, 80 and 90 classes are COCO's, others ``class_0``...
        preset: architecture of a torchvision file where the keys fit several ("mobilenetv3-large-320-fpn").
        norm_eps: eps of its batch norms; 0 for a file fine-tuned from torchvision's COCO ``resnet50-fpn``.
        style: "caffe" or "pytorch": colours and strides of a Detectron2 or MMDetection file that does not contain them.
        anchors: of its training, or a YAML file, for one of torchvision or MMDetection; default: those of the family.
        short_side: pixels to which the short side of images is resized, likewise (min_size of torchvision).
        long_side: largest long side, likewise (max_size).
        device: as for `Detector`.
        threads: as for `Detector`.
        runtime: what runs the network: "torch", or on the CPU another (`RuntimeName`); "auto" measures which is fastest
            on this machine, once. Default: "openvino-int8" for a file of `quantize`, else "torch".
        precision: as for `Detector`.
        pixel_range: values that are black and white in images of over 8 bits; default: the checkpoint's, else 16 bits.
        bands: those of TIFF files that are red, green and blue, counted from 1; default: the checkpoint's.
        calibration: images, of any kind that `predict` takes, for "openvino-int8" with a file that is not quantized.
        log: called with a line about the kind of file, where it is not of this library, and one about "auto".

    Raises:
        WeightsError: the file cannot be downloaded or read, or does not fit.
        UsageError: there is no such runtime or precision, or it does not work on that device.
        MissingExtraError: the runtime's library is not installed.
    """
    use_threads(threads)
    file = locate(path)
    own_anchors = read_anchors(Path(anchors)) if isinstance(anchors, str | Path) else anchors
    model, config = load_model(
        file, classes=classes, preset=preset, norm_eps=norm_eps, style=style, anchors=own_anchors,
        short_side=short_side, long_side=long_side, log=log,
    )  # fmt: skip
    config = with_pixels(config, pixel_range, bands)
    quantized, source = quantized_parts(file.path), Origin(file.path, style)
    runtime = runtime or ("openvino-int8" if quantized else "torch")
    if calibration is not None and runtime == "openvino-int8":
        quantized = quantize_parts(model, config, calibration)
    how: Any = {"device": device, "threads": threads, "runtime": runtime, "precision": precision, "log": log}
    return Detector(model, config, quantized=quantized, source=source, **how)


def as_detections(
    raw: RawDetections,
    frame_hw: tuple[int, int],
    image_hw: tuple[int, int],
    classes: Sequence[str],
    **origin: Any,
) -> Detections:
    """Detections in the frame of the upright image.

    Args:
        raw: in the frame of the image at the size ``frame_hw``, without padding; ``image_hw`` is the upright image's.
        classes: names; label i means ``classes[i]``.
        **origin: where the image came from: source, image, frame and seconds of `Detections`.
    """
    in_image = to_frame(raw, frame_hw, image_hw)
    return Detections(
        boxes=in_image.boxes.cpu().numpy(),
        scores=in_image.scores.cpu().numpy(),
        labels=in_image.labels.cpu().numpy(),
        classes=tuple(classes),
        image_hw=image_hw,
        **origin,
    )
