"""Downloads from a server that misbehaves in every way, over real sockets."""

import errno
import hashlib
import http.server
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from fasterrcnn.errors import WeightsError
from fasterrcnn.weights import download
from fasterrcnn.weights.download import Published, fetch, mirrored

CONTENT = bytes(range(256)) * 8192  # two mebibytes
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"detector-{DIGEST[:8]}.pth"
PART = 300_000


class _Site(http.server.ThreadingHTTPServer):
    """Answers each request by the next of its manners; the last one stays."""

    daemon_threads = True
    request_queue_size = 20

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.manners = ["whole"]
        self.ranges: list[str | None] = []
        self.leave = threading.Event()

    def handle_error(self, request, client_address):
        pass  # clients hang up on purpose

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/models/{NAME}"


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        site = self.server
        self.close_connection = True
        asked = self.headers.get("Range")
        site.ranges.append(asked)
        manner = site.manners.pop(0) if len(site.manners) > 1 else site.manners[0]
        if self.path == "/moved":
            manner = "whole"
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        getattr(self, manner.replace(" ", "_"))(start)

    def begin(self, status, length, **headers):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def begin_part(self, start, content=CONTENT):
        if start >= len(content):
            self.begin(416, 0, Content_Range=f"bytes */{len(content)}")
            return b""
        if start:
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.begin(206, len(content) - start, Content_Range=span)
        else:
            self.begin(200, len(content))
        return content[start:]

    def whole(self, start):
        self.wfile.write(self.begin_part(start))

    def ignore_range(self, start):
        self.whole(0)

    def truncate(self, start):
        self.wfile.write(self.begin_part(start)[:PART])

    def stall(self, start):
        self.wfile.write(self.begin_part(start)[:PART])
        self.wfile.flush()
        self.server.leave.wait(20)

    def silent(self, start):
        self.server.leave.wait(20)

    def drip(self, start):
        for byte in self.begin_part(start)[:2000]:
            if self.server.leave.wait(0.02):
                return
            self.wfile.write(bytes([byte]))

    def redirect(self, start):
        self.begin(302, 0, Location="/moved")

    def redirect_for_ever(self, start):
        self.begin(302, 0, Location=self.path)

    def redirect_to_a_file(self, start):
        self.begin(302, 0, Location="file:///etc/hostname")

    def absent(self, start):
        self.begin(404, 9)
        self.wfile.write(b"not there")

    def busy(self, start):
        self.begin(503, 0, Retry_After="1")

    def wrong_bytes(self, start):
        self.wfile.write(self.begin_part(start, b"<html>" + CONTENT[6:]))

    def web_page(self, start):
        self.begin(200, 20)
        self.wfile.write(b"<html>please log in<")

    def other_part(self, start):
        self.begin(206, 10, Content_Range="bytes 5-14/2000000")
        self.wfile.write(b"0123456789")

    def without_length(self, start):
        self.begin(200, None)
        self.wfile.write(CONTENT)

    def hang_up(self, start):
        self.connection.shutdown(2)

    def too_much(self, start):
        self.begin(200, 2**60)

    def no_http(self, start):
        self.wfile.write(b"220 this is another protocol\r\n")


