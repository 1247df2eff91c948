"""Published weight files: from the cache, or downloaded into it; resumed where it broke off, and checked.

A file is at its place in the cache whole and checked, or not at all. What has come so far lies beside it as
``NAME.part`` and is gone on with by the next try, in this process or a later one.
"""

import hashlib
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from fasterrcnn.errors import UsageError, WeightsError, first_line, require
from fasterrcnn.files import cache_folder

MIRROR, OFFLINE = "FASTERRCNN_MIRROR", "FASTERRCNN_OFFLINE"
"""Environment variables: where files are fetched from instead, and whether network access is forbidden."""

TRIES = 5
"""In a row, without progress."""

TIMEOUT = 30.0
"""Seconds that a server may be silent, or send less than a kilobyte each."""

_PAUSE = 0.5
_PROGRESS = 2**16
_MAX_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Published:
    """A weight file of a public site, with the first digits of its hash; none (an empty text) where it is unknown."""

    url: str
    algorithm: Literal["sha256", "md5"] = "sha256"
    prefix: str = ""

    @property
    def place(self) -> Path:
        """Where the cache has it."""
        return cache_folder() / "weights" / Path(urllib.parse.urlsplit(self.url).path).name


def is_offline() -> bool:
    """Whether the environment forbids network access."""
    return os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no")


def mirrored(url: str) -> str:
    """The address to ask: below ``FASTERRCNN_MIRROR``, if there is one, by host and path; a folder is one too."""
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return url
    if "://" not in mirror:
        mirror = Path(mirror).expanduser().resolve().as_uri()
    parts = urllib.parse.urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}"


def fetch(published: Published) -> Path:
    """The file on this disk: from our cache or from that of torchvision, or downloaded into ours.

    A `WeightsError`, where it cannot be downloaded, states from where to fetch it and where to put it.
    """
    place = published.place
    for candidate in (place, Path(torch.hub.get_dir()) / "checkpoints" / place.name):
        if candidate.is_file() and not _difference(candidate, published):
            return candidate
    by_hand = f"fetch {published.url} on another machine and put it at {place}"
    if is_offline():
        why = f"it is damaged ({_difference(place, published)})" if place.is_file() else "it is not there"
        raise WeightsError(f"{place}: {why}, and {OFFLINE} forbids downloads; {by_hand}")
    place.parent.mkdir(parents=True, exist_ok=True)
    address, part = mirrored(published.url), place.with_name(f"{place.name}.part")
    with FileLock(place.with_name(f".{place.name}.lock")):
        if place.is_file() and not _difference(place, published):
            return place  # another process was faster
        try:
            _download(address, part, published)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:  # other ones are of this disk
            what = f"cannot download {address} ({_description(error)})"
            raise WeightsError(f"{what}; {by_hand}, or give a file of your own") from None
        part.replace(place)
    return place


def _download(address: str, part: Path, published: Published) -> None:
    """Fill the part file, and check it; a leftover that turns out wrong is tried once more from the beginning."""
    tries = 2 if part.exists() else 1
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(part.stem, total=None)
        for _ in range(tries):
            _insist(address, part, lambda have, total: bar.update(task, completed=have, total=total))
            difference = _difference(part, published)
            if not difference:
                return
            part.unlink()
    raise urllib.error.URLError(f"it sends something else: {difference}")


def _insist(address: str, part: Path, log: Callable[[int, int | None], None]) -> None:
    """Receive the rest of a file, again and again where the connection breaks."""
    left = TRIES
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            return _receive(address, part, log)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 416, 429):
                raise
            problem: Exception = error
        except (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException) as error:
            problem = error
        came = part.exists() and part.stat().st_size - before >= _PROGRESS
        left = TRIES if came else left - 1
        if left <= 0:
            raise urllib.error.URLError(f"{_description(problem)}, {TRIES} times") from None
        time.sleep(_PAUSE * 2 ** (TRIES - 1 - left))


