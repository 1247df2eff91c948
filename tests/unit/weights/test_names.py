"""Weights by name, from a mirror on this disk: the whole way from a name to a detector."""

import hashlib
import pickle
import re
import shutil

import pytest
import torch
import torchvision
from torch.testing import assert_close
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from fasterrcnn import load, presets
from fasterrcnn.build import assemble, build_model, load_model
from fasterrcnn.cli.main import main
from fasterrcnn.config import changed
from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import catalog, detectron2, native
from fasterrcnn.weights.download import Published

DETECTORS = torchvision.models.detection
SMALL = "mobilenetv3-large-320-fpn"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FASTERRCNN_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.delenv("FASTERRCNN_OFFLINE", raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture(scope="module")
def theirs():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DETECTORS.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
        model.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, 32)
        model.roi_heads.box_predictor = FastRCNNPredictor(32, 91)
        return model.eval()


@pytest.fixture
def small(theirs, tmp_path, monkeypatch):
    """torchvision's smallest detector with random weights, its head narrow, offered by the mirror under its hash."""
    file = tmp_path / "file"
    torch.save(theirs.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    place = tmp_path / "mirror" / "download.pytorch.org" / "models" / f"small-{digest[:8]}.pth"
    place.parent.mkdir(parents=True)
    file.rename(place)
    weights = DETECTORS.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1
    monkeypatch.setattr(weights.value, "url", f"https://download.pytorch.org/models/{place.name}")
    return place


def test_known__urls_and_hashes():
    known = catalog.known()
    assert len(known) == 14
    assert known["resnet50-fpn"] == Published(
        "https://download.pytorch.org/models/fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", "sha256", "258fb6c6"
    )
    assert known["detectron2/faster_rcnn_R_50_FPN_3x"] == Published(
        "https://dl.fbaipublicfiles.com/detectron2/COCO-Detection/faster_rcnn_R_50_FPN_3x/137849458/"
        "model_final_280758.pkl",
        "md5",
        "280758",
    )
    assert len({published.place for published in known.values()}) == len(known)
    assert all(re.fullmatch("[0-9a-f]{6,8}", published.prefix) for published in known.values())


def test_load__by_name(small, theirs, cache, photo):
    detector = load(SMALL)
    assert (cache / small.name).is_file()
    assert detector.config.preset == SMALL
    assert (detector.classes[0], detector.classes[11], detector.classes[89]) == ("person", "N/A 12", "toothbrush")
    assert detector.config.category_ids == tuple(range(1, 91))
    image = photo((200, 300))
    pixels = torchvision.transforms.functional.to_tensor(image)
    expected = theirs([pixels])[0]
    found = detector.predict(image, score=0.0)
    kept = expected["scores"] > 0.05
    assert_close(torch.from_numpy(found.scores)[: int(kept.sum())], expected["scores"][kept], atol=1e-4, rtol=1e-4)


def test_load__own_class_names_go_before(small):
    own = [f"thing {i}" for i in range(90)]
    detector = load(SMALL, classes=own)
    assert detector.classes == tuple(own)
    assert detector.config.category_ids == ()


def test_build_model__starts_from_a_name(small, theirs):
    config = changed(presets.get(SMALL, ["cat", "dog"]), regions={"widths": (32, 32)})
    state = build_model(config, weights=SMALL).state_dict()
    assert torch.equal(state["rpn.deltas.weight"], theirs.state_dict()["rpn.head.bbox_pred.weight"])
    assert len(state["box_head.class_logits.bias"]) == 3


def test_locate__eps_of_the_first_version(monkeypatch):
    known = catalog.known()["resnet50-fpn"]
    monkeypatch.setattr(catalog, "fetch", lambda published: published.place)
    found = catalog.locate("resnet50-fpn")
    assert found.norm_eps == 0.0
    assert found.path == known.place
    assert catalog.locate("resnet50-fpn-v2").norm_eps is None


def test_locate__detectron2(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "fetch", lambda published: published.place)
    found = catalog.locate("detectron2/faster_rcnn_R_50_C4_1x")
    assert found.path.name == "model_final_721ade.pkl"
    assert catalog.locate("detectron2/COCO-Detection/faster_rcnn_R_50_C4_1x") == found


ZOO = "detectron2/faster_rcnn_R_50_FPN_3x"


@pytest.fixture(scope="module")
def zoo_file(tmp_path_factory):
    """A detector of Detectron2's zoo with random numbers, its head narrow, named by its hash."""
    coco = [f"class_{number}" for number in range(80)]
    config = changed(presets.get("resnet50-fpn", coco), regions={"widths": (16, 16)})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = detectron2.to_detectron2(assemble(config).state_dict(), config)
    beside = ("pixel_", "proposal_generator.anchor_generator")  # the zoo's files do not hold them
    arrays = {key: value.numpy() for key, value in state.items() if not key.startswith(beside)}
    raw = pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"})
    path = tmp_path_factory.mktemp("zoo") / f"model_final_{hashlib.md5(raw).hexdigest()[:6]}.pkl"
    path.write_bytes(raw)
    return path


@pytest.fixture
def zoo(zoo_file, tmp_path, monkeypatch):
    """That file, offered by the mirror."""
    end = f"1/{zoo_file.name}"
    monkeypatch.setitem(catalog._DETECTRON2, "faster_rcnn_R_50_FPN_3x", end)
    place = tmp_path / "mirror/dl.fbaipublicfiles.com/detectron2/COCO-Detection/faster_rcnn_R_50_FPN_3x" / end
    place.parent.mkdir(parents=True)
    place.hardlink_to(zoo_file)
    return place


def test_detectron2__from_the_name_to_detections_a_start_and_our_file(zoo, cache, photo, tmp_path):
    message = []
    detector = load(ZOO, log=message.append)
    in_cache = cache / zoo.name
    assert message == [
        f"{in_cache}: resnet50-fpn of Detectron2, 80 classes (person, bicycle, car...), "
        "BGR pixels, 0..255 less the mean"
    ]
    assert (detector.config.category_ids[11], detector.classes[11]) == (13, "stop sign")
    assert detector.config.input.resize == "pillow"
    zoo.unlink()  # all else comes from the cache

    with pytest.raises(SystemExit) as ended:
        main(["weights", "convert", ZOO, str(tmp_path / "own.safetensors")])
    assert ended.value.code == 0
    own, config, _ = native.load_checkpoint(tmp_path / "own.safetensors")
    assert config == detector.config
    whole = pickle.loads(in_cache.read_bytes())["model"]
    stem = torch.from_numpy(whole["backbone.bottom_up.stem.conv1.weight"])
    assert torch.equal(own["backbone.body.conv1.weight"], stem.flip(1))
    again = load(tmp_path / "own.safetensors")
    for one in (detector, again):
        one.config = changed(config, input={"short_side": 64, "long_side": 96})  # only to be quick
    found, same = (one.predict(photo((64, 96)), score=0.0, max_detections=5) for one in (detector, again))
    assert len(found) == 5
    assert found.boxes.tolist() == same.boxes.tolist()

    start = build_model(changed(config.with_classes(["owl", "Stop_Sign"]), input={"short_side": 64}), weights=ZOO)
    trained = torch.from_numpy(whole["roi_heads.box_predictor.cls_score.weight"])
    assert torch.equal(start.state_dict()["box_head.class_logits.weight"][1:], trained[[11, 80]])


def test_detectron2__damaged_in_the_cache_is_fetched_again(zoo, cache):
    cache.mkdir(parents=True)
    (cache / zoo.name).write_bytes(zoo.read_bytes()[:-1])
    assert load_model(catalog.locate(ZOO).path)[1].preset == "resnet50-fpn"
    assert (cache / zoo.name).read_bytes() == zoo.read_bytes()


def test_locate__what_exists_goes_before_a_name(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    shutil.copy(checkpoint, tmp_path / "resnet50-fpn")
    assert catalog.locate("resnet50-fpn").path.samefile(tmp_path / "resnet50-fpn")
    assert load("resnet50-fpn").classes == ("cat", "dog", "owl")


def test_locate__folder_of_a_run(tmp_path, checkpoint):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(WeightsError, match=r"run: no weights in this folder \(best\.safetensors, last\.safetensors"):
        catalog.locate(run)
    for name in ("last.safetensors", "best.safetensors"):
        shutil.copy(checkpoint, run / name)
        assert catalog.locate(run).path == run / name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50-fnp", r"^resnet50-fnp: no such file, and no weights are called so; did you mean resnet50-fpn\?$"),
        ("nonsense", r"names are resnet50-fpn, resnet50-fpn-v2, .* and hf://user/repository$"),
        ("detectron2/faster_rcnn_R_50_FPN_4x", r"did you mean detectron2/faster_rcnn_R_50_FPN_[13]x\?$"),
        ("runs/cells/best.safetensors", r"^runs/cells/best\.safetensors: no such file$"),
        ("", "no such file"),
    ],
)
def test_locate__unknown(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=message):
        catalog.locate(name)


def test_load__not_in_the_mirror(cache, monkeypatch):
    monkeypatch.setattr("fasterrcnn.weights.download._PAUSE", 0.0)
    with pytest.raises(WeightsError, match=r"cannot download file://.*/mirror/dl\.fbaipublicfiles\.com/") as caught:
        load("detectron2/faster_rcnn_R_101_C4_3x")
    url = "https://dl.fbaipublicfiles.com/detectron2/COCO-Detection/faster_rcnn_R_101_C4_3x/138204752/"
    assert f"fetch {url}model_final_298dad.pkl on another machine" in str(caught.value)
    assert f"put it at {cache / 'model_final_298dad.pkl'}" in str(caught.value)
