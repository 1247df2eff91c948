import gc
import multiprocessing
import pickle
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from types import GeneratorType

import numpy as np
import pytest
import torch
from PIL import Image
from tests.e2e.forked import CONTEXT
from torch.testing import assert_close
from torchvision.transforms.functional import pil_to_tensor

from fasterrcnn.config import resized_hw
from fasterrcnn.detections import Detections
from fasterrcnn.errors import ImageError, MissingExtraError, UsageError, WeightsError
from fasterrcnn.inference.detector import Detector, load
from fasterrcnn.inference.devices import choose_device
from fasterrcnn.inference.video import atomic_video
from fasterrcnn.ops.image import make_batch, to_input

CLASSES = ("cat", "dog", "owl")
SIZES = [(120, 160), (200, 90), (64, 64), (120, 160)]


@pytest.fixture(scope="module")
def detector(checkpoint) -> Detector:
    return load(checkpoint, device="cpu")


@pytest.fixture
def files(tmp_path, photo):
    paths = [tmp_path / f"{number}.png" for number in range(len(SIZES))]
    for number, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        photo(size, number).save(path)
    return paths


def same(ours: Detections, theirs: Detections, tolerance: float = 1e-4) -> None:
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=100 * tolerance)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=tolerance)
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert ours.image_hw == theirs.image_hw


def test_predict__a_value_of_plain_numpy(detector, photo):
    found = detector.predict(photo((120, 160)))
    assert len(found) > 3
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert found.boxes.shape == (len(found), 4)
    assert found.classes == CLASSES
    assert (np.diff(found.scores) <= 0).all()


def test_predict__kinds_of_sources_agree(detector, files, photo):
    image = photo(SIZES[0], 0)
    expected = detector.predict(image)
    for source in (
        files[0],
        str(files[0]),
        np.asarray(image),
        pil_to_tensor(image),
        pil_to_tensor(image).float() / 255,
    ):
        same(detector.predict(source), expected)
    assert detector.predict(files[0]).source == files[0]
    assert detector.predict(image).source is None


def test_predict__many_sources(detector, files, tmp_path):
    expected = [detector.predict(path) for path in files]
    listed = detector.predict(files)
    assert isinstance(listed, list)
    for ours, theirs in zip(listed, expected, strict=True):
        same(ours, theirs)
    for source in (tmp_path, f"{tmp_path}/*.png"):
        found = detector.predict(source)
        assert isinstance(found, GeneratorType)
        for ours, theirs in zip(found, expected, strict=True):
            same(ours, theirs)
            assert ours.source == theirs.source
    assert detector.predict([]) == []


@pytest.mark.parametrize("batch_size", [2, 3, 10])
def test_predict__batches_change_nothing(detector, files, batch_size):
    for ours, theirs in zip(detector.predict(files, batch_size=batch_size), detector.predict(files), strict=True):
        same(ours, theirs)


def test_predict__boxes_are_in_pixels_of_the_original(detector, tiny_model, tiny_config, photo):
    image = photo((240, 320))
    pixels = pil_to_tensor(image)
    size = tiny_config.input
    inner = to_input(pixels, resized_hw((240, 320), size.short_side, size.long_side), antialias=size.antialias)
    with torch.no_grad():
        (raw,) = tiny_model(make_batch([inner], fill=size.mean, size_divisor=size.size_divisor))
    found = detector.predict(image)
    factor = torch.tensor([320 / inner.shape[2], 240 / inner.shape[1]] * 2)
    assert_close(torch.from_numpy(found.boxes), raw.boxes * factor, rtol=1e-4, atol=1e-2)
    assert found.image_hw == (240, 320)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (300, 2), (31, 33)])
def test_predict__odd_sizes(detector, photo, size_hw):
    found = detector.predict(photo(size_hw))
    height, width = size_hw
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.array([width, height, width, height])).all()


def test_predict__options(detector, photo):
    image = photo((120, 160))
    default = detector.predict(image)
    middle = float(np.median(default.scores))
    assert len(detector.predict(image, score=middle)) == int((default.scores > middle).sum())
    assert len(detector.predict(image, max_detections=2)) == 2
    name = default.names[0]
    assert set(detector.predict(image, classes=[name]).names) == {name}
    assert len(detector.predict(image, classes=[])) == 0
    assert len(detector.predict(image, nms_threshold=0.0)) <= len(default)
    assert len(detector.predict(image, nms="agnostic")) <= len(default)
    soft = detector.predict(image, nms="soft-gaussian")
    assert soft.scores[0] == pytest.approx(default.scores[0])
    same(detector.predict(image, score=None, nms=None), default)
    same(detector.predict(image), default)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": 0.5}, "no option is called 'scores'; there are score, classes, tile"),
        ({"classes": ["bee"]}, "no class is called 'bee'; there are: cat, dog, owl"),
        ({"score": 2.0}, r"score_threshold must lie in 0\.\.1"),
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_predict__options_that_cannot_work(detector, photo, options, message):
    with pytest.raises(UsageError, match=message):
        detector.predict(photo((20, 20)), **options)


