"""`python -m tracking trust`: how far a review can be trusted, found by trying it where the answer is known.

    same      two commits with one tree: every "worse" or "better" is wrong
    plants    a commit with a patch of tracking/plants/ that costs 5 % or 10 % of a time, or 2 % of a memory: it must be
              found, and "cannot tell" counts as not found

The commits are scratch ones that no branch knows (commits.py). Each review that is done is a line in
.asv/trust/trust.jsonl, so that the hours this takes may be spent in parts; the counts are printed, with the bounds
within which the true rates lie, and written to .asv/trust/trust.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tracking import commits, report
from tracking.command import perform
from tracking.errors import TrackingError
from tracking.review import PLACE, Options, folder_name, minutes, review
from tracking.verdict import BETTER, SAME, UNKNOWN, WORSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracking.commits import Commit

PLANTS = Path(__file__).with_name("plants")
FILE = Path(".asv") / "trust" / "trust.jsonl"
SAME_REVIEWS, SAME_BUDGET = 20, 3.0
PLANT_REVIEWS, PLANT_BUDGET = 6, 3.0

KERNELS = r"kernels\.Gemv\..*'tiny/ffn_up 512x256', 1\)"
# Twenty quick benchmarks of every kind there is, on one thread.
SAME_BENCH = "|".join(
    [
        r"generate\.(Decode|Generate|Prefill)\.track_token\('tiny', 1,(?! 512| 2048)",
        KERNELS.replace("'tiny", "'avx.*'tiny"),
        r"kernels\.Gemm\..*'avx.*'tiny/ffn_up 512x256', 1, 16\)",
        r"load\.Load\..*'tiny', 'warm'",
        r"load\.Header\.track_open\('2b-header', 'bitnet_core'\)",
        r"quant\.Quant\.track_dequantize_gib\('i2_s', 'tiny 4 MiB'\)",
        r"footprint\.Size\.track_package",
    ]
)


@dataclass(frozen=True)
class Plant:
    """A slowdown whose place is known."""

    patch: str  # of tracking/plants
    bench: str  # the group that is reviewed
    target: str  # the benchmark that must be found worse


_KERNEL = (
    KERNELS.replace("'tiny", "'avx2', 'tiny"),
    "kernels.Gemv.track_gigaweight('i2_s', 'avx2', 'tiny/ffn_up 512x256', 1)",
)
_COPY = r"generate\.Decode\.track_token\('tiny', 1, 0\)", "generate.Decode.track_token('tiny', 1, 0)"
_ALLOCATION = r"load\.Load\..*\('tiny', 'warm'\)", "load.Load.track_model('tiny', 'warm')"
_PAGES = r"generate\.Prefill\.track_token\('tiny', 1,", "generate.Prefill.track_token('tiny', 1, 128)"
_OPEN = r"load\.Load\..*\('tiny', 'warm'\)", "load.Load.track_open('tiny', 'warm')"
_MEMORY = r"memory\.Memory\.track_peak_anon\('2b'\)", "memory.Memory.track_peak_anon('2b')"
_GROUPS = {"kernel": _KERNEL, "copy": _COPY, "allocation": _ALLOCATION, "pages": _PAGES, "open": _OPEN}
TABLE = [Plant(f"{name}-{percent}", *group) for percent in (5, 10) for name, group in _GROUPS.items()]
TABLE.append(Plant("memory-2", *_MEMORY))


@dataclass(frozen=True)
class Experiment:
    """One review whose answer is known."""

    kind: str  # "same", or the patch's name
    index: int
    bench: str
    budget: float
    target: str = ""

    @property
    def digest(self) -> str:
        """Of all that its answer depends on besides the commit: the patch, the benchmarks, the time."""
        patch = PLANTS / f"{self.kind}.patch"
        text = patch.read_text(encoding="utf-8") if self.target else ""
        return hashlib.sha256(f"{text}\0{self.bench}\0{self.budget:g}".encode()).hexdigest()[:12]


def main(argv: list[str]) -> int:
    """Do the experiments that are not done; 0 when all that were asked for are."""
    options = parse(argv)
    console = Console(highlight=False, soft_wrap=True)
    kept = "what is done is kept, and the same command goes on"
    return perform("trust", console, lambda: trust(Path.cwd(), options, console), kept=kept)


def trust(root: Path, options: argparse.Namespace, console: Console) -> int:
    """The experiments, then the table of all that are done."""
    commit = commits.find(root, options.head)
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    for experiment in experiments(options):
        if not options.summary and not done(path, commit, experiment):
            console.rule(f"{experiment.kind}, review {experiment.index + 1}")
            add(path, carry_out(root, commit, experiment, console))
    asked = {experiment.digest for experiment in experiments(options)}
    text = summary([one for one in read(path) if one.get("digest") in asked], commit)
    report.write_whole(path.with_suffix(".md"), text)
    console.print(text, markup=False)
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tracking trust", description="Try reviews with known answers.")
    add_ = parser.add_argument
    names = ["same", *(plant.patch for plant in TABLE)]
    add_("--head", default="HEAD", help="the commit that is measured against itself, and planted in (default: HEAD)")
    add_("--only", nargs="*", choices=names, default=names, metavar="NAME", help=f"some of: {', '.join(names)}")
    add_("--same", type=reviews, default=SAME_REVIEWS, help=f"reviews without a difference (default: {SAME_REVIEWS})")
    add_("--each", type=reviews, default=PLANT_REVIEWS, help=f"reviews of each plant (default: {PLANT_REVIEWS})")
    add_("--budget", type=minutes, default=0.0, help="minutes a review (default: 3)")
    add_("--summary", action="store_true", help="count what is done, and measure nothing")
    return parser.parse_args(argv)


def reviews(text: str) -> int:
    """A number of reviews."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of reviews above 0")
    return int(text)


