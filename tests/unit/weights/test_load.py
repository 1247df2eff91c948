import hashlib
import pickle

import pytest
import torch

from fasterrcnn import presets
from fasterrcnn.build import assemble, convert_weights, load_model
from fasterrcnn.cli.main import main
from fasterrcnn.config import changed
from fasterrcnn.errors import UsageError
from fasterrcnn.weights import load, native

CLASSES = ("cat", "dog", "owl")


def write_detector(path, preset: str, *, style: str = "pytorch"):
    """A file of ours: random numbers everywhere, the box head narrow. Gives its tensors and its configuration."""
    config = presets.get(preset, CLASSES)
    if config.regions.widths:
        config = changed(config, regions={"widths": (16,) * len(config.regions.widths)})
    if style == "caffe":
        config = changed(config, input={"std": (1 / 255,) * 3}, backbone={"stride_in_1x1": True})
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = assemble(config).state_dict()
    state = {
        key: torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.zeros_like(value, device="cpu")
        for key, value in shapes.items()
    }
    native.save_state(path, state, config)
    return state, config


@pytest.fixture(scope="module")
def c4(tmp_path_factory):
    """A file that holds a C4, its tensors and its configuration."""
    path = tmp_path_factory.mktemp("c4") / "start.safetensors"
    return path, *write_detector(path, "resnet50-c4")


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("preset", "style", "files"),
    [
        ("mobilenetv3-large-fpn", "pytorch", ("there.pth",)),
        pytest.param("resnet50-fpn-v2", "pytorch", ("there.pth",), marks=pytest.mark.slow),
        pytest.param("resnet50-c4", "caffe", ("there.pth detectron2",), marks=pytest.mark.slow),
        pytest.param("resnext50-32x4d-fpn", "pytorch", ("there.pkl",), marks=pytest.mark.slow),
        ("resnet50-fpn", "pytorch", ("there.pkl",)),
        pytest.param("resnet50-fpn", "pytorch", ("there.pth", "again.pkl"), marks=pytest.mark.slow),
    ],
)
def test_round_trip__bit_equal(tmp_path, preset, style, files):
    start = tmp_path / "start.safetensors"
    first, config = write_detector(start, preset, style=style)
    path = start
    for file in files:
        name, _, to = file.partition(" ")
        convert_weights(path, tmp_path / name, to=to or None)
        path = tmp_path / name
    convert_weights(path, tmp_path / "end.safetensors", classes=CLASSES)
    state, back, notes = native.load_checkpoint(tmp_path / "end.safetensors")
    assert same(state, first)
    assert (back.preset, back.classes, back.regions.widths) == (config.preset, CLASSES, config.regions.widths)
    assert back.backbone == config.backbone
    assert back.input.std == pytest.approx(config.input.std, rel=1e-6)
    assert notes["source"]["file"] == path.name
    assert notes["source"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_detectron2__file_is_what_its_checkpointer_reads(tmp_path, c4):
    start, state, _ = c4
    notes = convert_weights(start, tmp_path / "d2.pkl")
    content = pickle.loads((tmp_path / "d2.pkl").read_bytes())
    assert set(content) == {"model", "__author__"}
    stem = content["model"]["backbone.stem.conv1.weight"]
    assert torch.equal(torch.from_numpy(stem).flip(1), state["backbone.body.conv1.weight"])
    assert content["model"]["pixel_mean"].flatten().tolist() == pytest.approx([103.53, 116.28, 123.675])
    assert "in order they are cat, dog, owl" in notes[0]
    assert "MODEL.PIXEL_STD [57.375,57.12,58.395]" in notes
    assert "MODEL.ROI_HEADS.NUM_CLASSES 3" in notes
    assert "MODEL.ROI_BOX_HEAD.POOLER_TYPE ROIAlign" in notes
    assert any("regions.levels is torchvision, not detectron2" in note for note in notes)


def test_torchvision__takes_the_file(tmp_path):
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    config = presets.get("mobilenetv3-large-fpn", CLASSES)
    network = assemble(config)
    native.save_checkpoint(tmp_path / "start.safetensors", network, config)
    convert_weights(tmp_path / "start.safetensors", tmp_path / "tv.pth")
    theirs = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None, num_classes=4)
    state = torch.load(tmp_path / "tv.pth", weights_only=True)
    left = theirs.load_state_dict(state, strict=False)
    assert left.unexpected_keys == []
    assert [key for key in left.missing_keys if "num_batches_tracked" not in key] == []
    assert torch.equal(theirs.roi_heads.box_predictor.cls_score.bias[0], network.box_head.class_logits.bias[-1])
    assert not theirs.roi_heads.box_predictor.bbox_pred.weight[:4].any()


@pytest.mark.parametrize(
    ("preset", "target", "message"),
    [
        ("resnet50-c4", "a.pth", "torchvision has no network like resnet50-c4"),
        ("mobilenetv3-large-fpn", "a.pkl", "Detectron2 has no network like mobilenetv3-large-fpn"),
        ("resnet50-c4", "a.onnx", r"a\.onnx: call it \.safetensors"),
    ],
)
def test_refused__before_anything_is_written(tmp_path, c4, preset, target, message):
    if preset == "resnet50-c4":
        (tmp_path / "start.safetensors").hardlink_to(c4[0])
    else:
        write_detector(tmp_path / "start.safetensors", preset)
    with pytest.raises(UsageError, match=message):
        convert_weights(tmp_path / "start.safetensors", tmp_path / target)
    assert [file.name for file in tmp_path.iterdir()] == ["start.safetensors"]


def test_refused__strides_that_torchvision_has_not(tmp_path, weightless):
    config = changed(presets.get("resnet50-fpn", CLASSES), backbone={"stride_in_1x1": True})
    source = load.WeightFile(tmp_path / "x", "fasterrcnn", {}, config)
    with pytest.raises(UsageError, match="strides in the 3x3 convolutions; this one has not"):
        load.write_detector(source, weightless(config), config, tmp_path / "a.pth", "torchvision")


def test_refused__name_of_another_kind(tmp_path):
    with pytest.raises(UsageError, match=r"a file of torchvision is not called \.pkl"):
        convert_weights(tmp_path / "start.safetensors", tmp_path / "a.pkl", to="torchvision")


def test_command(tmp_path, capsys, checkpoint):
    write_detector(tmp_path / "a.safetensors", "mobilenetv3-large-320-fpn")
    for arguments in (
        ["a.safetensors", "b.pth"],
        ["b.pth", "c.safetensors", "--names", *CLASSES, "--preset", "mobilenetv3-large-320-fpn"],
    ):
        files = [str(tmp_path / arguments[0]), str(tmp_path / arguments[1]), *arguments[2:]]
        with pytest.raises(SystemExit) as ended:
            main(["weights", "convert", *files])
        assert ended.value.code == 0
    logged = capsys.readouterr().out.splitlines()
    assert "mobilenetv3-large-320-fpn of fasterrcnn, 3 classes (cat, dog, owl)" in logged[0]
    assert logged[-1] == f"wrote {tmp_path / 'c.safetensors'}"
    assert load_model(tmp_path / "c.safetensors")[1].classes == CLASSES
    with pytest.raises(SystemExit) as ended:
        main(["weights", "convert", str(checkpoint), str(tmp_path / "d.pth")])
    assert ended.value.code == 2
    assert "error: torchvision has no network like timm:test_efficientnet" in capsys.readouterr().err