def test_predict__broken_image_is_named(detector, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_text("no image")
    with pytest.raises(ImageError, match=r"broken\.jpg: not an image"):
        detector.predict(path)
    with pytest.raises(ImageError, match=r"absent\.jpg: no such file"):
        detector.predict(tmp_path / "absent.jpg")


def test_predict__image_is_at_hand_for_plot(detector, files, photo):
    image = photo(SIZES[0], 0)
    for source in (files[0], image, np.asarray(image), pil_to_tensor(image), pil_to_tensor(image).float() / 255):
        assert detector.predict(source).plot().size == (160, 120)


def test_stream__reads_one_after_the_other(detector, files):
    files[2].write_text("no image")
    stream = detector.stream(files)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(ImageError, match=files[2].name):
        next(stream)


def test_detector__pickle(detector, photo):
    again = pickle.loads(pickle.dumps(detector))
    same(again.predict(photo((64, 64))), detector.predict(photo((64, 64))))
    assert repr(again) == repr(detector) == "Detector(timm:test_efficientnet, 3 classes, cpu, torch, float32)"


def test_detector__is_a_copy_of_the_model(tiny_config, lively, photo):
    model = lively(tiny_config).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    detector = Detector(model, tiny_config)
    expected = detector.predict(photo((64, 64)))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    same(detector.predict(photo((64, 64))), expected)


def test_detector__folded_norms_change_nothing(tiny_config, lively, photo):
    config, model = tiny_config, lively(tiny_config)
    found = Detector(model, config).predict(photo((64, 64)))
    pixels = to_input(pil_to_tensor(photo((64, 64))), (64, 64), antialias=False)
    with torch.no_grad():
        (raw,) = model(make_batch([pixels], fill=config.input.mean, size_divisor=32))
    np.testing.assert_allclose(found.boxes, raw.boxes.numpy(), atol=1e-2)
    np.testing.assert_allclose(found.scores, raw.scores.numpy(), atol=1e-4)


def test_detector__threads_get_the_same(detector, photo):
    images = [photo(size, number) for number, size in enumerate(SIZES)]
    expected = detector.predict(images)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(detector.predict, [images] * 4):
            for ours, theirs in zip(found, expected, strict=True):
                same(ours, theirs)


def test_load__names_and_errors(checkpoint, tmp_path):
    assert load(checkpoint, classes=["a", "b", "c"]).classes == ("a", "b", "c")
    with pytest.raises(WeightsError, match=r"absent\.safetensors: no such file"):
        load(tmp_path / "absent.safetensors")


def test_choose_device__default():
    assert choose_device(None).type in {"cpu", "cuda", "mps"}


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_load__device_that_is_not_there(checkpoint, device):
    with pytest.raises(UsageError, match=device):
        load(checkpoint, device=device)


def test_predict__the_content_of_a_file(detector, files):
    found = detector.predict(files[0].read_bytes())
    same(found, detector.predict(files[0]))
    assert found.plot().size == (160, 120)
    with pytest.raises(ImageError, match="image in memory: not an image that can be decoded"):
        detector.predict(b"no image")
    with pytest.raises(ImageError, match="image in memory: damaged image"):
        detector.predict(files[0].read_bytes()[:500])


def test_predict__grey_and_alpha(detector, photo):
    grey = np.asarray(photo((60, 80)).convert("L"))
    expected = detector.predict(np.repeat(grey[..., None], 3, axis=2))
    for source in (grey, grey[..., None], torch.from_numpy(grey.copy())[None], grey.astype(np.float64) / 255):
        same(detector.predict(source), expected)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_predict__broken_images_of_a_folder_are_left_out(detector, files, tmp_path, batch_size):
    files[1].write_text("no image")
    with pytest.warns(UserWarning, match=rf"{files[1].name}: not an image"):
        found = list(detector.predict(tmp_path, batch_size=batch_size))
    assert [one.source for one in found] == [files[0], *files[2:]]
    logged = []
    assert len(detector.predict(files, on_error=logged.append, batch_size=batch_size)) == 3
    assert [str(error).split(":")[0] for error in logged] == [str(files[1])]
    with pytest.raises(ImageError, match=files[1].name):
        detector.predict(files, batch_size=batch_size)


def test_outcomes__errors_have_their_place(detector, files):
    files[1].write_text("no image")
    kinds = [type(one) for one in detector.outcomes(files, batch_size=3)]
    assert kinds == [Detections, ImageError, Detections, Detections]


def test_predict__tiles_of_a_image_that_is_a_tile(detector, photo):
    image = photo((120, 160))
    same(detector.predict(image, tile=160), detector.predict(image))


@pytest.mark.parametrize("merge", ["nms", "soft", "ios"])
@pytest.mark.parametrize("size_hw", [(200, 300), (1, 500), (90, 700)])
def test_predict__tiles(detector, photo, merge, size_hw):
    found = detector.predict(photo(size_hw), tile=100, merge=merge, score=0.3)
    height, width = size_hw
    assert found.image_hw == size_hw
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.array([width, height, width, height])).all()
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores > 0.3).all()


