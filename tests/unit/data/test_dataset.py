import multiprocessing
import os
import pickle
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn.config import InputConfig, resized_hw
from fasterrcnn.data import dataset
from fasterrcnn.data.annotations import AnnotatedImage
from fasterrcnn.data.dataset import BUCKET, BatchLoader, BatchPlan, DetectionDataset
from fasterrcnn.data.transforms import AUGMENTATIONS
from fasterrcnn.errors import DataError, ImageError
from fasterrcnn.images import read_image, read_reduced
from fasterrcnn.ops import image

INPUT = InputConfig(short_side=40, long_side=60, mean=(0.1, 0.2, 0.3), antialias=True)
BOXES = np.array([[2, 4, 10, 16], [0, 0, 20, 20]], np.float32)
PRESETS = list(AUGMENTATIONS)


@pytest.fixture
def records(tmp_path, photo):
    """Images of 20 x 30, 20 x 20 and 80 x 20 pixels; the second has no objects."""
    made = []
    for number, size_hw in enumerate([(20, 30), (20, 20), (80, 20)]):
        path = tmp_path / f"{number}.png"
        photo(size_hw, number).save(path)
        boxes, labels = (BOXES[:0], []) if number == 1 else (BOXES, [1, 0])
        difficult = np.array([False, number == 2], np.bool_)[: len(boxes)]
        made.append(AnnotatedImage(path, number + 1, size_hw, boxes, np.array(labels, np.int64), difficult))
    return made


def plans_of(*batches, epoch=1) -> list[BatchPlan]:
    return [BatchPlan(tuple(batch), epoch) for batch in batches]


def same(first, second) -> bool:
    """The same bits, pixels and targets."""
    pairs = [(first[0], second[0])] + [
        (getattr(first[1], name), getattr(second[1], name)) for name in ("boxes", "labels", "ignored")
    ]
    return all(torch.equal(a, b) for a, b in pairs)


def test_dataset__boxes_are_scaled_with_the_image(records):
    examples = DetectionDataset(records, INPUT)
    assert len(examples) == 3
    pixels, target = examples[0]
    assert pixels.shape == (3, 40, 60)
    assert pixels.max() <= 1
    assert_close(target.boxes, 2 * torch.from_numpy(BOXES))
    assert target.labels.tolist() == [1, 0]
    shrunk, target = examples[2]  # the long side decides: 80 -> 60
    assert shrunk.shape == (3, 60, 15)
    assert_close(target.boxes, 0.75 * torch.from_numpy(BOXES[:1]))


@pytest.mark.parametrize("antialias", [True, False])
def test_dataset__without_augmentation_the_pixels_are_those_of_detection(records, antialias):
    config = INPUT.model_copy(update={"antialias": antialias})
    for index, annotated in enumerate(records):
        to_hw = resized_hw(annotated.size_hw, 40, 60)
        expected = image.to_input(pil_to_tensor(read_image(annotated.path)), to_hw, antialias=antialias)
        assert torch.equal(DetectionDataset(records, config)[index, 5][0], expected)


def test_dataset__original_size_keeps_the_pixels(records, photo):
    config = InputConfig(short_side=20, long_side=30)
    pixels, target = DetectionDataset(records, config)[0]
    assert_close(pixels, pil_to_tensor(photo((20, 30), 0)).float() / 255)
    assert_close(target.boxes, torch.from_numpy(BOXES))


def test_dataset__difficult_objects_are_ignored_regions(records):
    _, target = DetectionDataset(records, INPUT)[2]
    assert target.labels.tolist() == [1]
    assert_close(target.ignored, 0.75 * torch.from_numpy(BOXES[1:]))


@pytest.mark.parametrize("augmentation", ["none", "light", "default"])
def test_dataset__image_without_objects(records, augmentation):
    _, target = DetectionDataset(records, INPUT, augmentation=augmentation)[1]
    assert target.boxes.shape == target.ignored.shape == (0, 4)
    assert target.labels.shape == (0,)


@pytest.mark.parametrize("augmentation", PRESETS)
def test_dataset__the_canvas_keeps_its_size(records, augmentation):
    examples = DetectionDataset(records, INPUT, augmentation=augmentation)
    for epoch in range(6):
        assert [examples[i, epoch][0].shape[1:] for i in range(3)] == [(40, 60), (40, 40), (60, 15)]


