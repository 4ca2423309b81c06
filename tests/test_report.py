"""What readers of a report see."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

pytest.importorskip("asv")

from rich.console import Console

from tracking import machine, report, results
from tracking.report import Report, Row
from tracking.rounds import Round
from tracking.verdict import Verdict

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {
    "cpu": "A CPU",
    "n_cpu": 2,
    "memory_gib": 4.0,
    "system": "Linux 6",
    "python": "3.11",
    "load": 0.1,
    "steal": 0.0,
    "governor": "performance",
    "turbo": "on",
    "busy": [],
    "warnings": ["load 9 on 2 processors"],
}


def row(word: str, name: str, ratio: float = 1.0, **more: Any) -> Row:
    return Row(name, "seconds", word, ratio, ratio - 0.01, ratio + 0.01, 0.02, 0.02 * ratio, 7, **more)


def made(*rows: Row) -> Report:
    side = {"commit": "c" * 40, "short": "cccccccc", "subject": "it", "compiler": "GCC 12", "isa": "scalar avx2"}
    return Report(side, side | {"short": "dddddddd"}, MACHINE, ["tiny"], ["a note"], 1.5, list(rows))


def test_the_terminal_has_all_that_changed_and_little_of_what_one_cannot_tell() -> None:
    out = io.StringIO()
    names = [f"x.Noisy{i:02}.track_token" for i in range(report.MOST_UNKNOWN + 3)]
    found = made(*(row("cannot tell", name) for name in names), row("worse", "x.Much.track_token", 1.5, again="run it"))
    report.print_table(found, Console(file=out, width=200))
    text = out.getvalue()
    assert text.index("x.Much") < text.index(names[0])
    assert "    again: run it" in text
    assert [name in text for name in names] == [True] * report.MOST_UNKNOWN + [False] * 3
    assert "cannot tell: 3 more stand in review.md; a larger BUDGET goes on with them" in text
    assert text.endswith("review: 1 worse, 13 cannot tell\n")


def test_the_worst_comes_first_and_the_unchanged_is_folded() -> None:
    found = made(
        row("same", "x.Same.track_token"),
        row("worse", "x.Little.track_token", 1.05),
        row("better", "x.Better.track_token", 0.8),
        row("worse", "x.Much.track_token", 1.5, moved=["page faults +100.0 % (1 to 2 a value)"]),
        Row("x.Bad.track_token", "seconds", "failed", reason="head: Traceback\nValueError: no"),
        Row("x.Not.track_token", "seconds", "skipped", reason="no 2b"),
        row("cannot tell", "x.Noisy.track_token", 1.2),
    )
    assert found.summary == "2 worse, 1 failed, 1 better, 1 cannot tell, 1 same, 1 skipped"
    text = report.markdown(found)
    places = [text.index(f"`x.{name}.track_token`") for name in ("Much", "Little", "Better", "Bad", "Noisy")]
    assert places == sorted(places)
    assert places[-1] < text.index("<details><summary>1 the same") < text.index("`x.Same.track_token`")
    assert "+50.0 % (+49.0 % to +51.0 %)" in text
    assert "page faults +100.0 %" in text
    assert "> a note" in text
    assert "> load 9 on 2 processors" in text
    assert "A CPU, 2 processors" in text
    assert "built by GCC 12; levels: scalar avx2" in text
    assert "models: tiny" in text
    assert "ValueError: no" in text


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([row("same", "a"), row("cannot tell", "b"), row("better", "c")], 0),
        ([row("same", "a"), row("worse", "b"), Row("c", "seconds", "failed")], 1),
        ([row("same", "a"), Row("c", "seconds", "failed")], 2),
        ([Row("c", "seconds", "skipped")], 2),
        ([row("same", "a"), row("cannot tell", "b")], 0),
        ([row("same", "a"), Row("c", "seconds", "cannot tell", reason="the time was over")], 2),
        ([row("worse", "a"), Row("c", "seconds", "cannot tell", reason="the time was over")], 1),
    ],
)
def test_the_status(rows: list[Row], status: int) -> None:
    assert made(*rows).status == status


@pytest.mark.parametrize(
    ("name", "unit", "value", "shown"),
    [
        ("generate.Decode.track_token('2b', 2, 0)", "seconds", 0.04, "40.0ms = 25 tokens/s"),
        ("load.Load.track_first_token('2b')", "seconds", 0.04, "40.0ms"),
        ("canary.Read.track_gib(256)", "seconds", 0.05, "50.0ms = 21.47 GB/s"),
        ("quant.Quant.track_dequantize_gib('i2_s')", "seconds", 0.1, "100ms = 10.74 GB/s"),
        ("kernels.Gemv.track_gigaweight('i2_s')", "seconds", 0.01, "10.0ms = 100 G weights/s"),
        ("memory.Memory.track_peak_anon('2b')", "bytes", 3.11e6, "3.11M"),
        ("callgrind.Decode.track_instructions", "instructions", 286790.0, "286790 instructions"),
    ],
)
def test_rates_stand_beside_seconds(name: str, unit: str, value: float, shown: str) -> None:
    assert Row(name, unit, "same").shown(value) == shown


def test_what_moved_is_what_moved_in_most_rounds() -> None:
    def one(base: dict[str, float], head: dict[str, float]) -> Round:
        return Round("b", [(1.0, 1.0)], {"base": 1.0, "head": 1.0}, {"base": base, "head": head})

    seconds = [one({"CPU seconds": 2e-5}, {"CPU seconds": 3e-5}) for _ in range(6)]
    assert report.moved_counters(seconds) == ["CPU time +50.0 % (20.0μs to 30.0μs a value)"]
    base = {"page faults": 10.0, "bytes read": 100.0, "context switches": 2.0, "bytes from disk": 0.0}
    rounds = [
        one(
            base,
            {"page faults": 20.0, "bytes read": 102.0, "context switches": [1.0, 3.0][i % 2], "bytes from disk": 50.0},
        )
        for i in range(6)
    ]
    assert report.moved_counters(rounds) == [
        "page faults +100.0 % (10 to 20 a value)",
        "bytes from disk from none (0 to 50 a value)",
    ]


def test_a_row_of_a_failure_says_which_side() -> None:
    from tracking.suite import Case

    case = Case("a.B.track_c", None, "a.B.track_c", "seconds", "track", 1.0, None)
    again = report.again_command("b", "h", case.full)
    assert report.make_row(case, [Round("x", failed={"head": "E"})], None, again).reason == "head: E"
    assert report.make_row(case, [Round("x", skipped={"base": "E", "head": "E"})], None, again).reason == "E"
    found = report.make_row(
        case, [Round("x", [(1.0, 2.0)], {"base": 1.0, "head": 2.0})], Verdict("worse", 2, 1, 3, 1), again
    )
    assert (found.word, found.base, found.head, found.rounds) == ("worse", 1.0, 2.0, 1)
    groups = [(1.0, 1.01), (1.0, 4.04), (4.0, 4.04), (4.0, 1.01), (1.0, 4.04)]  # of which each side has both
    rounds = [Round("x", [pair], dict(zip(("base", "head"), pair, strict=True))) for pair in groups]
    found = report.make_row(case, rounds, Verdict("cannot tell", 1.01, 0.2, 5, 5), again)
    assert found.head / found.base == pytest.approx(1.01), "what is shown agrees with the ratio"
    burst = [Round("x", [(1.0, 1.0)], {"base": 1.0, "head": 1.0})] * 9
    burst += [Round("x", [(3.0, 3.0)], {"base": 3.0, "head": 3.0})]
    found = report.make_row(case, burst, Verdict("same", 1.0, 0.99, 1.01, 10), again)
    assert (found.base, found.head) == (1.0, 1.0), "one slow round moves neither"
    count = Round("x", [(286790.0, 287003.0)], {"base": 286790.0, "head": 287003.0})
    found = report.make_row(case, [count], Verdict("same", 287003 / 286790, 1, 1, 1), again)
    assert (found.base, found.head) == (286790.0, 287003.0)
    assert again == r".venv/bin/python -m tracking review --base b --head h --bench '^a\.B\.track_c$'"


def test_files_are_whole_or_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report.save(made(row("worse", "a", 1.1)), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(before) == {"review.json", "review.md"}
    assert json.loads(before["review.json"])["status"] == 1

    def full(_path: Any, _to: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(report.Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        report.save(made(row("same", "a")), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# ---- results and machine ----


def test_a_side_of_a_result_file() -> None:
    good = Round("b", [(1.0, 2.0), (3.0, 4.0)], {"base": 1.0, "head": 2.0})
    assert results.side_result([good, good], "head") == (3.0, [2.0, 4.0, 2.0, 4.0])
    failed = Round("b", failed={"head": "so"})
    assert results.side_result([failed], "head") == (None, None)
    value, samples = results.side_result([failed], "base")
    assert value is not None, "not measured is no failure"
    assert math.isnan(value)
    assert samples is None
    assert results.side_result([good, failed], "base") == (2.0, [1.0, 3.0])


def test_the_machine_is_looked_at() -> None:
    found = machine.look(0.05)
    assert found.cpu
    assert found.n_cpu >= 1
    assert found.memory_gib > 0
    assert found.load >= 0
    assert 0 <= found.steal <= 100


def test_doubts_about_a_machine() -> None:
    quiet = machine.Look("A", 2, 4.0, "Linux", "3", 0.3, 0.0, "performance", "on", [])
    assert list(machine._doubts(quiet)) == []
    busy = machine.Look("A", 2, 4.0, "Linux", "3", 5.0, 7.0, "powersave", "on", ["cc1 90 %"])
    text = "\n".join(machine._doubts(busy))
    for part in ("7 % of the processors", "load 5.0 on 2", "cc1 90 %", "governor is powersave"):
        assert part in text


def test_another_process_is_seen_to_be_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BUSY", 0.01)  # on a loaded machine it gets what is left
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            watched = psutil.Process(process.pid)
            watched.cpu_percent()
            before = watched.cpu_times().user
            while watched.cpu_times().user < before + 0.05:
                time.sleep(0.05)
            (text,) = machine._busy([watched])
        finally:
            process.kill()
    assert "python" in text
    assert "%" in text