def _receive(address: str, part: Path, log: Callable[[int, int | None], None]) -> None:
    """Ask once for what is missing and add it to the part file."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"fasterrcnn/{version('fasterrcnn')}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(address, headers=headers | ({"Range": f"bytes={have}-"} if have else {}))
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            error.close()
            return  # all of it is here
        if error.code == 416:
            part.unlink()
        raise
    with answer:
        if answer.status == 206 and not re.match(rf"bytes {have}-", answer.headers.get("Content-Range", "")):
            part.unlink(missing_ok=True)
            raise urllib.error.URLError("it sends another part than was asked for")
        have = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if (total or 0) > _MAX_BYTES:
            raise urllib.error.HTTPError(address, 413, f"{total:,} bytes are too many", answer.headers, None)
        with part.open("ab" if have else "wb") as file:
            _copy(answer, file, have, total, log)


def _copy(answer: Any, file: Any, have: int, total: int | None, log: Callable[[int, int | None], None]) -> None:
    """Write what comes; a server that stops early, never stops, or drips is an error."""
    window, seen = time.monotonic(), have
    while block := answer.read1(2**18):
        have += len(block)
        if have > (_MAX_BYTES if total is None else total):
            raise urllib.error.URLError("it sends more than it announced")
        file.write(block)
        log(have, total)
        if time.monotonic() - window > TIMEOUT:
            if have - seen < 1000 * TIMEOUT:
                raise TimeoutError(f"{have - seen:,} bytes in {TIMEOUT:g} s")
            window, seen = time.monotonic(), have
    if total is not None and have < total:
        raise urllib.error.URLError(f"the connection ended after {have:,} of {total:,} bytes")


def _difference(file: Path, published: Published) -> str:
    """What is wrong with a file's hash; empty if nothing is, or none is known."""
    if not published.prefix:
        return ""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, published.algorithm).hexdigest()
    if digest.startswith(published.prefix):
        return ""
    name = {"sha256": "SHA-256", "md5": "MD5"}[published.algorithm]
    return f"its {name} begins with {digest[: len(published.prefix)]}, not {published.prefix}"


def _description(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return first_line(f"HTTP {error.code} {error.reason}")
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _description(error.reason)
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT:g} s" if str(error) in ("timed out", "") else str(error)
    return first_line(error.reason if isinstance(error, urllib.error.URLError) else error)


HUB_FILE = "model.safetensors"
"""What a repository calls its weights, by default."""

_ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?(/(?P<file>[\w./ -]+))?")


def endpoint() -> str | None:
    """The Hub's server, if it is not the public one; asked for at each call."""
    return os.environ.get("HF_ENDPOINT") or None


def client() -> Any:
    """The module ``huggingface_hub``, or a `MissingExtraError`."""
    return require("huggingface_hub", "hub", package="huggingface-hub")


def pull(address: str, *, token: str | None = None) -> Path:
    """The weight file of a repository, from the cache or downloaded into it.

    The address is ``user/repository``, ``user/repository@revision`` or with ``/file`` behind it; the token is of a user
    who may read it, by default that of ``hf auth login``. An impossible address is a `UsageError`, a file that cannot
    be had a `WeightsError`.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None or ".." in address:
        raise UsageError(f"hf://{address}: write hf://user/repository, with @revision or /file if need be")
    name = parts["file"] or HUB_FILE
    hf = client()
    where = {"cache_dir": cache_folder() / "hub", "endpoint": endpoint(), "local_files_only": is_offline()}
    try:
        return Path(hf.hf_hub_download(parts["repo"], name, revision=parts["revision"], token=token, **where))
    except Exception as error:  # its client raises kinds of several libraries
        raise WeightsError(_explain(hf, error, address, name)) from None


def _explain(hf: Any, error: Exception, address: str, name: str) -> str:
    url = f"{endpoint() or 'https://huggingface.co'}/{address.partition('@')[0]}"
    if isinstance(error, hf.errors.LocalEntryNotFoundError) and is_offline():
        return f"hf://{address}: not in {cache_folder() / 'hub'}, and {OFFLINE} forbids downloads; download {url}"
    if isinstance(error, hf.errors.GatedRepoError):
        return f"hf://{address}: its owner grants access at {url}; then hf auth login"
    if isinstance(error, hf.errors.RepositoryNotFoundError):
        return f"hf://{address}: no such repository at {url}, or it is private: hf auth login"
    if isinstance(error, hf.errors.RevisionNotFoundError):
        return f"hf://{address}: no such revision"
    if isinstance(error, hf.errors.EntryNotFoundError) and not isinstance(error, hf.errors.LocalEntryNotFoundError):
        return f"hf://{address}: has no {name}; name a file that {url} has: hf://user/repository/FILE"
    return f"hf://{address}: cannot be downloaded ({first_line(error)}); download {name} from {url} and give the file"
