"""What a review found, for three readers: a table in the terminal, review.md for people, review.json for programs."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import statistics
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asv.util import human_value
from rich.table import Column, Table

from tracking.verdict import BETTER, SAME, UNKNOWN, WORSE, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from tracking.rounds import Round
    from tracking.suite import Case

FAILED, SKIPPED = "failed", "skipped"
NEW, GONE = "new", "gone"  # only head, or only base, can run it
ORDER = (WORSE, FAILED, GONE, BETTER, UNKNOWN, NEW, SAME, SKIPPED)  # worst first
STYLES = {WORSE: "bold red", FAILED: "red", BETTER: "green", UNKNOWN: "yellow", SAME: "dim", SKIPPED: "dim"}
STYLES |= {NEW: "cyan", GONE: "magenta"}
SIGNS = {WORSE: "🔴", FAILED: "❌", BETTER: "🟢", UNKNOWN: "❔", SAME: "⚪", SKIPPED: "⚪", NEW: "🆕", GONE: "👻"}
# How a rate follows from the stored seconds: unit, and what is divided by them.
RATES = {"track_token": ("tokens/s", 1.0), "gib": ("GB/s", 2**30 / 1e9), "gigaweight": ("G weights/s", 1.0)}
RATES["gigamac"] = ("GMAC/s", 1.0)
MOVED = 0.05  # a counter that changed by more than this, in most rounds, is shown beside a verdict
MOVED_ROUNDS = 0.75
MOST_REASON = 120  # characters of a reason in the terminal; review.md has it whole
MOST_UNKNOWN = 10  # of which the terminal says that one cannot tell
LEGEND = "Changes are head / base with the interval that decided; lower is better everywhere."
EXIT_SAME, EXIT_WORSE, EXIT_UNMEASURED = 0, 1, 2


@dataclass
class Row:
    """One benchmark of a report."""

    benchmark: str
    unit: str
    word: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    base: float | None = None
    head: float | None = None
    rounds: int = 0
    reason: str = ""  # why it failed or was skipped
    moved: list[str] = field(default_factory=list)
    again: str = ""  # the command that runs it alone

    @property
    def unmeasured(self) -> bool:
        """Whether the time was over before a single round."""
        return self.word == UNKNOWN and not self.rounds

    @property
    def change(self) -> str:
        """The ratio and its interval, as percent."""
        if self.ratio is None or self.low is None or self.high is None:
            return ""
        if not math.isfinite(self.high):
            return f"{percent(self.ratio)} (too few rounds)"
        return f"{percent(self.ratio)} ({percent(self.low)} to {percent(self.high)})"

    def shown(self, value: float | None) -> str:
        """A value with its unit, and the rate it means where one says more."""
        if value is None:
            return ""
        text = str(human_value(value, self.unit)) if self.unit in {"seconds", "bytes"} else f"{value:.6g} {self.unit}"
        method = self.benchmark.partition("(")[0].rpartition(".")[2]
        rate = RATES.get(method) or RATES.get(method.rpartition("_")[2])
        return f"{text} = {rate[1] / value:.4g} {rate[0]}" if rate and self.unit == "seconds" else text


@dataclass
class Report:
    """A review's outcome: what was compared, on what, and a row for each benchmark."""

    base: dict[str, str]
    head: dict[str, str]
    machine: dict[str, Any]
    models: list[str]
    notes: list[str]
    minutes: float
    rows: list[Row]

    def __post_init__(self) -> None:
        self.rows.sort(key=_badness)

    def count(self, word: str) -> int:
        """How many rows have a verdict."""
        return sum(row.word == word for row in self.rows)

    def of(self, *words: str) -> list[Row]:
        """The rows with one of these verdicts."""
        return [row for row in self.rows if row.word in words]

    @property
    def status(self) -> int:
        """0 nothing worse, 1 something worse, 2 something could not be measured or nothing was."""
        if self.count(WORSE):
            return EXIT_WORSE
        if self.count(FAILED) or any(row.unmeasured for row in self.rows) or not any(row.rounds for row in self.rows):
            return EXIT_UNMEASURED
        return EXIT_SAME

    @property
    def summary(self) -> str:
        """One line."""
        counts = [(self.count(word), word) for word in ORDER]
        return ", ".join(f"{n} {word}" for n, word in counts if n)