@pytest.mark.parametrize("augmentation", ["light", "default", "strong"])
def test_dataset__views_follow_from_seed_number_and_image(records, augmentation):
    def views(seed=0, number=1, order=(0, 1, 2)):
        examples = DetectionDataset(records, INPUT, augmentation=augmentation, seed=seed)
        read = {index: examples[index, number] for index in order}
        return [read[index] for index in range(3)]

    first = views()
    assert all(same(a, b) for a, b in zip(first, views(order=(2, 0, 1)), strict=True))
    assert not any(same(a, b) for a, b in zip(first, views(seed=1), strict=True))
    assert not any(same(a, b) for a, b in zip(first, views(number=2), strict=True))


def test_dataset__view_0_is_the_image_as_detection_sees_it(records):
    varied, plain = (DetectionDataset(records, INPUT, augmentation=name) for name in ("strong", "none"))
    assert all(same(varied[index], plain[index]) and same(varied[index, 0], plain[index]) for index in range(3))


@pytest.mark.parametrize("augmentation", PRESETS)
def test_dataset__callers_generators_are_left_alone(records, augmentation):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    list(BatchLoader(DetectionDataset(records, INPUT, augmentation=augmentation)).load(plans_of([0, 1], [2])))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dataset__large_photographs_come_reduced_and_boxes_stay(tmp_path):
    """A red square on blue, 1001 x 803 pixels, in a JPEG that is decoded at 1/8: its edges are where its box is."""
    pixels = np.zeros((803, 1001, 3), np.uint8)
    pixels[..., 2] = 255
    pixels[200:600, 400:800] = (255, 0, 0)
    path = tmp_path / "large.jpg"
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)
    box = np.array([[400, 200, 800, 600]], np.float32)
    annotated = AnnotatedImage(path, 1, (803, 1001), box, np.zeros(1, np.int64), np.zeros(1, np.bool_))
    config = InputConfig(short_side=80, long_side=200, antialias=True)
    flips = set()
    for epoch in range(1, 9):
        view, target = DetectionDataset([annotated], config, augmentation="light")[0, epoch]
        found = (view[0] > view[2]).nonzero()
        edges = torch.cat([found.amin(dim=0).flip(0), found.amax(dim=0).flip(0) + 1]).float()
        assert_close(target.boxes[0], edges, rtol=0, atol=0.6)
        flips.add(bool(target.boxes[0, 0] < 30))
    assert len(flips) == 2


@pytest.mark.parametrize(
    ("suffix", "orientation", "at_least_hw", "size_hw", "divisor"),
    [
        (".jpg", 1, (150, 200), (150, 200), 4),
        (".jpg", 1, (151, 200), (300, 400), 2),
        (".jpg", 1, (10, 10), (75, 100), 8),
        (".jpg", 1, (600, 801), (600, 800), 1),
        (".jpg", 6, (200, 150), (200, 150), 4),  # stored on its side
        (".png", 1, (10, 10), (600, 800), 1),
    ],
)
def test_read_reduced__as_small_as_suffices(tmp_path, suffix, orientation, at_least_hw, size_hw, divisor):
    tags = Image.Exif()
    tags[274] = orientation
    path = tmp_path / f"photo{suffix}"
    Image.new("RGB", (800, 600), (10, 20, 30)).save(path, exif=tags)
    pil_image, reduced = read_reduced(path, at_least_hw)
    assert (pil_image.size[::-1], reduced) == (size_hw, divisor)


def test_read_reduced__damaged(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"photo\.jpg: not an image"):
        read_reduced(path, (10, 10))


def test_collate__pads_with_the_mean_pixel(records):
    examples = DetectionDataset(records, INPUT)
    batch, targets = examples.collate([examples[0], examples[2]])
    assert batch.pixels.shape == (2, 3, BUCKET, BUCKET)
    assert batch.sizes_hw == [(40, 60), (60, 15)]
    assert_close(batch.pixels[0, :, 40:, :].amax(dim=(1, 2)), torch.tensor(INPUT.mean))
    assert_close(batch.pixels[1, :, :, 15:].amin(dim=(1, 2)), torch.tensor(INPUT.mean))
    assert [len(target.boxes) for target in targets] == [2, 1]
    assert_close(batch.pixels[0, :, :40, :60], examples[0][0])


