"""What `make peers` measured, and the ways to print it."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

OURS, PEER = "bitnet-core", "llama-cpp-python"
ARCH = "bitnet"
PROMPTS = (128, 512)
TESTS = (*(f"prefill {n}" for n in PROMPTS), "decode")


N_CHECK = 16  # tokens after each of which the logits are compared
LARGEST_SPREAD = 1.3  # of one figure, largest by smallest round: a quiet machine stays below 1.1
LEAST_COSINE = 0.98  # of the logits: the two engines round activations in different ways


@dataclass
class Result:
    """What was measured. Speeds are tokens a second, one for each round."""

    preset: str
    cpu: str
    n_threads: int
    isa: str
    macs_per_token: int
    engines: dict[str, dict[str, Any]]  # version, build, dtype, file, file_bytes, bytes_per_token
    speeds: dict[str, dict[str, list[float]]]  # engine -> test -> rounds
    read_gb_s: list[float] = field(default_factory=list)
    int8_peak_gmac_s: list[float] = field(default_factory=list)
    cosine: float = math.nan  # the smallest of N_CHECK
    same_best: int = 0

    def speed(self, engine: str, test: str) -> float:
        """Median tokens a second."""
        return statistics.median(self.speeds[engine][test])

    def ratios(self, test: str) -> list[float]:
        """Ours by the peer's, round by round."""
        return [a / b for a, b in zip(self.speeds[OURS][test], self.speeds[PEER][test], strict=True)]

    def read_fraction(self, engine: str) -> float:
        """Bytes that decoding read a second, by the read bandwidth of the same round."""
        bytes_per_token = self.engines[engine]["bytes_per_token"]
        pairs = zip(self.speeds[engine]["decode"], self.read_gb_s, strict=True)
        return statistics.median(bytes_per_token * speed / (1e9 * gb_s) for speed, gb_s in pairs)

    def unsteady(self) -> list[str]:
        """Whatever differed by more than LARGEST_SPREAD between rounds: then something else was running."""
        series = {"read bandwidth": self.read_gb_s, "int8 peak": self.int8_peak_gmac_s}
        series |= {f"{test} of {name}": self.speeds[name][test] for name in self.speeds for test in TESTS}
        return [
            f"{name} {number(min(samples))} to {number(max(samples))}"
            for name, samples in series.items()
            if max(samples) > LARGEST_SPREAD * min(samples)
        ]

    def peak_fractions(self, test: str) -> list[float]:
        """Our int8 multiply-accumulates a second, by the peak of the same round."""
        pairs = zip(self.speeds[OURS][test], self.int8_peak_gmac_s, strict=True)
        return [self.macs_per_token * speed / (1e9 * peak) for speed, peak in pairs]


# ---- verdicts ----


@dataclass(frozen=True)
class Goal:
    """A figure and what is aimed at, on the 2b preset."""

    name: str
    unit: str  # after the number
    least: float | None  # None: for information
    samples: tuple[float, ...]
    unjudged: str = ""  # why there is no verdict

    @property
    def value(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.samples)

    @property
    def verdict(self) -> str:
        """How the median stands to what is aimed at."""
        if self.least is None:
            return "for information"
        if self.unjudged:
            return f"not judged, {self.unjudged}"
        return "ok" if self.value >= self.least else "missed"

    def line(self) -> str:
        """All of it in one line."""
        spread = f"{min(self.samples):.2f} to {max(self.samples):.2f}"
        aim = "" if self.least is None else f", aimed at >= {self.least:g}"
        return f"{self.name}: {self.value:.2f}{self.unit} ({spread}){aim}: {self.verdict}"


def goals(result: Result) -> list[Goal]:
    """What is aimed at. 15 times the peer at prefill supposes AMX; without it a fraction of the int8 peak is."""
    unjudged = "it is for 2b" if result.preset != "2b" else "the machine was busy" if result.unsteady() else ""
    amx = "amx" in result.isa
    prefill, of_peak = result.ratios("prefill 512"), result.peak_fractions("prefill 512")
    return [
        Goal(f"decode / {PEER}", "x", 3, tuple(result.ratios("decode")), unjudged),
        Goal(f"prefill 512 / {PEER}", "x", 15 if amx else None, tuple(prefill), unjudged),
        Goal("prefill 512 / int8 peak", "", None if amx else 0.6, tuple(of_peak), unjudged),
    ]


