"""Faster R-CNN in PyTorch: fine-tune it on your boxes, measure it, predict fast on a CPU.

Names are imported when they are first used, so that ``import fasterrcnn`` itself is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fasterrcnn.build import build_model
    from fasterrcnn.data.formats import read_data
    from fasterrcnn.detections import Detections
    from fasterrcnn.errors import FasterRCNNError
    from fasterrcnn.evaluation.evaluate import evaluate
    from fasterrcnn.evaluation.report import Report
    from fasterrcnn.explanation.explain import explain
    from fasterrcnn.inference.detector import Detector, load
    from fasterrcnn.training.fit import Run, fit

_HOMES = {
    "Detections": "fasterrcnn.detections",
    "Detector": "fasterrcnn.inference.detector",
    "FasterRCNNError": "fasterrcnn.errors",
    "Report": "fasterrcnn.evaluation.report",
    "Run": "fasterrcnn.training.fit",
    "build_model": "fasterrcnn.build",
    "evaluate": "fasterrcnn.evaluation.evaluate",
    "explain": "fasterrcnn.explanation.explain",
    "fit": "fasterrcnn.training.fit",
    "load": "fasterrcnn.inference.detector",
    "read_data": "fasterrcnn.data.formats",
}

__all__ = [
    "Detections",
    "Detector",
    "FasterRCNNError",
    "Report",
    "Run",
    "build_model",
    "evaluate",
    "explain",
    "fit",
    "load",
    "read_data",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fasterrcnn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
