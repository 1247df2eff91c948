"""Weights by name: torchvision's and Detectron2's published detectors, repositories of the Hub, folders of runs."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import download
from fasterrcnn.weights.download import Published, fetch

TORCHVISION = {
    "resnet50-fpn": "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
    "resnet50-fpn-v2": "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1",
    "mobilenetv3-large-fpn": "FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1",
    "mobilenetv3-large-320-fpn": "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1",
}
_ZOO = "https://dl.fbaipublicfiles.com/detectron2/COCO-Detection"
_DETECTRON2 = {
    "faster_rcnn_R_50_C4_1x": "137257644/model_final_721ade.pkl",
    "faster_rcnn_R_50_C4_3x": "137849393/model_final_f97cb7.pkl",
    "faster_rcnn_R_50_DC5_1x": "137847829/model_final_51d356.pkl",
    "faster_rcnn_R_50_DC5_3x": "137849425/model_final_68d202.pkl",
    "faster_rcnn_R_50_FPN_1x": "137257794/model_final_b275ba.pkl",
    "faster_rcnn_R_50_FPN_3x": "137849458/model_final_280758.pkl",
    "faster_rcnn_R_101_C4_3x": "138204752/model_final_298dad.pkl",
    "faster_rcnn_R_101_DC5_3x": "138204841/model_final_3e0943.pkl",
    "faster_rcnn_R_101_FPN_3x": "137851257/model_final_f6e8b1.pkl",
    "faster_rcnn_X_101_32x8d_FPN_3x": "139173657/model_final_68b088.pkl",
}
_IN_FOLDER = ("best.safetensors", "last.safetensors", download.HUB_FILE)
"""Weights that the folder of a run has, or one that was prepared for the Hub; the first is taken."""


class Located(NamedTuple):
    """A weight file, and what its name states and its content does not: architecture and eps of the batch norms."""

    path: Path
    preset: str | None = None
    norm_eps: float | None = None


def known() -> dict[str, Published]:
    """Every name of this catalogue, and the file that it means."""
    ours = {name: published_by_torchvision(weights) for name, weights in TORCHVISION.items()}
    return ours | {f"detectron2/{name}": _published(f"{_ZOO}/{name}/{end}") for name, end in _DETECTRON2.items()}


def locate(weights: str | Path) -> Located:
    """The weight file that a path or a name means.

    That is a file; the folder of a run; a name of `known`; or ``hf://user/repository``, to which ``@revision`` and
    ``/file`` may be added. What exists on the disk goes before a name; what cannot be had is a `WeightsError`.
    """
    text, path = str(weights), Path(weights)
    if text.startswith(("hf://", "hf:/")):
        return Located(download.pull(text.removeprefix("hf:").lstrip("/")))
    if path.is_file():
        return Located(path)
    inside = next((path / name for name in _IN_FOLDER if text and (path / name).is_file()), None)
    if inside is not None:
        return Located(inside)
    name = text.replace("detectron2/COCO-Detection/", "detectron2/")
    published = known().get(name)
    if published is None:
        raise WeightsError(_unknown(text, path))
    path = fetch(published)
    return Located(path, name, 0.0 if name == "resnet50-fpn" else None) if name in TORCHVISION else Located(path)


def published_by_torchvision(weights: str) -> Published:
    """A file of torchvision's catalogue, named as ``ResNet50_Weights.IMAGENET1K_V1``."""
    import torchvision  # noqa: PLC0415

    enum, member = weights.split(".")
    container = torchvision.models if hasattr(torchvision.models, enum) else torchvision.models.detection
    return _published(getattr(container, enum)[member].url)


def _published(url: str) -> Published:
    """With the hash that both publishers put into the name: torchvision SHA-256, Detectron2 MD5."""
    if name_hash := re.search(r"/model_final_([0-9a-f]{6})\.pkl$", url):
        return Published(url, "md5", name_hash[1])
    name_hash = re.search(r"-([0-9a-f]{8,64})\.\w+$", url)
    return Published(url, "sha256", name_hash[1] if name_hash else "")


def _unknown(text: str, path: Path) -> str:
    if text and path.is_dir():
        return f"{path}: no weights in this folder ({', '.join(_IN_FOLDER)})"
    names = list(known())
    likely = difflib.get_close_matches(text, names, n=1, cutoff=0.6)
    if path.suffix or len(path.parts) > 2:
        return f"{text}: no such file" + (f"; did you mean {likely[0]}?" if likely else "")
    hint = f"did you mean {likely[0]}?" if likely else f"names are {', '.join(names[:5])}..., and hf://user/repository"
    return f"{text}: no such file, and no weights are called so; {hint}"


def named(config: ModelConfig, count: int, names: Sequence[str] = ()) -> ModelConfig:
    """The configuration with names for that many classes without background: those in the file, if they are as many.

    Without them, 80 and 90 classes are COCO's (the latter with the ten ids that COCO left out, as in torchvision), and
    others are called ``class_0``...
    """
    if len(names) == count and len(set(names)) == count:
        return config.with_classes(names)
    catalogue = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    numbered = [(i, name) for i, name in enumerate(catalogue) if i > 0 and (name != "N/A" or count != 80)]
    if len(numbered) != count:
        return config.with_classes([f"class_{number}" for number in range(count)])
    return config.with_classes(
        [f"N/A {number}" if name == "N/A" else name for number, name in numbered], [number for number, _ in numbered]
    )
