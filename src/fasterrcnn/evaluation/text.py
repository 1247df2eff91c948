"""An analysis in words, for a terminal."""

from collections.abc import Iterator, Mapping

from fasterrcnn.evaluation.analysis import Analysis
from fasterrcnn.evaluation.bootstrap import Interval
from fasterrcnn.evaluation.verdicts import ERRORS


def describe(analysis: Analysis) -> Iterator[str]:
    """Lines about all but the plain numbers: intervals, threshold, errors, first stage, comparisons, diagnoses."""
    if analysis.bootstrap is not None and analysis.bootstrap.numbers:
        level = f"{analysis.bootstrap.level:.0%}"
        yield f"{level} intervals, other pictures of this kind: {_intervals(analysis.bootstrap.numbers)}"
    best = analysis.curves.best_overall
    if best is not None:
        yield (
            f"best threshold {best.score:.2f}: precision {best.precision:.3f}, recall {best.recall:.3f}, "
            f"F1 {best.f1:.3f} (IoU .50, all classes)"
        )
    lost = {name: analysis.costs.lost[name] for name in ERRORS}
    if any(lost.values()):
        ranked = sorted(lost.items(), key=lambda pair: -(pair[1] or 0))
        yield "AP50 lost to " + ", ".join(f"{name} {cost or 0:.3f}" for name, cost in ranked)
    first = analysis.proposals
    if first is not None and first.ar[0] is not None:
        shares = ", ".join(f"{ar:.3f} of {limit}" for ar, limit in zip(first.ar, first.limits, strict=True))
        unreached = f"{len(first.unreached)} objects are out of its reach at IoU .50"
        yield f"recall of the proposals {shares}; {unreached}"
    for one in analysis.comparisons:
        verb = "gains with" if one.is_variant else "is ahead of"
        yield f"{verb} {one.name}: {_differences(one.better)}"
    for diagnosis in analysis.diagnoses:
        yield f"{'problem' if diagnosis.is_mistake else 'note'} ({diagnosis.name}): {diagnosis.text}"


def _intervals(numbers: Mapping[str, Interval]) -> str:
    return ", ".join(f"{name.upper()} {one.low:.3f} to {one.high:.3f}" for name, one in numbers.items())


def _differences(better: Mapping[str, Interval]) -> str:
    """Each difference with its interval, and whether that leaves out zero."""
    said = []
    for name, one in better.items():
        sure = "" if one.low > 0 or one.high < 0 else ", may be chance"
        interval = f" ({_signed(one.low)} to {_signed(one.high)}{sure})" if one.low == one.low else ""
        said.append(f"{name.upper()} {_signed(one.value)}{interval}")
    return ", ".join(said)


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # adding zero takes the sign from it
