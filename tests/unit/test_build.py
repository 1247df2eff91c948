"""Fine-tuning from detectors of other families: their numerics are taken over, class rows are kept by name."""

import pytest
import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from fasterrcnn import presets
from fasterrcnn.build import start_model
from fasterrcnn.cli.main import main
from fasterrcnn.config import changed
from fasterrcnn.demo.scenes import write_scenes
from fasterrcnn.errors import WeightsError
from fasterrcnn.training import prepare
from fasterrcnn.training.fit import fit
from fasterrcnn.weights import native
from fasterrcnn.weights.detectron2 import CAFFE, with_detectron2_numerics
from fasterrcnn.weights.transfer import numerics_of

PRESET = "mobilenetv3-large-320-fpn"
COCO_CAR, COCO_BUS = 3, 6  # rows of torchvision's 91, background first


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    """A detector of 91 classes, its head narrow, whose last layers have their own row number everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
        model.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, 32)
        model.roi_heads.box_predictor = FastRCNNPredictor(32, 91)
    with torch.no_grad():
        predictor = model.roi_heads.box_predictor
        predictor.cls_score.bias.copy_(torch.arange(91.0) / 100)
        predictor.bbox_pred.bias.copy_(torch.arange(91.0).repeat_interleave(4) / 100)
    path = tmp_path_factory.mktemp("start") / "coco.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three images; two of their classes have names of COCO's."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, train=3, val=0, test=0, seed=0, size_hw=(96, 96))
    data = []
    for number, image in enumerate(sorted((folder / "JPEGImages").iterdir())):
        boxes = [[5, 5, 40, 40], [30, 30, 90, 80], [50, 8, 90, 30]]
        data.append({"image": image, "boxes": boxes, "labels": ["Car", "tram", "bus"] if number else ["bus"] * 3})
    return data


def test_fit__keeps_the_rows_of_classes_with_the_same_name(scenes, torchvision_file, tmp_path):
    messages = []
    still = {"optimizer": "sgd", "learning_rate": 1e-12, "weight_decay": 0.0, "ema": 0.0, "augmentation": "none"}
    run = fit(
        scenes,
        output=tmp_path / "run",
        model=changed(presets.get(PRESET), regions={"widths": (32, 32)}),
        weights=str(torchvision_file),
        epochs=1,
        short_side=96,
        log=messages.append,
        logger="none",
        **still,
    )
    state, config, _ = native.load_checkpoint(run.last)
    rows = {name: number for number, name in enumerate(config.classes)}
    logits, deltas = state["box_head.class_logits.bias"], state["box_head.box_deltas.bias"].view(-1, 4)
    assert float(logits[rows["Car"]]) == pytest.approx(COCO_CAR / 100, abs=1e-6)
    assert float(logits[rows["bus"]]) == pytest.approx(COCO_BUS / 100, abs=1e-6)
    assert float(logits[rows["tram"]]) == pytest.approx(0, abs=1e-6)
    assert float(logits[-1]) == pytest.approx(0, abs=1e-6)  # background, torchvision's row 0
    assert deltas[rows["bus"]].tolist() == pytest.approx([COCO_BUS / 100] * 4, abs=1e-6)
    assert deltas[rows["tram"]].tolist() == pytest.approx([0] * 4, abs=1e-6)

    logged = "\n".join(messages)
    assert f"start: {torchvision_file}: {PRESET} of torchvision, 90 classes (person, bicycle, car...)" in logged
    assert "remapped box_head.class_logits.weight (4, 32), box_head.class_logits.bias (4,): kept " in logged
    assert "Car (was 2)" in logged
    assert "bus (was 5)" in logged
    assert "fresh tram; background kept" in logged
    assert "fresh: nothing" in logged
    table = (run.path / "start.txt").read_text()
    assert "remapped box_head.box_deltas.weight (12, 32)" in table
    assert "loaded   rpn.objectness.weight (15, 256, 1, 1)" in table
    assert "start.txt" in (run.path / "README.md").read_text()


def test_train__from_a_file_of_another_architecture(scenes, torchvision_file, tmp_path, capsys):
    folder = tmp_path / "scenes"
    write_scenes(folder, train=2, val=0, test=0, seed=0, size_hw=(96, 96))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(folder), "--weights", str(torchvision_file), "-o", str(tmp_path / "run")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "made for another network than resnet50-fpn" in error
    assert "they are a mobilenetv3-large-fpn, so that may be the model" in error
    assert not (tmp_path / "run").exists()


def caffe_detector(weightless, classes):
    """A C4 of Detectron2's numerics, as ours; every number is 0.5."""
    config = CAFFE.applied(with_detectron2_numerics(presets.get("resnet50-c4", classes)))
    return config, {key: value.clone() for key, value in weightless(config).items()}


def test_start__numerics_of_detectron2_are_taken_over_but_not_what_was_set(tmp_path, weightless, shrink):
    trained, state = caffe_detector(weightless, ("cat", "dog"))
    path = tmp_path / "trained.safetensors"
    native.save_state(path, state, trained)
    messages = prepare.resolve({"data": "x", "model": {"preset": "resnet50-c4", "regions": {"box_loss": "giou"}}}).model
    config = changed(messages, input={"short_side": 96}).with_classes(("dog", "owl"))
    network, report = start_model(numerics_of(config, str(path)), str(path))
    assert network.backbone.body.layer2[0].conv1.stride == 2
    assert network.std.flatten().tolist() == pytest.approx([1 / 255] * 3)
    assert (network.roi_pooling.aligned, network.roi_pooling.sampling_ratio) == (True, 0)
    assert network.region_loss.box_loss == "giou"
    assert network.size_divisor == 1
    assert report.rows["box_head.box_deltas."] == "kept dog (was 1); fresh owl"


def test_start__detector_with_a_tensor_too_few_or_too_many(tmp_path, tiny_config, tiny_model):
    trained, state = tiny_config, tiny_model.state_dict()
    config = trained.with_classes(("cat", "owl"))
    for change, message in (
        ({"rpn.deltas.bias": None}, "does not fit the model: missing rpn.deltas.bias"),
        ({"rpn.more": torch.ones(1)}, "does not fit the model: left over rpn.more"),
    ):
        whole = {key: value for key, value in {**state, **change}.items() if value is not None}
        native.save_state(tmp_path / "odd.safetensors", whole, trained)
        with pytest.raises(WeightsError, match=message):
            start_model(config, str(tmp_path / "odd.safetensors"))
