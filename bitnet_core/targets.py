"""What the project promises, as a table, and the verdicts on a measured model.

``TARGETS`` says for each metric what fails (beyond the baseline) and what is aimed at (the target). ``measure`` runs a
model and returns a :class:`Report`.

How each figure comes about:

============================  ==========================================================================================
``load_s``                    ``Model.from_file`` and ``session()`` until ready to evaluate; the file is in the page
                              cache
``memory_ratio``              largest growth of resident memory while loading and evaluating, over the size of the file;
                              in a process of its own, from a baseline taken after imports
``peak_memory_mb``            largest resident memory of that process
``quantize_mb_s``             MiB of float32 a second, over the first 10 matrices of the model
``dequantize_mb_s``           the same, the other way
``tokens_per_second``         1000 / ``average_token_latency_ms``
``average_token_latency_ms``  mean time of each token after the first, greedy
``first_token_latency_ms``    evaluation of a prompt of 8 tokens, and choice of the next
============================  ==========================================================================================

Each is taken ``n_runs`` times, memory once; the median decides, mean and spread are shown.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["TARGETS", "Measurement", "Report", "Target", "Verdict", "measure", "targets_for"]

_MIB = 1024 * 1024


class Verdict(str, Enum):
    """How a value stands to its target and baseline."""

    TARGET = "meets target"
    BASELINE = "within baseline"
    FAIL = "FAILS baseline"
    NONE = "for information"

    def __str__(self) -> str:
        return self.value


class Better(str, Enum):
    """Which values of a metric are the good ones."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True)
class Target:
    """A promise about one metric.

    The baseline itself still passes, anything beyond it fails; the target must be beaten, not reached. None: there is
    no such limit.
    """

    metric: str
    title: str
    unit: str
    better: Better
    baseline: float | None
    target: float | None

    @property
    def sign(self) -> str:
        """The relation that a good value has to a limit."""
        return "<" if self.better is Better.LOWER else ">"

    def verdict(self, value: float) -> Verdict:
        """Judge a value."""
        factor = 1 if self.better is Better.LOWER else -1
        if self.baseline is not None and not factor * value <= factor * self.baseline:  # so that NaN fails
            return Verdict.FAIL
        if self.target is not None and factor * value < factor * self.target:
            return Verdict.TARGET
        return Verdict.NONE if self.baseline is None else Verdict.BASELINE


TARGETS = (
    Target("load_s", "load, file in page cache", "s", Better.LOWER, 60.0, 0.1),
    Target("memory_ratio", "memory / file size", "x", Better.LOWER, 15.0, 1.1),
    Target("peak_memory_mb", "memory of the process", "MB", Better.LOWER, 8192.0, None),
    Target("quantize_mb_s", "quantize", "MB/s", Better.HIGHER, 10.0, 1000.0),
    Target("dequantize_mb_s", "dequantize", "MB/s", Better.HIGHER, 10.0, 1000.0),
    Target("tokens_per_second", "decode", "tok/s", Better.HIGHER, 5.0, 5.0),
    Target("average_token_latency_ms", "latency per token", "ms", Better.LOWER, 1000.0, 200.0),
    Target("first_token_latency_ms", "first token, after 8", "ms", Better.LOWER, None, None),
)
"""The promises for I2_S models; MB are MiB. The 200 ms are the 5 tok/s said otherwise."""

_QK256_BASELINES = {"tokens_per_second": 0.05, "average_token_latency_ms": 20_000.0}


def targets_for(dtype: str) -> tuple[Target, ...]:
    """Return the promises for models whose matrices have that format: QK256 has baselines of its own for speed."""
    if dtype != "qk256":
        return TARGETS
    return tuple(replace(t, baseline=_QK256_BASELINES.get(t.metric, t.baseline)) for t in TARGETS)


