"""Optional libraries, imported when they are needed."""

from importlib import import_module
from typing import Any

from fasterrcnn.errors import MissingExtraError


def require(module: str, extra: str, *, package: str | None = None) -> Any:
    """An optional library.

    Args:
        module: its name in Python.
        extra: the extra of this library that installs it.
        package: what people call it, where that is not its name in Python.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtraError(package or module, extra) from None
