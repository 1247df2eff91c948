"""One suite that every runtime passes; `torch` is what the others are compared with."""

import dataclasses
import os
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import fasterrcnn
from fasterrcnn import presets
from fasterrcnn.build import assemble
from fasterrcnn.errors import UsageError
from fasterrcnn.inference.devices import has_fast_bf16
from fasterrcnn.inference.quantization import quantize
from fasterrcnn.inference.runtime_choice import MAX_RELATIVE_ERROR
from fasterrcnn.inference.runtimes import check_precision, check_runtime, has_precision, runtime_names
from fasterrcnn.inference.runtimes.parts import relative_error
from fasterrcnn.ops.image import make_batch
from fasterrcnn.weights import native

PIXELS, SCORE = 0.5, 1e-3
"""How far boxes and scores of a float32 runtime may lie from those of `torch`."""

FEATURES = {"float32": 1e-4, "bf16": MAX_RELATIVE_ERROR, "openvino-int8": 0.15}
"""How far the numbers of the dense part may lie from them, as a share of their size (root mean square)."""

EXTRAS = {"openvino": ["openvino"], "openvino-int8": ["openvino", "nncf"], "onnxruntime": ["onnxruntime", "onnxscript"]}


@lru_cache
def image(image_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Blobs of several sizes."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(1, 3, cells, cells, generator=generator) for cells in (2, 5, 13)]
    blobs = torch.cat([F.interpolate(layer, size=image_hw, mode="bilinear") for layer in layers]).mean(dim=0)
    return np.ascontiguousarray((blobs * 255).byte().permute(1, 2, 0).numpy())


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Conversions of this run stay out of the user's folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTERRCNN_CACHE", str(folder))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        yield folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights that finds things."""
    config = presets.get("timm:test_efficientnet", ["cat", "dog", "owl"])
    counts = {"candidates": 60, "proposals": 30}
    config = config.model_copy(
        update={
            "input": config.input.model_copy(update={"short_side": 96, "long_side": 160}),
            "backbone": config.backbone.model_copy(update={"neck_channels": 32}),
            "proposals": config.proposals.model_copy(update=counts),
            "regions": config.regions.model_copy(update={"widths": (64, 64)}),
        }
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = assemble(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.01)  # as in a trained network
        pixels = [torch.from_numpy(image((96, 128), seed)).permute(2, 0, 1) / 255 for seed in range(3)]
        batch = make_batch(pixels, fill=config.input.mean, size_divisor=32)
        features = model.features(batch.pixels)
        logits, deltas = model.rpn(features)
        model.rpn.objectness.weight *= 2 / torch.cat(logits, dim=1).std()
        model.rpn.deltas.weight *= 0.2 / torch.cat(deltas, dim=1).std()
        logits, deltas = model.classify(features, [found.boxes for found in model.propose(features, batch)])
        model.box_head.class_logits.weight *= 2 / logits.std(dim=0).mean()
        model.box_head.class_logits.bias -= logits.mean(dim=0) * 2 / logits.std(dim=0).mean()
        model.box_head.box_deltas.weight *= 1 / deltas.std()
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    native.save_checkpoint(path, model, config)
    return path


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> fasterrcnn.Detector:
    return fasterrcnn.load(checkpoint, device="cpu")


COMPILED = pytest.param("compiled", marks=pytest.mark.slow)  # minutes on a busy machine
OTHERS = [name for name in runtime_names() if not name.startswith("compiled")]
HALF = ["torch bf16", "openvino bf16"]


@pytest.fixture(scope="module", params=[*OTHERS, *HALF, COMPILED])
def detector(request: pytest.FixtureRequest, checkpoint: Path) -> fasterrcnn.Detector:
    """The same network in each runtime, and in bfloat16."""
    name, _, precision = request.param.partition(" ")
    for package in EXTRAS.get(name, []):
        pytest.importorskip(package)
    if name in ("winograd", "compiled", "compiled-direct") and not (shutil.which("g++") or os.environ.get("CXX")):
        pytest.skip("no C++ compiler")
    if request.param == "openvino bf16" and not has_fast_bf16(torch.device("cpu")):
        pytest.skip("OpenVINO has no bfloat16 on this processor")
    if name != "openvino-int8":
        return fasterrcnn.load(checkpoint, device="cpu", runtime=name, precision=precision or "float32")
    output = checkpoint.with_name("small-int8.safetensors")
    quantize(checkpoint, [image((96, 128), seed) for seed in range(12)], output)
    return fasterrcnn.load(output, device="cpu")


def exactness(detector: fasterrcnn.Detector) -> str:
    return "openvino-int8" if detector.runtime == "openvino-int8" else detector.precision


def assert_same(found: fasterrcnn.Detections, expected: fasterrcnn.Detections, detector: fasterrcnn.Detector) -> None:
    """Each detection has its like; the order of equal scores is free. Of integers and 16 bits: they are sound."""
    assert found.image_hw == expected.image_hw
    assert np.isfinite(found.boxes).all()
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.boxes >= 0) & (found.boxes <= np.tile(found.image_hw[::-1], 2))).all()
    if exactness(detector) != "float32":
        return
    assert len(found) == len(expected)
    for few, many in ((found, expected), (expected, found)):
        for box, score, label in zip(few.boxes, few.scores, few.labels, strict=True):
            near = (np.abs(many.boxes - box) <= PIXELS).all(axis=1) & (np.abs(many.scores - score) <= SCORE)
            assert (near & (many.labels == label)).any()


def test_runtime__has_its_name(detector):
    assert detector.runtime in runtime_names()
    assert repr(detector).endswith(f"cpu, {detector.runtime}, {detector.precision})")


