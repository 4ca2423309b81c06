"""The sections of the page as data: what a machine's history says, in the units that people read.

asv stores what is better when lower. Here seconds a token become tokens a second, and bytes MiB. Thresholds are those
of `bitnet_core.targets`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from bitnet_core import synthetic
from bitnet_core.targets import TARGETS, Better, Target, Verdict, number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tracking.dashboard.series import Commit, History, Series

MIB = 2**20
HEADLINE_MODELS = ("2b", "given", "tiny")  # the best known first
MODELS = ("2b", "2b-qk256", "given", "tiny")
LITTLE = 0.005  # a smaller change between two commits is none


class Mark(Enum):
    """How a value stands: sign and words, since colour alone says nothing to some."""

    TARGET = ("✓", "meets target", "good")
    WITHIN = ("✓", "within baseline", "good")  # where nothing more is aimed at
    NEAR = ("≈", "within baseline", "near")
    FAIL = ("✗", "fails baseline", "bad")
    NONE = ("·", "for information", "none")
    REACHED = ("✓", "reached", "good")  # a goal has no baseline to fail
    MISSED = ("≈", "not reached", "near")

    def __init__(self, sign: str, words: str, color: str) -> None:
        self.sign = sign
        self.words = words
        self.color = color


def mark_of(target: Target, value: float) -> Mark:
    """The contract's verdict."""
    verdict = target.verdict(value)
    if verdict is Verdict.BASELINE and target.target is None:
        return Mark.WITHIN
    return {
        Verdict.TARGET: Mark.TARGET,
        Verdict.BASELINE: Mark.NEAR,
        Verdict.FAIL: Mark.FAIL,
        Verdict.NONE: Mark.NONE,
    }[verdict]


@dataclass(frozen=True)
class Shown:
    """How a stored value is read."""

    unit: str
    better: Better
    of: Callable[[float], float]

    def text(self, stored: float) -> str:
        """The number without its unit."""
        return number(self.of(stored))


def inverse(value: float) -> float:
    """How many in a second, of what takes that long."""
    return 1 / value if value else math.inf


TOKENS = Shown("tok/s", Better.HIGHER, inverse)
MEMORY = Shown("MiB", Better.LOWER, lambda n: n / MIB)
MILLISECONDS = Shown("ms", Better.LOWER, lambda s: 1000 * s)


@dataclass(frozen=True)
class Reading:
    """One figure: the newest number of a series, and those before it."""

    title: str
    series: Series
    shown: Shown

    @property
    def points(self) -> list[tuple[Commit, float]]:
        """Each commit's value as it is read, oldest first."""
        return [(commit, self.shown.of(value)) for commit, value in self.series.measured]

    @property
    def commit(self) -> Commit:
        """Where the newest number is from."""
        return self.points[-1][0]

    @property
    def value(self) -> float:
        """The newest number."""
        return self.points[-1][1]

    @property
    def text(self) -> str:
        """The newest number, without its unit."""
        return number(self.value)

    @property
    def unit(self) -> str:
        """Of the number."""
        return self.shown.unit

    @property
    def change(self) -> Change | None:
        """Against the commit measured before; None for the first, and for no difference."""
        if len(self.points) < 2:
            return None
        (before, old), (_, new) = self.points[-2:]
        if not old or abs(new / old - 1) < LITTLE:
            return None
        return Change(before, new / old, (new > old) == (self.shown.better is Better.HIGHER))


@dataclass(frozen=True)
class Change:
    """From an earlier commit to the newest."""

    since: Commit
    ratio: float
    good: bool

    @property
    def text(self) -> str:
        """In percent, or as a factor where that is hard to read."""
        return percent(self.ratio)


def percent(ratio: float) -> str:
    """A ratio as a change.

    >>> percent(1.05), percent(0.5), percent(30.0)
    ('+5.0 %', '-50.0 %', '30.0 times')
    """
    change = 100 * (ratio - 1)
    return f"{change:+.1f} %" if change < 1000 else f"{number(ratio)} times"


def fastest(history: History, benchmark: str, **params: str) -> Series | None:
    """The series with these parameters at its best: most tokens, and threads that took least at the newest commit.

    More threads are slower where the work is small, so the most of them would not show what a model can do.
    """
    found = history.measured(benchmark, **params)
    if not found:
        return None
    newest = max(one.measured[-1][0].revision for one in found)
    found = [one for one in found if one.measured[-1][0].revision == newest]
    return min(found, key=lambda one: (-int(one.params.get("tokens", 0)), one.measured[-1][1]))


def failure(history: History, since: Commit | None, benchmark: str, **params: str) -> Series | None:
    """The series with these parameters that failed last, at the commit of the newest number or after it."""
    oldest = since.revision if since else -1
    found = [one for one in history.find(benchmark, **params) if one.failed and one.failed.revision >= oldest]
    return max(found, key=lambda one: one.failed.revision if one.failed else -1, default=None)


# ---- headline ----

