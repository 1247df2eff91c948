"""What training scripts save around the weights of a network."""

import argparse
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from fasterrcnn import presets
from fasterrcnn.build import load_model
from fasterrcnn.config import changed
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import load, torchvision
from fasterrcnn.weights.safe_read import read_tensors, read_weights
from fasterrcnn.weights.wrappers import NamedTensors, unwrap_names

SMALL = {"stem.weight": torch.arange(6.0).view(2, 3), "stem.bias": torch.zeros(2)}
OTHER = {name: tensor + 1 for name, tensor in SMALL.items()}
PRESET = "mobilenetv3-large-fpn"


@pytest.fixture(scope="module")
def detector(weightless):
    """A whole detector of torchvision with narrow layers, every number 0.5, in half precision."""
    config = changed(presets.get(PRESET, ["a", "b", "c"]), regions={"widths": (4, 4)})
    state = torchvision.to_torchvision(weightless(config), config)
    return {name: tensor.half().contiguous() for name, tensor in state.items()}


@pytest.fixture
def opened(detector, tmp_path):
    """The file that holds what is made of a detector's tensors, as it is read."""

    def save_and_open(wrap):
        path = tmp_path / "run.pth"
        torch.save(wrap(detector), path)
        return load.open_weights(path)

    return save_and_open


def prefixed(prefix):
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def averaged(state):
    return {name: torch.full_like(tensor, 0.25) for name, tensor in state.items()}


PREFIXES = [
    *("module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model.", "model._orig_mod.module."),
    *("net.", "module.module.", "detector.model.", "_forward_module.model.", "faster_rcnn."),
]


@pytest.mark.parametrize("family", ["torchvision", "detectron2", "mmdetection"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_unwrap_names__prefixes_in_any_combination(files, family, prefix):
    state = files(family, "resnet50-fpn", 3)
    assert unwrap_names(NamedTensors(prefixed(prefix)(state))).tensors.keys() == state.keys()


@pytest.mark.parametrize("key", ["model", "state_dict", "net", "model_state", "model_state_dict", "weights", "params"])
def test_open_weights__key_and_prefix_together(opened, key):
    file = opened(lambda state: {"epoch": 3, key: prefixed("_orig_mod.module.")(state), "args": {"lr": 0.1}})
    assert (file.config.preset, len(file.config.classes), file.about) == (PRESET, 3, "")


def test_open_weights__parts_that_were_compiled(opened):
    def compiled(state):
        return {name.replace("backbone.", "backbone._orig_mod."): tensor for name, tensor in state.items()}

    assert opened(compiled).config.preset == PRESET


def test_open_weights__lightning_module_with_metrics_beside(opened):
    others = {"val_map.scores": torch.zeros(2), "criterion.weight": torch.ones(3)}
    file = opened(
        lambda state: {
            "epoch": 3,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": OrderedDict(prefixed("detector.")(state), **others),
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}],
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
            "hyper_parameters": {"classes": 3},
        }
    )
    assert file.config.preset == PRESET
    assert file.about == "without 2 tensors beside detector"


@pytest.mark.parametrize(
    ("wrap", "about"),
    [
        (lambda state: {"model": state, "model_ema": averaged(state)}, "averaged weights (model_ema)"),
        (lambda state: {"state_dict": state, "state_dict_ema": averaged(state)}, "averaged weights (state_dict_ema)"),
        (
            lambda state: {"model": state, "ema": {"module": averaged(state), "updates": 7}},
            "averaged weights (ema.module)",
        ),
        (
            lambda state: prefixed("student.")(state) | prefixed("teacher.")(averaged(state)),
            "averaged weights (teacher)",
        ),
        (lambda state: {"n_averaged": torch.tensor(4), **prefixed("module.")(averaged(state))}, None),
    ],
)
def test_open_weights__averaged_weights_go_before_the_last(opened, wrap, about):
    file = opened(wrap)
    assert float(file.state["rpn.convs.0.weight"].flatten()[0]) == 0.25
    if about is not None:
        assert file.about.split(",")[0] == about
        assert about in file.line


def test_open_weights__averages_of_parameters_alone_are_not_enough(opened):
    def wrap(state):
        shadow = {name: tensor for name, tensor in averaged(state).items() if "running" not in name}
        return {"model": state, "ema": shadow}

    file = opened(wrap)
    assert float(file.state["rpn.convs.0.weight"].flatten()[0]) == 0.5
    assert file.about == ""


