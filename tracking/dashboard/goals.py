"""How near the limit of the machine each kind of work is, and what else docs/performance.md aims at.

benchmarks/roofline.py stores "times the limit"; here it is percent of the limit, 100 the limit itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bitnet_core.targets import Better, number
from tracking.dashboard.sections import Mark, Reading, Shown, failure, fastest, inverse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracking.dashboard.series import Commit, History, Series

MB = 1e6  # of bytes that are read, as docs/performance.md counts them


@dataclass(frozen=True)
class Limit:
    """A kind of work that is measured in turn with its limit."""

    title: str
    benchmark: str
    limit: str
    names: tuple[str, ...]  # parameters that tell its rows apart, besides the level
    goal: float  # of the limit
    row: str  # of the goal in docs/performance.md, its beginning


LIMITS = (
    Limit(
        title="Decode, a whole token",
        benchmark="roofline.Decode.track_read",
        limit="read bandwidth",
        names=("model", "way"),
        goal=0.85,
        row="decode, greedy, of the read bandwidth",
    ),
    Limit(
        title="Prefill, a whole prompt",
        benchmark="roofline.Prefill.track_peak",
        limit="int8 peak",
        names=("model", "tokens"),
        goal=0.6,
        row="prefill 512, of the int8 peak",
    ),
    Limit(
        title="A matrix times one token",
        benchmark="roofline.Gemv.track_read",
        limit="read bandwidth",
        names=("dtype", "shape"),
        goal=0.92,
        row="a product with one token alone",
    ),
    Limit(
        title="Quantize",
        benchmark="roofline.Quantize.track_read",
        limit="read bandwidth",
        names=("form",),
        goal=0.8,
        row="quantize, of the read bandwidth",
    ),
    Limit(
        title="Dequantize",
        benchmark="roofline.Dequantize.track_fill",
        limit="fill bandwidth",
        names=("form",),
        goal=0.8,
        row="dequantize, of a plain fill",
    ),
)


@dataclass(frozen=True)
class Bar:
    """How near the limit one kernel is."""

    label: str
    isa: str  # "" where the machine's best is used
    reading: Reading | None  # None: it was tried, and never gave a number
    failed: Commit | None  # the newest commit where it was tried, if it failed there

    @property
    def name(self) -> str:
        """With the level."""
        return f"{self.label} {self.isa}".rstrip()


def of_limit(times: float) -> float:
    """Percent of the limit that something reaches when it takes so many times as long."""
    return 100 * inverse(times)


def roofline(history: History) -> list[tuple[Limit, list[Bar]]]:
    """What was measured or failed of each kind, in asv's order."""
    shown = Shown("% of the limit", Better.HIGHER, of_limit)
    found = []
    for limit in LIMITS:
        bars = []
        for one in history.find(limit.benchmark):
            if (one.latest or one.failed) and all(name in one.params for name in limit.names):
                label = ", ".join(_readable(name, one[name]) for name in limit.names)
                reading = Reading(limit.title, one, shown) if one.latest else None
                bars.append(Bar(label, one["isa"] if "isa" in one.params else "", reading, one.failed))
        if bars:
            found.append((limit, bars))
    return found


def _readable(name: str, value: str) -> str:
    return f"{value} tokens" if name == "tokens" else value.replace("x", " by ") if name == "shape" else value


# ---- other goals ----


@dataclass(frozen=True)
class Stored:
    """What asv stores that a figure is made of: a benchmark, and parameters that choose of it."""

    benchmark: str
    params: Mapping[str, str] = field(default_factory=dict)


def same(value: float) -> float:
    """As it is stored."""
    return value


@dataclass(frozen=True)
class Goal:
    """A figure that is aimed at, but is no fraction of a limit."""

    title: str
    unit: str
    better: Better
    aim: float
    row: str  # of the goal in docs/performance.md, its beginning
    source: Stored
    by: Stored | None = None  # divides it
    of: Callable[[float], float] = same  # the stored value as it is read

    def mark(self, value: float) -> Mark:
        """Reached, or not."""
        reached = value >= self.aim if self.better is Better.HIGHER else value <= self.aim
        return Mark.REACHED if reached else Mark.MISSED


