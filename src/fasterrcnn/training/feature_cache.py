"""Maps of a frozen backbone on disk: what never changes is computed once for each view of an image.

An entry is a safetensors file: the backbone's maps in float16, and the view's size and objects, so that no image has to
be read again. Its name is a hash of all that it follows from: weights, preprocessing, image, objects and view.

Axes: b images, c channels, h w pixels or cells.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from fasterrcnn.data.dataset import BUCKET, BatchPlan, DetectionDataset
from fasterrcnn.errors import TrainingError
from fasterrcnn.files import cache_folder, write_bytes
from fasterrcnn.model.backbones import Body
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.ops.image import pad_to
from fasterrcnn.structures import ImageBatch, Target
from fasterrcnn.training.data import Step
from fasterrcnn.training.environment import digest


def default_folder() -> Path:
    """Where entries are kept, for all runs."""
    return cache_folder() / "features"


@torch.no_grad()
def frozen_maps(model: FasterRCNN, batch: ImageBatch) -> list[Float[Tensor, "b _ _ _"]]:
    """The backbone's maps of a batch in which it sees each image alone; zero where an image has ended.

    They are rounded as in a cache, so that keeping them changes nothing but the time.

    Args:
        model: its backbone is frozen.
        batch: images.
    """
    pieces = []
    for number, size_hw in enumerate(batch.sizes_hw):
        divisor = math.lcm(model.size_divisor, BUCKET)
        height, width = (min(pad_to(a, divisor), b) for a, b in zip(size_hw, batch.padded_hw, strict=True))
        pieces.append(_maps_alone(model, batch.pixels[number : number + 1, :, :height, :width]))
    return _joined(pieces, _map_sizes(model, batch.padded_hw))


class CachedViews:
    """The views of a data set's images, as the frozen backbone of a model sees them.

    Args:
        model: its backbone is frozen while entries are used.
        examples: the data set.
        numbers: of the views, as the data set counts them.
        bucket: heights and widths that the backbone sees are multiples of it.
        folder: where entries lie.
    """

    def __init__(
        self,
        model: FasterRCNN,
        examples: DetectionDataset,
        numbers: Sequence[int],
        *,
        bucket: int = BUCKET,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self.examples = examples
        self.keys = [(index, number) for number in numbers for index in range(len(examples))]
        self.bucket = bucket
        self.folder = folder or default_folder()

    def size(self) -> int:
        """Bytes that all maps take."""
        body = cast(Body, self.model.backbone.body)
        cells = 0
        for index, _ in self.keys:
            sizes = _map_sizes(self.model, self.examples.padded_hw(index, self.bucket))
            cells += sum(c * h * w for c, (h, w) in zip(body.channels, sizes, strict=True))
        return cells * torch.finfo(torch.float16).bits // 8

    def path(self, index: int, number: int) -> Path:
        """The file of a view."""
        examples = self.examples
        parts: list[object] = [self._body, examples.config.model_dump_json(), self._digests[index]]
        parts.append(examples.padded_hw(index, self.bucket))
        if number:  # chance varies the image, and may put others into it
            parts += [examples.augmentation, examples.seed, number, examples.records[index].image_id, self._together]
        name = hashlib.sha256(repr(parts).encode()).hexdigest()
        return self.folder / name[:2] / f"{name[2:34]}.safetensors"

    def write(self, index: int, number: int) -> None:
        """Run the backbone on a view and keep its maps.

        Raises:
            TrainingError: float16 cannot hold them.
            ImageError: the image cannot be decoded; the message names it.
        """
        size = self.examples.padded_hw(index, self.bucket)
        batch, (target,) = self.examples.collate([self.examples[index, number]], size)
        maps = [one.cpu() for one in _maps_alone(self.model, batch.pixels.to(self.model.mean.device))]
        if not all(bool(one.isfinite().all()) for one in maps):
            image = self.examples.records[index].path
            raise TrainingError(f"{image}: the backbone's maps are too large for float16; train without cache_features")
        entry = {f"map{level}": one for level, one in enumerate(maps)}
        entry |= {"boxes": target.boxes, "labels": target.labels, "ignored": target.ignored}
        entry["size_hw"] = torch.tensor(batch.sizes_hw[0])
        content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in entry.items()})
        write_bytes(self.path(index, number), content)

    def load(self, plans: Sequence[BatchPlan]) -> Iterator[Step]:
        """The planned steps, with maps instead of pixels.

        Raises:
            TrainingError: an entry is gone or damaged; the message names it.
        """
        for plan in plans:
            assert plan.padded_hw is not None
            entries = [_read(self.path(index, plan.view)) for index in plan.indices]
            sizes = _map_sizes(self.model, plan.padded_hw)
            maps = [[entry[f"map{level}"] for level in range(len(sizes))] for entry in entries]
            # Nothing looks at the pixels: one zero stands for all of them.
            pixels = torch.zeros(1, 1, 1, 1).expand(len(entries), 3, *plan.padded_hw)
            height_width = [entry["size_hw"].tolist() for entry in entries]
            batch = ImageBatch(pixels, [(height, width) for height, width in height_width])
            targets = [Target(entry["boxes"], entry["labels"], entry["ignored"]) for entry in entries]
            yield Step(plan, batch, targets, _joined(maps, sizes))

    @cached_property
    def _body(self) -> str:
        """Stands for the network that the maps come from."""
        body = self.model.backbone.body
        found = hashlib.sha256(f"{torch.__version__} {self.model.mean.tolist()} {self.model.std.tolist()}".encode())
        found.update(repr(body).encode())
        for name, value in sorted(body.state_dict().items()):
            found.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    @cached_property
    def _digests(self) -> list[str]:
        return [digest(record).hex() for record in self.examples.records]

    @cached_property
    def _together(self) -> str:
        return hashlib.sha256("".join(self._digests).encode()).hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: an entry of the feature cache cannot be read ({str(error).splitlines()[0]}); "
            "remove the file and go on with --resume"
        ) from None


@torch.no_grad()
def _maps_alone(model: FasterRCNN, pixels: Float[Tensor, "1 3 h w"]) -> list[Tensor]:
    """The backbone's maps of one image in float16, in eval mode."""
    body = model.backbone.body
    learning = body.training
    body.eval()
    maps = body(model.normalised(pixels))
    body.train(learning)
    return [one.half() for one in maps]


def _map_sizes(model: FasterRCNN, padded_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Cells of the backbone's maps of images of that size."""
    return [(padded_hw[0] // stride, padded_hw[1] // stride) for stride in model.backbone.strides]


def _joined(pieces: Sequence[Sequence[Tensor]], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Maps of single images in float16 as those of a batch in float32; zero where an image has ended."""
    joined = []
    for level, (height, width) in enumerate(sizes):
        first = pieces[0][level]
        whole = first.new_zeros(len(pieces), first.shape[1], height, width, dtype=torch.float32)
        whole = whole.contiguous(memory_format=torch.channels_last)
        for target, maps in zip(whole, pieces, strict=True):
            one = maps[level][0]
            target[:, : one.shape[1], : one.shape[2]] = one
        joined.append(whole)
    return joined