@dataclass(frozen=True)
class Measurement:
    """The runs of one metric."""

    target: Target
    samples: tuple[float, ...]
    note: str = ""

    @property
    def value(self) -> float:
        """The median, which is what counts."""
        return statistics.median(self.samples)

    @property
    def mean(self) -> float:
        """The mean of the runs."""
        return statistics.fmean(self.samples)

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest run."""
        return min(self.samples), max(self.samples)

    @property
    def verdict(self) -> Verdict:
        """How the median stands to target and baseline."""
        return self.target.verdict(self.value)

    def cells(self) -> tuple[str, ...]:
        """Return the texts of ``Report.COLUMNS``."""
        target = self.target
        return (
            target.title,
            f"{number(self.value)} {target.unit}",
            "-" if target.baseline is None else f"{target.sign}= {target.baseline:,g}",
            "-" if target.target is None else f"{target.sign} {target.target:,g}",
            str(self.verdict),
        )

    def detail_cells(self) -> tuple[str, ...]:
        """Return the texts of ``Report.DETAIL_COLUMNS``."""
        return (self.target.title, number(self.mean), " to ".join(map(number, self.spread)), self.note)


@dataclass(frozen=True)
class Report:
    """A model held against its targets."""

    COLUMNS: ClassVar = ("metric", "value", "baseline", "target", "verdict")
    DETAIL_COLUMNS: ClassVar = ("metric", "mean", "smallest to largest", "note")

    model: Path
    file_bytes: int
    config: dict[str, Any]  # of the model: arch, n_vocab, ..., dtype
    synthetic: str | None  # what a synthetic model is made of; None for any other
    environment: dict[str, Any]  # what the figures depend on besides the code
    n_runs: int
    kernels: tuple[str, ...]  # those that ran while decoding
    deterministic: bool  # every run made the same tokens; False after a single run, which cannot tell
    tokens_generated: int  # in the median run
    total_time_ms: float  # of the median run
    measurements: tuple[Measurement, ...]

    @property
    def failed(self) -> tuple[Measurement, ...]:
        """What lies beyond its baseline."""
        return tuple(m for m in self.measurements if m.verdict is Verdict.FAIL)

    def __getitem__(self, metric: str) -> Measurement:
        """Find a measurement by the name of its metric; KeyError if it was not taken."""
        for measurement in self.measurements:
            if measurement.target.metric == metric:
                return measurement
        raise KeyError(metric)

    def heading(self) -> str:
        """Return what was measured, in two to four lines."""
        env = self.environment
        lines = [
            f"{self.model} ({self.file_bytes / _MIB:,.1f} MiB, {self.config['dtype']}, {env['weights']})",
            f"{env['n_threads']} threads, {env['isa']} kernels, {env['cpu']}; median of {self.n_runs}",
        ]
        if self.n_runs == 1:
            lines.append("a single run: whether repeated runs make the same tokens was not looked at")
        if self.synthetic is not None:
            lines.append(f"a synthetic model ({self.synthetic}): speed and memory are real, its text means nothing")
        return "\n".join(lines)

    def table(self) -> str:
        """Return one line a metric, as plain text: value, baseline, target, verdict."""
        return _aligned([self.COLUMNS, *(m.cells() for m in self.measurements)])

    def details(self) -> str:
        """Return one line a metric, as plain text: mean, spread, and what else belongs to it."""
        return _aligned([self.DETAIL_COLUMNS, *(m.detail_cells() for m in self.measurements)])


def measure(
    path: str | os.PathLike[str],
    *,
    n_threads: int | None = None,
    n_runs: int = 3,
    n_tokens: int = 32,
    isa: str | None = None,
    weights: str = "file",
    dtype: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Report:
    """Measure a model against the targets.

    Parameters
    ----------
    path : str or os.PathLike
        A GGUF file.
    n_threads : int, optional
        Default: ``BITNET_THREADS``, else the physical cores.
    n_runs : int
        How often each figure is taken, except memory, which is taken once.
    n_tokens : int
        Tokens to generate in each run, at least 2. A run also ends after 10 seconds.
    isa : str, optional
        Level of the kernels. Default: ``BITNET_ISA``, else the best of the machine.
    weights : str
        Where the ternary matrices are read from, see :meth:`Model.from_file`.
    dtype : str, optional
        What type id 36 means, for a file that does not say.
    progress : callable, optional
        Called with the name of each step when it begins.

    Returns
    -------
    Report
        With the QK256 baselines if the file is QK256 or ``BITNET_QK256_MODEL`` is set.

    Raises
    ------
    BitNetError, OSError, ValueError
        The model cannot be run, or its matrices converted to floats and back have other codes than before.

    Notes
    -----
    ``BITNET_SEED`` (42) chooses the prompt.
    """
    from bitnet_core.measuring import measure_model  # noqa: PLC0415 - it needs this module, which stays light to import

    return measure_model(
        path,
        n_threads=n_threads,
        n_runs=n_runs,
        n_tokens=n_tokens,
        isa=isa,
        weights=weights,
        dtype=dtype,
        progress=progress,
    )


def number(value: float) -> str:
    """Write a figure with three significant digits, or all before the point, and no exponent.

    >>> number(1234.5), number(12.345), number(0.001234)
    ('1,234', '12.3', '0.00123')
    """
    if value >= 100:
        return f"{value:,.0f}"
    if value <= 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{2 - math.floor(math.log10(value))}f}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