def test_predict__tiles_do_not_depend_on_batches(detector, photo):
    image = photo((200, 300))
    alone = detector.predict(image, tile=100, score=0.3)
    assert len(alone) > 20
    for size in (2, 7):
        same(detector.predict(image, tile=100, batch_size=size, score=0.3), alone)


def test_predict__tiles_and_max_detections(detector, photo):
    image = photo((200, 300))
    every = detector.predict(image, tile=100, score=0.0)
    assert len(every) > detector.config.postprocess.max_detections  # that of each tile
    assert len(detector.predict(image, tile=100, score=0.0, max_detections=5)) == 5


def test_predict__augmented(detector, photo):
    image = photo((120, 160))
    same(detector.predict(image, augment=[1.0]), detector.predict(image))
    same(detector.predict(image, augment=True), detector.predict(image, augment=["flip", "0.75", 1.25]))
    mirrored = image.transpose(0)
    ours = detector.predict(image, augment="flip", score=0.2)
    theirs = detector.predict(mirrored, augment="flip", score=0.2)
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    widths = ours.boxes[:, 2] - ours.boxes[:, 0]
    np.testing.assert_allclose(widths, theirs.boxes[:, 2] - theirs.boxes[:, 0], atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile must be at least 1 pixel"),
        ({"overlap": 1.0}, "overlap must lie in"),
        ({"merge": "wbf"}, "merge is 'wbf'; there are nms, soft, ios"),
        ({"augment": "rotate"}, "augment is 'rotate'; there are \"flip\" and sizes"),
        ({"augment": [9.0]}, "a size must lie in"),
        ({"every": 0}, "every must be at least 1, not 0"),
    ],
)
def test_predict__invalid_options(detector, photo, tmp_path, options, message):
    for source in (photo((20, 20)), [], tmp_path):
        with pytest.raises(UsageError, match=message):
            detector.predict(source, **options)


def test_warmup__any_size(detector):
    detector.warmup()
    detector.warmup((50, 70), batch_size=2, tile=40)


def test_threads(checkpoint):
    before = torch.get_num_threads()
    try:
        assert load(checkpoint, threads=1).threads == 1
        assert torch.get_num_threads() == 1
        with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
            load(checkpoint, threads=0)
    finally:
        torch.set_num_threads(before)


def _sizes(detector, images):
    return [len(found) for found in detector.predict(images)]


@pytest.mark.parametrize(
    "context",
    [CONTEXT, pytest.param(multiprocessing.get_context("spawn"), marks=pytest.mark.slow)],
    ids=["forkserver", "spawn"],
)
def test_detector__in_another_process(detector, photo, context):
    images = [photo(size, number) for number, size in enumerate(SIZES[:2])]
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(_sizes, detector, images).result() == _sizes(detector, images)


def test_predict__video(detector, tmp_path, photo):
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with atomic_video(path, 10.0, part=path) as video:
        for number in range(5):
            video.write(photo((64, 96), number), number / 10)
    found = list(detector.predict(path, every=2))
    assert [one.frame for one in found] == [0, 2, 4]
    assert [one.seconds for one in found] == pytest.approx([0, 0.2, 0.4], abs=1e-3)
    assert found[0].plot().size == (96, 64)
    assert {one.source for one in found} == {path}


def test_predict__video_without_pyav(detector, tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r'PyAV is not installed: pip install "fasterrcnn\[viz\]"'):
        detector.predict(tmp_path / "clip.mp4")


def test_stream__memory_stays(detector, tmp_path, photo):
    photo((64, 96)).save(tmp_path / "0.png")
    for number in range(1, 80):
        (tmp_path / f"{number}.png").symlink_to(tmp_path / "0.png")
    gc.collect()
    alive = []
    for number, _ in enumerate(detector.predict(tmp_path, batch_size=2)):
        if number in (20, 79):
            kinds = Counter(map(type, gc.get_objects()))
            alive.append(
                sum(kinds[kind] for kind in kinds if issubclass(kind, torch.Tensor | Detections | Image.Image))
            )
    assert alive[1] <= alive[0] + 40  # a window of results, not a result for each image
