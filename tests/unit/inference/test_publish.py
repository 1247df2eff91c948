"""The Hub, over real sockets: a small server that speaks as much of its language as is needed."""

import base64
import hashlib
import http.server
import json
import re
import shutil
import threading
from contextlib import contextmanager

import pytest
import torch
import yaml
from torch.testing import assert_close

from fasterrcnn import Detector, load, presets
from fasterrcnn.build import load_model
from fasterrcnn.config import changed
from fasterrcnn.errors import MissingExtraError, UsageError, WeightsError
from fasterrcnn.inference.publish import write_repository
from fasterrcnn.weights import mmdetection, native

pytest.importorskip("huggingface_hub")
REPOSITORY = "someone/cells"


class _Hub(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []
        self.requests: list[str] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, content=b"{}", **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        hub, raw = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        hub.requests.append(self.path)
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            wanted = json.loads(raw)
            name = f"{wanted.get('organization', 'someone')}/{wanted['name']}"
            hub.repositories.setdefault(name, {})
            hub.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            return self.answer(200, {"url": f"{hub.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/(\w+/\w+)/(preupload|commit)/main", self.path)
        if found and found[2] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(raw)["files"]
            ]
            return self.answer(200, {"files": files})
        if found:
            for line in map(json.loads, raw.splitlines()):
                if line["key"] == "header":
                    hub.messages.append(line["value"]["summary"])
                else:
                    hub.repositories[found[1]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer(200, {"commitUrl": f"{hub.url}/{found[1]}/commit/{'a' * 40}", "commitOid": "a" * 40})
        return self.answer(404)

    def do_GET(self):
        self.server.requests.append(self.path)
        found = re.fullmatch(r"/(\w+/\w+)/resolve/([^/]+)/(.+)", self.path)
        files = self.server.repositories.get(found[1]) if found else None
        if files is None:
            return self.answer(404, X_Error_Code="RepoNotFound")
        if found[2] not in ("main", "a" * 40):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if found[3] not in files:
            return self.answer(404, X_Error_Code="EntryNotFound")
        content = files[found[3]]
        return self.answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit="a" * 40)

    do_HEAD = do_GET  # noqa: N815


@contextmanager
def serving(cache):
    """An empty Hub and an empty cache."""
    with _Hub() as server, pytest.MonkeyPatch.context() as monkeypatch:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("FASTERRCNN_CACHE", str(cache))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv("FASTERRCNN_OFFLINE", raising=False)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def hub(tmp_path):
    with serving(tmp_path / "cache") as server:
        yield server


@pytest.fixture(scope="module")
def detector(checkpoint):
    return load(checkpoint)


@pytest.fixture(scope="module")
def pushed(detector, tmp_path_factory):
    """A Hub after a push: its tables stay when it has closed."""
    with serving(tmp_path_factory.mktemp("cache")) as server:
        detector.push_to_hub(REPOSITORY, token="hf_right")
    return server


@pytest.fixture
def published(hub, pushed):
    """A Hub with a repository."""
    hub.repositories[REPOSITORY] = dict(pushed.repositories[REPOSITORY])
    return hub


def test_push__and_back(published, pushed, detector, photo):
    ours, again = detector, Detector.from_pretrained(REPOSITORY)
    assert again.classes == ours.classes
    assert again.config == ours.config
    assert_close(again.predict(photo((64, 64))).boxes, ours.predict(photo((64, 64))).boxes)
    assert pushed.repositories[REPOSITORY].keys() == {"README.md", "model.safetensors"}
    assert pushed.private == {REPOSITORY: False}


def test_push__address_message_and_privacy(hub, detector):
    address = detector.push_to_hub(REPOSITORY, token="hf_right", private=True, message="the second try")
    assert address == f"{hub.url}/{REPOSITORY}"
    assert hub.messages == ["the second try"]
    assert hub.private == {REPOSITORY: True}


def test_load__by_name(published, detector):
    for address in (REPOSITORY, f"{REPOSITORY}@main/model.safetensors"):
        assert load(f"hf://{address}").classes == detector.classes
    assert Detector.from_pretrained(f"hf://{REPOSITORY}").classes == ("cat", "dog", "owl")


def test_load__cached_in_our_place_and_then_offline(published, tmp_path, monkeypatch):
    load(f"hf://{REPOSITORY}")
    assert list((tmp_path / "cache" / "hub").rglob("model.safetensors"))
    monkeypatch.setenv("FASTERRCNN_OFFLINE", "1")
    published.requests.clear()
    assert load(f"hf://{REPOSITORY}").classes == ("cat", "dog", "owl")
    with pytest.raises(WeightsError, match=r"hf://someone/dogs: not in .*cache/hub, and FASTERRCNN_OFFLINE forbids"):
        load("hf://someone/dogs")
    assert published.requests == []


def test_push__card_has_what_is_known(published):
    card = published.repositories[REPOSITORY]["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "fasterrcnn"
    assert head["pipeline_tag"] == "object-detection"
    assert 'Detector.from_pretrained("someone/cells")' in card
    assert "fasterrcnn predict hf://someone/cells photo.jpg -o seen" in card
    assert "| 2 | owl |" in card
    assert not re.search(r"\{|\}|None|nan", card)


def test_push__card_of_a_run_goes_along(hub, checkpoint, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(checkpoint, run / "best.safetensors")
    text = "---\nlibrary_name: fasterrcnn\n---\n\n# cells\n\n"
    text += '## How to use it\n\nload("best.safetensors")\nfasterrcnn predict best.safetensors photo.jpg\n\n'
    text += "## Results\n\nEpoch 12, the best of 14.\n\n## Files\n\n| a | b |\n"
    (run / "README.md").write_text(text)
    load(run).push_to_hub(REPOSITORY, token="hf_right")
    card = hub.repositories[REPOSITORY]["README.md"].decode()
    assert f'Detector.from_pretrained("{REPOSITORY}")' in card
    assert f"fasterrcnn predict hf://{REPOSITORY} photo.jpg" in card
    assert "## Results\n\nEpoch 12, the best of 14.\n" in card
    assert "best.safetensors" not in card
    assert "## Files" not in card
    (run / "README.md").write_text("# something else, not of a model\n")
    load(run).push_to_hub(REPOSITORY, token="hf_right")
    assert "something else" not in hub.repositories[REPOSITORY]["README.md"].decode()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("someone/dogs", "hf://someone/dogs: no such repository at http://.*/someone/dogs, or it is private"),
        ("someone/cells@old", "hf://someone/cells@old: no such revision"),
        ("someone/cells/best.pth", "hf://someone/cells/best.pth: has no best.pth; name a file"),
    ],
)
def test_pull__what_is_not_there(published, address, message):
    with pytest.raises(WeightsError, match=message) as caught:
        load(f"hf://{address}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["cells", "", "a/b/../../c", "a/b@", "https://x/y", "a b/c"])
def test_pull__no_address(hub, address):
    with pytest.raises(UsageError, match="write hf://user/repository"):
        load(f"hf://{address}")
    assert hub.requests == []


def test_pull__no_server(monkeypatch, tmp_path):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # its client tries again and again
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"hf://a/b: cannot be downloaded \(.*\); download model\.safetensors from http"
    ):
        load("hf://a/b")


def test_pull__hostile_weights_are_refused(published, tmp_path):
    published.repositories[REPOSITORY]["model.safetensors"] = b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR."
    with pytest.raises(WeightsError, match=r"refused, it holds an object of os\.system"):
        load(f"hf://{REPOSITORY}")


def test_push__refused_by_the_server(hub, detector):
    with pytest.raises(WeightsError, match=r"someone/cells: cannot be published \(.*401.*\); hf auth login") as caught:
        detector.push_to_hub(REPOSITORY, token="hf_wrong")
    assert "\n" not in str(caught.value)
    assert hub.repositories == {}


def test_push__needs_a_file_and_a_name(tiny_model, tiny_config, detector):
    with pytest.raises(UsageError, match="made in memory: save its network"):
        Detector(tiny_model, tiny_config).push_to_hub(REPOSITORY)
    for name in ("cells", "a/b/c", "../x"):
        with pytest.raises(UsageError, match="names no repository: write user/repository"):
            detector.push_to_hub(name)


def test_hub__without_the_extra(monkeypatch, detector):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for act in (lambda: load("hf://a/b"), lambda: detector.push_to_hub("a/b")):
        with pytest.raises(MissingExtraError, match=r'pip install "fasterrcnn\[hub\]"'):
            act()


def test_push__weights_are_not_the_folded_ones(published, checkpoint, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(published.repositories[REPOSITORY]["model.safetensors"])
    assert_close(native.load_checkpoint(tmp_path / "x.safetensors")[0], native.load_checkpoint(checkpoint)[0])


def test_write_repository__colours_that_were_given(tmp_path, weightless):
    """The stem of a file in Caffe's style is turned round; what is published is what detects."""
    config = changed(presets.get("resnet50-fpn", ("cat", "dog")), regions={"widths": (16, 16)})
    names = mmdetection.MMDETECTION_NAMES
    state = {names.theirs(key): value.half().contiguous() for key, value in weightless(config).items()}
    state["backbone.conv1.weight"] = torch.rand(64, 3, 7, 7).half()
    torch.save({"state_dict": state}, tmp_path / "epoch_12.pth")
    detector = load(tmp_path / "epoch_12.pth", style="caffe", classes=("cat", "dog"))
    folder = tmp_path / "repository"
    folder.mkdir()
    write_repository(folder, detector.source, detector.config, "me/cells")
    network, config = load_model(folder / "model.safetensors")
    assert config == detector.config
    stem = state["backbone.conv1.weight"].float().flip(1)
    assert torch.equal(network.state_dict()["backbone.body.conv1.weight"], stem)
