"""A real browser, driven through its DevTools protocol over a pair of pipes: no package needed."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fasterrcnn.evaluation.ground_truth import Images

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page of a headless Chromium.

    Attributes:
        problems: everything that came up on the console as a warning or error, exceptions, and requests that failed.
        requested: addresses of all requests but data.
    """

    def __init__(self, profile: Path):
        read_commands, self._out = os.pipe()
        self._in, write_answers = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [CHROMIUM, *options, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        # Chromium reads commands from descriptor 3 and answers on 4.
        script = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._rest, self._number, self._session = b"", 0, None
        self._events, self.problems, self.requested = [], [], []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        """The result of one command; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {} if self._session is None else {"sessionId": self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file and wait until it is loaded."""
        self.problems.clear()
        self.requested.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self._events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()

    def run(self, script: str):
        """The value of an expression in the page, once it has drawn two frames."""
        waiting = f"new Promise(done => {{ const value = (() => {{ return {script}; }})();"
        waiting += " requestAnimationFrame(() => requestAnimationFrame(() => done(value))); })"
        answer = self.call("Runtime.evaluate", expression=waiting, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def close(self) -> None:
        """End the browser."""
        os.close(self._out)
        os.close(self._in)
        self._process.terminate()
        self._process.wait(300)

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser has ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        answer = json.loads(line)
        method, about = answer.get("method", ""), answer.get("params", {})
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.problems.append(about["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.problems.append(about["args"])
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.problems.append(about["entry"])
        elif method == "Network.requestWillBeSent" and not about["request"]["url"].startswith("data:"):
            self.requested.append(about["request"]["url"])
        return answer


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A browser for all tests of pages."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """Ground truth with images that exist: grey, 100 x 100."""
    folder = tmp_path_factory.mktemp("images")

    def add(ground_truth, names=None):
        names = names or [f"{number}.jpg" for number in ground_truth.images.ids]
        files = tuple(folder / name for name in names)
        for file in files:
            Image.new("RGB", (100, 100), (120, 130, 140)).save(file, "JPEG")
        return replace(ground_truth, images=Images(ground_truth.images.ids, files, ground_truth.images.sizes_hw))

    return add


@pytest.fixture(scope="session")
def five(make_ground_truth, make_predictions, report_of, shown):
    """The report of the example in the docs: five images, seven objects, eight detections."""
    objects = [
        (1, 1, 10, 10, 40, 40),
        (2, 1, 10, 10, 40, 40),
        (2, 2, 60, 60, 30, 30),
        (3, 2, 10, 10, 40, 40),
        (4, 1, 0, 0, 50, 50),
        (4, 1, 50, 50, 50, 50),
        (3, 2, 60, 60, 40, 40),
    ]
    ground_truth = shown(make_ground_truth(*objects, images=5))
    predictions = make_predictions(
        ground_truth,
        (5, 1, 0.95, 30, 30, 20, 20),
        (1, 1, 0.90, 10, 10, 40, 40),
        (3, 2, 0.85, 10, 10, 40, 40),
        (2, 1, 0.80, 10, 10, 40, 33),
        (3, 2, 0.75, 10, 10, 40, 40),
        (3, 2, 0.70, 60, 60, 40, 40),
        (4, 1, 0.60, 0, 0, 50, 20),
        (4, 2, 0.50, 50, 50, 50, 50),
    )
    return report_of(ground_truth, predictions, samples=50)
