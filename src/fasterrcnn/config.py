"""What crosses the border of the process: configuration of a model and of a training run.

Every number that decides AP and differs between families of weights is a field here, and travels with the
checkpoint. Nothing in this file needs torch.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from fasterrcnn.errors import UsageError
from fasterrcnn.pixel_options import PixelOptions, ValueRange

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0, le=10**6)]
MAX_SIDE = 2**14
Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]
Few = Field(max_length=64)  # a hostile file with a huge list would take all memory before it is checked
PerLevel = Annotated[tuple[Annotated[tuple[float, ...], Few], ...], Few]
NmsKind = Literal["class", "agnostic", "soft-linear", "soft-gaussian"]
NormKind = Literal["frozen", "batch", "group"]
ResizeMethod = Literal["torch", "pillow", "opencv"]
Band = Annotated[int, Field(gt=0, le=10**4)]
Bands = tuple[Band, Band, Band]
Augmentation = Literal["none", "light", "default", "strong"]
RecipeName = Literal["quick", "standard", "best"]
Precision = Literal["auto", "float32", "bf16", "fp16"]
"""Number format of the network's two heavy parts; "auto" is chosen for the machine."""
EARLIER_BODY = "trunk"
"""Name of a body in files of version 0.1, in configurations and in the names of tensors."""


def _rising(value_range: ValueRange) -> ValueRange:
    if not value_range[0] < value_range[1]:
        raise UsageError("the value that becomes black must be smaller than the one that becomes white")
    return value_range


PixelRange = Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _BodyConfig(_Config):
    """A part with a body; accepts its earlier name."""

    @model_validator(mode="before")
    @classmethod
    def _earlier_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and EARLIER_BODY in values and "body" not in values:
            return {"body" if name == EARLIER_BODY else name: value for name, value in values.items()}
        return values


