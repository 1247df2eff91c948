import dataclasses
import os

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fasterrcnn.config import InputConfig
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.dataset import BatchPlan, DetectionDataset
from fasterrcnn.errors import TrainingError, UsageError
from fasterrcnn.ops.image import make_batch
from fasterrcnn.training.data import Process
from fasterrcnn.training.feature_cache import FeatureCache, check_cache_size, fill_caches, frozen_maps
from fasterrcnn.training.fit import fit
from fasterrcnn.weights import native

INPUT = InputConfig(short_side=64, long_side=96)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fasterrcnn" / "features"


@pytest.fixture
def images(tmp_path, photo):
    """Three wide images, a tall one without objects, and one to validate."""
    rows = []
    for number, size_hw in enumerate([(64, 96), (64, 96), (64, 80), (96, 64), (64, 96)]):
        path = tmp_path / f"{number}.png"
        photo(size_hw, number).save(path)
        boxes = [] if number == 3 else [[4, 4, 30, 30], [20, 25, 60, 50]]
        labels = [] if number == 3 else ["cat", "dog"]
        rows.append({"image": path, "boxes": boxes, "labels": labels, "split": "val" if number == 4 else "train"})
    return rows


@pytest.fixture(scope="module")
def start(tmp_path_factory, tiny_config, lively):
    """Weights of the tiny network for the classes of the images."""
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    config = tiny_config.with_classes(["cat", "dog"])
    native.save_checkpoint(path, lively(config), config)
    return path


@pytest.fixture
def run(images, start, tmp_path, tiny_config):
    """A run with a frozen backbone; its name, and whatever is to be otherwise."""

    def train(name, **changes):
        options = {"weights": str(start), "freeze": "backbone", "epochs": 3, "batch_size": 2, "logger": "none"}
        options |= {"short_side": 64, "model": tiny_config.model_dump(), **changes}
        return fit(images, output=tmp_path / name, **options)

    return train


def weights_of(run):
    return native.load_checkpoint(run.last)[0]


def same(first, second) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def files(folder):
    return {path: path.stat().st_ino for path in folder.glob("*/*")}


@pytest.fixture
def examples(images) -> DetectionDataset:
    records = []
    for number, row in enumerate(images):
        size = (96, 64) if number == 3 else (64, 80) if number == 2 else (64, 96)
        boxes = np.array(row["boxes"], np.float32).reshape(-1, 4)
        records.append(
            AnnotatedImage(row["image"], number, size, boxes, np.zeros(len(boxes), int), np.zeros(len(boxes), bool))
        )
    return DetectionDataset(records, INPUT, augmentation="light")


@pytest.mark.parametrize("views", [pytest.param(None, marks=pytest.mark.slow), 2])
def test_cache__changes_nothing_but_the_time(run, folder, views):
    cached = run("cached", cache_features=True, views=views)
    plain = run("plain", views=views or 1)
    assert same(weights_of(cached), weights_of(plain))
    assert cached.metrics == {**plain.metrics, "seconds": cached.metrics["seconds"]}
    assert len(files(folder)) == 4 * (views or 1) + 1


def test_cache__is_there_for_the_next_run(run, folder):
    run("first", cache_features=True)
    before = files(folder)
    run("second", cache_features=True, epochs=1, learning_rate=1e-4)
    assert files(folder) == before


def test_cache__ends_when_the_body_begins_to_learn(run, start):
    cached = run("cached", cache_features=True, views=1, unfreeze_at=3)
    plain = run("plain", views=1, unfreeze_at=3)
    assert same(weights_of(cached), weights_of(plain))
    body = {key: value for key, value in native.load_checkpoint(start)[0].items() if key.startswith("backbone.body.")}
    assert not same(body, weights_of(cached))
    assert same(body, weights_of(run("frozen", cache_features=True, epochs=1)))


def test_cache__new_images_after_the_body_began_to_learn(run, examples):
    """Without a word about views, the whole network sees ever new ones."""
    cached = run("cached", cache_features=True, unfreeze_at=2)
    assert not same(weights_of(cached), weights_of(run("plain", views=1, unfreeze_at=2)))


def test_cache__more_than_the_limit(run, tmp_path):
    with pytest.raises(UsageError, match=r"5 views of images, 0.00 GiB in \S+: more than cache_limit, 1e-06 GiB"):
        run("run", cache_features=True, cache_limit=1e-6)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"freeze": 2}, {"train_norms": True}])
def test_cache__needs_a_frozen_body(run, changes):
    with pytest.raises(UsageError, match="cache_features needs a backbone that stays as it is"):
        run("run", cache_features=True, **changes)


