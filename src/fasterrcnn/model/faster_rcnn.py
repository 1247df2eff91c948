"""Component 5, Faster R-CNN: forward pass, loss computing and post-processing of the whole network.

Axes: b images, c channels, h w pixels or cells, p proposals, r regions, l levels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fasterrcnn.model.anchors import AnchorGenerator
from fasterrcnn.model.backbones import Backbone
from fasterrcnn.model.box_head import BoxHead
from fasterrcnn.model.losses import RegionLoss, RPNLoss
from fasterrcnn.model.observing import Observer, unobserved
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.model.proposals import ProposalGenerator
from fasterrcnn.model.roi_pooling import RoIPooling, as_rois
from fasterrcnn.model.rpn import RegionProposalNetwork
from fasterrcnn.model.targets import RegionSample, check_targets, sample_regions
from fasterrcnn.ops.image import pad_to
from fasterrcnn.structures import ImageBatch, Losses, Proposals, RawDetections, Target

Features = Sequence[Float[Tensor, "b _ _ _"]]


class FasterRCNN(nn.Module):
    """Faster R-CNN (Ren et al. 2015) of built parts.

    `forward` detects and `losses` measures; neither looks at ``self.training``.

    Args:
        classes: names; label i means ``classes[i]``. Background has no name and no label.
        mean: pixel mean that normalises RGB in 0..1.
        std: pixel standard deviation that normalises RGB in 0..1.
        size_divisor: images are padded to multiples of it.
        backbone: pixels to feature maps, finest first.
        anchors: component 1.
        rpn: component 2.
        proposals: component 3, as used for detecting.
        training_proposals: component 3, as used for the losses, where more proposals are looked at.
        roi_pooling: component 4.
        box_head: pooled regions to class logits and box deltas.
        rpn_loss: losses of the first stage.
        region_loss: losses of the second stage.
        postprocess: how detections are selected unless a call says otherwise.
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
        postprocess: PostProcess | None = None,
        *,
        proposals: ProposalGenerator | None = None,
        features: Features | None = None,
        observe: Observer = unobserved,
    ) -> list[RawDetections]:
        """Detections of each image, in the frame of the network input.

        Images of different padded sizes pass the network in separate groups: padding beyond an image's own
        would change the features at its border, and so its detections with the company it keeps.

        Args:
            batch: images.
            postprocess: rules for this call instead of the model's own.
            proposals: component 3 for this call instead of the model's own.
            features: feature maps of this very batch, where they are known; it is then taken as one group.
            observe: is told what each step makes; see `fasterrcnn.model.observing`.
        """
        rules = postprocess or self.postprocess
        if features is not None:
            return self._detect(batch, features, rules, proposals, observe)
        found: dict[int, RawDetections] = {}
        for padded_hw, members in self.groups(batch).items():
            pixels = batch.pixels[members, :, : padded_hw[0], : padded_hw[1]]
            group = ImageBatch(pixels, [batch.sizes_hw[i] for i in members])
            detected = self._detect(group, self.features(group.pixels), rules, proposals, observe)
            found.update(zip(members, detected, strict=True))
        return [found[i] for i in range(len(batch))]

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
            targets: what is true of them.
            generator: draws anchors and regions; one for each image makes its draws independent of its batch mates.
            features: feature maps of this very batch, where they are known.

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
        if features is None:
            features = self.features(batch.pixels)
        logits, deltas = self.rpn(features)
        anchors = self._anchors(features, batch.padded_hw)
        objectness_loss, rpn_box_loss, drawn = self.rpn_loss(
            torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors), targets, generators
        )
        proposals = self.training_proposals(logits, deltas, anchors, batch.sizes_hw)
        samples = [
            sample_regions(found, target, self.region_loss.assigner, len(self.classes), draws)
            for found, target, draws in zip(proposals, targets, generators, strict=True)
        ]
        class_logits, box_deltas = self.classify(features, [sample.boxes for sample in samples])
        class_loss, box_loss, class_weight = self.region_loss(class_logits, box_deltas, _joined(samples))
        weights = torch.tensor([drawn, drawn, class_weight, len(class_logits)], device=class_loss.device)
        return Losses(objectness_loss, rpn_box_loss, class_loss, box_loss, weights)

    def features(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Feature maps of RGB in 0..1, finest first."""
        maps: list[Tensor] = self.backbone(self.normalised(pixels))
        return maps

    def normalised(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """What the backbone takes: RGB in 0..1 less its mean, by its standard deviation."""
        return ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def propose(
        self,
        features: Features,
        batch: ImageBatch,
        proposals: ProposalGenerator | None = None,
        *,
        observe: Observer = unobserved,
    ) -> list[Proposals]:
        """The first stage: proposals of each image."""
        logits, deltas = self.rpn(features)
        observe("rpn", logits=logits, deltas=deltas)
        anchors = self._anchors(features, batch.padded_hw)
        observe("anchors", anchors=anchors)
        return (proposals or self.proposals)(logits, deltas, anchors, batch.sizes_hw, observe=observe)

    def classify(
        self, features: Features, regions: Sequence[Float[Tensor, "_ 4"]], *, observe: Observer = unobserved
    ) -> tuple[Float[Tensor, "r k_and_background"], Float[Tensor, "r k 4"]]:
        """The second stage: class logits and box deltas of the regions of all images, one after the other."""
        rois = as_rois(regions)
        pooled = self.roi_pooling(features, rois)
        observe("pooled", rois=rois, pooled=pooled)
        logits, deltas = self.box_head(pooled)
        observe("head", logits=logits, deltas=deltas)
        return logits, deltas

    def _detect(
        self,
        batch: ImageBatch,
        features: Features,
        rules: PostProcess,
        proposals: ProposalGenerator | None,
        observe: Observer,
    ) -> list[RawDetections]:
        observe("features", maps=features)
        regions = [found.boxes for found in self.propose(features, batch, proposals, observe=observe)]
        logits, deltas = self.classify(features, regions, observe=observe)
        counts = [len(boxes) for boxes in regions]
        weights = self.region_loss.delta_weights
        per_image = zip(torch.split(logits, counts), torch.split(deltas, counts), regions, batch.sizes_hw, strict=True)
        return [rules(*image, weights, observe=observe) for image in per_image]

    def _anchors(self, features: Features, padded_hw: tuple[int, int]) -> list[Tensor]:
        map_sizes = [(level.shape[-2], level.shape[-1]) for level in features]
        return self.anchors(map_sizes, padded_hw, features[0].device)

    def groups(self, batch: ImageBatch) -> dict[tuple[int, int], list[int]]:
        """Indices of the images by the size that each needs when it is padded alone."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, (height, width) in enumerate(batch.sizes_hw):
            alone = (pad_to(height, self.size_divisor), pad_to(width, self.size_divisor))
            groups.setdefault(alone, []).append(index)
        return groups


def _joined(samples: Sequence[RegionSample]) -> RegionSample:
    """The samples of all images of a batch as one."""
    return RegionSample(
        torch.cat([sample.boxes for sample in samples]),
        torch.cat([sample.labels for sample in samples]),
        torch.cat([sample.target_boxes for sample in samples]),
    )
