"""The contract of the whole network, for every preset."""

import pytest
import torch
from torch.testing import assert_close

from fasterrcnn import presets
from fasterrcnn.build import assemble
from fasterrcnn.model.postprocess import PostProcess
from fasterrcnn.ops.image import make_batch
from fasterrcnn.structures import ImageBatch, Target, no_boxes

CLASSES = ("cat", "dog", "owl")
SIZES = [(64, 64), (50, 90), (96, 40), (60, 50)]  # the first and the last are padded to one size
NOTHING = Target(no_boxes(), torch.zeros(0, dtype=torch.int64))


def grid_target() -> Target:
    """Twelve objects in rows."""
    corners = torch.tensor([[8.0 * x, 20.0 * y] for y in range(3) for x in range(4)])
    return Target(torch.cat([corners, corners + torch.tensor([15.0, 18.0])], dim=1), torch.arange(12) % 3)


TARGETS = [
    NOTHING,
    Target(torch.tensor([[10.0, 5.0, 70.0, 45.0]]), torch.tensor([1])),
    grid_target(),
    Target(no_boxes(), torch.zeros(0, dtype=torch.int64), torch.tensor([[0.0, 0.0, 30.0, 30.0]])),
]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


HEAVY = {"resnet50-fpn-v2", "resnet50-c4", "resnet50-dc5", "mobilenetv3-large-fpn", "timm:resnet18"}
"""Presets whose parts the others have too."""

NAMES = (*presets.names(), "timm:resnet18", "timm:test_resnet")
NETWORKS = [pytest.param(n, marks=pytest.mark.slow) if n in HEAVY else n for n in NAMES]


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, shrink, lively):
    return lively(shrink(presets.get(request.param, CLASSES)))


@pytest.fixture(autouse=True)
def clean(request):
    """No gradient and no training mode stays from test to test."""
    yield
    for name in {"network", "tiny_model"} & set(request.fixturenames):
        request.getfixturevalue(name).eval().zero_grad(set_to_none=True)


def test_losses__finite_with_gradients_everywhere(network, batch_of):
    losses = network.losses(batch_of(*SIZES), TARGETS, generator=seeded())
    assert all(value.isfinite() and value >= 0 for _, value in losses)
    losses.total.backward()
    for layer in (
        network.rpn.objectness,
        network.rpn.deltas,
        network.box_head.class_logits,
        network.box_head.box_deltas,
    ):
        assert layer.weight.grad.isfinite().all()
        assert layer.weight.grad.abs().sum() > 0
    body = [p.grad for p in network.backbone.body.parameters() if p.grad is not None]
    assert body
    assert all(gradient.isfinite().all() for gradient in body)


def test_losses__images_without_boxes(network, batch_of):
    losses = network.losses(batch_of(*SIZES[:2]), [NOTHING, NOTHING], generator=seeded())
    assert losses.total.isfinite()
    assert_close(losses.rpn_boxes.detach(), torch.tensor(0.0))
    assert_close(losses.boxes.detach(), torch.tensor(0.0))
    losses.total.backward()
    assert network.rpn.objectness.weight.grad.abs().sum() > 0
    assert network.box_head.class_logits.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_forward__detections_inside_the_valid_size(network, batch_of):
    found = network(batch_of(*SIZES))
    assert len(found) == len(SIZES)
    for image, (height, width) in zip(found, SIZES, strict=True):
        assert len(image.boxes) > 0
        assert (image.boxes >= 0).all()
        assert (image.boxes <= torch.tensor([width, height, width, height])).all()
        assert (image.scores.diff() <= 0).all()
        assert set(image.labels.tolist()) <= {0, 1, 2}


@torch.no_grad()
def test_forward__does_not_depend_on_batch_mates(network, batch_of):
    batch = batch_of(*SIZES)
    together = network(batch)
    for index, (height, width) in enumerate(SIZES):
        alone = make_batch([batch.pixels[index, :, :height, :width]], fill=(0.485, 0.456, 0.406), size_divisor=32)
        (found,) = network(alone)
        assert_close(found.boxes, together[index].boxes, rtol=1e-4, atol=1e-3)
        assert_close(found.scores, together[index].scores, rtol=0, atol=1e-4)
        assert found.labels.tolist() == together[index].labels.tolist()


@torch.no_grad()
def test_training_mode__changes_nothing(network, batch_of):
    if any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules()):
        pytest.skip("batch norm itself depends on the mode")
    batch = batch_of(*SIZES)
    losses, found = network.losses(batch, TARGETS, generator=seeded()), network(batch)
    network.train()
    assert network.losses(batch, TARGETS, generator=seeded()).as_floats() == losses.as_floats()
    for ours, expected in zip(network(batch), found, strict=True):
        assert_close(ours.boxes, expected.boxes)
        assert_close(ours.scores, expected.scores)


def test_state_dict__three_parts(network):
    parts = {key.split(".")[0] for key in network.state_dict()}
    assert parts == {"backbone", "rpn", "box_head"}


@torch.no_grad()
def test_losses__seed_decides(tiny_model, batch_of):
    def losses(seed):
        generator = torch.Generator().manual_seed(seed)
        return tiny_model.losses(batch_of(*SIZES), TARGETS, generator=generator).as_floats()

    assert losses(1) == losses(1)
    assert len({losses(seed)["total"] for seed in range(4)}) > 1


def part_of(batch, targets, members) -> tuple[ImageBatch, list[Target]]:
    """Some images of a batch, padded as all of it is."""
    part = ImageBatch(batch.pixels[members], [batch.sizes_hw[index] for index in members])
    return part, [targets[index] for index in members]