def test_runtime__no_images(detector):
    assert detector.predict([]) == []


SIZES = [(1, 1), (1, 4000), (32, 32), (97, 131)]
SLOW_SIZES = [pytest.param(image_hw, marks=pytest.mark.slow) for image_hw in ((4000, 1), (1600, 1200), (96, 96))]


@pytest.mark.parametrize("image_hw", SIZES + SLOW_SIZES)
def test_runtime__every_size(detector, reference, image_hw):
    array = image(image_hw)
    assert_same(detector.predict(array), reference.predict(array), detector)


def test_runtime__something_is_found(detector, reference):
    """Or all the comparisons would be of nothing with nothing."""
    assert len(reference.predict(image((96, 128)))) > 5
    assert len(detector.predict(image((96, 128)))) > 0


def test_runtime__kinds_of_pixels(detector, reference):
    array = image((80, 100))
    expected = reference.predict(array)
    alpha = np.concatenate([array, np.full((80, 100, 1), 7, np.uint8)], axis=2)
    for same in (array.astype(np.float32) / 255, torch.from_numpy(array).permute(2, 0, 1), alpha):
        assert_same(detector.predict(same), expected, detector)
    grey = Image.fromarray(array).convert("L")
    assert_same(detector.predict(grey), reference.predict(grey), detector)
    assert_same(detector.predict(np.asarray(grey)), reference.predict(grey), detector)


def test_runtime__batch_mates_do_not_matter(detector, reference):
    arrays = [image(size, seed) for seed, size in enumerate([(96, 128), (60, 300), (96, 128), (500, 90), (96, 120)])]
    together = detector.predict(arrays, batch_size=5)
    for found, array in zip(together, arrays, strict=True):
        assert_same(found, reference.predict(array), detector)
        alone = detector.predict(array)
        if exactness(detector) != "float32":
            assert len(found) == len(alone)
        assert_same(found, alone, detector)


def test_runtime__numbers_of_the_dense_part(detector, reference):
    pixels = torch.from_numpy(image((96, 160))[None].astype(np.float32) / 255).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found, expected = detector.stages.dense(pixels), reference.stages.dense(pixels)
    assert found.sizes_hw == expected.sizes_hw
    levels = len(reference._model.roi_pooling.strides)
    pairs = [zip(found.features[:levels], expected.features[:levels], strict=True)]
    pairs += [zip(found.logits, expected.logits, strict=True), zip(found.deltas, expected.deltas, strict=True)]
    assert {level.dtype for level in (*found.logits, *found.deltas)} == {torch.float32}
    for ours, theirs in chain(*pairs):
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) < FEATURES[exactness(detector)]


def test_runtime__several_threads(detector):
    arrays = [image((96, 128), seed) for seed in range(4)]
    expected = [detector.predict(array) for array in arrays]
    with ThreadPoolExecutor(2) as pool:
        for found, alone in zip(pool.map(detector.predict, arrays), expected, strict=True):
            np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)


def test_runtime__nothing_is_proposed(detector, monkeypatch):
    """An image without a region of interest has no head to pass."""
    strict = dataclasses.replace(detector._model.proposals, min_score=1.0)
    monkeypatch.setattr(detector._model, "proposals", strict)
    assert len(detector.predict(image((96, 128)))) == 0


def test_runtime__in_another_process(detector):
    array = image((20, 20))  # too small to be compiled again
    again = pickle.loads(pickle.dumps(detector))
    assert (again.runtime, again.precision) == (detector.runtime, detector.precision)
    np.testing.assert_allclose(again.predict(array).boxes, detector.predict(array).boxes, atol=1e-3)


def test_check_runtime__unknown():
    with pytest.raises(UsageError, match="no runtime is called 'tensorflow'; there are torch, winograd, compiled"):
        check_runtime("tensorflow")


def test_load__int8_without_images(checkpoint):
    pytest.importorskip("openvino")
    with pytest.raises(UsageError, match="needs a file written by `fasterrcnn quantize`, or calibration images"):
        fasterrcnn.load(checkpoint, device="cpu", runtime="openvino-int8")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"precision": "fp16"}, "^precision fp16 needs a GPU; on a CPU there are float32 and bf16$"),
        ({"runtime": "winograd", "precision": "bf16"}, "^runtime winograd has no precision bf16; take float32, or one"),
        ({"runtime": "compiled", "precision": "bf16"}, "runtimes: torch, openvino, openvino-int8$"),
        ({"runtime": "openvino", "precision": "fp16"}, "^runtime openvino has no precision fp16.* runtimes: torch$"),
        ({"runtime": "auto", "precision": "fp16"}, "^precision fp16 needs a GPU"),
    ],
)
def test_load__precision_that_is_not_possible(checkpoint, options, reason):
    with pytest.raises(UsageError, match=reason):
        fasterrcnn.load(checkpoint, device="cpu", **options)


def test_load__openvino_on_a_processor_without_bfloat16(checkpoint, monkeypatch):
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(UsageError, match=r"^OpenVINO has no bfloat16 on this processor; take precision float32$"):
        fasterrcnn.load(checkpoint, device="cpu", runtime="openvino", precision="bf16")


def test_check_precision__cards(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    card = torch.device("cuda", 0)
    assert has_precision("torch", "fp16", card)
    with pytest.raises(UsageError, match=r"^cuda:0 is too old for precision bf16 .*8\.0.; take fp16 or float32$"):
        check_precision("bf16", "torch", card)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert has_precision("torch", "bf16", card)


def test_check_precision__unknown():
    with pytest.raises(UsageError, match=r"^precision is 'int4'; there are auto, float32, bf16, fp16$"):
        check_precision("int4", "torch", "cpu")