class InputConfig(_Config):
    """How an image becomes the network input: resized to fit both limits, then normalised."""

    short_side: Side = 800
    long_side: Side = 1333
    resize: ResizeMethod = Field(
        "torch",
        description="who resizes and rounds: torchvision's way, Detectron2's (Pillow) or MMDetection's (OpenCV)",
    )
    antialias: bool = Field(False, description="average source pixels when shrinking; torchvision does not")
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    size_divisor: Positive = Field(32, description="padded sides are multiples of it; 1: no padding")
    scale: float | None = Field(None, gt=0, description="median factor by which the training images were resized")
    pixel_range: PixelRange | None = Field(
        None, description="values that become black and white in images of more than 8 bits; none: all of 16 bits"
    )
    bands: Bands | None = Field(None, description="bands of a file that are red, green and blue, counted from 1")

    @property
    def pixels(self) -> PixelOptions:
        """How the values of a file become RGB."""
        return PixelOptions(self.pixel_range, self.bands)

    def resized_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the network input, without padding, for an image of that size."""
        return resized_hw(image_hw, self.short_side, self.long_side, rule=self.resize)


class BackboneConfig(_BodyConfig):
    """Backbone and neck."""

    body: str = Field(
        "resnet50",
        description='"resnet50" (18, 34, 101, 152), "resnext101-32x8d", "wide-resnet50-2", "mobilenetv3-large" or '
        '"timm:<name>"',
    )
    stages: Annotated[tuple[int, ...], Few] = Field((1, 2, 3, 4), description="ResNet stages whose maps are used")
    strides: Annotated[tuple[int, ...], Few] = Field((8, 16, 32), description="strides of the timm maps that are used")
    dilated: bool = Field(False, description="ResNet stage 4 keeps stride 16 (DC5)")
    stride_in_1x1: bool = Field(False, description="ResNet strides lie in the first 1x1 (Caffe weights)")
    norm: NormKind = "frozen"
    norm_eps: float = Field(1e-5, ge=0)
    neck: Literal["fpn", "reduction", "none"] = "fpn"
    neck_channels: Positive = 256
    neck_norm: bool = Field(False, description="the pyramid's convolutions have a norm instead of biases")


class AnchorConfig(_Config):
    """Reference boxes, level by level."""

    sizes: PerLevel = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: PerLevel = ((0.5, 1.0, 2.0),) * 5
    strides: tuple[int, ...] | None = Field(None, description="none: padded image // map size (torchvision)")
    rounded: bool = True


class ProposalConfig(_Config):
    """How many proposals, when detecting and when training."""

    candidates: Positive = 1000
    proposals: Positive = 1000
    training_candidates: Positive = 2000
    training_proposals: Positive = 2000
    nms_threshold: Fraction = 0.7
    min_score: Fraction = 0.0
    min_side: float = Field(1e-3, ge=0, description="pixels that both sides need; 0: any but none")
    ranked_by: Literal["score", "logit"] = Field("score", description="scores near 1 are equal in float32, logits not")


class AssignConfig(_Config):
    """Matching and sampling of one stage."""

    positive_iou: Fraction
    negative_iou: Fraction
    count: Positive
    positive_fraction: Fraction
    zero_overlap: bool = Field(False, description="torchvision's rule for objects that no anchor overlaps")


class RPNConfig(_Config):
    """The region proposal network."""

    convs: int = Field(1, gt=0, le=64)
    assign: AssignConfig = AssignConfig(positive_iou=0.7, negative_iou=0.3, count=256, positive_fraction=0.5)
    beta: float = Field(1 / 9, ge=0)


class RegionConfig(_BodyConfig):
    """RoI pooling, the box head and its losses."""

    pooling: Literal["align", "pool"] = "align"
    output_size: int = Field(7, gt=0, le=256)
    sampling_ratio: int = Field(2, ge=0, le=64)
    aligned: bool = False
    levels: Literal["torchvision", "detectron2", "mmdetection"] = Field(
        "torchvision", description="whose rounding decides the pyramid level of a region"
    )
    body: Literal["fc", "layer4"] = "fc"
    convs: int = Field(0, ge=0, le=64)
    convs_norm: bool = True
    widths: Annotated[tuple[int, ...], Few] = (1024, 1024)
    assign: AssignConfig = AssignConfig(positive_iou=0.5, negative_iou=0.5, count=512, positive_fraction=0.25)
    delta_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    box_loss: Literal["smooth_l1", "l1", "giou"] = "smooth_l1"
    beta: float = Field(1 / 9, ge=0)
    class_weights: tuple[float, ...] | None = Field(None, description="one a class, background last")
    label_smoothing: Fraction = 0.0
    focal_gamma: float = Field(0.0, ge=0)


class PostProcessConfig(_Config):
    """Which detections are reported by default."""

    score_threshold: Fraction = 0.05
    nms: NmsKind = "class"
    nms_threshold: Fraction = 0.5
    max_detections: Positive = 100
    min_side: float = Field(
        1e-2, ge=0, description="pixels of the input that both sides need before NMS; 0: all take part"
    )


def _check_names(classes: Sequence[str]) -> None:
    if isinstance(classes, str):
        raise UsageError(f"classes must be a list of names, not the one text {classes!r}")
    if len(set(classes)) != len(classes):
        raise UsageError(f"class names repeat: {', '.join(classes)}")


class ModelConfig(_Config):
    """A whole detector, classes included: enough to build it again."""

    preset: str
    classes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = Field((), description="of each class in the training data; none: 1 to K")
    input: InputConfig = InputConfig()
    backbone: BackboneConfig = BackboneConfig()
    anchors: AnchorConfig = AnchorConfig()
    rpn: RPNConfig = RPNConfig()
    proposals: ProposalConfig = ProposalConfig()
    regions: RegionConfig = RegionConfig()
    postprocess: PostProcessConfig = PostProcessConfig()

    def with_classes(self, classes: Sequence[str], category_ids: Sequence[int] = ()) -> "ModelConfig":
        """The same detector for other classes, and their ids in COCO files (default: 1 to K).

        Raises:
            UsageError: a name repeats.
        """
        _check_names(classes)
        return self.model_copy(update={"classes": tuple(classes), "category_ids": tuple(category_ids)})

    @model_validator(mode="after")
    def _classes_differ(self) -> "ModelConfig":
        _check_names(self.classes)
        if self.category_ids and len(self.category_ids) != len(self.classes):
            raise UsageError(f"{len(self.category_ids)} category ids for {len(self.classes)} classes")
        return self


def with_pixels(config: ModelConfig, pixel_range: ValueRange | None, bands: Bands | None) -> ModelConfig:
    """The configuration with another range of values and other bands, where they are given.

    Raises:
        UsageError: the range does not rise, or is not finite, or a band does not exist.
    """
    given = {name: value for name, value in (("pixel_range", pixel_range), ("bands", bands)) if value is not None}
    if not given:
        return config
    try:
        checked = InputConfig(**{**config.input.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]}: {first['msg']} (given: {first['input']!r})") from None
    return config.model_copy(update={"input": checked})


def changed(config: ModelConfig, **parts: Mapping[str, object]) -> ModelConfig:
    """The configuration with some fields of its parts set otherwise: ``changed(c, regions={"aligned": True})``."""
    update = {part: getattr(config, part).model_copy(update=dict(fields)) for part, fields in parts.items()}
    return config.model_copy(update=update)


class ReadingConfig(_Config):
    """What a data set does not state itself; see `fasterrcnn.read_data`."""

    format: str | None = None
    images: str | tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    columns: dict[str, str] | None = None
    box_format: Literal["xyxy", "xywh", "cxcywh"] | None = None


class TrainConfig(_Config):
    """One training run. The defaults are those of the recipe "standard".

    The command line takes types and help of its options from here.
    """

    data: str
    model: ModelConfig
    reading: ReadingConfig = ReadingConfig()
    recipe: RecipeName = Field("standard", description="how long to train: some minutes, normally, or for the best AP")
    weights: str | None = Field(
        "imagenet",
        description='start weights: "imagenet", "coco", a file or a name of any family, or none for random weights',
    )
    split: str | None = Field(None, description='training split; default: "train" where there are splits')
    val_split: str | None = Field(None, description='validation split; default: "val" where there is one')
    epochs: Positive = Field(16, description="passes over the training images")
    batch_size: Positive = Field(4, description="images of a step, in each process")
    accumulate: Positive = Field(1, description="batches whose gradients make one step")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="method of gradient descent")
    learning_rate: float = Field(5e-4, gt=0, description="highest rate; default: 5e-4 for adamw, 5e-3 for sgd")
    backbone_rate: float = Field(0.2, ge=0, description="learning rate of the backbone, as a share of the rest")
    weight_decay: float = Field(0.02, ge=0, description="default: 0.02 for adamw, 1e-4 for sgd")
    momentum: Fraction = 0.9
    schedule: Literal["cosine", "steps"] = "cosine"
    warmup_steps: int = Field(100, ge=0, description="at most a tenth of the run")
    final_rate: Fraction = Field(0.01, description="learning rate at the end of the cosine, as a share")
    drops: tuple[Fraction, ...] = Field((0.65, 0.9), description="when the rate falls to a tenth, as shares of a run")
    clip_norm: float = Field(10.0, gt=0)
    ema: float = Field(0.998, ge=0, lt=1, description="decay of the averaged weights that are saved; 0: no average")
    augmentation: Augmentation = Field("default", description="how much the training images are varied")
    views: Positive | None = Field(
        None, description="views of each image, the first as it is, then again; none: ever new ones"
    )
    anchors: str | None = Field(
        None,
        description='"auto" fits them to the objects, "preset" keeps the preset\'s, a YAML file has its own; '
        "default: auto, but those of the start weights if these are a trained detector",
    )
    class_balance: Literal["none", "repeat", "weights", "focal"] = Field(
        "none", description="for rare classes: repeat their images, weight their loss, or take the focal loss"
    )
    repeat_below: Fraction = Field(0.3, description="repeat: classes in a smaller share of the images are rare")
    on_bad_box: Literal["error", "fix", "drop"] = Field(
        "error", description="errors in the data: refuse them, fix them, or leave them out"
    )
    workers: int | None = Field(
        None, ge=0, description="processes that load images; default: 0 on a CPU, else 1 a core up to 8"
    )
    freeze: Annotated[int, Field(ge=0)] | Literal["backbone"] = Field(
        1, description='stages of a pretrained backbone that are not trained, the stem first; "backbone": all of it'
    )
    unfreeze_at: Positive | None = Field(None, description="epoch from which everything is trained")
    cache_features: bool = Field(
        False, description="run a frozen backbone (freeze=backbone) once for each view and keep its maps on disk"
    )
    cache_limit: float = Field(10.0, gt=0, description="largest size of all cached maps in GiB, earlier runs included")
    train_norms: bool = Field(False, description="train pretrained batch norms; for batches of 16 and more")
    short_side: Positive | None = Field(None, description="pixels of the input's short side; default: the preset's")
    long_side: Positive | None = None
    pixel_range: PixelRange | None = Field(
        None,
        description="values that become black and white in images of more than 8 bits; default: measured on the "
        "training images",
    )
    bands: Bands | None = Field(None, description="bands of TIFF files that are red, green and blue, counted from 1")
    precision: Precision | None = Field(
        None,
        description="number format of the network; auto takes the fastest of the device; default: float32 on a CPU, "
        "auto on a GPU",
    )
    devices: Positive = Field(1, description="processes on this machine; torchrun and SLURM set it themselves")
    patience: Positive | None = Field(None, description="epochs without a better AP before the run ends early")
    logger: str = Field("tensorboard", description='"tensorboard", "none", or a logger of Lightning such as "wandb"')
    checkpoint_minutes: float = Field(5.0, ge=0, description="between two states to resume from; 0: after every step")
    deterministic: bool = Field(False, description="equal bits from equal runs, on a GPU too")
    seed: int = Field(0, ge=0, description="of everything random")
    device: str | None = Field(None, description="where the network runs: cpu, cuda or mps; default: the fastest")

    @model_validator(mode="before")
    @classmethod
    def _rates_of_sgd(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Learning rate and weight decay that suit one optimizer do not suit the other."""
        sgd = {"learning_rate": 5e-3, "weight_decay": 1e-4}
        return {**sgd, **values} if values.get("optimizer") == "sgd" else values

    @model_validator(mode="after")
    def _frozen_body_is_pretrained(self) -> "TrainConfig":
        if self.freeze == "backbone" and self.weights is None:
            raise UsageError('freeze="backbone" with random weights would learn from noise; give start weights')
        if self.cache_features and (self.freeze != "backbone" or self.train_norms):
            raise UsageError(
                'cache_features needs a backbone that stays as it is: freeze="backbone" and no train_norms'
            )
        return self


def resized_hw(
    image_hw: tuple[int, int], short_side: int, long_side: int, *, rule: ResizeMethod = "torch"
) -> tuple[int, int]:
    """Height and width, in pixels, at which the short side is ``short_side``, or the long one at most ``long_side``.

    The rule "torch" rounds down, as torchvision does; "pillow" and "opencv" round to the nearest pixel with the very
    operations of Detectron2 and MMDetection, which differ by a pixel where a side falls between two.
    """
    if rule == "pillow":  # the short side first, then the long one where it became too long; rounded once, at the end
        scale = short_side / min(image_hw)
        sides = [float(short_side) if side == min(image_hw) else scale * side for side in image_hw]
        if max(sides) > long_side:
            again = long_side / max(sides)
            sides = [side * again for side in sides]
    else:
        scale = min(short_side / min(image_hw), long_side / max(image_hw))
        sides = [side * scale for side in image_hw]
    half = 0.0 if rule == "torch" else 0.5
    height, width = (max(1, int(side + half)) for side in sides)
    return height, width
