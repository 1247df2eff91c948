import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from fasterrcnn import build, presets
from fasterrcnn.build import assemble, load_model
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import load
from fasterrcnn.weights.layout import check_fit
from fasterrcnn.weights.transfer import numerics_of

HERE = Path("somewhere.bin")
FAMILIES = {"torchvision": "torchvision", "detectron2": "Detectron2", "mmdetection": "MMDetection"}
RESNETS = [
    "resnet50-c4",
    "resnet50-dc5",
    "resnet50-fpn",
    "resnet101-c4",
    "resnet101-dc5",
    "resnet101-fpn",
    "resnext101-32x8d-fpn",
]
TORCHVISION = ["resnet50-fpn", "resnet50-fpn-v2", "mobilenetv3-large-fpn", "resnet101-fpn"]
FILES = [
    *(("torchvision", preset) for preset in TORCHVISION),
    *((family, preset) for family in ("detectron2", "mmdetection") for preset in RESNETS),
]


@cache
def sketch(config):
    """The network without memory; tests do not change it."""
    with torch.device("meta"):
        return assemble(config)


@pytest.mark.parametrize(("family", "preset"), FILES)
def test_recognise__family_architecture_and_every_name(files, family, preset):
    source = load.recognise(HERE, files(family, preset), {})
    assert (source.family, source.config.preset) == (FAMILIES[family], preset)
    assert source.config.backbone.body == preset.split("-fpn")[0].split("-c4")[0].split("-dc5")[0] or "mobile" in preset
    own = sketch(source.config).state_dict()
    assert {key for key in own if not key.endswith("num_batches_tracked")} == set(source.state)
    assert all(source.state[key].shape == own[key].shape for key in source.state)


@pytest.mark.parametrize(("family", "preset"), FILES)
def test_recognise__names_in_the_file_are_those_of_the_file(files, family, preset):
    state = files(family, preset)
    source = load.recognise(HERE, state, {})
    assert {source.name_in_file(key) for key in source.state} == set(state)


def test_line__describes_the_file(files):
    assert load.recognise(HERE, files("detectron2", "resnet101-c4"), {}).line == (
        "somewhere.bin: resnet101-c4 of Detectron2, 80 classes (person, bicycle, car...), "
        "BGR pixels, 0..255 less the mean"
    )
    assert load.recognise(HERE, files("torchvision", "resnet50-fpn", 2), {}).line == (
        "somewhere.bin: resnet50-fpn of torchvision, 2 classes (class_0, class_1)"
    )
    assert "2 tensors that are no detector" in load.recognise(HERE, {"a": torch.ones(1), "b": torch.ones(1)}, {}).line


def test_class_names__of_coco(files):
    with_gaps = load.recognise(HERE, files("torchvision", "resnet50-fpn", 90), {}).config
    assert with_gaps.classes[0] == "person"
    assert with_gaps.classes[11] == "N/A 12"
    assert with_gaps.classes[89] == "toothbrush"
    assert with_gaps.category_ids == tuple(range(1, 91))
    without = load.recognise(HERE, files("detectron2", "resnet50-c4", 80), {}).config
    assert len(without.classes) == 80
    assert without.category_ids[11] == 13
    assert without.classes[11] == with_gaps.classes[12] == "stop sign"


@pytest.mark.parametrize("where", ["dataset_meta", "meta"])
def test_class_names__beside_the_tensors_of_mmdetection(files, where):
    names = {"CLASSES": ["cat", "dog"]}
    metadata = {"meta": {"dataset_meta": names} if where == "dataset_meta" else names}
    state = files("mmdetection", "resnet50-fpn", 2)
    assert load.recognise(HERE, state, metadata).config.classes == ("cat", "dog")
    other = {"meta": {"CLASSES": ["cat", "dog", "owl"]}}
    assert load.recognise(HERE, state, other).config.classes == ("class_0", "class_1")


# ---- numerics


def test_numerics__of_detectron2(files):
    config = load.recognise(HERE, files("detectron2", "resnet50-fpn"), {}).config
    assert config.input.resize == "pillow"
    assert config.input.mean == pytest.approx((0.485, 0.456, 0.406))
    assert config.input.std == (1 / 255,) * 3
    assert config.backbone.stride_in_1x1
    assert config.anchors.strides == (4, 8, 16, 32, 64)
    assert not config.anchors.rounded
    assert (config.regions.aligned, config.regions.sampling_ratio, config.regions.levels) == (True, 0, "detectron2")
    assert (config.proposals.candidates, config.proposals.proposals) == (1000, 1000)
    assert config.input.size_divisor == 32