def test_open_weights__mmengine_has_exchanged_them_already(tmp_path):
    content = {"meta": {"epoch": 1}, "message_hub": {}, "state_dict": SMALL}
    content["ema_state_dict"] = {"steps": torch.tensor(3), **prefixed("module.")(OTHER)}
    torch.save(content, tmp_path / "e.pth")
    assert_close(read_tensors(tmp_path / "e.pth")[0], SMALL)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_load_model__other_precisions_become_float32(detector, tmp_path, dtype):
    torch.save({"model": {name: tensor.to(dtype) for name, tensor in detector.items()}}, tmp_path / "half.pth")
    network, _ = load_model(tmp_path / "half.pth")
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {torch.float32}
    assert bool((network.rpn.objectness.weight == 0.5).all())


# ---- places in the file


@pytest.mark.parametrize(
    ("content", "about"),
    [
        ({"my_detector": SMALL, "optimizer": {"buffers": OTHER}}, ""),
        ({"epoch": torch.tensor(3), "detector": SMALL}, ""),
        ({**SMALL, "epoch": 3, "config": {"lr": 0.1}}, ""),
        ({"checkpoint": {"model": SMALL}, "lr_scheduler": {"last": torch.tensor(1)}}, ""),
        ({"net": OTHER, "model": SMALL}, ""),
        ({"ema": SMALL}, "averaged weights (ema)"),
        ({"student": OTHER, "teacher": SMALL}, "averaged weights (teacher)"),
        ({"model": {**SMALL, "head._extra_state": None}}, ""),
    ],
)
def test_read_weights__one_network_of_what_a_file_holds(tmp_path, content, about):
    torch.save(content, tmp_path / "w.pth")
    weights = read_weights(tmp_path / "w.pth")
    assert_close(weights.tensors, SMALL)
    assert weights.about == about


def test_read_weights__several_networks_are_not_guessed(tmp_path):
    torch.save({"generator": SMALL, "discriminator": OTHER}, tmp_path / "gan.pth")
    with pytest.raises(WeightsError, match=r"holds several networks \(generator, discriminator\); save one of them"):
        read_weights(tmp_path / "gan.pth")


def test_read_weights__plain_values_beside_flat_tensors_are_kept(tmp_path):
    torch.save({**SMALL, "epoch": 3}, tmp_path / "flat.pth")
    assert read_weights(tmp_path / "flat.pth").beside == {"epoch": 3}


def test_read_weights__the_same_dict_many_times_takes_no_time(tmp_path):
    content = {"w.weight": torch.ones(1)}
    for _ in range(4):
        content = {str(number): content for number in range(200)}
    torch.save(content, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").tensors.keys() == {"w.weight"}


# ---- objects beside and instead of the weights


@pytest.fixture
def settings(monkeypatch):
    """An object of a module that is nowhere installed when the file is read."""
    module = ModuleType("my_project")
    module.Settings = type("Settings", (dict,), {"__module__": "my_project"})
    monkeypatch.setitem(sys.modules, "my_project", module)
    return module.Settings(lr=0.1)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_read_weights__objects_beside_are_ignored(tmp_path, settings, protocol):
    parameters = [nn.Parameter(torch.ones(2))]
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9)
    beside = {
        "args": argparse.Namespace(lr=0.1),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]).state_dict(),
        "settings": settings,
        "whole_optimizer": optimizer,
        "counts": Counter("aab"),
        "default": defaultdict(list, a=[1]),
        "set": {1, 2},
        "device": torch.device("cpu"),
    }
    torch.save({"model": SMALL, **beside}, tmp_path / "w.pth", pickle_protocol=protocol)
    assert_close(read_tensors(tmp_path / "w.pth")[0], SMALL)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"model": model, "epoch": 3}])
def test_read_weights__a_whole_model_is_refused_with_advice(tmp_path, modern, wrap):
    torch.save(wrap(nn.Sequential(nn.Conv2d(3, 4, 1))), tmp_path / "whole.pth", _use_new_zipfile_serialization=modern)
    advice = r"holds a whole object of torch\.nn\.\S+Sequential, .*save model\.state_dict\(\) alone"
    with pytest.raises(WeightsError, match=advice):
        read_weights(tmp_path / "whole.pth")


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "numpy.load", "torch.load", "torch.hub.load"])
def test_read_weights__functions_that_do_harm_are_refused_beside_weights_too(tmp_path, name):
    class Harm:
        def __reduce__(self):
            module, _, function = name.rpartition(".")
            return getattr(__import__(module, fromlist=["x"]), function), ("x",)

    torch.save({"model": SMALL, "extra": Harm()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"refused, it holds an object of .*, and loading that could run code"):
        read_weights(tmp_path / "w.pth")
    assert pickle.dumps(Harm())  # the file was what it should be