def test_collate__buckets_fit_every_divisor(records):
    examples = DetectionDataset(records, INPUT.model_copy(update={"size_divisor": 48}))
    batch, _ = examples.collate([examples[1]])
    assert batch.padded_hw == (192, 192)  # the smallest common multiple of 48 and 64


def test_collate__least_size_where_others_share_the_batch(records):
    examples = DetectionDataset(records, INPUT)
    batch, _ = examples.collate([examples[0]], (64, 128))
    assert batch.padded_hw == (64, 128)
    assert batch.sizes_hw == [(40, 60)]
    assert_close(batch.pixels[0, :, :40, :60], examples[0][0])
    assert_close(batch.pixels[0, :, :, 60:], torch.tensor(INPUT.mean).view(3, 1, 1).expand(3, 64, 68))
    small, _ = examples.collate([examples[2]], (32, 32))
    assert small.padded_hw == (64, 32)  # 60 x 15 pixels; no bucket is asked for


def test_padded_hw__size_of_an_image_alone(records):
    examples = DetectionDataset(records, INPUT)
    assert [examples.padded_hw(index) for index in range(3)] == [(64, 64)] * 3
    assert [examples.padded_hw(index, 1) for index in range(3)] == [(64, 64), (64, 64), (64, 32)]
    assert [examples.padded_hw(index, 48) for index in range(3)] == [(96, 96)] * 3
    for index in range(3):
        assert examples.collate([examples[index]])[0].padded_hw == examples.padded_hw(index)


@pytest.fixture
def many(records):
    """Twelve records of the three images, with ids of their own."""
    return [AnnotatedImage(**{**vars(records[i % 3]), "image_id": i}) for i in range(12)]


def read_epochs(examples, workers) -> list:
    loader = BatchLoader(examples, workers)
    epochs = {1: [[0, 1, 2], [3, 4], [5]], 2: [[5, 0], [11]], 4: [[7]], 5: []}
    return [batch for epoch, batches in epochs.items() for batch in loader.load(plans_of(*batches, epoch=epoch))]


def test_dataset__same_bits_with_any_number_of_threads(many):
    # The feature cache reads views one by one, training reads them in batches.
    config = INPUT.model_copy(update={"antialias": False, "short_side": 200, "long_side": 300})
    examples = DetectionDataset(many, config)
    threads = torch.get_num_threads()
    images = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            images.append(examples[0][0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*images)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("augmentation", ["none", "strong"])
def test_batch_loader__same_bits_from_any_number_of_processes(many, augmentation, antialias):
    # Large enough for torch to choose its resizing by the number of threads.
    config = INPUT.model_copy(update={"antialias": antialias, "short_side": 200, "long_side": 300})
    examples = DetectionDataset(many, config, augmentation=augmentation, seed=3)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)  # here; other processes have one
    try:
        ours, one, two = (read_epochs(examples, workers) for workers in (0, 1, 2))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert len(ours) == 6
    for other in (one, two):
        for first, second in zip(ours, other, strict=True):
            assert torch.equal(first[0].pixels, second[0].pixels)
            assert first[0].sizes_hw == second[0].sizes_hw
            assert all(same((a.boxes, a), (b.boxes, b)) for a, b in zip(first[1], second[1], strict=True))


def test_batch_loader__epochs_reach_processes_that_live_on(many):
    examples = DetectionDataset(many, INPUT, augmentation="default")
    loader = BatchLoader(examples, 2)
    for epoch in (1, 2, 7):
        ((batch, _),) = loader.load(plans_of([0], epoch=epoch))
        assert torch.equal(batch.pixels[0, :, :40, :60], examples[0, epoch][0])


@pytest.mark.parametrize("workers", [0, 1])
def test_batch_loader__planned_size(records, workers):
    plans = [BatchPlan((0,), 1, (128, 64)), BatchPlan((1, 2), 1, (32, 32)), BatchPlan((0,), 1)]
    batches = BatchLoader(DetectionDataset(records, INPUT), workers).load(plans)
    assert [batch.padded_hw for batch, _ in batches] == [(128, 64), (64, 64), (64, 64)]