# ---- output ----


def rows(result: Result) -> list[list[str]]:
    """The table, its heading first."""
    heading = ["engine", "version", "matrices", "file, MB"]
    heading += [f"{test}, tok/s" for test in TESTS] + ["MB a token", "of read bandwidth"]
    table = [heading]
    for name, engine in result.engines.items():
        cells = [name, engine["version"], engine["dtype"], f"{engine['file_bytes'] / 1e6:,.1f}"]
        cells += [number(result.speed(name, test)) for test in TESTS]
        cells += [f"{engine['bytes_per_token'] / 1e6:,.1f}", f"{result.read_fraction(name):.2f}"]
        table.append(cells)
    ratios = [f"{statistics.median(result.ratios(test)):.2f}x" for test in TESTS]
    table.append(["ratio", "", "", "", *ratios, "", ""])
    return table


def number(speed: float) -> str:
    """Three digits, or all before the point."""
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}"


def notes(result: Result) -> list[str]:
    """What belongs to the table, a line each."""
    n_rounds = len(result.read_gb_s)
    rounds = f"{n_rounds} round{'s' if n_rounds > 1 else ''}"
    read, peak = statistics.median(result.read_gb_s), statistics.median(result.int8_peak_gmac_s)
    return [
        f"synthetic {result.preset}, arch {ARCH}, F16 head; {result.n_threads} threads, {result.cpu}; {rounds} in turn",
        *(f"{name}: {engine['build']}" for name, engine in result.engines.items()),
        f"read bandwidth {read:.1f} GB/s, int8 peak {peak:,.0f} GMAC/s in the same rounds",
        *(goal.line() for goal in goals(result)),
        *(f"the machine was busy, run it again when it is not: {what}" for what in result.unsteady()[:1]),
        f"logits after each of {N_CHECK} tokens: cosine >= {result.cosine:.4f}, the same best {result.same_best} times",
    ]


def as_table(result: Result) -> str:
    """Aligned text, for a terminal."""
    table = rows(result)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    aligns = [str.ljust] * 3 + [str.rjust] * (len(widths) - 3)
    lines = [
        "  ".join(align(cell, width) for align, cell, width in zip(aligns, cells, widths, strict=True)).rstrip()
        for cells in table
    ]
    return "\n".join([*lines, "", *notes(result)])


def as_md(result: Result) -> str:
    """A Markdown table, and the notes as a list."""
    heading, *body = rows(result)
    rule = ["---" if i < 3 else "---:" for i in range(len(heading))]
    lines = [f"| {' | '.join(cells)} |" for cells in (heading, rule, *body)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(result))])


def as_json(result: Result) -> str:
    """All samples, and what was made of them."""
    record = {
        "preset": result.preset,
        "arch": ARCH,
        "cpu_info": result.cpu,
        "n_threads": result.n_threads,
        "isa": result.isa,
        "n_rounds": len(result.read_gb_s),
        "engines": {
            name: engine
            | {
                "samples_ts": result.speeds[name],
                "median_ts": {test: result.speed(name, test) for test in TESTS},
                "bandwidth_fraction": result.read_fraction(name),
            }
            for name, engine in result.engines.items()
        },
        "samples_ratio": {test: result.ratios(test) for test in TESTS},
        "ratio": {test: statistics.median(result.ratios(test)) for test in TESTS},
        "samples_read_gb_s": result.read_gb_s,
        "samples_int8_peak_gmac_s": result.int8_peak_gmac_s,
        "goals": [
            {"name": goal.name, "value": goal.value, "least": goal.least, "verdict": goal.verdict}
            for goal in goals(result)
        ],
        "unsteady": result.unsteady(),
        "check": {"n_tokens": N_CHECK, "least_cosine": result.cosine, "same_best": result.same_best},
    }
    return json.dumps(record, indent=2)


OUTPUTS = {"table": as_table, "md": as_md, "json": as_json}