def test_load__what_was_written(tiny_model, examples, folder):
    cache = FeatureCache(tiny_model, examples, [0, 1])
    fill_caches([cache], 1.0, Process(), bar=False)
    (step,) = cache.load([BatchPlan((0, 3), 1, (128, 128))])
    batch, targets = examples.collate([examples[0, 1], examples[3, 1]], (128, 128))
    for ours, theirs in zip(step.targets, targets, strict=True):
        assert torch.equal(ours.boxes, theirs.boxes)
        assert torch.equal(ours.labels, theirs.labels)
    assert step.batch.sizes_hw == batch.sizes_hw
    assert step.batch.padded_hw == batch.padded_hw
    assert all(map(torch.equal, step.maps, frozen_maps(tiny_model, batch)))


def test_frozen_maps__each_image_as_if_alone(tiny_model, make_pixels):
    images = [make_pixels(size, number) for number, size in enumerate([(64, 96), (128, 64)])]
    batch = make_batch(images, fill=INPUT.mean, size_divisor=64)
    maps = frozen_maps(tiny_model, batch)
    for number, size in enumerate([(64, 128), (128, 64)]):
        alone = make_batch([images[number]], fill=INPUT.mean, size_divisor=64)
        assert alone.padded_hw == size
        expected = tiny_model.backbone.body(tiny_model.normalised(alone.pixels))
        for ours, theirs in zip(maps, expected, strict=True):
            height, width = theirs.shape[-2:]
            assert_close(ours[number, :, :height, :width], theirs[0], rtol=1e-3, atol=1e-4)
            assert not ours[number, :, height:].any()
            assert not ours[number, :, :, width:].any()


def test_frozen_maps__layers_that_draw_stand_still(tiny_model, batch_of):
    model = tiny_model.train()
    try:
        first, second = (frozen_maps(model, batch_of((64, 64))) for _ in range(2))
        assert all(map(torch.equal, first, second))
        assert model.backbone.body.training
    finally:
        model.eval()


def test_load__damaged_entry(tiny_model, examples):
    cache = FeatureCache(tiny_model, examples, [0])
    fill_caches([cache], 1.0, Process(), bar=False)
    path = cache.path(1, 0)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match=rf"{path}: an entry of the feature cache cannot be read .*remove the file"):
        list(cache.load([BatchPlan((1,), 0, (64, 128))]))


def test_path__follows_from_all_that_decides(tiny_model, examples, lively, tiny_config):
    def paths(data=examples, number=1, model=tiny_model, bucket=64):
        return FeatureCache(model, data, [number], bucket=bucket).path(0, number)

    def others(**changes):
        return DetectionDataset(**{**_arguments(examples), **changes})

    assert paths() == paths(others())
    moved = dataclasses.replace(examples.images[0], boxes=examples.images[0].boxes + 1)
    different = [
        paths(number=0),
        paths(number=2),
        paths(others(seed=1)),
        paths(others(augmentation="strong")),
        paths(others(images=[moved, *examples.images[1:]])),
        paths(others(images=examples.images[:3])),  # views may hold parts of other images
        paths(others(config=INPUT.model_copy(update={"antialias": True}))),
        paths(bucket=128),
    ]
    with torch.no_grad():
        model = lively(tiny_config)
        next(model.backbone.body.parameters()).mul_(1.01)
    different.append(paths(model=model))
    assert len({paths(), *different}) == 10
    assert paths(number=0) == paths(others(seed=1, augmentation="strong", images=examples.images[:3]), number=0)


def _arguments(examples):
    return {name: getattr(examples, name) for name in ("images", "config", "augmentation", "seed")}


def test_size__is_what_is_written(tiny_model, examples, folder):
    cache = FeatureCache(tiny_model, examples, [0, 1])
    fill_caches([cache], 1.0, Process(), bar=False)
    written = sum(path.stat().st_size for path in files(folder))
    assert cache.size() < written < cache.size() + 1500 * len(cache.keys)
    assert check_cache_size([cache], 1.0).startswith("feature cache: 10 views of images, 0.00 GiB in ")


def test_fill_caches__processes_share_the_work(tiny_model, examples, folder):
    cache = FeatureCache(tiny_model, examples, [0])
    fill_caches([cache], 1.0, Process(1, 2), bar=False)
    assert set(files(folder)) == {cache.path(1, 0), cache.path(3, 0)}
    fill_caches([cache], 1.0, Process(0, 2), bar=False)
    assert len(files(folder)) == 5


def test_fill_caches__the_longest_unused_goes_first(tiny_model, examples, folder):
    old, new = folder / "aa" / "old.safetensors", folder / "bb" / "new.safetensors"
    for age, path in [(200, old), (100, new)]:
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(2**20))
        os.utime(path, (1e9 - age, 1e9 - age))
    cache = FeatureCache(tiny_model, examples, [0])
    fill_caches([cache], (cache.size() + 1.5 * 2**20) / 2**30, Process(), bar=False)
    assert not old.exists()
    assert new.exists()
    fill_caches([cache], cache.size() / 2**30, Process(), bar=False)
    assert not new.exists()
    assert len(files(folder)) == 5
