"""Records as a torch data set: pictures at the network's size, targets in its frame.

Axes: g ground truth.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from fasterrcnn.config import InputConfig
from fasterrcnn.data.images import read_image
from fasterrcnn.data.records import Record
from fasterrcnn.ops import boxes, image
from fasterrcnn.structures import ImageBatch, Target

Example = tuple[Float[Tensor, "3 _ _"], Target]


class DetectionDataset(Dataset[Example]):
    """Examples of a detection data set.

    Args:
        records: pictures and boxes.
        config: size of the network input.
        flip: chance that an example is mirrored left to right.
        seed: of the flips; epoch and index are mixed in, so that an example does not depend on the order.
    """

    def __init__(self, records: Sequence[Record], config: InputConfig, *, flip: float = 0.0, seed: int = 0) -> None:
        self.records = list(records)
        self.config = config
        self.flip = flip
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        record = self.records[index]
        pixels = read_image(record.path)
        original_hw = (pixels.shape[-2], pixels.shape[-1])
        to_hw = image.resized_hw(original_hw, self.config.short_side, self.config.long_side)
        pixels = image.to_input(pixels, to_hw, antialias=self.config.antialias)
        xyxy = boxes.scale(torch.from_numpy(record.boxes), original_hw, to_hw)
        if self._flips(index):
            pixels = pixels.flip(-1)
            xyxy = boxes.flip_horizontal(xyxy, to_hw[1])
        difficult = torch.from_numpy(record.difficult)
        return pixels, Target(xyxy[~difficult], torch.from_numpy(record.labels)[~difficult], xyxy[difficult])

    def collate(self, examples: Sequence[Example]) -> tuple[ImageBatch, list[Target]]:
        """Examples of different sizes as one padded batch."""
        batch = image.make_batch(
            [pixels for pixels, _ in examples], fill=self.config.mean, size_divisor=self.config.size_divisor
        )
        return batch, [target for _, target in examples]

    def _flips(self, index: int) -> bool:
        if self.flip == 0:
            return False
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch, index)) % 2**63)
        return bool(torch.rand((), generator=generator) < self.flip)