@pytest.mark.parametrize("preset", ["resnet50-c4", "resnet50-dc5"])
def test_numerics__of_detectron2_on_one_map(files, preset):
    config = load.recognise(HERE, files("detectron2", preset), {}).config
    assert (config.proposals.candidates, config.proposals.proposals) == (6000, 1000)
    assert config.input.size_divisor == 1
    assert config.anchors.strides == (16,)
    assert load.recognise(HERE, files("mmdetection", preset), {}).config.input.size_divisor == 32


def test_numerics__grouped_bodies_divide_their_pixels(files):
    config = load.recognise(HERE, files("detectron2", "resnext101-32x8d-fpn"), {}).config
    assert config.input.std == pytest.approx((58.395 / 255, 57.12 / 255, 57.375 / 255))
    assert not config.backbone.stride_in_1x1


def test_numerics__pixels_in_the_file_are_believed(files):
    state = files("detectron2", "resnet50-fpn")
    colours = {"pixel_mean": torch.tensor([100.0, 110, 120]).view(3, 1, 1), "pixel_std": torch.tensor([50.0, 60, 70])}
    source = load.recognise(HERE, {**state, **colours}, {})
    assert source.config.input.mean == pytest.approx((120 / 255, 110 / 255, 100 / 255))
    assert source.config.input.std == pytest.approx((70 / 255, 60 / 255, 50 / 255))
    assert source.about == "BGR pixels, normalised"
    assert not source.config.backbone.stride_in_1x1


@pytest.mark.parametrize("family", ["detectron2", "mmdetection"])
def test_numerics__style_decides(files, family):
    state = files(family, "resnet50-fpn")
    caffe = load.recognise(HERE, state, {}, style="caffe")
    assert caffe.config.backbone.stride_in_1x1
    assert caffe.config.input.std == (1 / 255,) * 3
    other = load.recognise(HERE, state, {}, style="pytorch")
    assert not other.config.backbone.stride_in_1x1
    assert other.config.input.std == pytest.approx((58.395 / 255, 57.12 / 255, 57.375 / 255))
    stem = "backbone.body.conv1.weight"
    state = {key: value.clone() for key, value in state.items() if "conv1.weight" in key and value.shape[1] == 3}
    (name,) = state
    state[name][:, 0] = 7.0
    turned = load.recognise(HERE, {**files(family, "resnet50-fpn"), **state}, {}, style="caffe").state[stem]
    kept = load.recognise(HERE, {**files(family, "resnet50-fpn"), **state}, {}, style="pytorch").state[stem]
    assert float(turned[0, 2, 0, 0]) == float(kept[0, 0, 0, 0]) == 7.0


def test_numerics__of_mmdetections_own_text(files):
    state = files("mmdetection", "resnet50-fpn")
    text = "dict(bgr_to_rgb=False, mean=[\n 103.53,\n 116.28,\n 123.675,\n ], std=[57.375, 57.12, 58.395])"
    source = load.recognise(HERE, state, {"meta": {"cfg": text}})
    assert source.about == "BGR pixels, normalised"
    assert source.config.input.std == pytest.approx((58.395 / 255, 57.12 / 255, 57.375 / 255))
    assert not source.config.backbone.stride_in_1x1
    assert source.config.input.resize == "opencv"


def test_numerics__mmdetections_folded_norms_mean_caffe(files):
    state = files("mmdetection", "resnet50-fpn")
    assert not load.recognise(HERE, state, {}).config.backbone.stride_in_1x1
    state["backbone.bn1.running_mean"] = torch.zeros(64)
    assert load.recognise(HERE, state, {}).config.backbone.stride_in_1x1