def _at_depth(depth: str, cache: str) -> Stored:
    return Stored("generate.Depth.track_token", {"model": "2b", "cache": cache, "depth": depth})


def _read(sampling: str) -> Stored:
    return Stored("roofline.Bytes.track_token", {"model": "2b", "sampling": sampling})


GOALS = (
    Goal(
        title="16 sequences at once, tokens a second by those of one",
        unit="x",
        better=Better.HIGHER,
        aim=2.5,
        row="16 sequences at once",
        source=Stored("roofline.Batch.track_alone", {"model": "2b", "sequences": "16"}),
        of=inverse,
    ),
    Goal(
        title="QK256 decode by I2_S",
        unit="x",
        better=Better.HIGHER,
        aim=0.9,
        row="QK256 decode by I2_S",
        source=Stored("roofline.Format.track_token"),
        of=inverse,
    ),
    Goal(
        title="time at depth 3968 by depth 0, f16 cache",
        unit="x",
        better=Better.LOWER,
        aim=1.5,
        row="decode at depth 3968 by depth 0",
        source=_at_depth("3968", "f16"),
        by=_at_depth("0", "f16"),
    ),
    Goal(
        title="time at depth 3968 by depth 0, q8_0 cache",
        unit="x",
        better=Better.LOWER,
        aim=1.3,
        row="decode at depth 3968 by depth 0",
        source=_at_depth("3968", "q8_0"),
        by=_at_depth("0", "q8_0"),
    ),
    Goal(
        title="weights read for a token, greedy (MB are 1,000,000 bytes)",
        unit="MB",
        better=Better.LOWER,
        aim=720,
        row="bytes a token",
        source=_read("greedy"),
        of=lambda n: n / MB,
    ),
    Goal(
        title="weights read for a token, top-k 50",
        unit="MB",
        better=Better.LOWER,
        aim=870,
        row="bytes a token",
        source=_read("top-k 50"),
        of=lambda n: n / MB,
    ),
    Goal(
        title="first token after a prompt of 128, fresh process",
        unit="s",
        better=Better.LOWER,
        aim=2.5,
        row="first token after 128",
        source=Stored("roofline.FirstToken.track_fresh", {"model": "2b"}),
    ),
    Goal(
        title="tiny model, a token from Python, one thread",
        unit="us",
        better=Better.LOWER,
        aim=60,
        row="tiny, a token from Python",
        source=Stored("generate.Generate.track_token", {"model": "tiny", "threads": "1", "sampling": "greedy"}),
        of=lambda s: 1e6 * s,
    ),
)


@dataclass(frozen=True)
class GoalRow:
    """A goal and what was measured."""

    goal: Goal
    measured: tuple[Commit, float, str] | None  # the newest commit, the figure, and where asv draws it
    failure: Series | None  # what failed there, or after it

    @property
    def text(self) -> str:
        """Without the unit."""
        return number(self.measured[1]) if self.measured else ""

    @property
    def aimed_at(self) -> str:
        """With the unit."""
        return f"{'≥' if self.goal.better is Better.HIGHER else '≤'} {self.goal.aim:g} {self.goal.unit}"

    @property
    def mark(self) -> Mark:
        """Whether it is reached."""
        return self.goal.mark(self.measured[1]) if self.measured and not self.failure else Mark.FAIL


def goals(history: History) -> list[GoalRow]:
    """Those that were measured or failed, at the newest commit that has all that a figure needs."""
    rows = []
    for goal in GOALS:
        sources = [goal.source] + ([goal.by] if goal.by else [])
        series = [one for source in sources if (one := fastest(history, source.benchmark, **source.params))]
        values = [dict(one.measured) for one in series]
        common = set(values[0]).intersection(*values[1:]) if len(values) == len(sources) else set()
        commit = max(common, key=lambda one: one.revision, default=None)
        tried = (failure(history, commit, source.benchmark, **source.params) for source in sources)
        failed = next(filter(None, tried), None)
        measured = None
        if commit:
            value = values[0][commit] / values[1][commit] if goal.by else values[0][commit]
            measured = commit, goal.of(value), series[0].link(commit)
        if measured or failed:
            rows.append(GoalRow(goal, measured, failed))
    return rows
