"""What `evaluate` measures besides the plain numbers. Needs no torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypedDict

from fasterrcnn.errors import UsageError
from fasterrcnn.evaluation.bootstrap import SAMPLES
from fasterrcnn.evaluation.reading import MAX_DETS


class Options(TypedDict, total=False):
    """What can be said at each call of `evaluate`.

    Attributes:
        flip: measure also with a look at each picture's mirror image.
        scales: measure also with further looks at these multiples of the input size.
        soft_nms: measure also with Gaussian soft-NMS.
        max_dets: most detections of a picture and class that count; default is COCO's 100.
        proposals: measure also how many objects the region proposal network reaches, on at most 500 pictures; default.
        bootstrap: drawings of the pictures for the intervals; 0 leaves them out.
        seed: of the drawings.
        voc_pixels: in Pascal VOC's numbers, corners count as pixels: width = x2 - x1 + 1.
    """

    flip: bool
    scales: Sequence[float]
    soft_nms: bool
    max_dets: int
    proposals: bool
    bootstrap: int
    seed: int
    voc_pixels: bool


@dataclass(frozen=True)
class Measures:
    """The options of one call, complete; see `Options`."""

    flip: bool = False
    scales: tuple[float, ...] = ()
    soft_nms: bool = False
    max_dets: int = MAX_DETS
    proposals: bool = True
    bootstrap: int = SAMPLES
    seed: int = 0
    voc_pixels: bool = False

    @property
    def has_variants(self) -> bool:
        """Whether the detector has to look again by other rules."""
        return self.flip or self.soft_nms or bool(self.scales)

    def arguments(self) -> list[str]:
        """As they are said on the command line, without what is usual."""
        words = []
        for name, usual in asdict(Measures()).items():
            value, flag = getattr(self, name), name.replace("_", "-")
            if value == usual:
                continue
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", *(f"{one:g}" for one in (value if isinstance(value, tuple) else (value,)))]
        return words


def complete(options: Options) -> Measures:
    """The options of a call, with what is usual where nothing is said.

    Raises:
        UsageError: an option does not exist, or its value cannot work.
    """
    names = [field.name for field in fields(Measures)]
    unknown = set(options) - set(names)
    if unknown:
        raise UsageError(f"no option is called {unknown.pop()!r}; there are {', '.join(names)}")
    given: dict[str, Any] = {**options}
    if "scales" in given:
        given["scales"] = tuple(float(scale) for scale in given["scales"])
    wanted = Measures(**given)
    if wanted.max_dets < 1:
        raise UsageError(f"max_dets must be at least 1, not {wanted.max_dets}")
    if wanted.bootstrap < 0:
        raise UsageError(f"bootstrap must be 0 or more drawings, not {wanted.bootstrap}")
    for scale in wanted.scales:
        if not 0.1 <= scale <= 10:
            raise UsageError(f"a scale must lie in 0.1..10, not {scale:g}")
    return wanted
