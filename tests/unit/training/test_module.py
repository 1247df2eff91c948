import copy

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.config import TrainConfig
from fasterrcnn.data.annotations import AnnotatedData, AnnotatedImage
from fasterrcnn.data.dataset import BatchLoader, BatchPlan, DetectionDataset
from fasterrcnn.errors import ImageError, TrainingError
from fasterrcnn.training import fit
from fasterrcnn.training.data import Process, Step, TrainingBatches, ValidationBatches
from fasterrcnn.training.fit import make_trainer, quiet_lightning
from fasterrcnn.training.module import TrainingModule, check_weights
from fasterrcnn.training.validation import Validation

CPU = torch.device("cpu")
CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def records(tmp_path, photo) -> list[AnnotatedImage]:
    """Three images of 64 x 64 with two objects each."""
    made = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        photo((64, 64), number).save(path)
        boxes = np.array([[4, 4, 30, 30], [20, 25, 60, 50]], np.float32) + number
        made.append(AnnotatedImage(path, number, (64, 64), boxes, np.array([number, 1]), np.zeros(2, np.bool_)))
    return made


@pytest.fixture
def settings(tiny_config):
    """Settings of a short run of the tiny network from random numbers."""
    defaults = {
        "data": "x",
        "model": tiny_config,
        "weights": None,
        "batch_size": 2,
        "epochs": 2,
        "augmentation": "light",
    }
    return lambda **changes: TrainConfig(**{**defaults, **changes})


@pytest.fixture
def network(tiny_model):
    """Copies of the tiny network, to be changed."""
    return lambda: copy.deepcopy(tiny_model)


def trained(model, records, config, run, *, workers=0, validated=False) -> TrainingModule:
    """A whole run as the engine does it."""
    examples = DetectionDataset(records, config.model.input, augmentation=config.augmentation, seed=config.seed)
    batches = TrainingBatches(examples, config, Process(), workers)
    validation, val_batches = None, None
    if validated:
        plain = DetectionDataset(records, config.model.input)
        validation = Validation(AnnotatedData(run, "test", CLASSES, {"all": records}), plain, Process())
        val_batches = ValidationBatches(plain, config, Process(), workers)
    module = TrainingModule(model, config, records, len(batches) * config.epochs, validation).train()
    with quiet_lightning(), torch.random.fork_rng():
        trainer = make_trainer(config, CPU, Process(), run, [], False)
        try:
            trainer.fit(module, batches, val_batches)
        finally:
            del batches._loader  # its processes end now; in a cycle of garbage, each would take 5 seconds
    return module


def ready(model, records, config, run) -> TrainingModule:
    """A module whose steps can be called; its norms are fixed, so that only draws could tie images together."""
    module = TrainingModule(model, config, records, 10).eval()
    with quiet_lightning():
        module.trainer = make_trainer(config, CPU, Process(), run, [], False)
    return module


def step_of(records, config, *indices) -> Step:
    examples = DetectionDataset(records, config.model.input)
    plan = BatchPlan(indices, 1)
    ((batch, targets),) = BatchLoader(examples).load([plan])
    return Step(plan, batch, targets)


def weights_of(module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.model.state_dict().items()}


def same(first, second) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def test_training__same_bits_from_any_number_of_workers(network, records, settings, tmp_path):
    runs = [trained(network(), records, settings(), tmp_path, workers=workers) for workers in (0, 1, 2)]
    assert all(same(weights_of(runs[0]), weights_of(run)) for run in runs[1:])
    assert not same(weights_of(runs[0]), network().state_dict())


def test_training__seed_decides(network, records, settings, tmp_path):
    first, again, other = (weights_of(trained(network(), records, settings(seed=seed), tmp_path)) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("workers", [0, 1])
def test_training__names_a_image_that_cannot_be_decoded(network, records, settings, tmp_path, workers):
    records[1].path.write_bytes(records[1].path.read_bytes()[:100])
    with pytest.raises(ImageError, match=r"^\S+1\.png: damaged image \([^\n]+\); on_bad_box=[^\n]+$"):
        trained(network(), records, settings(), tmp_path, workers=workers)


def test_training__validation_changes_nothing(network, records, settings, tmp_path):
    plain = trained(network(), records, settings(), tmp_path)
    validated = trained(network(), records, settings(), tmp_path, validated=True)
    assert same(weights_of(plain), weights_of(validated))
    losses = {"objectness", "rpn_boxes", "classes", "boxes", "total"}
    assert set(validated.measured) == {f"val_{name}" for name in losses} | {"ap", "ap50", "ap75"}
    assert plain.measured == {}


def test_training__same_validation_of_the_same_weights(network, records, settings, tmp_path):
    """All that learns is frozen at a rate of nearly nothing: each epoch measures the same network."""
    config = settings(learning_rate=1e-30, weight_decay=0)
    model = network()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    first = trained(copy.deepcopy(model), records, config.model_copy(update={"epochs": 1}), tmp_path, validated=True)
    second = trained(copy.deepcopy(model), records, config, tmp_path, validated=True)
    assert first.measured == second.measured


def test_training_step__does_not_depend_on_batch_mates(network, records, settings, tmp_path):
    """Of each image as many anchors and regions are drawn: the loss of several is the mean of theirs alone."""
    config = settings()
    module = ready(network(), records, config, tmp_path)

    def losses(*indices):
        step = step_of(records, config, *indices)
        total = module.training_step(step, 0)
        assert_close(total.detach(), module.losses.sum())
        drawn = module.model.losses(step.batch, step.targets).weights
        assert drawn.tolist() == [32 * len(indices)] * 2 + [16 * len(indices)] * 2
        return module.losses

    alone = [losses(index) for index in range(3)]
    for together in [(0, 1), (1, 0), (2, 1), (0, 1, 2)]:
        expected = torch.stack([alone[index] for index in together]).mean(dim=0)
        assert_close(losses(*together), expected, rtol=1e-4, atol=1e-6)


def test_training_step__does_not_depend_on_the_state_of_the_generator(network, records, settings, tmp_path):
    module = ready(network(), records, settings(), tmp_path)
    step, totals = step_of(records, settings(), 0, 1), []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            totals.append(module.training_step(step, 0).detach())
    assert torch.equal(*totals)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_training_step__loss_that_is_not_finite(network, records, settings, tmp_path, bad):
    module = ready(network(), records, settings(), tmp_path)
    torch.nn.init.constant_(module.model.box_head.class_logits.bias, bad)
    module.training_step(step_of(records, settings(), 2, 0), 0)
    with pytest.raises(TrainingError, match=r"^a loss is not finite at step 1: objectness \d.*classes nan") as caught:
        module.on_after_backward()
    assert f"images: {records[2].path}, {records[0].path}; lower the learning rate" in str(caught.value)
    assert str(records[1].path) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_training__loss_that_is_not_finite_changes_no_weight(network, records, settings, tmp_path):
    model = network()
    torch.nn.init.constant_(model.box_head.class_logits.bias, float("nan"))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TrainingError, match="a loss is not finite at step 1"):
        trained(model, records, settings(), tmp_path)
    del before["box_head.class_logits.bias"]
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items() if "running" not in key)


