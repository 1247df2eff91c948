"""What do fitted anchors gain? Shares of boxes that anchors reach, on the training split and on one held out.

python benchmarks/anchors.py DATA [--presets NAME ...] [--split train] [--held-out test]

Fits the anchors of each preset to the training split of a data set and prints how many boxes have an anchor with IoU
0.5 and 0.7, with the preset's own anchors and with the fitted ones.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from compare import base_parser

from fasterrcnn import build, presets
from fasterrcnn.data.anchors import fit_anchors, input_boxes, input_labels, measure_recall
from fasterrcnn.data.formats import read_data


def make_parser() -> argparse.ArgumentParser:
    parser = base_parser(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--presets", nargs="+", default=["efficientnet-lite0-fpn", "resnet50-fpn"])
    parser.add_argument("--split", default="train")
    parser.add_argument("--held-out", default="test")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(command: Sequence[str] | None = None) -> None:
    """Fit the presets that were asked for."""
    arguments = make_parser().parse_args(command)
    data = read_data(arguments.data)
    train, held_out = data.split(arguments.split), data.split(arguments.held_out)
    rows = {}
    for name in arguments.presets[:1] if arguments.tiny else arguments.presets:
        config = presets.get(name)
        strides = build.anchor_strides(config)
        started = time.perf_counter()
        boxes, labels = input_boxes(train, config.input), input_labels(train)
        fit = fit_anchors(boxes, config.anchors, strides, labels=labels, seed=arguments.seed)
        seconds = time.perf_counter() - started
        others = input_boxes(held_out, config.input)
        before, after = (measure_recall(others, anchors, strides) for anchors in (config.anchors, fit.anchors))
        rows[name] = {
            "seconds": seconds,
            "fit": fit.to_dict(),
            "held_out": {"before": asdict(before), "after": asdict(after)},
        }
        print(f"{name}, {seconds:.1f} s\n{fit}\n{arguments.held_out}, before\n{before}\nafter\n{after}\n", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
