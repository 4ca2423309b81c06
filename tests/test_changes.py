"""What changed, of made-up series."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("asv")

from tracking.dashboard import changes
from tracking.dashboard.series import Commit, History, Point, Series


def history(**series: list[float | None]) -> History:
    """Values of benchmarks at the last commits; None is a failure."""
    n = max(map(len, series.values()))
    commits = [Commit(f"{i:040x}", i, 0) for i in range(n)]
    made = [
        Series(name, {}, "seconds", "m", tuple(itertools.starmap(Point, zip(commits[n - len(of) :], of, strict=True))))
        for name, of in series.items()
    ]
    return History("m", "env", {}, tuple(commits), tuple(made), ())


def shown(found: list[changes.Change]) -> dict[str, float]:
    return {one.series.benchmark: round(one.ratio, 3) for one in found}


def test_what_changed_most_between_the_last_two_commits() -> None:
    found = history(up=[9.0, 0.1, 0.12], down=[0.1, 0.05], little=[1.0, 1.001], failed=[7.0, None], new=[3.0])
    assert list(shown(changes.changed_most(found)).items()) == [("down", 0.5), ("up", 1.2)]
    assert changes.changed_most(history(one=[0.1])) == []
    many = {f"b{i}": [1.0, 1.0 + 0.01 * i] for i in range(1, 20)}
    assert list(shown(changes.changed_most(history(**many)))) == [f"b{i}" for i in range(19, 11, -1)]


def test_what_drifted_is_seen_by_the_medians_of_thirds() -> None:
    noise = [1.0, 1.5, 0.7, 1.0]
    found = history(
        ramp=[1.0 + 0.02 * i for i in range(20)],  # no step anywhere
        noisy=noise * 3 + [1.0],
        better=[*noise, *noise, *(0.5 * x for x in noise)],
        short=[1.0, 2.0] * 5,
        failures=[1.0] * 4 + [None] * 8 + [2.0] * 7,  # eleven numbers
        gaps=[1.0] * 4 + [None] * 8 + [2.0] * 8,
    )
    assert list(shown(changes.drifted(found)).items()) == [("gaps", 2.0), ("ramp", 1.267), ("better", 0.5)]


def test_of_many_that_drifted_the_worst_and_the_best_are_said() -> None:
    factors = [0.5 + 0.01 * i for i in range(100)]
    found = shown(changes.drifted(history(**{f"x{f:.2f}": [1.0] * 6 + [f] * 6 for f in factors})))
    worst, best = factors[:-7:-1], factors[5::-1]
    assert list(found.values()) == [pytest.approx(f) for f in worst + best]
    few = shown(changes.drifted(history(a=[1.0] * 6 + [1.2] * 6, b=[1.0] * 6 + [1.1] * 6, c=[1.0] * 12)))
    assert few == {"a": 1.2, "b": 1.1}
