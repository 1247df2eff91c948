"""Why numbers are as they are, where that has a name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """Why numbers are as they are, where that has a name.

    Attributes:
        name: one of `fasterrcnn.evaluation.diagnoses.NAMES`: "classes-permuted", "boxes-at-network-scale"...
        text: what was seen and what to do, in one or two sentences.
        is_mistake: something to mend; otherwise a note that explains a number.
    """

    name: str
    text: str
    is_mistake: bool