@pytest.mark.parametrize("workers", [0, 1])
def test_batch_loader__image_that_cannot_be_decoded(records, workers):
    records[1].path.write_bytes(records[1].path.read_bytes()[:100])
    loader = BatchLoader(DetectionDataset(records, INPUT), workers)
    with pytest.raises(ImageError, match=r"^\S+1\.png: damaged image \([^\n]+\); on_bad_box=[^\n]+ finds all of them$"):
        list(loader.load(plans_of([0], [1], [2])))


def test_batch_loader__data_set_can_be_sent_to_new_processes(records):
    examples = DetectionDataset(records, INPUT, augmentation="default", seed=4)
    assert same(pickle.loads(pickle.dumps(examples))[0, 2], examples[0, 2])


class Waiting(DetectionDataset):
    """The second image takes for ever."""

    def __getitem__(self, key):
        index, _ = key
        if index == 1:
            (self.images[1].path.parent / "pipe").read_bytes()
        return super().__getitem__(key)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
@pytest.mark.parametrize("received", [False, pytest.param(True, marks=pytest.mark.slow)])  # True waits 5 s
def test_batch_loader__reading_process_that_dies(records, received):
    """While it reads; torch would raise an exception wherever this process is, perhaps in the midst of a file."""
    pipe = records[1].path.parent / "pipe"
    os.mkfifo(pipe)
    others, handler = set(multiprocessing.active_children()), signal.getsignal(signal.SIGCHLD)
    batches = BatchLoader(Waiting(records, INPUT), 1).load(plans_of([0], [0], [1], [0]))
    next(batches)
    if received:
        next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    with pipe.open("wb"):  # from here on, it reads from the pipe
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    assert signal.getsignal(signal.SIGCHLD) == handler
    with pytest.raises(DataError, match=r"a process that reads images died \(.*\); try fewer workers"):
        list(batches)


def test_batch_loader__died_where_processes_run_the_script_again(records, monkeypatch):
    monkeypatch.setattr(dataset, "start_method", lambda: "spawn")
    loader = BatchLoader(DetectionDataset(records, INPUT))

    def died(_):
        raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly")
        yield

    monkeypatch.setattr(dataset, "_iterate", died)
    with pytest.raises(
        DataError, match=r'\); each runs the script again: call fit below if __name__ == "__main__":, or take workers=0'
    ):
        list(loader.load(plans_of([0])))


@pytest.mark.parametrize(("platform", "default", "method"), [("linux", "spawn", "fork"), ("darwin", "spawn", "spawn")])
def test_start_method(monkeypatch, platform, default, method):
    monkeypatch.setattr(dataset.sys, "platform", platform)
    context = multiprocessing.get_context(default)
    monkeypatch.setattr(dataset.multiprocessing, "get_context", lambda: context)
    assert dataset.start_method() == method


@pytest.mark.parametrize("workers", [0, 1])
def test_batch_loader__in_bytes(records, workers):
    examples = DetectionDataset(records, INPUT, augmentation="default")
    ((exact, targets),) = BatchLoader(examples).load(plans_of([0, 2]))
    ((rounded, again),) = BatchLoader(examples, workers, as_bytes=True).load(plans_of([0, 2]))
    assert rounded.sizes_hw == exact.sizes_hw
    assert_close(rounded.pixels, exact.pixels, rtol=0, atol=0.5 / 255 + 1e-6)
    assert not torch.equal(rounded.pixels, exact.pixels)
    assert all(same((a.boxes, a), (b.boxes, b)) for a, b in zip(targets, again, strict=True))


def test_batch_loader__pinned_for_cuda_alone(records):
    examples = DetectionDataset(records, INPUT)
    kinds = {kind: BatchLoader(examples, device=torch.device(kind)) for kind in ("cpu", "cuda", "mps")}
    assert {kind: loader._loader.pin_memory for kind, loader in kinds.items()} == {
        "cpu": False,
        "cuda": True,
        "mps": False,
    }