@pytest.fixture
def site():
    with _Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.leave.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    for name in ("MIRROR", "OFFLINE"):
        monkeypatch.delenv(f"FASTERRCNN_{name}", raising=False)
    monkeypatch.setenv("FASTERRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    monkeypatch.setattr(download, "TIMEOUT", 60.0)  # a busy machine must not be taken for a server that stalls
    return tmp_path / "cache" / "weights"


SILENT = {"stall", "silent", "drip"}
"""Manners of a server that only a short timeout ends."""


def published(site) -> Published:
    return Published(site.url, "sha256", DIGEST[:8])


def visible(cache) -> set[str]:
    return {path.name for path in cache.glob("*") if not path.name.startswith(".")}


@pytest.mark.parametrize(
    ("manners", "requests"),
    [
        (["whole"], 1),
        (["without length"], 1),
        (["redirect"], 2),
        (["truncate", "whole"], 2),
        (["truncate", "truncate", "truncate", "whole"], 4),
        (["stall", "whole"], 2),
        (["silent", "whole"], 2),
        (["drip", "whole"], 2),
        (["hang up", "whole"], 2),
        (["busy", "busy", "whole"], 3),
        (["no http", "whole"], 2),
        (["truncate", "ignore range"], 2),
        (["truncate", "other part", "whole"], 3),
        (["truncate", "hang up", "stall", "busy", "whole"], 5),
        (["truncate"], 7),  # every time a little more: it gets there
    ],
)
def test_fetch__gets_there(site, cache, manners, requests, monkeypatch):
    stalls = not SILENT.isdisjoint(manners)
    if stalls:
        monkeypatch.setattr(download, "TIMEOUT", 0.6)
    site.manners = manners
    assert fetch(published(site)) == cache / NAME
    assert (cache / NAME).read_bytes() == CONTENT
    assert visible(cache) == {NAME}
    assert len(site.ranges) >= requests
    assert stalls or len(site.ranges) == requests


@pytest.mark.parametrize(
    ("manner", "message"),
    [
        ("absent", "HTTP 404"),
        ("busy", "HTTP 503 Service Unavailable, 5 times"),
        ("silent", "nothing came for 0.4 s, 5 times"),
        ("drip", "(bytes in|nothing came for) 0.4 s, 5 times"),
        ("hang up", ", 5 times"),
        ("no http", ", 5 times"),
        ("redirect for ever", "HTTP 302"),
        ("redirect to a file", "HTTP 302"),
        ("wrong bytes", f"it sends something else: its SHA-256 begins with [0-9a-f]{{8}}, not {DIGEST[:8]}"),
        ("web page", "it sends something else: its SHA-256"),
        ("too much", "HTTP 413 .* bytes are too many"),
        ("other part", "it sends another part than was asked for, 5 times"),
    ],
)
def test_fetch__names_what_is_wrong(site, cache, manner, message, monkeypatch):
    if manner in SILENT:
        monkeypatch.setattr(download, "TIMEOUT", 0.4)
    site.manners = [manner]
    with pytest.raises(WeightsError, match=rf"^cannot download {site.url} \(.*{message}.*\); fetch ") as caught:
        fetch(published(site))
    assert f"fetch {site.url} on another machine and put it at {cache / NAME}, or give a file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert visible(cache) <= {f"{NAME}.part"}
    assert not list(cache.glob(f"{NAME}.part")) or manner == "drip"  # what came is kept to go on from


def test_fetch__goes_on_from_where_another_process_stopped(site, cache):
    cache.mkdir(parents=True)
    (cache / f"{NAME}.part").write_bytes(CONTENT[:1_000_000])
    fetch(published(site))
    assert site.ranges == ["bytes=1000000-"]
    assert (cache / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("leftover", [b"<html>" * 100, CONTENT + b"more", b"x" * len(CONTENT), CONTENT, b""])
def test_fetch__leftovers_of_any_kind(site, cache, leftover):
    cache.mkdir(parents=True)
    (cache / f"{NAME}.part").write_bytes(leftover)
    fetch(published(site))
    assert (cache / NAME).read_bytes() == CONTENT
    assert visible(cache) == {NAME}


def test_fetch__twice_asks_once(site, cache):
    assert fetch(published(site)) == fetch(published(site))
    assert len(site.ranges) == 1


def test_fetch__damaged_in_the_cache_is_replaced(site, cache):
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT[:-1])
    assert fetch(published(site)).read_bytes() == CONTENT


def test_fetch__many_at_once_download_once(site, cache):
    site.manners = ["truncate", "whole"]
    found, threads = [], [threading.Thread(target=lambda: found.append(fetch(published(site)))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / NAME] * 6
    assert (cache / NAME).read_bytes() == CONTENT
    assert len(site.ranges) == 2


def test_fetch__torchvisions_cache_may_have_it(site, cache, tmp_path):
    theirs = tmp_path / "torch" / "hub" / "checkpoints" / NAME
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(CONTENT)
    assert fetch(published(site)) == theirs
    theirs.write_bytes(b"damaged")
    assert fetch(published(site)) == cache / NAME


def test_fetch__offline(site, cache, monkeypatch):
    monkeypatch.setenv("FASTERRCNN_OFFLINE", "1")
    message = rf"{NAME}: it is not there, and FASTERRCNN_OFFLINE forbids downloads; fetch {site.url} on another machine"
    with pytest.raises(WeightsError, match=message):
        fetch(published(site))
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(b"other")
    with pytest.raises(WeightsError, match=rf"{NAME}: it is damaged \(its SHA-256 begins with"):
        fetch(published(site))
    (cache / NAME).write_bytes(CONTENT)
    assert fetch(published(site)) == cache / NAME
    assert site.ranges == []


def test_fetch__md5_in_the_name(site, cache):
    right, wrong = hashlib.md5(CONTENT).hexdigest()[:6], "000000"
    assert fetch(Published(site.url, "md5", right)).is_file()
    (cache / NAME).unlink()
    with pytest.raises(WeightsError, match=f"its MD5 begins with {right}, not {wrong}"):
        fetch(Published(site.url, "md5", wrong))
    assert visible(cache) == set()


def test_mirror__by_host_and_path(site, cache, tmp_path, monkeypatch):
    away = Published(f"https://example.org/models/{NAME}", "sha256", DIGEST[:8])
    assert mirrored(away.url) == away.url
    monkeypatch.setenv("FASTERRCNN_MIRROR", f"http://127.0.0.1:{site.server_port}/copies/")
    assert mirrored(away.url) == f"http://127.0.0.1:{site.server_port}/copies/example.org/models/{NAME}"
    assert fetch(away) == cache / NAME
    folder = tmp_path / "my mirror" / "example.org" / "models"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(CONTENT)
    (cache / NAME).unlink()
    monkeypatch.setenv("FASTERRCNN_MIRROR", str(tmp_path / "my mirror"))
    assert fetch(away).read_bytes() == CONTENT
    assert len(site.ranges) == 1
    monkeypatch.setenv("FASTERRCNN_MIRROR", str(tmp_path / "nothing"))
    (cache / NAME).unlink()
    with pytest.raises(
        WeightsError, match=rf"cannot download file://.*nothing/example\.org.*fetch {away.url} on another"
    ):
        fetch(away)


def test_fetch__full_disk_is_no_matter_of_the_server(site, cache, monkeypatch):
    def full(answer, file, *rest):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(published(site))
    assert len(site.ranges) == 1


def test_fetch__no_bar_without_a_terminal(site, capfd):
    fetch(published(site))
    assert capfd.readouterr() == ("", "")


def test_fetch__bar_on_a_terminal(site, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fetch(published(site))
    message = capsys.readouterr()
    assert message.out == ""
    assert "2.1/2.1 MB" in message.err


def test_server__really_stalls(site):
    """The trap itself works: without our care, reading takes as long as the server likes."""
    site.manners = ["stall"]
    started = time.monotonic()
    # On a busy machine it may already stall before it answers.
    with pytest.raises((TimeoutError, urllib.error.URLError)), urllib.request.urlopen(site.url, timeout=0.6) as answer:
        answer.read()
    assert time.monotonic() - started > 0.5
