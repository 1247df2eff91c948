"""Memory that target assignment adds: 5,000 objects against all anchors of an 800x1088 image.

python benchmarks/matching_memory.py
"""

import argparse
import resource
import time
from collections.abc import Sequence

import torch
from compare import base_parser, report

from fasterrcnn import presets
from fasterrcnn.build import assemble
from fasterrcnn.structures import Target

OBJECTS, TINY_OBJECTS = 5000, 50
PADDED_HW = (800, 1088)
LIMIT_BYTES = 1024**3


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make_parser() -> argparse.ArgumentParser:
    return base_parser(__doc__)


def main(command: Sequence[str] | None = None) -> None:
    """Assign once, and compare the process's peak before and after."""
    arguments = make_parser().parse_args(command)
    count = TINY_OBJECTS if arguments.tiny else OBJECTS
    torch.manual_seed(0)
    with torch.device("meta"):  # no weights: anchors and targets need none
        network = assemble(presets.get("resnet50-fpn", ["object"]))
    sizes = [(-(-PADDED_HW[0] // s), -(-PADDED_HW[1] // s)) for s in (4, 8, 16, 32, 64)]
    anchors = torch.cat(network.anchors(sizes, PADDED_HW, torch.device("cpu")))
    corner = torch.rand(count, 2) * torch.tensor([1000.0, 720.0])
    boxes = torch.cat([corner, corner + torch.rand(count, 2) * 80 + 4], dim=1)
    target = Target(boxes, torch.zeros(count, dtype=torch.int64))
    few = Target(boxes[:2], target.labels[:2])
    network.rpn_loss.assigner.assign(anchors, few)
    before = peak_bytes()
    started = time.perf_counter()
    matched = network.rpn_loss.assigner.assign(anchors, target)
    seconds = time.perf_counter() - started
    added = peak_bytes() - before
    positives = int((matched >= 0).sum())
    assert positives >= count / 2, positives
    numbers = {
        "anchors": len(anchors),
        "positives": positives,
        "added_mebibytes": added / 1024**2,
        "whole_matrix_mebibytes": len(anchors) * count * 4 / 1024**2,
        "seconds": seconds,
    }
    report("matching_memory", {f"{count} objects": numbers}, arguments.output)
    assert added < LIMIT_BYTES, f"{added / 1024**2:.0f} MiB were added"


if __name__ == "__main__":
    main()