# What tells the series of a figure apart, and what a benchmark means.
WORDS = {"threads": "{} threads", "tokens": "prompt of {}", "sampling": "{}", "page_cache": "file in page cache"}
WORDS |= {"dtype": "{}", "size": "{}"}
SAID = {
    "memory.Generating.track_peak_total": "most the process grew by, loading and generating",
    "memory.Generating.track_process_peak": "most that was resident, imports included",
    "load.Load.track_ready": "model and session",
}


# What stands on top, in this order; of two benchmarks for a figure the first that was measured.
HEADLINE: tuple[tuple[str, str, Mapping[str, str], Shown], ...] = (
    ("Decode", "generate.Generate.track_token", {"sampling": "greedy"}, TOKENS),
    ("Prefill", "generate.PrefillLong.track_token", {}, TOKENS),
    ("Prefill", "generate.Prefill.track_token", {}, TOKENS),
    ("Memory", "memory.Generating.track_peak_total", {}, MEMORY),
    ("Load", "load.Load.track_ready", {"page_cache": "warm"}, MILLISECONDS),
)


def headline(history: History) -> list[Reading]:
    """Speed, memory and load time of the model that is shown; what was not measured is left out."""
    return figures(history, best_model(history))


def best_model(history: History) -> str:
    """The model with most figures on top, the best-known of several: one benchmark alone must not empty the page."""
    counts = {model: len(figures(history, model)) for model in HEADLINE_MODELS}
    return max(HEADLINE_MODELS, key=lambda model: counts[model]) if any(counts.values()) else HEADLINE_MODELS[-1]


def figures(history: History, model: str) -> list[Reading]:
    """What stands on top for a model."""
    found: dict[str, Reading] = {}
    for title, benchmark, params, shown in HEADLINE:
        series = fastest(history, benchmark, model=model, **params)
        if series is not None and title not in found:
            found[title] = Reading(title, series, shown)
    return list(found.values())


def failures(history: History) -> dict[str, Series]:
    """What of that failed where its number is from, or after it, by title; of some there is no number."""
    model = best_model(history)
    since = {reading.title: reading.commit for reading in figures(history, model)}
    found: dict[str, Series] = {}
    for title, benchmark, params, _ in HEADLINE:
        series = failure(history, since.get(title), benchmark, model=model, **params)
        if series is not None and title not in found:
            found[title] = series
    return found


def details(series: Series, title: str = "") -> str:
    """What belongs to a figure besides the model, and is not in its title."""
    said = [SAID.get(series.benchmark, "")]
    said += [WORDS[name].format(series[name]) for name in series.params if name in WORDS]
    return threads_said(", ".join(words for words in said if words and words not in title))


# ---- targets ----


@dataclass(frozen=True)
class Source:
    """The benchmark that shows how a target stands; its unit follows from the stored one and the size of the file."""

    benchmark: str
    params: dict[str, str]
    of: Callable[[float, float], float]


# bitnet_core.targets.TARGETS by metric, each measured as it is promised there. "first token, after 8" has no benchmark
# that means the same.
SOURCES = {
    "load_s": Source("load.Load.track_ready", {"page_cache": "warm"}, lambda s, _: s),
    "memory_ratio": Source("memory.Generating.track_peak_total", {}, lambda n, size: n / size),
    "peak_memory_mb": Source("memory.Generating.track_process_peak", {}, lambda n, _: n / MIB),
    "quantize_mb_s": Source("quant.Quant.track_quantize_gib", {"dtype": "i2_s"}, lambda s, _: 1024 * inverse(s)),
    "dequantize_mb_s": Source("quant.Quant.track_dequantize_gib", {"dtype": "i2_s"}, lambda s, _: 1024 * inverse(s)),
    "tokens_per_second": Source("generate.Generate.track_token", {"sampling": "greedy"}, lambda s, _: inverse(s)),
    "average_token_latency_ms": Source("generate.Generate.track_token", {"sampling": "greedy"}, lambda s, _: 1000 * s),
}


@dataclass(frozen=True)
class TargetRow:
    """A promise, and how it stands."""

    target: Target
    reading: Reading | None  # None: never measured here
    failure: Series | None  # what failed where the number is from, or after it

    @property
    def unit(self) -> str:
        """The contract's MB are MiB."""
        return self.target.unit.replace("MB", "MiB")

    @property
    def baseline(self) -> str:
        """Beyond this it fails."""
        return "none" if self.target.baseline is None else f"{self.target.baseline:,g} {self.unit}"

    @property
    def aimed_at(self) -> str:
        """What must be beaten."""
        return "none" if self.target.target is None else f"{self.target.sign} {self.target.target:,g} {self.unit}"

    @property
    def mark(self) -> Mark | None:
        """None where there is nothing to judge."""
        if self.failure:
            return Mark.FAIL
        return mark_of(self.target, self.reading.value) if self.reading else None


