"""Every error the library raises on purpose.

    FasterRCNNError
    ├── UsageError            an argument, option or configuration value that cannot work
    │   └── MissingExtraError     an optional dependency is not installed
    ├── DataError             a data set or an annotation
    │   └── ImageError            one image that cannot be decoded
    ├── WeightsError          a checkpoint that cannot be read or does not fit the model
    └── TrainingError         a run that cannot go on (a loss that is not finite)

Messages are one line for the person who reads them: the file, the annotation, the value, what to do.
"""

from importlib import import_module
from typing import Any


class FasterRCNNError(Exception):
    """Base of all errors raised on purpose; the command line prints it in one line and exits with 2."""


class UsageError(FasterRCNNError, ValueError):
    """An argument, option or configuration value cannot work."""


class MissingExtraError(UsageError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed: pip install "fasterrcnn[{extra}]"')


class DataError(FasterRCNNError):
    """A data set or an annotation is not usable."""


class ImageError(DataError):
    """One image cannot be decoded."""


class WeightsError(FasterRCNNError):
    """A checkpoint cannot be read, or its tensors do not fit the model."""


class TrainingError(FasterRCNNError):
    """A training run cannot go on."""


def require(module: str, extra: str, *, package: str | None = None) -> Any:
    """An optional library by its name in Python, or a `MissingExtraError`; `package` is what people call it."""
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtraError(package or module, extra) from None


def first_line(error: object) -> str:
    """The first line of an error's text, at most 150 characters of it: for a message of one line about it."""
    text = str(error).strip()
    return text.splitlines()[0][:150] if text else type(error).__name__