def experiments(options: argparse.Namespace) -> Iterator[Experiment]:
    """What was asked for; the plants in turns, so that a part of the hours has some of each."""
    if "same" in options.only:
        for index in range(options.same):
            yield Experiment("same", index, SAME_BENCH, options.budget or SAME_BUDGET)
    for index in range(options.each):
        for plant in TABLE:
            if plant.patch in options.only:
                yield Experiment(plant.patch, index, plant.bench, options.budget or PLANT_BUDGET, plant.target)


def carry_out(root: Path, commit: Commit, experiment: Experiment, console: Console) -> dict[str, Any]:
    """One review, and what is kept of it."""
    if experiment.kind == "same":
        other = commits.twin(root, commit)
    else:
        other = commits.planted(root, commit, PLANTS / f"{experiment.kind}.patch")
    options = Options(
        base=commit.hash,
        head=other.hash,
        bench=experiment.bench,
        budget=experiment.budget,
        name=f"trust-{experiment.kind}-{experiment.index}",
        keep_results=False,  # scratch commits have no place in the project's history
        with_counts=False,  # the verdict alone is tried
    )
    found = review(root, options, console)
    folder = root / PLACE / folder_name(commit, other, options)
    for built in ("base", "head"):
        shutil.rmtree(folder / built, ignore_errors=True)
    if experiment.target and not any(row.benchmark == experiment.target and row.rounds for row in found.rows):
        raise TrackingError(
            f"{experiment.target} could not be measured, so nothing can be found in it (`make bench` writes 2b)"
        )
    measured = [row for row in found.rows if row.word in {WORSE, BETTER, SAME, UNKNOWN}]
    return {
        "commit": commit.hash,
        "kind": experiment.kind,
        "index": experiment.index,
        "digest": experiment.digest,
        "target": experiment.target,
        "minutes": round(found.minutes, 2),
        "load": found.machine["load"],
        "steal": found.machine["steal"],
        "cpu": found.machine["cpu"],
        "verdicts": {row.benchmark: row.word for row in measured},
        "ratios": {row.benchmark: row.ratio for row in measured},
    }


# ---- what is done ----


def read(path: Path) -> list[dict[str, Any]]:
    """The experiments that are done; half a line at the end is none."""
    if not path.is_file():
        return []
    data = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in data[: data.rfind("\n") + 1].splitlines()]


def done(path: Path, commit: Commit, experiment: Experiment) -> bool:
    """Whether an experiment's line is there."""
    key = (commit.hash, experiment.kind, experiment.index, experiment.digest)
    return any((one["commit"], one["kind"], one["index"], one.get("digest")) == key for one in read(path))


def add(path: Path, record: dict[str, Any]) -> None:
    """Keep a line, on the disk when this returns."""
    lines = [*read(path), record]
    report.write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))
    os.sync()


# ---- counting ----


def summary(records: list[dict[str, Any]], commit: Commit) -> str:
    """A table of counts, each with the bounds of its rate."""
    records = [one for one in records if one["commit"] == commit.hash]
    lines = [f"# Reviews with known answers, commit {commit.short}", ""]
    if not records:
        return "\n".join([*lines, "none done yet", ""])
    lines += [
        f"{records[-1]['cpu']}; load before a review {_range(records, 'load')}, steal {_range(records, 'steal')} %",
        "",
    ]
    lines += ["| experiment | reviews | what | count | rate, 95 % bounds |", "|---|---|---|---|---|"]
    lines += _same_lines([one for one in records if one["kind"] == "same"])
    for size in ("5", "10", "2"):
        found = [one for one in records if one["kind"].endswith(f"-{size}")]
        lines += _plant_lines(f"all of {size} %", found)
        for kind in sorted({one["kind"] for one in found}):
            lines += _plant_lines(kind, [one for one in found if one["kind"] == kind])
    return "\n".join([*lines, ""])


def _same_lines(records: list[dict[str, Any]]) -> list[str]:
    words = [word for one in records for word in one["verdicts"].values()]
    if not words:
        return []
    wrong = sum(word in {WORSE, BETTER} for word in words)
    unknown = words.count(UNKNOWN)
    return [
        f"| same | {len(records)} | wrong verdicts | {wrong} of {len(words)} | {bounds(wrong, len(words))} |",
        f"| same | {len(records)} | cannot tell | {unknown} of {len(words)} | {bounds(unknown, len(words))} |",
    ]


def _plant_lines(title: str, records: list[dict[str, Any]]) -> list[str]:
    if not records:
        return []
    hits, n = sum(one["verdicts"].get(one["target"]) == WORSE for one in records), len(records)
    sizes = sorted(one["ratios"].get(one["target"]) or math.nan for one in records)
    title = f"{title} (median measured: {report.percent(sizes[n // 2])})"
    return [f"| {title} | {n} | found | {hits} of {n} | {bounds(hits, n)} |"]


def _range(records: list[dict[str, Any]], key: str) -> str:
    values = [one[key] for one in records]
    return f"{min(values):.1f} to {max(values):.1f}"


def bounds(hits: int, n: int) -> str:
    """A rate with its Wilson bounds (Wilson, JASA 22, 1927), in words."""
    low, high = wilson(hits, n)
    return f"{100 * hits / n:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Bounds of a rate of which hits of n were seen; z standard deviations, 95 % both sides together.

    >>> [round(bound, 3) for bound in wilson(57, 60)]
    [0.863, 0.983]
    """
    rate, square = hits / n, z * z
    middle = (rate + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)