def targets(history: History) -> list[TargetRow]:
    """The contract's table for the best-known model."""
    model = best_model(history)
    size = model_bytes(model)
    rows = []
    for target in TARGETS:
        source = SOURCES.get(target.metric)
        if source is None:
            continue
        params = source.params | model_or_size(source, model)
        series = fastest(history, source.benchmark, **params)
        if target.metric == "memory_ratio" and size is None:
            series = None
        shown = Shown(target.unit.replace("MB", "MiB"), target.better, _bound(source, size))
        reading = Reading(target.title, series, shown) if series else None
        failed = failure(history, reading.commit if reading else None, source.benchmark, **params)
        rows.append(TargetRow(target, reading, failed))
    return rows


def model_or_size(source: Source, model: str) -> dict[str, str]:
    """Conversions have no model, but matrices as large as those of one."""
    if not source.benchmark.startswith("quant."):
        return {"model": model}
    return {"size": "tiny 4 MiB" if model == "tiny" else "2b 64 MiB"}


def _bound(source: Source, size: float | None) -> Callable[[float], float]:
    return lambda stored: source.of(stored, size or math.nan)


@cache
def model_bytes(model: str) -> float | None:
    """The size of a model's file, which a synthetic one owes to its shape; None for others."""
    preset, _, dtype = model.partition("-")
    return synthetic.layout(preset, dtype or "i2_s").file_size if preset in synthetic.PRESETS else None


# ---- memory ----


@dataclass(frozen=True)
class MemoryRow:
    """What a model takes; each part has a peak of its own, so that they need not add up to the whole."""

    model: str
    parts: dict[str, Reading]


PARTS = {
    "anonymous": "memory.Memory.track_peak_anon",
    "file-resident": "memory.Memory.track_resident_file",
    "both, at most": "memory.Memory.track_peak_total",
    "whole process": "memory.PeakMem.peakmem_load",
}
STACKED = ("anonymous", "file-resident")


def memory(history: History) -> list[MemoryRow]:
    """Each model's parts."""
    rows = []
    for model in MODELS:
        found = {part: fastest(history, benchmark, model=model) for part, benchmark in PARTS.items()}
        parts = {part: Reading(part, series, MEMORY) for part, series in found.items() if series}
        if parts:
            rows.append(MemoryRow(model, parts))
    return rows


# ---- speed ----


@dataclass(frozen=True)
class Curve:
    """Tokens a second along a number: the depth, or the threads."""

    label: str
    points: list[tuple[int, Reading]]


@dataclass(frozen=True)
class Line:
    """Which series make a curve: a benchmark, parameters that are fixed, and those that tell its curves apart."""

    benchmark: str
    label: str
    names: tuple[str, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)


BY_DEPTH = (
    Line("generate.Decode.track_token", "all logits, {} threads", ("threads",)),
    Line("generate.Depth.track_token", "greedy, {} threads, {} cache", ("threads", "cache")),
)
DECODE_BY_THREADS = (
    Line("generate.Generate.track_token", "{}", ("sampling",)),
    Line("generate.GeneratePacked.track_token", "greedy, packed"),
    Line("generate.Decode.track_token", "all logits", (), {"depth": "0"}),
)
PREFILL_BY_THREADS = (Line("generate.Prefill.track_token", "prompt of {}", ("tokens",)),)


def decode_by_depth(history: History) -> dict[str, list[Curve]]:
    """By model; where only one depth was measured there is no curve."""
    return _curves(history, "depth", BY_DEPTH)


def decode_by_threads(history: History) -> dict[str, list[Curve]]:
    """By model; where only one number of threads was measured there is no curve."""
    return _curves(history, "threads", DECODE_BY_THREADS)


def prefill_by_threads(history: History) -> dict[str, list[Curve]]:
    """The same for prompts."""
    return _curves(history, "threads", PREFILL_BY_THREADS)


def _curves(history: History, axis: str, lines: Sequence[Line]) -> dict[str, list[Curve]]:
    found: dict[str, list[Curve]] = {}
    for model in MODELS:
        curves: dict[str, list[tuple[int, Reading]]] = {}
        for line in lines:
            for one in history.measured(line.benchmark, axis, *line.names, model=model, **line.params):
                label = threads_said(line.label.format(*(one[name] for name in line.names)))
                curves.setdefault(label, []).append((int(one[axis]), Reading(label, one, TOKENS)))
        drawn = [
            Curve(label, sorted(points, key=lambda point: point[0]))
            for label, points in curves.items()
            if len(points) > 1
        ]
        if drawn and not (found and model == "tiny"):  # it says little beside a model of the real shape
            found[model] = drawn
    return found


def threads_said(text: str) -> str:
    """One thread is one."""
    return re.sub(r"\b1 threads", "1 thread", text)


# ---- units ----

SCALES = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def quantity(value: float, unit: str) -> str:
    """A stored value with a unit of a fitting size.

    >>> quantity(0.00123, "seconds"), quantity(3 * 2**20, "bytes"), quantity(1.5, "x")
    ('1.23 ms', '3.00 MiB', '1.50 x')
    """
    scales = SCALES.get(unit)
    if scales is None:
        return f"{number(value)} {unit}".rstrip()
    size, name = next((pair for pair in scales if abs(value) >= pair[0]), scales[-1])
    return f"{number(value / size)} {name}"
