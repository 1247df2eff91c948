"""Names of the classes where a file has none: COCO's, which nearly every published detector was trained on."""

from collections.abc import Sequence

from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from fasterrcnn.config import ModelConfig


def named(config: ModelConfig, count: int, names: Sequence[str] = ()) -> ModelConfig:
    """The configuration with names for that many classes.

    Args:
        config: of the detector.
        count: classes without background.
        names: those in the file; used if there are as many as classes. Without, 80 and 90 classes are COCO's (the
            latter with the ten ids that COCO left out, as in torchvision), and others are called ``class_0``...
    """
    if len(names) == count and len(set(names)) == count:
        return config.with_classes(names)
    catalogue = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    numbered = [(number, name) for number, name in enumerate(catalogue) if number > 0]
    if count == 80:
        numbered = [(number, name) for number, name in numbered if name != "N/A"]
    if len(numbered) != count:
        return config.with_classes([f"class_{number}" for number in range(count)])
    return config.with_classes(
        [f"N/A {number}" if name == "N/A" else name for number, name in numbered], [number for number, _ in numbered]
    )
