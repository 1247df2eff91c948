"""Loading for training: our data set against torchvision's way, the same operations on full-size images.

python benchmarks/loader.py DATA

DATA is a folder of annotated images. Both sides decode, mirror, change scale and colours, resize and pad into
batches of 4, with 2 processes. Theirs follows torchvision's references/detection: `read_image` of torchvision.io,
then a composition of v2 transforms that works at the size of the image, and a resize at its end.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from compare import alternate, base_parser, report
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from fasterrcnn import presets
from fasterrcnn.config import InputConfig
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.dataset import BatchLoader, BatchPlan, DetectionDataset
from fasterrcnn.data.formats import read_data
from fasterrcnn.ops import image
from fasterrcnn.training.data import epoch_batches

ROUNDS, REPEATS = 7, 3
WORKERS = 2
BATCH = 4


class PlainDataset(Dataset):
    """torchvision's way: everything on the whole image, then the resize."""

    def __init__(self, records: Sequence[AnnotatedImage], config: InputConfig) -> None:
        self.records = records
        self.config = config

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        record = self.records[index]
        pixels = tv_tensors.Image(decode_image(str(record.path), ImageReadMode.RGB, apply_exif_orientation=True))
        size_hw = (pixels.shape[-2], pixels.shape[-1])
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(record.boxes), format="XYXY", canvas_size=size_hw)
        change = v2.Compose(
            [
                v2.RandomHorizontalFlip(),
                v2.ScaleJitter(size_hw, (0.75, 4 / 3), antialias=True),
                v2.RandomCrop(size_hw, pad_if_needed=True, fill=[round(255 * mean) for mean in self.config.mean]),
                v2.ColorJitter(0.15, 0.3, 0.3),
                v2.Resize(self.config.short_side, max_size=self.config.long_side, antialias=True),
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
                v2.SanitizeBoundingBoxes(),
                v2.ToPureTensor(),
            ]
        )
        return change(pixels, {"boxes": boxes, "labels": torch.from_numpy(record.labels)})

    def collate(self, examples: list) -> tuple[image.ImageBatch, list[dict[str, torch.Tensor]]]:
        batch = image.make_batch([pixels for pixels, _ in examples], fill=self.config.mean, size_divisor=64)
        return batch, [target for _, target in examples]


def cpu_milliseconds(dataset: Dataset) -> float:
    """Process time of one example, here, with one thread."""
    for index in range(min(5, len(dataset))):
        dataset[index]
    started = time.process_time()
    for index in range(len(dataset)):
        dataset[index]
    return 1e3 * (time.process_time() - started) / len(dataset)


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="efficientnet-lite0-fpn", help="preset whose input is meant")
    return parser


def main(command: Sequence[str] | None = None) -> None:
    arguments = make_parser().parse_args(command)
    torch.set_num_threads(1)
    config = presets.get(arguments.model).input.model_copy(update={"antialias": True})
    data = read_data(arguments.data)
    records = data.split(data.training_split)
    examples = DetectionDataset(records, config, augmentation="default")
    batches = epoch_batches(examples, BATCH, Random(0))
    plans = [BatchPlan(tuple(batch), view=1) for batch in batches]
    plain = PlainDataset(records, config)
    ours = BatchLoader(examples, WORKERS)
    theirs = DataLoader(
        plain, batch_sampler=batches, collate_fn=plain.collate, num_workers=WORKERS, persistent_workers=True
    )
    rounds, repeats = (1, 1) if arguments.tiny else (ROUNDS, REPEATS)
    numbers = alternate(lambda: list(map(len, ours.load(plans))), lambda: list(map(len, theirs)), rounds)
    numbers |= {
        "images": len(records),
        "ours_images_per_second": len(records) / numbers["ours_seconds"],
        "theirs_images_per_second": len(records) / numbers["theirs_seconds"],
        "ours_cpu_ms_per_image": statistics.median(cpu_milliseconds(examples) for _ in range(repeats)),
        "theirs_cpu_ms_per_image": statistics.median(cpu_milliseconds(plain) for _ in range(repeats)),
    }
    report("loader", {f"{data.root.name}, {arguments.model}, {WORKERS} processes": numbers}, arguments.output)


if __name__ == "__main__":
    main()