def test_anchors__in_the_file_are_believed(files):
    state = files("detectron2", "resnet50-c4")
    sizes, ratios = (20.0, 40.0, 80.0, 160.0, 320.0), (0.4, 1.0, 2.5)
    rows = [(s / r**0.5, s * r**0.5) for s in sizes for r in ratios]  # size by size
    cell = torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in rows])
    name = "proposal_generator.anchor_generator.cell_anchors.0"
    anchors = load.recognise(HERE, {**state, name: cell}, {}).config.anchors
    assert (anchors.sizes, anchors.ratios) == ((sizes,), (ratios,))
    with pytest.raises(WeightsError, match=r"cell_anchors\.0: its anchors are not every size in every ratio"):
        load.recognise(HERE, {**state, name: cell[:14]}, {})


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"pixel_mean": torch.ones(3), "pixel_std": torch.zeros(3)}, "are not those of three colours"),
        ({"pixel_mean": torch.full((3,), torch.nan), "pixel_std": torch.ones(3)}, "are not those of three colours"),
        ({"pixel_mean": torch.ones(4), "pixel_std": torch.ones(3)}, "are not those of three colours"),
        ({"proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(0, 4)}, r"shape \(0, 4\), and not"),
        ({"proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(4)}, r"shape \(4,\), and not"),
        ({"proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(15, 4)}, "not every size in every ratio"),
    ],
)
def test_pixels_and_anchors__of_no_use(files, extra, message):
    with pytest.raises(WeightsError, match=message):
        load.recognise(HERE, {**files("detectron2", "resnet50-c4"), **extra}, {})


def test_anchors__come_ratio_by_ratio(files):
    """Row s * 3 + r of Detectron2 is row r * 5 + s of ours; four deltas go together."""
    state = files("detectron2", "resnet50-c4")
    state["proposal_generator.rpn_head.objectness_logits.bias"] = torch.arange(15.0)
    state["proposal_generator.rpn_head.anchor_deltas.bias"] = torch.arange(60.0)
    own = load.recognise(HERE, state, {}).state
    order = [0, 3, 6, 9, 12, 1, 4, 7, 10, 13, 2, 5, 8, 11, 14]
    assert own["rpn.objectness.bias"].tolist() == order
    assert own["rpn.deltas.bias"].tolist() == [4 * row + delta for row in order for delta in range(4)]


# ---- what does not fit


def filled_from(state, metadata):
    source = load.recognise(HERE, state, metadata)
    check_fit(sketch(source.config), source.state, str(HERE), source.name_in_file)


def refused(state, metadata=None) -> str:
    with pytest.raises(WeightsError) as caught:
        filled_from(state, metadata or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


NAMES = {
    "torchvision": (
        "rpn.head.bbox_pred.bias",
        "roi_heads.box_head.fc7.weight",
        "backbone.body.layer3.2.bn2.running_var",
    ),
    "detectron2": (
        "proposal_generator.rpn_head.anchor_deltas.bias",
        "roi_heads.box_head.fc2.weight",
        "backbone.bottom_up.res4.2.conv2.norm.running_var",
    ),
    "mmdetection": (
        "rpn_head.rpn_reg.bias",
        "roi_head.bbox_head.shared_fcs.1.weight",
        "backbone.layer3.2.bn2.running_var",
    ),
}
EACH = [(family, name) for family, names in NAMES.items() for name in names]


@pytest.mark.parametrize(("family", "name"), EACH)
def test_misfit__missing(files, family, name):
    state = files(family, "resnet50-fpn")
    del state[name]
    assert f"missing {name}" in refused(state)


@pytest.mark.parametrize(("family", "name"), EACH)
def test_misfit__another_shape(files, family, name):
    state = files(family, "resnet50-fpn")
    shape = (3, *state[name].shape[1:])
    state[name] = torch.zeros(1).expand(shape) if len(shape) == 1 else torch.zeros(1, 1).expand(shape)
    assert f"{name} has shape {shape}, the model needs" in refused(state)


@pytest.mark.parametrize(("family", "name"), EACH)
@pytest.mark.parametrize("value", [torch.nan, pytest.param(torch.inf, marks=pytest.mark.slow)])
def test_misfit__not_finite(files, family, name, value):
    state = files(family, "resnet50-fpn")
    state[name] = torch.full_like(state[name], value)
    assert f"{name} holds NaN or infinite numbers" in refused(state)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_misfit__left_over(files, family):
    state = {**files(family, "resnet50-fpn"), "roi_heads.mask_head.deconv.weight": torch.zeros(2)}
    assert "left over roi_heads.mask_head.deconv.weight" in refused(state)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("part", ["cls", "box_predictor", "fc", "conv2"])
def test_misfit__whole_parts(files, family, part):
    """Whatever is taken away, the answer is one line that names a tensor."""
    state = {key: value for key, value in files(family, "resnet50-fpn").items() if part not in key}
    if len(state) < len(files(family, "resnet50-fpn")):
        assert refused(state)


def test_misfit__scalars_instead_of_rows(files):
    for family, names in NAMES.items():
        for name in names:
            state = {**files(family, "resnet50-fpn"), name: torch.tensor(1.0)}
            assert name in refused(state)


def test_misfit__first_release_of_mmdetection():
    state = {"rpn_head.rpn_cls.weight": torch.ones(1), "bbox_head.fc_cls.weight": torch.ones(1)}
    assert "written by MMDetection 1" in refused(state)


def test_misfit__first_detectron():
    state = {"res2_0_branch2a_w": torch.ones(1), "cls_score_w": torch.ones(1)}
    assert "load and save it with Detectron2" in refused(state)


# ---- files


def test_open_weights__content_decides_and_not_the_name(tmp_path, checkpoint):
    tensors = {"a": torch.arange(3.0)}
    torch.save(tensors, tmp_path / "one.pkl")
    torch.save(tensors, tmp_path / "two", _use_new_zipfile_serialization=False)
    (tmp_path / "three.pth").write_bytes(
        pickle.dumps({"model": {"a": np.arange(3, dtype=np.float32)}, "__author__": "x"})
    )
    for name in ("one.pkl", "two", "three.pth"):
        source = load.open_weights(tmp_path / name)
        assert source.family == "tensors"
        assert_close(source.state, tensors)
    ours = tmp_path / "four.pth"
    ours.write_bytes(checkpoint.read_bytes())
    assert load.open_weights(ours).family == "fasterrcnn"
    assert load_model(ours)[1].classes == ("cat", "dog", "owl")


def test_open_weights__names_from_several_processes(tmp_path, files):
    state = {f"module.{key}": value.byte() for key, value in files("mmdetection", "resnet50-c4").items()}
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    assert load.open_weights(tmp_path / "m.pth").config.preset == "resnet50-c4"


class _Trap:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


def test_pickle_of_arrays__runs_no_code(tmp_path):
    path, trap = tmp_path / "bad.pkl", tmp_path / "trap"
    path.write_bytes(pickle.dumps({"model": {"a": np.zeros(2)}, "b": _Trap(trap)}))
    with pytest.raises(WeightsError, match=r"bad\.pkl: refused, it holds an object of .*open, and loading that could"):
        load.open_weights(path)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"\x80\x04", b"\x80\x04K\x01.", b"\x80\x02}q\x00.", b"\x80\x04]."])
def test_pickle_of_arrays__other_content(tmp_path, content):
    (tmp_path / "odd.pkl").write_bytes(content)
    with pytest.raises(WeightsError, match=r"odd\.pkl: "):
        load.open_weights(tmp_path / "odd.pkl")


def test_pickle_of_arrays__written_by_python_2(tmp_path):
    """Protocol 2 with bytes as text, as the zoo's oldest files."""
    path = tmp_path / "old.pkl"
    path.write_bytes(pickle.dumps({"blobs": {"a_w": np.arange(4, dtype=">f4")}}, protocol=2))
    assert_close(load.open_weights(path).state, {"a_w": torch.arange(4.0)})


# ---- backbones


def caffe2_body() -> dict[str, torch.Tensor]:
    """The names of the zoo's R-50.pkl; every tensor is its own number."""
    state = {"conv1_w": torch.rand(64, 3, 7, 7), "pred_w": torch.ones(2), "conv1_w_momentum": torch.ones(2)}
    state |= {f"res_conv1_bn_{t}": torch.rand(64) for t in "sb"}
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        middle, out = 64 * 2 ** (stage - 1), 256 * 2 ** (stage - 1)
        inside = 64 if stage == 1 else out // 2
        for block in range(blocks):
            here = f"res{stage + 1}_{block}_branch"
            shapes = {"2a": (middle, inside, 1, 1), "2b": (middle, middle, 3, 3), "2c": (out, middle, 1, 1)}
            shapes |= {"1": (out, inside, 1, 1)} if block == 0 else {}
            for branch, shape in shapes.items():
                state[f"{here}{branch}_w"] = torch.zeros(shape, dtype=torch.float16)
                state |= {f"{here}{branch}_bn_{t}": torch.rand(shape[0]) for t in "sb"}
            inside = out
    return state


def test_body__of_detectron2_in_caffe2s_names(tmp_path, shrink):
    body = caffe2_body()
    path = tmp_path / "R-50.pkl"
    torch.save(body, path)
    config = shrink(presets.get("resnet50-c4", ("cat", "dog")))
    network, report = build.start_model(numerics_of(config, str(path)), str(path))
    state = network.state_dict()
    assert torch.equal(state["backbone.body.conv1.weight"], body["conv1_w"].flip(1))
    assert torch.equal(state["backbone.body.bn1.weight"], body["res_conv1_bn_s"])
    assert torch.equal(state["box_head.body.stage.2.bn3.bias"], body["res5_2_branch2c_bn_b"])
    assert torch.equal(state["backbone.body.layer2.0.downsample.1.weight"], body["res3_0_branch1_bn_s"])
    assert bool((state["backbone.body.layer3.5.bn2.running_var"] == 1).all())
    assert "a backbone of Detectron2, BGR pixels" in report.source
    assert {key.split(".")[0] for key in report.fresh} == {"rpn", "box_head"}
    assert network.std.flatten().tolist() == pytest.approx([1 / 255] * 3)
    assert network.backbone.body.layer2[0].conv1.stride == 2


@pytest.mark.parametrize("family", ["torchvision", "detectron2", "mmdetection"])
@pytest.mark.parametrize("preset", ["resnet18-fpn", "resnet34-fpn", "wide-resnet50-2-fpn", "resnext50-32x4d-fpn"])
def test_recognise__other_resnets_under_a_pyramid(files, family, preset):
    source = load.recognise(HERE, files(family, preset, 3), {})
    assert source.config.preset == preset
    check_fit(sketch(source.config), source.state, str(HERE))