def make_row(case: Case, rounds: Sequence[Round], verdict: Verdict | None, again: str) -> Row:
    """What is said about one benchmark."""
    row = Row(case.full, case.unit, UNKNOWN, rounds=sum(one.measured for one in rounds), again=again)
    failed = next((one.failed for one in rounds if one.failed), None)
    skipped = next((one.skipped for one in rounds if one.skipped), None)
    if failed:
        row.word, row.reason = FAILED, by_side(failed)
    elif skipped:
        row.word, row.reason = SKIPPED if len(skipped) > 1 else NEW if "base" in skipped else GONE, by_side(skipped)
    elif verdict is not None and row.rounds:
        measured = [one for one in rounds if one.measured]
        row.word, row.ratio, row.low, row.high = verdict.word, verdict.ratio, verdict.low, verdict.high
        # The head by the verdict's ratio: where rounds are in two groups, medians of two sides may be of either.
        row.base = statistics.median(one.low["base"] for one in measured)
        row.head = float(f"{row.base * verdict.ratio:.12g}")  # counts stay whole
        row.moved = moved_counters(measured)
    else:
        row.reason = "the time was over before it was measured"
    return row


def moved_counters(rounds: Sequence[Round]) -> list[str]:
    """What else differs between the sides: a counter that moved by more than MOVED, the same way in most rounds."""
    found = []
    for name in rounds[0].moved.get("base", {}):
        pairs = [(one.moved["base"].get(name, 0.0), one.moved["head"].get(name, 0.0)) for one in rounds]
        base, head = (statistics.median(side) for side in zip(*pairs, strict=True))
        if max(base, head) < (0 if "seconds" in name else 1):
            continue  # less than one of them a value
        up = sum(b * (1 + MOVED) < a for b, a in pairs)
        down = sum(a * (1 + MOVED) < b for b, a in pairs)
        if max(up, down) >= MOVED_ROUNDS * len(pairs):
            change = percent(head / base) if base else "from none"
            if "seconds" in name:
                from_to = f"{human_value(base, 'seconds')} to {human_value(head, 'seconds')}"
            else:
                from_to = f"{base:.4g} to {head:.4g}"
            found.append(f"{name.replace('seconds', 'time')} {change} ({from_to} a value)")
    return found


def percent(ratio: float) -> str:
    """A ratio as a change: 1.05 is +5.0 %."""
    change = 100 * (ratio - 1)
    return f"{change:+.1f} %" if abs(change) < 1000 else f"x {ratio:.3g}"


def again_command(base: str, head: str, full: str) -> str:
    """The command that reviews one benchmark alone, with rounds of its own."""
    pattern = "^" + re.escape(full).replace("'", ".").replace("\\ ", " ") + "$"
    return f".venv/bin/python -m tracking review --base {base} --head {head} --bench {shlex.quote(pattern)}"


def by_side(reasons: dict[str, str]) -> str:
    """Why, once if it is the same on both sides."""
    texts = set(reasons.values())
    if len(texts) == 1 and len(reasons) > 1:
        return texts.pop()
    return "; ".join(f"{side}: {text}" for side, text in sorted(reasons.items()))


def _badness(row: Row) -> tuple[int, float, str]:
    return ORDER.index(row.word), -abs(math.log(row.ratio)) if row.ratio else 0.0, row.benchmark


# ---- terminal ----


