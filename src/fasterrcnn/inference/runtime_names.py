"""What runtimes are called; apart from them, because naming one needs no torch."""

from typing import Literal, get_args

from fasterrcnn.errors import UsageError

RuntimeName = Literal["torch", "winograd", "compiled", "compiled-direct", "openvino", "openvino-int8", "onnxruntime"]
"""``winograd`` and ``compiled`` use Winograd's algorithm where it gains; the others never do."""


def names() -> tuple[RuntimeName, ...]:
    """All runtimes, the default first."""
    return get_args(RuntimeName)


def check_name(name: str) -> None:
    """Refuse what is no runtime.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in names():
        raise UsageError(f"no runtime is called {name!r}; there are {', '.join(names())}")