def test_check_weights__names_one_that_is_not_finite(network):
    model = network()
    check_weights(model, 3)
    with torch.no_grad():
        model.rpn.deltas.bias[1] = float("inf")
    with pytest.raises(
        TrainingError, match=r"^rpn\.deltas\.bias is not finite after epoch 3; lower the learning rate$"
    ):
        check_weights(model, 3)


@pytest.fixture
def normed(tiny_config, lively):
    """The tiny network with batch norms whose statistics nothing has moved yet."""
    backbone = tiny_config.backbone.model_copy(update={"norm": "batch"})
    return lively(tiny_config.model_copy(update={"backbone": backbone}))


def norms_of(model) -> list[torch.nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("options", "fixed"),
    [({"weights": "x.pth"}, True), ({"weights": "x.pth", "train_norms": True}, False), ({"weights": None}, False)],
)
def test_train__pretrained_norms_stay_fixed(normed, records, settings, options, fixed):
    *known, fresh = norms_of(normed)
    for norm in known:
        norm.running_mean.fill_(0.5)
    module = TrainingModule(normed, settings(freeze=0, **options), records, 10).train()
    for norm in known:
        assert norm.training != fixed
        assert all(p.requires_grad != fixed for p in norm.parameters())
    assert fresh.training
    assert all(p.requires_grad for p in fresh.parameters())
    assert module.model.training


def test_train__norms_stay_in_a_run_that_goes_on(normed, records, settings):
    """Fresh norms that were trained have statistics like pretrained ones: the state distinguishes them."""
    config = settings(weights="x.pth", freeze=0)
    first, second = norms_of(normed)[:2]
    first.running_mean.fill_(0.5)
    state: dict = {}
    TrainingModule(normed, config, records, 10).on_save_checkpoint(state)
    second.running_mean.fill_(0.5)
    later = TrainingModule(normed, config, records, 10)
    later.on_load_checkpoint(state)
    later.train()
    assert [norm.training for norm in (first, second)] == [False, True]
    assert [norm.weight.requires_grad for norm in (first, second)] == [False, True]


def test_freeze_for__parts_begin_to_learn_with_an_epoch(network, records, settings):
    module = TrainingModule(network(), settings(weights="x.pth", freeze="backbone", unfreeze_at=2), records, 10)
    body = list(module.model.backbone.body.parameters())
    assert all(p.requires_grad for p in body)  # all that will ever learn is known from the beginning
    module.freeze_for(1)
    assert not any(p.requires_grad for p in body)
    module.freeze_for(2)
    assert all(p.requires_grad for p in body)


def test_training__frozen_body_stays(network, records, settings, tmp_path):
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    after = weights_of(trained(model, records, settings(weights="x.pth", freeze="backbone"), tmp_path))
    body = [name for name, _ in model.backbone.body.named_parameters(prefix="backbone.body")]
    assert all(torch.equal(before[name], after[name]) for name in body)
    assert not torch.equal(before["rpn.objectness.weight"], after["rpn.objectness.weight"])


@pytest.mark.parametrize(
    ("device", "cores", "devices", "workers"),
    [("cpu", 16, 1, 0), ("cuda", 2, 1, 2), ("cuda", 16, 1, 8), ("cuda", 8, 4, 2), ("cuda", 2, 4, 1), ("mps", 8, 1, 8)],
)
def test_default_workers(monkeypatch, device, cores, devices, workers):
    monkeypatch.setattr(fit, "processors", lambda: cores)
    monkeypatch.setattr(fit, "start_method", lambda: "fork")
    assert fit.default_workers(torch.device(device), devices) == workers


def test_default_workers__none_where_processes_run_the_script_again(monkeypatch):
    monkeypatch.setattr(fit, "start_method", lambda: "spawn")
    assert fit.default_workers(torch.device("mps")) == 0