def print_table(report: Report, console: Console) -> None:
    """Everything but what is the same or skipped, and most of what one cannot tell, which is counted."""
    unknown = report.of(UNKNOWN)
    shown = [*report.of(WORSE, FAILED, GONE, BETTER, NEW), *unknown[:MOST_UNKNOWN]]
    if shown:
        table = Table("verdict", Column("benchmark", overflow="fold"), "head / base", "base", "head", pad_edge=False)
        for row in shown:
            last = row.reason.splitlines()[-1][:MOST_REASON] if row.reason else ""
            cells = ["", last] if last else [row.shown(row.base), row.shown(row.head)]
            table.add_row(row.word, row.benchmark, row.change, *cells, style=STYLES[row.word])
        console.print(table, markup=False)
    for row in shown:
        console.print(f"{row.word}: {row.benchmark}", style=STYLES[row.word], markup=False)
        for text in row.moved if row.word in {WORSE, BETTER} else []:
            console.print(f"    also: {text}", markup=False)
        console.print(f"    again: {row.again}", markup=False)
    if len(unknown) > MOST_UNKNOWN:
        more = f"{len(unknown) - MOST_UNKNOWN} more stand in review.md; a larger BUDGET goes on with them"
        console.print(f"{UNKNOWN}: {more}", style=STYLES[UNKNOWN], markup=False)
    console.print(f"review: {report.summary}", markup=False)


# ---- files ----


def save(report: Report, folder: Path) -> None:
    """review.json and review.md; each is there whole or as it was."""
    data = asdict(report) | {"status": report.status, "summary": report.summary}
    write_whole(folder / "review.json", json.dumps(_finite(data), indent=1) + "\n")
    write_whole(folder / "review.md", markdown(report))


def write_whole(path: Path, text: str) -> None:
    """Replace a file by one rename."""
    descriptor, beside = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(report: Report) -> str:
    """Worst first; what did not change is folded."""
    head, base = report.head, report.base
    parts = [
        f"## Review of {head['short']}: {report.summary}",
        f"`{head['short']}` {head['subject']}, against `{base['short']}` {base['subject']}. {LEGEND}",
        *(f"> {note}" for note in report.notes + report.machine["warnings"]),
        _section("", report.of(WORSE, BETTER)),
        _failures(report.of(FAILED)),
        _section("On one side only", report.of(GONE, NEW)),
        _section("Cannot tell: too few rounds, or too noisy a machine", report.of(UNKNOWN)),
        _fold(f"{report.count(SAME)} the same", _table(report.of(SAME))),
        _fold(f"{report.count(SKIPPED)} skipped", _list(f"`{r.benchmark}`: {r.reason}" for r in report.of(SKIPPED))),
        _fold("run one of them again", _again(report.of(WORSE, FAILED, BETTER, UNKNOWN, SAME))),
        _fold("machine, compiler, models", _list(_provenance(report))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, rows: list[Row]) -> str:
    if not rows:
        return ""
    return "\n\n".join(([f"### {title}"] if title else []) + [_table(rows)])


def _table(rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = ["| | benchmark | head / base | base | head | rounds | also moved |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        moved = "<br>".join(row.moved) if row.word in {WORSE, BETTER} else ""
        cells = [f"{SIGNS[row.word]} {row.word}", f"`{row.benchmark}`", row.change or row.reason]
        cells += [row.shown(row.base), row.shown(row.head), str(row.rounds), moved]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _failures(rows: list[Row]) -> str:
    if not rows:
        return ""
    blocks = [f"{SIGNS[FAILED]} `{row.benchmark}`\n\n```\n{row.reason}\n```" for row in rows]
    return "### Failed\n\n" + "\n\n".join(blocks)


def _again(rows: list[Row]) -> str:
    return "```\n" + "\n".join(row.again for row in rows) + "\n```" if rows else ""


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>" if body else ""


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _provenance(report: Report) -> list[str]:
    """What a figure depends on besides the code."""
    machine = report.machine
    sides = {side["short"]: side for side in (report.base, report.head)}
    busy = ", ".join(machine["busy"]) or "nothing"
    state = (
        f"load {machine['load']}, steal {machine['steal']} %, governor {machine['governor']}, turbo {machine['turbo']}"
    )
    return [
        f"{machine['cpu']}, {machine['n_cpu']} processors, {machine['memory_gib']} GiB, {machine['system']}",
        f"before: {state}, busy: {busy}",
        *(f"{short}: built by {side['compiler']}; levels: {side['isa']}" for short, side in sides.items()),
        f"models: {', '.join(report.models) or 'none'}",
        f"Python {machine['python']}; {report.minutes:.1f} minutes of rounds",
    ]
