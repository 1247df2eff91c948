"""Component 5, Faster R-CNN: forward pass, loss computing and post-processing of the whole network.

Axes: b images, c channels, h w pixels or cells, p proposals, r regions, l levels.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.backbones import Backbone
from fasterrcnn.model.box_head import BoxHead
from fasterrcnn.model.losses import RegionLoss, RPNLoss
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator
from fasterrcnn.model.roi_pooling import RoIPooling, as_rois
from fasterrcnn.model.rpn import RegionProposalNetwork
from fasterrcnn.model.stages import DenseOutputs, Observer, Stages
from fasterrcnn.model.targets import RegionSample, check_targets, sample_regions
from fasterrcnn.ops.image import pad_to
from fasterrcnn.structures import MEMORY_FORMAT, ImageBatch, Losses, Proposals, RawDetections, Target

Features = Sequence[Float[Tensor, "b _ _ _"]]


class FasterRCNN(nn.Module):
    """Faster R-CNN (Ren et al. 2015) of built parts.

    `forward` detects and `losses` measures; neither depends on ``self.training``. The model is its own default
    `Stages`.

    Args:
        classes: names; label i means ``classes[i]``. Background has no name and no label.
        mean: pixel mean that normalises RGB in 0..1.
        std: pixel standard deviation that normalises RGB in 0..1.
        size_divisor: images are padded to multiples of it.
        backbone: pixels to feature maps, finest first.
        anchors: component 1.
        rpn: component 2.
        proposals: component 3, as used for detecting.
        training_proposals: component 3, as used for the losses, which take more proposals.
        roi_pooling: component 4.
        box_head: pooled regions to class logits and box deltas.
        rpn_loss: losses of the first stage.
        region_loss: losses of the second stage.
        postprocess: how detections are selected by default.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        size_divisor: int,
        backbone: Backbone,
        anchors: AnchorGenerator,
        rpn: RegionProposalNetwork,
        proposals: ProposalGenerator,
        training_proposals: ProposalGenerator,
        roi_pooling: RoIPooling,
        box_head: BoxHead,
        rpn_loss: RPNLoss,
        region_loss: RegionLoss,
        postprocess: PostProcess,
    ) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.size_divisor = size_divisor
        self.backbone = backbone
        self.anchors = anchors
        self.rpn = rpn
        self.proposals = proposals
        self.training_proposals = training_proposals
        self.roi_pooling = roi_pooling
        self.box_head = box_head
        self.rpn_loss = rpn_loss
        self.region_loss = region_loss
        self.postprocess = postprocess
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(
        self,
        batch: ImageBatch,
        *,
        postprocess: PostProcess | None = None,
        stages: Stages | None = None,
        proposals: ProposalGenerator | None = None,
        features: Features | None = None,
        observe: Observer | None = None,
    ) -> list[RawDetections]:
        """Detections of each image, in the frame of the network input, on the CPU.

        Images of different padded sizes pass the network in separate groups: padding beyond an image's own would change
        the features at its border, and so its detections would depend on the other images of the batch.

        Args:
            batch: images.
            postprocess: selects the detections of this call; default is the model's own.
            stages: runs the two heavy parts of the network; default is the model itself.
            proposals: component 3 for this call; default is the model's own.
            features: feature maps of this batch, where they were computed before; all images are then one group.
            observe: called with what each step computes; see `fasterrcnn.model.stages.Observer`.
        """
        stages = self if stages is None else stages
        postprocess = postprocess or self.postprocess
        proposals = proposals or self.proposals
        if features is not None:
            return self._detect(
                batch, batch.padded_hw, self._first_stage(features), stages, proposals, postprocess, observe
            )
        detections: dict[int, RawDetections] = {}
        for padded_hw, members in self.groups(batch).items():
            pixels = batch.pixels[:, :, : padded_hw[0], : padded_hw[1]]
            if len(members) < len(batch.sizes_hw):
                pixels = torch.stack([pixels[index] for index in members])
            group = ImageBatch(
                pixels.contiguous(memory_format=MEMORY_FORMAT), [batch.sizes_hw[index] for index in members]
            )
            dense = stages.dense(group.pixels)
            detected = self._detect(group, padded_hw, dense, stages, proposals, postprocess, observe)
            detections.update(zip(members, detected, strict=True))
        return [detections[index] for index in range(len(batch.sizes_hw))]

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[Target],
        *,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        features: Features | None = None,
    ) -> Losses:
        """The four losses of a batch against its targets.

        The batch passes the network as one padded tensor.

        Args:
            batch: images.
            targets: their ground truth.
            generator: samples anchors and regions; with one for each image, no image changes the samples of another.
            features: feature maps of this batch, where they were computed before.

        Raises:
            ValueError: a target has a label outside 0..K-1 or a box without area; the message names it.
        """
        if len(targets) != len(batch):
            raise ValueError(f"{len(batch)} images but {len(targets)} targets")
        check_targets(targets, self.classes)
        generators: Sequence[torch.Generator | None]
        if generator is None or isinstance(generator, torch.Generator):
            generators = [generator] * len(targets)
        else:
            generators = generator
        dense = self.dense(batch.pixels) if features is None else self._first_stage(features)
        anchors = _anchors(self.anchors, dense.sizes_hw, batch.padded_hw, batch.pixels.device)
        objectness_loss, rpn_box_loss, drawn = self.rpn_loss(
            torch.cat(dense.logits, dim=1), torch.cat(dense.deltas, dim=1), torch.cat(anchors), targets, generators
        )
        proposals = self.training_proposals(dense.logits, dense.deltas, anchors, batch.sizes_hw)
        samples = [
            sample_regions(image_proposals, target, self.region_loss.assigner, len(self.classes), image_generator)
            for image_proposals, target, image_generator in zip(proposals, targets, generators, strict=True)
        ]
        class_logits, box_deltas = self.classify(dense.features, [sample.boxes for sample in samples])
        class_loss, box_loss, class_weight = self.region_loss(class_logits, box_deltas, _joined(samples))
        weights = torch.stack([drawn, drawn, class_weight, class_weight.new_full((), len(class_logits))])
        return Losses(objectness_loss, rpn_box_loss, class_loss, box_loss, weights)

    def features(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Feature maps of RGB in 0..1, finest first."""
        maps: list[Tensor] = self.backbone(self.normalised(pixels))
        return maps

    def normalised(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """RGB in 0..1 minus the mean, divided by the standard deviation: the input of the backbone."""
        return ((pixels - self.mean) / self.std).contiguous(memory_format=MEMORY_FORMAT)

    def dense(self, pixels: Float[Tensor, "b 3 h w"]) -> DenseOutputs:
        """Feature maps and RPN outputs of RGB in 0..1; see `Stages`."""
        return self._first_stage(self.features(pixels))

    def head(
        self, pooled: Float[Tensor, "r c s s"]
    ) -> tuple[Float[Tensor, "r k_and_background"], Float[Tensor, "r k 4"]]:
        """Class logits and box deltas of pooled regions; see `Stages`."""
        logits, deltas = self.box_head(pooled)
        return logits, deltas

    def propose(
        self, features: Features, batch: ImageBatch, proposals: ProposalGenerator | None = None
    ) -> list[Proposals]:
        """The first stage: proposals of each image of a batch, from its feature maps."""
        dense = self._first_stage(features)
        anchors = _anchors(self.anchors, dense.sizes_hw, batch.padded_hw, batch.pixels.device)
        return (proposals or self.proposals)(dense.logits, dense.deltas, anchors, batch.sizes_hw)

    def classify(
        self, features: Features, regions: Sequence[Float[Tensor, "_ 4"]]
    ) -> tuple[Float[Tensor, "r k_and_background"], Float[Tensor, "r k 4"]]:
        """The second stage: class logits and box deltas of the regions of all images, one after the other."""
        return self.head(self.roi_pooling(features, as_rois(regions)))

    def groups(self, batch: ImageBatch) -> dict[tuple[int, int], list[int]]:
        """Indices of the images by the size that each needs when it is padded alone."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, (height, width) in enumerate(batch.sizes_hw):
            alone = (pad_to(height, self.size_divisor), pad_to(width, self.size_divisor))
            groups.setdefault(alone, []).append(index)
        return groups

    def _first_stage(self, features: Features) -> DenseOutputs:
        logits, deltas = self.rpn(features)
        return DenseOutputs(list(features), tuple((m.shape[-2], m.shape[-1]) for m in features), logits, deltas)

    def _detect(
        self,
        batch: ImageBatch,
        padded_hw: tuple[int, int],
        dense: DenseOutputs,
        stages: Stages,
        proposals: ProposalGenerator,
        postprocess: PostProcess,
        observe: Observer | None,
    ) -> list[RawDetections]:
        """From what the network computed for the whole images to the detections of each."""
        features, sizes_hw, rpn_logits, rpn_deltas = dense
        report = observe or _ignore
        report("features", maps=features)
        report("rpn", logits=rpn_logits, deltas=rpn_deltas)
        anchors = _anchors(self.anchors, sizes_hw, padded_hw, batch.pixels.device)
        report("anchors", anchors=anchors)
        proposed = proposals(rpn_logits, rpn_deltas, anchors, batch.sizes_hw, observe=observe)
        regions = [image.boxes for image in proposed]
        rois = as_rois(regions)
        pooled = self.roi_pooling(features, rois)
        report("pooled", rois=rois, pooled=pooled)
        if len(rois):
            logits, deltas = stages.head(pooled)
        else:  # not every runtime accepts an empty input
            logits = pooled.new_zeros(0, len(self.classes) + 1)
            deltas = pooled.new_zeros(0, len(self.classes), 4)
        report("head", logits=logits, deltas=deltas)
        counts = [len(boxes) for boxes in regions]
        weights = self.region_loss.delta_weights
        per_image = (torch.split(logits, counts), torch.split(deltas, counts))
        return postprocess(*per_image, regions, batch.sizes_hw, weights, observe=observe)


@lru_cache(maxsize=8)  # padded sizes; 3.5 MB of anchors each at 800x1088
def _anchors(
    generator: AnchorGenerator,
    sizes_hw: tuple[tuple[int, int], ...],
    padded_hw: tuple[int, int],
    device: torch.device,
) -> list[Float[Tensor, "_ 4"]]:
    """Anchors of each level, shared by all calls: do not change them."""
    with torch.inference_mode(False):  # the losses use them too
        return generator(sizes_hw, padded_hw, device)


def _ignore(step: str, **values: object) -> None:
    """An observer that does nothing."""


def _joined(samples: Sequence[RegionSample]) -> RegionSample:
    """The samples of all images of a batch as one."""
    return RegionSample(
        torch.cat([sample.boxes for sample in samples]),
        torch.cat([sample.labels for sample in samples]),
        torch.cat([sample.target_boxes for sample in samples]),
    )
