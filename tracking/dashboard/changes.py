"""What changed: between the last two measured commits, and over the whole history."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracking.dashboard.sections import LITTLE

if TYPE_CHECKING:
    from tracking.dashboard.series import Commit, History, Series

MOST_CHANGES = 8
ENOUGH = 12  # numbers of a series, so that its thirds have medians of four
DRIFT = 0.05  # less is no drift: what medians of noise differ by
MOST_DRIFTS = 6  # each way


@dataclass(frozen=True)
class Change:
    """A series at two times."""

    series: Series
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """Above 1 is worse: what is stored is better when lower."""
        return self.after / self.before


def last_two(history: History) -> tuple[Commit, Commit] | None:
    """The last two measured commits."""
    return (history.commits[-2], history.commits[-1]) if len(history.commits) > 1 else None


def changed_most(history: History) -> list[Change]:
    """What moved most between the last two measured commits, either way."""
    two = last_two(history)
    if two is None:
        return []
    found = []
    for one in history.series:
        values = {point.commit: point.measured for point in one.points[-2:]}
        before, after = (values.get(commit) for commit in two)
        if before and after and before > 0 and after > 0 and abs(after / before - 1) >= LITTLE:
            found.append(Change(one, before, after))
    return sorted(found, key=lambda change: -abs(math.log(change.ratio)))[:MOST_CHANGES]


def drifted(history: History) -> list[Change]:
    """What the newest third of a series' numbers has by the median against the oldest, the worst first.

    asv finds steps. A ramp has none, as the size of a library that grows with each feature; and on a noisy machine
    single commits say little, where medians of many still do.
    """
    found = []
    for one in history.series:
        values = [value for _, value in one.measured if value > 0]
        third = len(values) // 3
        if len(values) >= ENOUGH:
            change = Change(one, statistics.median(values[:third]), statistics.median(values[-third:]))
            if abs(change.ratio - 1) >= DRIFT:
                found.append(change)
    found.sort(key=lambda change: -change.ratio)
    worse = [change for change in found if change.ratio > 1]
    better = found[len(worse) :]
    return worse[:MOST_DRIFTS] + better[-MOST_DRIFTS:]
