"""Weights in repositories of the Hugging Face Hub, or of any server that speaks like it (``HF_ENDPOINT``)."""

import os
import re
from pathlib import Path
from typing import Any

from fasterrcnn.errors import UsageError, WeightsError
from fasterrcnn.extras import require
from fasterrcnn.files import cache_folder
from fasterrcnn.weights.download import OFFLINE, is_offline
from fasterrcnn.weights.pickles import reason

FILE = "model.safetensors"
"""What a repository calls its weights, unless told otherwise."""

_ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w.-]+))?(/(?P<file>[\w./ -]+))?")


def endpoint() -> str | None:
    """The server, if it is not the public one; asked for at each call."""
    return os.environ.get("HF_ENDPOINT") or None


def client() -> Any:
    """The module ``huggingface_hub``.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("huggingface_hub", "hub", package="huggingface-hub")


def pull(address: str, *, token: str | None = None) -> Path:
    """The weight file of a repository, from the cache or downloaded into it.

    Args:
        address: ``user/repository``, ``user/repository@revision`` or with ``/file`` behind it.
        token: of a user who may read it; default is that of ``hf auth login``.

    Raises:
        UsageError: no such address can be.
        MissingExtraError: huggingface_hub is not installed.
        WeightsError: it cannot be had.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None or ".." in address:
        raise UsageError(f"hf://{address}: write hf://user/repository, with @revision or /file if need be")
    name = parts["file"] or FILE
    hf = client()
    try:
        return Path(
            hf.hf_hub_download(
                parts["repo"],
                name,
                revision=parts["revision"],
                cache_dir=cache_folder() / "hub",
                endpoint=endpoint(),
                token=token,
                local_files_only=is_offline(),
            )
        )
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
    return f"hf://{address}: cannot be downloaded ({reason(error)}); download {name} from {url} and give the file"
