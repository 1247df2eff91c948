"""Rows of a trained detector's last layers for other classes: kept by name where both have the class.

Axes: k classes; the class layer has k + 1 rows (background last), the box layer four rows a class.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from fasterrcnn.weights.checkpoint import State

ROWS_OF_CLASS = {"box_head.class_logits.": 1, "box_head.box_deltas.": 4}


def same_names(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """Number of each new class that the old ones have too -> its number there.

    Upper and lower case are the same, as are spaces, hyphens and underscores.
    """
    places = {_plain(name): number for number, name in reversed(list(enumerate(old)))}
    return {number: places[_plain(name)] for number, name in enumerate(new) if _plain(name) in places}


def rearrange(state: State, same: Mapping[int, int], fresh: Mapping[str, Tensor]) -> State:
    """The tensors of a detector with class rows for other classes.

    Args:
        state: of the trained detector.
        same: from `same_names`. Where no class is the same, both layers are left out.
        fresh: the new network's own tensors; classes that the old detector does not have keep their rows.

    Background keeps its trained row with any class that keeps one: the two were learnt against each other.
    """
    chosen = {key: value for key, value in state.items() if not key.startswith(tuple(ROWS_OF_CLASS))}
    for prefix, rows in ROWS_OF_CLASS.items():
        for key in [key for key in state if key.startswith(prefix) and key in fresh and same]:
            old, new = state[key], fresh[key].clone()
            if old.shape[1:] != new.shape[1:] or len(old) < rows * (1 + max(same.values())):
                chosen[key] = old  # of another width: told of as such
                continue
            for number, place in same.items():
                new[rows * number : rows * (number + 1)] = old[rows * place : rows * (place + 1)]
            if rows == 1:
                new[-1] = old[-1]
            chosen[key] = new
    return chosen


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().casefold())
