from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from fasterrcnn import presets
from fasterrcnn.config import InputConfig, TrainConfig
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.dataset import BatchLoader, DetectionDataset
from fasterrcnn.training.data import (
    Process,
    TrainingBatches,
    ValidationBatches,
    epoch_batches,
    order_of_epoch,
    plans_of_process,
    repeat_factors,
    seeded_rng,
    validation_plans,
)

INPUT = InputConfig(short_side=40, long_side=120)
MODEL = presets.get("timm:test_efficientnet", ["cat", "dog", "owl"])
WIDE, TALL = (10, 20), (20, 10)


def record(number, size_hw, labels=(), difficult=()) -> AnnotatedImage:
    boxes = np.tile(np.array([[1, 1, 9, 9]], np.float32), (len(labels), 1))
    marks = np.isin(np.arange(len(labels)), difficult)
    return AnnotatedImage(Path(f"{number}.jpg"), number, size_hw, boxes, np.array(labels, np.int64), marks)


def examples_of(*sizes_hw) -> DetectionDataset:
    """Images that need not be read."""
    return DetectionDataset([record(i, size) for i, size in enumerate(sizes_hw)], INPUT)


def settings(**changes) -> TrainConfig:
    return TrainConfig(data="x", model=MODEL, **{"batch_size": 2, **changes})


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
@pytest.mark.parametrize("count", [1, 7, 12])
def test_epoch_batches__cover_every_image_once(count, batch_size):
    images = examples_of(*[WIDE, TALL, (10, 10)] * count)
    batches = epoch_batches(images, batch_size, Random(0))
    assert sorted(i for batch in batches for i in batch) == list(range(3 * count))
    assert len(batches) == -(-3 * count // batch_size)
    assert sum(len(batch) < batch_size for batch in batches) <= 1


def test_epoch_batches__wide_and_tall_apart():
    for batch in epoch_batches(examples_of(*[WIDE, TALL] * 10), 5, Random(0)):
        assert len({index % 2 for index in batch}) == 1


def test_epoch_batches__at_most_one_is_mixed():
    batches = epoch_batches(examples_of(*[WIDE, TALL] * 7), 4, Random(0))
    assert sum(len({index % 2 for index in batch}) == 2 for batch in batches) == 1


def test_epoch_batches__seed_decides():
    images, random = examples_of(*[WIDE] * 20), Random(0)
    first, second = (epoch_batches(images, 4, random) for _ in range(2))
    assert first != second
    assert first == epoch_batches(images, 4, Random(0))


def test_epoch_batches__no_images():
    assert epoch_batches(examples_of(), 4, Random(0)) == []


def test_epoch_batches__factors():
    seen = Counter(
        i for batch in epoch_batches(examples_of(WIDE, TALL, WIDE), 2, Random(0), [1.0, 3.0, 2.0]) for i in batch
    )
    assert seen == {0: 1, 1: 3, 2: 2}


def test_seeded_rng__follow_from_the_parts():
    first = seeded_rng("a", 1).random()
    assert seeded_rng("a", 1).random() == first
    assert len({first, seeded_rng("a", 2).random(), seeded_rng("b", 1).random()}) == 3


@pytest.mark.parametrize(
    "factors",
    [[1.0] * 5, [2.0, 1.0, 3.0], [1.5, 1.5], [1.5, 1.0, 2.5, 1.0], [1.25] * 8, [1.0, 1.0, 1.41], [1.0, 1.3, 1.3]],
)
def test_order_of_epoch__floor_or_ceil_of_the_factor_and_a_constant_total(factors):
    lengths = set()
    for seed in range(100):
        seen = Counter(order_of_epoch(factors, Random(seed)))
        lengths.add(seen.total())
        for index, factor in enumerate(factors):
            assert int(factor) <= seen[index] <= -int(-factor // 1)
    assert len(lengths) == 1
    assert abs(lengths.pop() - sum(factors)) < 1


def test_order_of_epoch__chance_decides_who_is_rounded_up():
    seen = Counter(index for seed in range(400) for index in order_of_epoch([1.5] * 4, Random(seed)))
    assert seen.total() == 400 * 6
    for index in range(4):
        assert seen[index] == pytest.approx(600, abs=60)  # six times the standard deviation


def test_order_of_epoch__shuffled_and_empty():
    factors = [1.0] * 10
    assert len({tuple(order_of_epoch(factors, Random(seed))) for seed in range(20)}) == 20
    assert order_of_epoch([], Random(0)) == []


def test_repeat_factors__by_hand():
    records = [record(i, WIDE, [0]) for i in range(6)] + [record(6, WIDE, [0, 1, 1]), record(7, WIDE, [2], [0])]
    # Cats are in 7 of 8 images, dogs in 1, owls, which are difficult, in none: sqrt(0.5 / 0.125) = 2 for dogs.
    assert repeat_factors(records, 3, 0.5) == pytest.approx([1.0] * 6 + [2.0, 1.0])
    assert repeat_factors(records, 3, 0.125) == [1.0] * 8
    assert repeat_factors(records, 3, 0.0) == [1.0] * 8


def test_repeat_factors__nothing_there():
    assert repeat_factors([], 3, 0.3) == []
    assert repeat_factors([record(0, WIDE)], 3, 0.3) == [1.0]


SIZES = [(40, 40), (40, 100), (100, 40), (40, 60), (70, 70), (60, 40), (50, 50)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_plans_of_process__processes_together_have_the_whole_batch(world):
    examples = examples_of(*SIZES)
    batches = [[0, 1, 2, 3], [4, 6], [5]]
    shares = [plans_of_process(examples, batches, 7, Process(rank, world)) for rank in range(world)]
    assert {len(plans) for plans in shares} == {3}
    for batch, plans in zip(batches, zip(*shares, strict=True), strict=True):
        assert sorted(i for plan in plans if plan.counts for i in plan.indices) == sorted(batch)
        sizes = [examples.padded_hw(index) for index in batch]
        assert {plan.padded_hw for plan in plans} == {(max(h for h, _ in sizes), max(w for _, w in sizes))}
        assert {plan.view for plan in plans} == {7}


def test_plans_of_process__padded_as_the_whole_batch_would_be(tmp_path, photo):
    """A wide and a tall image need 64 x 128 and 128 x 64; in one batch, both are 128 x 128."""
    records = []
    for number, size_hw in enumerate([(40, 100), (100, 40)]):
        photo(size_hw, number).save(tmp_path / f"{number}.png")
        records.append(replace(record(number, size_hw), path=tmp_path / f"{number}.png"))
    examples = DetectionDataset(records, INPUT)
    whole, _ = examples.collate([examples[0], examples[1]])
    for rank in (0, 1):
        plans = plans_of_process(examples, [[0, 1]], 1, Process(rank, 2))
        ((batch, _),) = BatchLoader(examples).load(plans)
        assert batch.padded_hw == whole.padded_hw == (128, 128)
        assert torch.equal(batch.pixels[0], whole.pixels[rank])


def test_plans_of_process__process_without_images_takes_part():
    examples = examples_of(*SIZES)
    ((first,), (second,)) = (plans_of_process(examples, [[5]], 1, Process(rank, 2)) for rank in (0, 1))
    assert (first.indices, first.counts) == ((5,), True)
    assert (second.indices, second.counts) == ((5,), False)
    assert first.padded_hw == second.padded_hw


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_plans__every_image_once_and_only_equal_sizes_together(world, batch_size):
    examples = examples_of(*SIZES, *SIZES)
    plans = [plan for rank in range(world) for plan in validation_plans(examples, batch_size, Process(rank, world))]
    assert sorted(i for plan in plans for i in plan.indices) == list(range(len(examples)))
    for plan in plans:
        assert plan.counts
        assert len(plan.indices) <= batch_size
        # The padding of each image alone: multiples of what the network needs, no more.
        assert {examples.padded_hw(index, 1) for index in plan.indices} == {plan.padded_hw}


def test_validation_plans__more_processes_than_batches():
    ((first,), (second,)) = (validation_plans(examples_of(WIDE, WIDE), 4, Process(rank, 2)) for rank in (0, 1))
    assert (first.indices, first.counts) == ((0, 1), True)
    assert (second.indices, second.counts) == ((0,), False)


@pytest.fixture
def images(tmp_path, photo):
    """Five small images on the disk."""
    records = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        photo((20, 30), number).save(path)
        records.append(replace(record(number, (20, 30), [number % 3]), path=path))
    return DetectionDataset(records, INPUT, augmentation="light")


def test_training_batches__an_epoch_at_each_iteration(images):
    batches = TrainingBatches(images, settings(), Process(), 0)
    assert len(batches) == 3
    for epoch in (1, 2):
        steps = list(batches)
        assert [step.plan for step in steps] == batches.plans(epoch)
        assert sorted(i for step in steps for i in step.plan.indices) == list(range(5))
        for step in steps:
            assert len(step.batch) == len(step.targets) == len(step.plan.indices)
            for pixels, index in zip(step.batch.pixels, step.plan.indices, strict=True):
                assert torch.equal(pixels[:, :40, :60], images[index, epoch][0])
    assert batches.plans(1) != batches.plans(2)


@pytest.mark.parametrize("done", range(7))
def test_training_batches__go_on_exactly_where_they_were(images, done):
    def endless(batches):
        while True:
            yield from batches

    def kept(batches, count):
        return [(step.plan, step.batch.pixels) for _, step in zip(range(count), endless(batches), strict=False)]

    whole = kept(TrainingBatches(images, settings(), Process(), 0), 9)
    first = TrainingBatches(images, settings(), Process(), 0)
    before = kept(first, done)
    second = TrainingBatches(images, settings(), Process(), 0)
    second.load_state_dict(first.state_dict() if done else {"epoch": 1, "done": 0})
    both = before + kept(second, 9 - done)
    assert [plan for plan, _ in both] == [plan for plan, _ in whole]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(both, whole, strict=True))


def test_training_batches__state_after_each_batch(images):
    batches = TrainingBatches(images, settings(), Process(), 0)
    assert [batches.state_dict() for _ in batches] == [
        {"epoch": 1, "done": 1},
        {"epoch": 1, "done": 2},
        {"epoch": 2, "done": 0},
    ]


def test_training_batches__views_come_again():
    images = examples_of(*[WIDE] * 4)
    once, twice, ever_new = (
        [
            {plan.view for plan in TrainingBatches(images, settings(views=views), Process(), 0).plans(epoch)}
            for epoch in range(1, 6)
        ]
        for views in (1, 2, None)
    )
    assert once == [{0}] * 5
    assert twice == [{0}, {1}, {0}, {1}, {0}]
    assert ever_new == [{1}, {2}, {3}, {4}, {5}]


@pytest.mark.parametrize("world", [1, 2])
def test_training_batches__as_many_steps_in_every_epoch(world):
    records = [record(i, WIDE if i % 2 else TALL, [0] if i < 10 else [0, 1]) for i in range(11)]
    examples = DetectionDataset(records, INPUT)
    balanced = settings(class_balance="repeat", repeat_below=1.0)
    plain, repeated = (TrainingBatches(examples, s, Process(0, world), 0) for s in (settings(), balanced))
    assert len(plain) == -(-11 // (2 * world))
    assert len(repeated) > len(plain)
    for batches in (plain, repeated):
        assert {len(batches.plans(epoch)) for epoch in range(1, 30)} == {len(batches)}


def test_training_batches__seed_decides():
    images = examples_of(*[WIDE] * 20)
    plans = [TrainingBatches(images, settings(seed=seed), Process(), 0).plans(1) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


def test_validation_batches__images_as_detection_sees_them(images):
    plain = DetectionDataset(images.images, INPUT)
    batches = ValidationBatches(plain, settings(batch_size=2), Process(), 0)
    assert len(batches) == 3
    for _ in range(2):  # the same at each pass
        steps = list(batches)
        assert [step.plan.indices for step in steps] == [(0, 1), (2, 3), (4,)]
        for step in steps:
            assert step.batch.padded_hw == (64, 64)
            for pixels, index in zip(step.batch.pixels, step.plan.indices, strict=True):
                assert torch.equal(pixels[:, :40, :60], plain[index][0])