@pytest.fixture(scope="module", params=[None, (1.0, 5.0, 2.0, 0.5)])
def weighted(request, tiny_config, lively):
    """A network with or without weights of the classes."""
    regions = tiny_config.regions.model_copy(update={"class_weights": request.param})
    return lively(tiny_config.model_copy(update={"regions": regions}))


@torch.no_grad()
@pytest.mark.parametrize("parts", [([0, 1, 2, 3],), ([0, 1], [2, 3]), ([3], [1], [0, 2])])
def test_losses__parts_make_the_whole(weighted, batch_of, parts):
    """With a generator for each image and the weights of the parts, it does not matter who shares the batch."""
    batch = batch_of(*SIZES)

    def losses(members):
        part, targets = part_of(batch, TARGETS, members)
        generators = [torch.Generator().manual_seed(index) for index in members]
        found = weighted.losses(part, targets, generator=generators)
        return torch.stack([value for _, value in found]), found.weights

    whole, weight = losses([0, 1, 2, 3])
    sums = [losses(members) for members in parts]
    assert_close(sum(weights for _, weights in sums), weight)
    assert_close(sum(four * weights for four, weights in sums), whole * weight, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_losses__what_they_are_divided_by(tiny_model, batch_of):
    found = tiny_model.losses(batch_of(*SIZES[:2]), TARGETS[:2], generator=seeded())
    assert found.weights.tolist() == [64, 64, 32, 32]  # 32 anchors and 16 regions of each image


@torch.no_grad()
def test_losses__known_features_give_the_same(tiny_model, batch_of):
    batch = batch_of(*SIZES)
    features = tiny_model.features(batch.pixels)
    own = tiny_model.losses(batch, TARGETS, generator=seeded())
    assert tiny_model.losses(batch, TARGETS, generator=seeded(), features=features).as_floats() == own.as_floats()
    with pytest.raises(ValueError, match="zip"):
        tiny_model.losses(batch, TARGETS, generator=[seeded()], features=features)


@torch.no_grad()
def test_forward__known_features_give_the_same(tiny_model, batch_of):
    batch = batch_of((64, 64), (60, 50))  # of one padded size
    for ours, expected in zip(
        tiny_model(batch, features=tiny_model.features(batch.pixels)), tiny_model(batch), strict=True
    ):
        assert torch.equal(ours.boxes, expected.boxes)
        assert torch.equal(ours.scores, expected.scores)


def test_losses__touch_no_global_random_state(tiny_model, batch_of):
    before = torch.get_rng_state()
    tiny_model.losses(batch_of(*SIZES), TARGETS, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("label", [-1, 3])
def test_losses__label_that_does_not_exist(tiny_model, batch_of, label):
    target = Target(torch.tensor([[0.0, 0.0, 9.0, 9.0]]), torch.tensor([label]))
    with pytest.raises(ValueError, match=rf"image 0 in the batch: label {label} is not in 0\.\.2.*cat, dog, owl"):
        tiny_model.losses(batch_of((64, 64)), [target])


def test_losses__as_many_targets_as_images(tiny_model, batch_of):
    with pytest.raises(ValueError, match="2 images but 1 targets"):
        tiny_model.losses(batch_of((64, 64), (64, 64)), [NOTHING])


def test_losses__many_objects_and_objects_outside(tiny_model, batch_of):
    corners = torch.rand((500, 2), generator=seeded()) * 60
    target = Target(torch.cat([corners, corners + 3], dim=1), torch.zeros(500, dtype=torch.int64))
    outside = Target(torch.tensor([[500.0, 500.0, 520.0, 520.0]]), torch.tensor([0]))
    assert tiny_model.losses(batch_of((64, 64), (64, 64)), [target, outside]).total.isfinite()


@torch.no_grad()
def test_forward__postprocess_of_one_call(tiny_model, batch_of):
    batch = batch_of((64, 64))
    (default,) = tiny_model(batch)
    (selected,) = tiny_model(batch, postprocess=PostProcess(max_detections=1, classes=(int(default.labels[-1]),)))
    assert selected.labels.tolist() == [int(default.labels[-1])]
    (again,) = tiny_model(batch)
    assert_close(again.scores, default.scores)


@torch.no_grad()
def test_forward__no_proposals_at_all(tiny_config, tiny_model, batch_of):
    none_is_good = tiny_config.proposals.model_copy(update={"min_score": 1.0})
    model = assemble(tiny_config.model_copy(update={"proposals": none_is_good}))
    model.load_state_dict(tiny_model.state_dict())
    (found,) = model(batch_of((64, 64)))
    assert found.boxes.shape == (0, 4)
    assert found.labels.shape == found.scores.shape == (0,)


@torch.no_grad()
def test_features__normalise_the_mean_pixel_to_zero(tiny_model):
    grey = tiny_model.mean.expand(1, 3, 64, 64)
    seen = []
    handle = tiny_model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    tiny_model.features(grey)
    handle.remove()
    assert_close(seen[0], torch.zeros(1, 3, 64, 64), check_stride=False)


def test_freeze__body_gets_no_gradient(shrink, lively, batch_of):
    model = lively(shrink(presets.get("timm:test_resnet", CLASSES)))
    model.backbone.freeze(100)
    model.losses(batch_of((64, 64)), [NOTHING], generator=seeded()).total.backward()
    assert all(p.grad is None for p in model.backbone.body.parameters())
    assert all(p.grad is not None for p in model.backbone.neck.parameters())
