"""What became of the tensors of start weights: taken as they are, put in another order, or left to be learnt."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LoadReport:
    """The tensors of a new network, by what they start from.

    Attributes:
        source: what the start weights are, in one line.
        loaded: names and shapes of those that are the trained ones.
        remapped: names and shapes of those whose rows were chosen from the trained ones.
        fresh: names and shapes of those that are random.
        rows: what was done to remapped tensors, for people, by the beginning of their names.
    """

    source: str
    loaded: Shapes
    remapped: Shapes
    fresh: Shapes
    rows: Mapping[str, str]

    def lines(self) -> list[str]:
        """A few lines: where from, how much, which rows, which parts are new."""
        numbers = sum(math.prod(shape) for shape in self.loaded.values())
        found = [f"start: {self.source}", f"loaded {len(self.loaded)} tensors ({numbers:,} numbers)"]
        for prefix, what in self.rows.items():
            shapes = [f"{key} {shape}" for key, shape in self.remapped.items() if key.startswith(prefix)]
            found += [f"remapped {', '.join(shapes)}: {what}"] if shapes else []
        parts = Counter(".".join(key.split(".")[:2]) for key in self.fresh)
        return [*found, f"fresh: {', '.join(f'{part} ({n})' for part, n in parts.items()) or 'nothing'}"]

    def table(self) -> str:
        """All tensors, one a line: what became of it, its name, its shape."""
        groups = {"loaded": self.loaded, "remapped": self.remapped, "fresh": self.fresh}
        rows = [f"{what:<9}{key} {shape}" for what, shapes in groups.items() for key, shape in shapes.items()]
        return "\n".join([*self.lines(), "", *rows, ""])
