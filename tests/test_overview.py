"""The overview on made-up results whose answer is known: each number, its unit, what is missing, what is escaped."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("asv", reason="no asv here; `scripts/bootstrap bench test` installs it")
pytest.importorskip("plotly", reason="no plotly here; `scripts/bootstrap bench test` installs it")
pytest.importorskip("jinja2", reason="no jinja2 here; `scripts/bootstrap bench test` installs it")

import small_site
from asv.graph import Graph
from asv.machine import Machine
from asv.results import Results
from asv.runner import BenchmarkResult

from bitnet_core.targets import TARGETS
from tracking import commits
from tracking.dashboard import goals, overview, plots, records, sections, series
from tracking.dashboard.series import Commit, History

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20
HASHES = [digit * 40 for digit in "abcdef012345"]
REVISIONS = {commit: 10 * (i + 1) for i, commit in enumerate(HASHES)}
DAY = 86_400_000


def benchmark(name: str, unit: str = "seconds", version: str = "1", **params: list[str]) -> dict[str, Any]:
    """As benchmarks.json has them."""
    return {
        "name": name,
        "param_names": list(params),
        "params": list(params.values()),
        "unit": unit,
        "version": version,
        "type": "track",
    }


MODELS = ["'tiny'", "'2b'"]
BENCHMARKS = {
    one["name"]: one
    for one in (
        benchmark("generate.Generate.track_token", model=MODELS, threads=["1", "2"], sampling=["'greedy'"]),
        benchmark("generate.Decode.track_token", model=MODELS, threads=["1", "2"], depth=["0", "512"]),
        benchmark("generate.Depth.track_token", model=["'2b'"], threads=["2"], cache=["'f16'"], depth=["0", "3968"]),
        benchmark("generate.Prefill.track_token", model=MODELS, threads=["1", "2"], tokens=["16", "128"]),
        benchmark("load.Load.track_ready", model=MODELS, page_cache=["'warm'", "'cold'"]),
        benchmark("memory.Memory.track_peak_anon", "bytes", model=MODELS),
        benchmark("memory.Memory.track_resident_file", "bytes", model=MODELS),
        benchmark("memory.Memory.track_peak_total", "bytes", model=MODELS),
        benchmark("memory.PeakMem.peakmem_load", "bytes", model=MODELS),
        benchmark("memory.Generating.track_peak_total", "bytes", model=MODELS),
        benchmark("memory.Generating.track_process_peak", "bytes", model=MODELS),
        benchmark("quant.Quant.track_quantize_gib", dtype=["'i2_s'"], size=["'tiny 4 MiB'", "'2b 64 MiB'"]),
        benchmark("quant.Quant.track_dequantize_gib", dtype=["'i2_s'"], size=["'tiny 4 MiB'", "'2b 64 MiB'"]),
        benchmark("roofline.Quantize.track_read", "x", form=["'f32'", "'i2_s'"], isa=["'scalar'", "'avx2'"]),
        benchmark("roofline.Decode.track_read", "x", model=["'2b'"], way=["'greedy'"]),
        benchmark("roofline.Batch.track_alone", "x", model=["'2b'"], sequences=["16"]),
        benchmark("footprint.Size.track_package", "bytes"),
    )
}
FACTS = {"machine": "m", "os": "Linux", "arch": "x", "cpu": "a <CPU>", "num_cpu": "2", "ram": "4GB"}
Values = dict[tuple[str, ...], Any]


def measured(
    folder: Path,
    commit: str,
    values: Values,
    *,
    machine: str = "m",
    environment: str = "py",
    benchmarks: dict[str, Any] = BENCHMARKS,
    **params: str,
) -> None:
    """Write a result file as asv does: what is not in values was skipped."""
    facts = FACTS | {"machine": machine}
    (folder / machine).mkdir(parents=True, exist_ok=True)
    (folder / machine / "machine.json").write_text(
        json.dumps(facts | {"version": Machine.api_version}), encoding="utf-8"
    )
    date = HASHES.index(commit) * DAY if commit in HASHES else 0
    results = Results(facts | {"python": "3"} | params, {}, commit, date, "3", environment, {})
    for name in sorted({key[0] for key in values}):
        one = benchmarks[name]
        combinations = list(itertools.product(*one["params"]))
        found = [values.get((name, *map(series.plain, combination)), math.nan) for combination in combinations]
        none = [None] * len(found)
        results.add_result(one, BenchmarkResult(found, none, none, 0, "", None), record_samples=False)
    results.save(str(folder))


def loaded(folder: Path, benchmarks: dict[str, Any] = BENCHMARKS) -> list[History]:
    return series.load(folder, benchmarks, REVISIONS)


def history(folder: Path, *commits: Values) -> History:
    """The history of commits with these values."""
    for commit, values in zip(HASHES, commits, strict=False):
        measured(folder, commit, values)
    (found,) = loaded(folder)
    return found


def greedy(seconds: float | None, model: str = "2b", threads: str = "2") -> Values:
    return {("generate.Generate.track_token", model, threads, "greedy"): seconds}


# ---- series ----


def test_series_are_in_the_order_of_commits(tmp_path: Path) -> None:
    for i in (2, 0, 1):  # files are read in any order
        measured(tmp_path, HASHES[i], greedy(0.01 * (i + 1)))
    (found,) = loaded(tmp_path)
    (one,) = found.measured("generate.Generate.track_token", model="2b")
    assert [(commit.short, value) for commit, value in one.measured] == [
        ("aaaaaaaa", 0.01),
        ("bbbbbbbb", 0.02),
        ("cccccccc", 0.03),
    ]
    assert [commit.revision for commit in found.commits] == [10, 20, 30]
    assert (one["model"], one["threads"], one.unit) == ("2b", "2", "seconds")
    assert one.label == "generate.Generate.track_token (2b, 2, greedy)"


def test_skipped_is_no_number_and_failed_is_told(tmp_path: Path) -> None:
    found = history(tmp_path, greedy(0.01), greedy(math.nan), greedy(None), greedy(math.nan))
    (one,) = found.find("generate.Generate.track_token", model="2b", threads="2")
    assert [point.measured for point in one.points] == [0.01, None, None, None]
    assert one.latest == (found.commits[0], 0.01)
    assert one.failed == found.commits[2]
    again = history(tmp_path / "again", greedy(None), greedy(0.01))
    assert again.find("generate.Generate.track_token", model="2b", threads="2")[0].failed is None


def test_parameters_of_an_older_suite_are_matched_by_value(tmp_path: Path) -> None:
    name = "generate.Generate.track_token"
    older = {name: benchmark(name, model=["'2b'"], threads=["2", "1"], sampling=["'greedy'", "'gone'"])}
    values = {(name, "2b", "1", "greedy"): 0.1, (name, "2b", "2", "greedy"): 0.2, (name, "2b", "2", "gone"): 0.3}
    measured(tmp_path, HASHES[0], values, benchmarks=older)
    (found,) = loaded(tmp_path)
    latest = {one.label.partition("(")[2]: one.latest[1] for one in found.series if one.latest}
    assert latest == {"2b, 1, greedy)": 0.1, "2b, 2, greedy)": 0.2}
    assert not found.find(name, model="tiny")  # asv would call what did not exist failed


def test_what_is_not_published_or_readable_is_left_out(tmp_path: Path) -> None:
    measured(tmp_path, HASHES[0], greedy(0.01))
    measured(tmp_path, "9" * 40, greedy(0.5))  # not among the revisions
    name = "generate.Generate.track_token"
    other = {name: BENCHMARKS[name] | {"version": "0"}}
    measured(tmp_path, HASHES[1], greedy(0.5), benchmarks=other)
    (tmp_path / "m" / "cccccccc-py.json").write_text("{", encoding="utf-8")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "machine.json").write_text("[", encoding="utf-8")
    (found,) = loaded(tmp_path)
    assert [value for one in found.series for _, value in one.measured] == [0.01]


def test_machines_and_environments_are_apart_and_the_newest_first(tmp_path: Path) -> None:
    measured(tmp_path, HASHES[0], greedy(0.01), machine="a")
    measured(tmp_path, HASHES[2], greedy(0.02), machine="b", environment="py3")
    measured(tmp_path, HASHES[1], greedy(0.03), machine="b", environment="py4")
    found = loaded(tmp_path)
    assert [(one.machine, one.environment, one.newest.short[0]) for one in found] == [
        ("b", "py3", "c"),
        ("b", "py4", "b"),
        ("a", "py", "a"),
    ]


def test_links_are_what_asv_writes(tmp_path: Path) -> None:
    """The text that format_hash_string of asv.js gave for the same parameters."""
    found = history(tmp_path, {("roofline.Quantize.track_read", "i2_s", "avx2"): 1.0} | greedy(0.1))
    (one,) = found.measured("roofline.Quantize.track_read")
    assert one.link(found.newest) == (
        "#roofline.Quantize.track_read?machine=m&p-form='i2_s'&p-isa='avx2'&commits=aaaaaaaa"
    )
    assert series.graph_link("a.B.c", [("p-way", "'greedy, packed'"), ("x&y", "<1>")]) == (
        "#a.B.c?p-way='greedy%2C%20packed'&x%26y=%3C1%3E"
    )


# ---- headline ----


def test_headline_shows_tokens_mebibytes_and_milliseconds(tmp_path: Path) -> None:
    first = greedy(0.04) | {("load.Load.track_ready", "2b", "warm"): 0.004}
    second = greedy(0.05) | {
        ("generate.Prefill.track_token", "2b", "2", "16"): 0.02,
        ("generate.Prefill.track_token", "2b", "2", "128"): 0.008,
        ("memory.Generating.track_peak_total", "2b"): 700 * MIB,
        ("memory.Memory.track_peak_total", "2b"): 900 * MIB,  # evaluating, which is no promise
        ("load.Load.track_ready", "2b", "warm"): 0.002,
        ("load.Load.track_ready", "2b", "cold"): 3.0,
    }
    found = history(tmp_path, first, second | greedy(1e-4, model="tiny"))
    shown = {one.title: (one.text, one.unit, sections.details(one.series)) for one in sections.headline(found)}
    assert shown == {
        "Decode": ("20.0", "tok/s", "2 threads, greedy"),
        "Prefill": ("125", "tok/s", "2 threads, prompt of 128"),
        "Memory": ("700", "MiB", "most the process grew by, loading and generating"),
        "Load": ("2.00", "ms", "model and session, file in page cache"),
    }
    changes = {one.title: one.change and (one.change.text, one.change.good) for one in sections.headline(found)}
    assert changes == {"Decode": ("-20.0 %", False), "Prefill": None, "Memory": None, "Load": ("-50.0 %", True)}


def test_the_headline_has_the_threads_that_are_fastest_at_the_newest_commit(tmp_path: Path) -> None:
    prefill = "generate.Prefill.track_token"
    first = greedy(0.01, "tiny", "2") | greedy(0.02, "tiny", "1")
    second = greedy(0.05, "tiny", "2") | greedy(0.04, "tiny", "1")
    second |= {
        (prefill, "tiny", "1", "16"): 0.001,
        (prefill, "tiny", "1", "128"): 0.002,
        (prefill, "tiny", "2", "128"): 0.004,
    }
    found = history(tmp_path / "a", first, second)
    shown = {one.title: (one.text, sections.details(one.series)) for one in sections.headline(found)}
    assert shown == {"Decode": ("25.0", "1 thread, greedy"), "Prefill": ("500", "1 thread, prompt of 128")}
    found = history(tmp_path / "b", greedy(0.01, threads="2") | greedy(0.02, threads="1"), greedy(0.03, threads="1"))
    (decode,) = sections.headline(found)
    assert (decode.text, decode.commit.short[0]) == ("33.3", "b")  # what the newest commit has, though it is slower


def test_the_best_known_model_is_2b_and_else_tiny(tmp_path: Path) -> None:
    small = greedy(1e-4, model="tiny")
    assert sections.best_model(history(tmp_path / "a", small)) == "tiny"
    assert sections.best_model(history(tmp_path / "b", small | greedy(0.1))) == "2b"
    assert sections.best_model(history(tmp_path / "c", small | greedy(None))) == "tiny"


def test_a_model_with_one_benchmark_does_not_take_the_page(tmp_path: Path, repo: Any) -> None:
    """`make bench QUICK=1`, then `make bench ONLY=Decode`."""
    load, decode = "load.Load.track_ready", "generate.Decode.track_token"
    one = {(decode, "2b", "2", "0"): 0.05, ("roofline.Decode.track_read", "2b", "greedy"): 1.2}
    quick = greedy(1e-4, "tiny") | {(load, "tiny", "warm"): 0.002}
    found = history(tmp_path / "results", quick | one)
    assert sections.best_model(found) == "tiny"
    assert [reading.title for reading in sections.headline(found)] == ["Decode", "Load"]
    page, _ = published(tmp_path, repo)
    assert "10,000 tok/s tiny, 2 threads, greedy" in page.text
    assert "What the project promises of tiny" in page.text
    assert "have no results yet" not in page.text
    assert "No target has been measured yet" not in page.text
    some = history(tmp_path / "some", quick | greedy(0.1))
    assert sections.best_model(some) == "tiny"  # it has two figures, and 2b one
    both = history(tmp_path / "both", quick | greedy(0.1) | {(load, "2b", "warm"): 0.02}, quick)
    assert sections.best_model(both) == "2b"  # as many, though of an older commit


# ---- targets ----


def test_each_target_with_its_thresholds_unit_and_mark(tmp_path: Path) -> None:
    size = sections.model_bytes("2b")
    assert size is not None
    values = greedy(0.25) | {
        ("load.Load.track_ready", "2b", "warm"): 0.05,
        ("memory.Generating.track_peak_total", "2b"): 2 * size,
        ("memory.Generating.track_process_peak", "2b"): 9000 * MIB,
        ("memory.Memory.track_peak_total", "2b"): 3 * size,
        ("memory.PeakMem.peakmem_load", "2b"): 100 * MIB,
        ("quant.Quant.track_quantize_gib", "i2_s", "2b 64 MiB"): 0.5,
        ("quant.Quant.track_quantize_gib", "i2_s", "tiny 4 MiB"): 77.0,
    }
    rows = {row.target.metric: row for row in sections.targets(history(tmp_path, values))}
    shown = {
        metric: (row.reading.text, row.unit, row.mark.name)
        for metric, row in rows.items()
        if row.reading is not None and row.mark is not None
    }
    assert shown == {
        "load_s": ("0.0500", "s", "TARGET"),
        "memory_ratio": ("2.00", "x", "NEAR"),
        "peak_memory_mb": ("9,000", "MiB", "FAIL"),
        "quantize_mb_s": ("2,048", "MiB/s", "TARGET"),
        "tokens_per_second": ("4.00", "tok/s", "FAIL"),
        "average_token_latency_ms": ("250", "ms", "NEAR"),
    }
    assert (rows["load_s"].baseline, rows["load_s"].aimed_at) == ("60 s", "< 0.1 s")
    assert (rows["quantize_mb_s"].baseline, rows["quantize_mb_s"].aimed_at) == ("10 MiB/s", "> 1,000 MiB/s")
    assert rows["peak_memory_mb"].aimed_at == "none"
    said = {
        metric: sections.details(row.reading.series, row.target.title) for metric, row in rows.items() if row.reading
    }
    assert said == {
        "load_s": "model and session",  # the page cache is in the title
        "memory_ratio": "most the process grew by, loading and generating",
        "peak_memory_mb": "most that was resident, imports included",
        "quantize_mb_s": "i2_s, 2b 64 MiB",
        "tokens_per_second": "2 threads, greedy",
        "average_token_latency_ms": "2 threads, greedy",
    }
    assert rows["dequantize_mb_s"].reading is None
    assert rows["dequantize_mb_s"].mark is None


def test_every_target_but_one_has_a_benchmark() -> None:
    assert {target.metric for target in TARGETS} - sections.SOURCES.keys() == {"first_token_latency_ms"}
    assert sections.SOURCES.keys() <= {target.metric for target in TARGETS}


def wanted() -> Iterator[tuple[str, dict[str, str], tuple[str, ...]]]:
    """What the page's tables ask asv's results for: a benchmark, values of its parameters, names of others."""
    for _, name, params, _ in sections.HEADLINE:
        yield from ((name, {"model": model, **params}, ()) for model in sections.HEADLINE_MODELS)
    for source in sections.SOURCES.values():
        for model in sections.HEADLINE_MODELS:
            yield source.benchmark, source.params | sections.model_or_size(source, model), ()
    for name in sections.PARTS.values():
        yield name, {"model": "2b"}, ()
    for axis, lines in (
        ("depth", sections.BY_DEPTH),
        ("threads", sections.DECODE_BY_THREADS),
        ("threads", sections.PREFILL_BY_THREADS),
    ):
        yield from ((one.benchmark, {"model": "2b", **one.params}, (axis, *one.names)) for one in lines)
    for limit in goals.LIMITS:
        yield limit.benchmark, {}, limit.names
    for goal in goals.GOALS:
        yield from ((one.benchmark, dict(one.params), ()) for one in (goal.source, goal.by) if one)


def test_the_tables_ask_for_what_is_measured() -> None:
    """A renamed benchmark, parameter or value would leave a hole in the page, and nobody would notice."""
    for name, params, others in wanted():
        file, cls, method = name.split(".")
        found = getattr(importlib.import_module(f"benchmarks.{file}"), cls)
        assert callable(getattr(found, method, None)), name
        assert {*params, *others} <= set(found.param_names), (name, params, others)
        measured = [
            dict(zip(found.param_names, values, strict=True))
            for values in itertools.product(*found.params)
            if values not in getattr(found, "skip_params", [])
        ]
        fitting = [one for one in measured if all(str(one[key]) == value for key, value in params.items())]
        assert fitting, (name, params)


def test_what_tells_figures_apart_is_a_parameter_or_a_benchmark() -> None:
    asked = list(wanted())
    names = {key for _, params, others in asked for key in (*params, *others)} | {"threads", "tokens"}
    assert sections.WORDS.keys() <= names
    assert sections.SAID.keys() <= {name for name, _, _ in asked}


def test_a_failed_benchmark_fails_its_target(tmp_path: Path) -> None:
    rows = {row.target.metric: row for row in sections.targets(history(tmp_path, greedy(0.02), greedy(None)))}
    row = rows["tokens_per_second"]
    assert row.failure is not None
    assert row.failure.failed == Commit(HASHES[1], 20, DAY)
    assert row.mark is sections.Mark.FAIL
    assert row.reading is not None
    assert row.reading.text == "50.0"  # of the commit before, which the page names


def decode_row(folder: Path, *commits: Values) -> sections.TargetRow:
    return next(row for row in sections.targets(history(folder, *commits)) if row.target.metric == "tokens_per_second")


def test_a_target_has_the_threads_of_the_headline(tmp_path: Path) -> None:
    """Two threads were slower, and are not measured any more."""
    commits = greedy(0.3, threads="2") | greedy(0.1, threads="1"), greedy(0.125, threads="1")
    row = decode_row(tmp_path, *commits)
    (headline,) = sections.headline(history(tmp_path, *commits))
    assert row.reading is not None
    assert (row.reading.text, row.reading.commit.short[0], row.mark) == ("8.00", "b", sections.Mark.TARGET)
    assert (row.reading.series, row.reading.text) == (headline.series, headline.text)
    assert sections.details(row.reading.series) == "1 thread, greedy"
    row = decode_row(tmp_path / "two", greedy(0.3, threads="1") | greedy(0.25, threads="2"))
    assert row.reading is not None
    assert (row.reading.text, row.mark) == ("4.00", sections.Mark.FAIL)


def test_threads_that_fail_where_others_do_not_fail_the_target(tmp_path: Path) -> None:
    row = decode_row(tmp_path / "a", greedy(0.01, threads="1") | greedy(None, threads="2"))
    assert row.reading is not None
    assert (row.reading.text, row.mark) == ("100", sections.Mark.FAIL)
    assert row.failure is not None
    assert sections.details(row.failure) == "2 threads, greedy"
    row = decode_row(tmp_path / "b", greedy(0.01, threads="1"), greedy(None, threads="2"))
    assert row.mark is sections.Mark.FAIL
    row = decode_row(tmp_path / "c", greedy(None, threads="2"), greedy(0.01, threads="1"))
    assert (row.mark, row.failure) == (sections.Mark.TARGET, None)  # two were not tried again


def test_a_target_s_threads_and_failure_are_on_the_page(tmp_path: Path, repo: Any) -> None:
    measured(tmp_path / "results", HASHES[0], greedy(0.01, threads="1") | greedy(None, threads="2"))
    page, _ = published(tmp_path, repo)
    assert page.text.count("✗ failed at aaaaaaaa 2 threads, greedy") == 3  # in the headline, of decode, of latency
    row = page.text[page.text.index("decode 1 thread, greedy") :]
    assert row.startswith(
        "decode 1 thread, greedy 5 tok/s > 5 tok/s 100 tok/s one commit ✗ failed at aaaaaaaa 2 threads"
    )


def test_what_has_no_target_is_fine_within_its_baseline() -> None:
    memory = next(target for target in TARGETS if target.metric == "peak_memory_mb")
    assert sections.mark_of(memory, 700.0) is sections.Mark.WITHIN
    assert sections.mark_of(memory, 9000.0) is sections.Mark.FAIL


# ---- limits and goals ----


def test_percent_of_the_limit(tmp_path: Path) -> None:
    name = "roofline.Quantize.track_read"
    values = {(name, "f32", "scalar"): 2.0, (name, "f32", "avx2"): 1.25, (name, "i2_s", "avx2"): 0.8}
    ((limit, bars),) = goals.roofline(history(tmp_path, values))
    assert limit.title == "Quantize"
    assert [(bar.label, bar.isa, bar.reading and bar.reading.value) for bar in bars] == [
        ("f32", "scalar", 50.0),
        ("f32", "avx2", 80.0),
        ("i2_s", "avx2", 125.0),
    ]
    figure = plots.roofline("id", limit, bars).as_dict()
    assert {trace["name"]: trace["x"] for trace in figure["data"]} == {"scalar": [50.0], "avx2": [80.0, 125.0]}
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [100, 80]
    assert "<b>50.0 % of the limit</b><br>commit aaaaaaaa" in figure["data"][1]["hovertext"][0]
    place = "#roofline.Quantize.track_read?machine=m&p-form='f32'&p-isa='scalar'&commits=aaaaaaaa"
    assert figure["data"][1]["customdata"] == [place]


def test_what_failed_is_told_beside_its_number(tmp_path: Path, repo: Any) -> None:
    batch, load = ("roofline.Batch.track_alone", "2b", "16"), ("load.Load.track_ready", "2b", "warm")
    depth = {at: ("generate.Depth.track_token", "2b", "2", "f16", at) for at in ("0", "3968")}
    f32, i2_s = (("roofline.Quantize.track_read", form, "avx2") for form in ("f32", "i2_s"))
    found = history(
        tmp_path / "results",
        greedy(0.05) | {batch: 0.4, f32: 1.25, depth["0"]: 0.02, depth["3968"]: None},
        greedy(0.05) | {batch: None, f32: None, i2_s: None, load: None, depth["0"]: 0.02, depth["3968"]: math.nan},
    )
    told = [(row.goal.row, row.text, row.mark.name, row.failure and row.failure.failed) for row in goals.goals(found)]
    a, b = found.commits
    assert told == [
        ("16 sequences at once", "2.50", "FAIL", b),
        ("decode at depth 3968 by depth 0", "", "FAIL", a),
    ]
    assert {title: one.failed for title, one in sections.failures(found).items()} == {"Load": b}
    ((_, bars),) = goals.roofline(found)
    assert [(bar.name, bar.reading and bar.reading.value, bar.failed) for bar in bars] == [
        ("f32 avx2", 80.0, b),
        ("i2_s avx2", None, b),
    ]
    page, _ = published(tmp_path, repo)
    for words in (
        "Load 2b ✗ failed at bbbbbbbb model and session, file in page cache",
        "≥ 2.5 x 2.50 x aaaaaaaa ✗ failed at bbbbbbbb",
        "≤ 1.5 x not measured ✗ failed at aaaaaaaa 2 threads",
        "✗ failed: f32 avx2 at bbbbbbbb · i2_s avx2 at bbbbbbbb",
        "f32 avx2 80.0 % aaaaaaaa, failed at bbbbbbbb",
        "i2_s avx2 none failed at bbbbbbbb",
    ):
        assert words in page.text
    (trace,) = plots.roofline("id", goals.LIMITS[3], bars).as_dict()["data"]
    assert (trace["text"], trace["hovertext"][0].rpartition("<br>")[2]) == (["✗ 80 %"], "failed at bbbbbbbb")


def test_nothing_failed_where_a_number_is_newer(tmp_path: Path, repo: Any) -> None:
    batch, f32 = ("roofline.Batch.track_alone", "2b", "16"), ("roofline.Quantize.track_read", "f32", "avx2")
    history(tmp_path / "results", greedy(None) | {batch: None, f32: None}, greedy(0.05) | {batch: 0.4, f32: 1.25})
    page, _ = published(tmp_path, repo)
    assert "2.50 x ✓ reached" in page.text
    assert "failed" not in page.text


def test_a_limit_of_which_all_failed_is_told(tmp_path: Path, repo: Any) -> None:
    history(tmp_path / "results", greedy(0.05) | {("roofline.Quantize.track_read", "f32", "avx2"): None})
    page, _ = published(tmp_path, repo)
    assert "✗ failed: f32 avx2 at aaaaaaaa" in page.text


def test_goals_are_those_of_the_document() -> None:
    rows = {}
    for line in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4:
            rows[cells[0]] = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", cells[1])}
    for row, aim in [(one.row, one.goal) for one in goals.LIMITS] + [(one.row, one.aim) for one in goals.GOALS]:
        (numbers,) = [found for name, found in rows.items() if name.startswith(row)]
        assert aim in numbers, row


def test_other_goals_are_derived_and_judged(tmp_path: Path) -> None:
    name = "generate.Depth.track_token"
    found = history(
        tmp_path,
        {("roofline.Batch.track_alone", "2b", "16"): 0.5, (name, "2b", "2", "f16", "0"): 0.02},
        {(name, "2b", "2", "f16", "0"): 0.02, (name, "2b", "2", "f16", "3968"): 0.028} | greedy(5e-5, "tiny", "1"),
    )
    shown = [
        (row.goal.row, row.text, row.aimed_at, row.mark.name, row.measured and row.measured[0].short[0])
        for row in goals.goals(found)
    ]
    assert shown == [
        ("16 sequences at once", "2.00", "≥ 2.5 x", "MISSED", "a"),
        ("decode at depth 3968 by depth 0", "1.40", "≤ 1.5 x", "REACHED", "b"),
        ("tiny, a token from Python", "50.0", "≤ 60 us", "REACHED", "b"),
    ]


# ---- memory and speed ----


def test_memory_by_part(tmp_path: Path) -> None:
    values = {("memory.Memory.track_peak_anon", "2b"): 100 * MIB, ("memory.PeakMem.peakmem_load", "tiny"): 50 * MIB}
    values |= {("memory.Memory.track_resident_file", "2b"): 600 * MIB}
    values |= {("memory.Memory.track_peak_total", "2b"): 650 * MIB}
    rows = sections.memory(history(tmp_path, values))
    assert [(row.model, {part: one.value for part, one in row.parts.items()}) for row in rows] == [
        ("2b", {"anonymous": 100, "file-resident": 600, "both, at most": 650}),
        ("tiny", {"whole process": 50}),
    ]
    plot = plots.memory("id", rows[0]).as_dict()
    assert [(trace["y"], trace["x"]) for trace in plot["data"]] == [
        (["by part"], [100]),
        (["by part"], [600]),
        (["both, at most"], [650]),
    ]
    assert plot["layout"]["barmode"] == "stack"
    assert plot["layout"]["xaxis"]["title"]["text"] == "MiB"


def test_curves_need_two_points_and_are_sorted(tmp_path: Path) -> None:
    name = "generate.Decode.track_token"
    values = {(name, "2b", "2", "512"): 0.05, (name, "2b", "2", "0"): 0.04, (name, "2b", "1", "0"): 0.08}
    values |= {("generate.Depth.track_token", "2b", "2", "f16", "0"): 0.03}
    found = history(tmp_path, values | greedy(0.1, threads="1") | greedy(0.05))
    depth = sections.decode_by_depth(found)
    assert {model: [curve.label for curve in curves] for model, curves in depth.items()} == {
        "2b": ["all logits, 2 threads"]
    }
    assert [(x, one.value) for x, one in depth["2b"][0].points] == [(0, 25.0), (512, 20.0)]
    threads = sections.decode_by_threads(found)["2b"]
    assert {curve.label: [(x, one.value) for x, one in curve.points] for curve in threads} == {
        "greedy": [(1, 10.0), (2, 20.0)],
        "all logits": [(1, 12.5), (2, 25.0)],
    }
    plot = plots.curves("id", "title", "depth, tokens", depth["2b"]).as_dict()
    assert plot["data"][0]["y"] == [25.0, 20.0]
    assert plot["layout"]["xaxis"]["title"]["text"] == "depth, tokens"
    assert plot["layout"]["yaxis"]["title"]["text"] == "tok/s"


def test_the_trend_goes_from_old_to_new_with_holes(tmp_path: Path) -> None:
    found = history(tmp_path, greedy(0.1), {("footprint.Size.track_package",): 1}, greedy(0.05), greedy(0.04))
    (reading,) = sections.headline(found)
    plot = plots.over_commits("id", [reading], found).as_dict()
    assert plot["data"][0]["x"] == [0, 2, 3]
    assert plot["data"][0]["y"] == [10, 20, 25]
    spark = plots.sparkline(reading)
    assert spark is not None
    assert [said for _, _, said in spark.dots] == [
        "10.0 tok/s, commit aaaaaaaa",
        "20.0 tok/s, commit cccccccc",
        "25.0 tok/s, commit dddddddd",
    ]
    heights = [y for _, y, _ in spark.dots]
    assert heights == sorted(heights, reverse=True)  # SVG counts downwards
    assert spark.label == "Decode, last 3 commits: from 10.0 to 25.0 tok/s, lowest 10.0, highest 25.0"


def test_thousands_of_commits_are_drawn_and_few_are_listed(tmp_path: Path) -> None:
    found = history(tmp_path, greedy(0.1))
    one = found.find("generate.Generate.track_token", model="2b", threads="2")[0]
    commits = tuple(Commit(f"{i:040x}", i, i * DAY) for i in range(5000))
    points = tuple(series.Point(commit, 0.1) for commit in commits)
    long = series.Series(one.benchmark, one.params, one.unit, "m", points)
    many = History("m", "py", {}, commits, (long,), ())
    reading = sections.headline(many)[0]
    plot = plots.over_commits("id", [reading], many)
    assert len(plot.as_dict()["data"][0]["x"]) == 5000
    assert len(plot.as_dict()["layout"]["xaxis"]["tickvals"]) <= plots.MOST_TICKS
    assert len(plot.rows) == plots.MOST_DOTS
    spark = plots.sparkline(reading)
    assert spark is not None
    assert len(spark.dots) == plots.MOST_DOTS


# ---- units ----


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.5, "seconds", "1.50 s"),
        (0.00123, "seconds", "1.23 ms"),
        (4.2e-5, "seconds", "42.0 µs"),
        (3e-10, "seconds", "0.300 ns"),
        (5 * MIB, "bytes", "5.00 MiB"),
        (12, "bytes", "12.0 B"),
        (1234567, "instructions", "1,234,567 instructions"),
        (1.5, "x", "1.50 x"),
    ],
)
def test_quantities(value: float, unit: str, text: str) -> None:
    assert sections.quantity(value, unit) == text


# ---- what lies beside the results ----


def regression(name: str, index: int | None, *jumps: Any, of: dict[str, Any] | None = None, **params: Any) -> list[Any]:
    """As regressions.json has it: the path of the graph has all parameters of its results, which are those of `of`."""
    path = Graph.get_file_path(FACTS | {"python": "3", "branch": "main"} | (of or {}) | params, name)
    return [name, f"{path}.json", params, index, 2.0, 1.0, list(jumps)]


def test_regressions_are_asv_s_the_newest_first(tmp_path: Path) -> None:
    name = "generate.Decode.track_token"
    data = [
        regression(f"{name}('2b', 1, 512)", 5, [None, 20, 0.1, 0.2]),
        regression("footprint.Size.track_package", None, [10, 30, 2 * MIB, 3 * MIB], machine="m"),
        regression("footprint.Size.track_package", None, [10, 30, 1.0, 3.0], machine="another"),
        regression("gone.Gone.track_it", None, [None, 30, 1.0, 2.0]),
    ]
    (tmp_path / "regressions.json").write_text(json.dumps({"regressions": data}), encoding="utf-8")
    found = history(tmp_path / "results", greedy(0.1), greedy(0.1), greedy(0.1))
    package, decode = records.regressions(tmp_path, found, BENCHMARKS, REVISIONS)
    assert (package.before, package.after, package.change) == ("2.00 MiB", "3.00 MiB", "+50.0 %")
    assert package.first is not None
    assert (package.first.short, package.last.short) == ("aaaaaaaa", "cccccccc")
    assert package.link == "#footprint.Size.track_package?machine=m&commits=aaaaaaaa-cccccccc"
    assert (decode.change, decode.first, decode.last.short) == ("+100.0 %", None, "bbbbbbbb")
    assert decode.link == f"#{name}?p-model='2b'&p-threads=1&p-depth=512&commits=bbbbbbbb"


def test_regressions_are_those_of_the_machine_and_the_environment(tmp_path: Path) -> None:
    """asv names a parameter where it tells graphs apart, and else in their paths alone."""
    size = "footprint.Size.track_package"
    folder = tmp_path / "results"
    measured(folder, HASHES[0], greedy(0.1), environment="py3.11", python="3.11")
    measured(folder, HASHES[1], greedy(0.1), environment="py3.12", python="3.12", needs="7")
    measured(folder, HASHES[1], greedy(0.1), environment="py3.11-7", python="3.11", needs="7")
    measured(folder, HASHES[0], greedy(0.1), machine="other:one", environment="py3.11", python="3.11")
    views = {(one.machine, one.environment): one for one in loaded(folder)}

    def found(*data: list[Any]) -> dict[tuple[str, str], list[float]]:
        write_json(tmp_path / "regressions.json", {"regressions": data})
        rises = {key: records.regressions(tmp_path, one, BENCHMARKS, REVISIONS) for key, one in views.items()}
        return {key: [float(rise.after.split()[0]) for rise in found] for key, found in rises.items() if found}

    jumps = [[None, 10, 1.0, value] for value in (2.0, 3.0, 4.0)]
    old, new, other = ("m", "py3.11"), ("m", "py3.12"), ("other:one", "py3.11")
    needing = ("m", "py3.11-7")
    assert found(
        regression(size, None, jumps[0], machine="m", python="3.11", needs=None),
        regression(size, None, jumps[1], machine="m", python="3.12", needs="7"),
        regression(size, None, jumps[2], machine="other:one", python="3.11", needs=None),
    ) == {old: [2.0], new: [3.0], other: [4.0]}
    for key, of in {
        old: {"machine": "m", "python": "3.11", "needs": None},
        new: {"machine": "m", "python": "3.12", "needs": "7"},
        needing: {"machine": "m", "python": "3.11", "needs": "7"},
        other: {"machine": "other:one", "python": "3.11"},
    }.items():
        assert found(regression(size, None, jumps[0], of=of)) == {key: [2.0]}


def test_commits_are_linked_where_asv_knows_where_to() -> None:
    commit = Commit("a" * 40, 1, 0)
    assert records.commit_link("#", commit) == ""
    assert records.commit_link("https://x/commit/", commit) == "https://x/commit/" + "a" * 40


PEERS = {
    "commit": HASHES[0],
    "date": 0,
    "dirty": True,
    "preset": "2b",
    "cpu_info": "a <processor>",
    "n_threads": 2,
    "n_rounds": 3,
    "engines": {
        "ours": {"median_ts": {"decode": 40.0}, "samples_ts": {"decode": [39.0, 40.0, 41.0]}},
        "theirs": {"median_ts": {"decode": 10.0}, "samples_ts": {"decode": [9.0, 10.0, 11.0]}},
    },
    "ratio": {"decode": 4.0},
    "unsteady": [],
}


def write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def test_peers_of_the_largest_model_and_the_newest_commit(tmp_path: Path) -> None:
    found = history(tmp_path, greedy(0.1))
    assert records.peers(tmp_path, found, REVISIONS) is None
    folder = tmp_path / "m" / "peers"
    write_json(folder / "a.json", PEERS)
    write_json(folder / "b.json", PEERS | {"commit": HASHES[1]})
    write_json(folder / "c.json", PEERS | {"commit": HASHES[2], "preset": "125m"})
    write_json(folder / "d.json", PEERS | {"commit": "9" * 40})
    write_json(folder / "e.json", {"commit": HASHES[3]})
    best = records.peers(tmp_path, found, REVISIONS)
    assert best is not None
    assert best.commit.hash == HASHES[1]
    plot = plots.peers("peers", best).as_dict()
    assert {trace["name"]: trace["y"] for trace in plot["data"]} == {"ours": [40.0], "theirs": [10.0]}
    assert "(9.00 to 11.0)" in plot["data"][1]["hovertext"][0]


def test_provenance_in_lines(tmp_path: Path) -> None:
    found = history(tmp_path, greedy(0.1), greedy(0.1))
    record: dict[str, Any] = {"compiler": "GCC 12", "flags": ["-O2", "-g"], "version": 1, "isa": None}
    record["models"] = [{"name": "2b", "sha256": "ab"}, {"name": "tiny"}]
    write_json(tmp_path / "m" / "provenance" / "aaaaaaaa-py.json", record)
    assert records.provenance(tmp_path, found) == {
        "aaaaaaaa": [
            ("compiler", "GCC 12"),
            ("flags", "-O2 -g"),
            ("isa", "not recorded"),
            ("model 2b, sha256", "ab"),
            ("model tiny", "no more is recorded"),
        ]
    }


# ---- the page ----


class Page(HTMLParser):
    """Text, tags and attributes of a fragment; every tag must be closed."""

    VOID = ("circle", "polyline", "br", "meta", "link", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID or tag == "circle":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(filter(None, self.words)))


SUBJECT = 'add "<b>it</b>"'


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A repository of one commit, whose subject could be a tag; the made-up commits are older."""
    path = tmp_path_factory.mktemp("repo")
    small_site.git(path, "init", "-q", "-b", "main")
    small_site.git(path, "commit", "-q", "--allow-empty", "-m", SUBJECT)
    commit = small_site.git(path, "rev-parse", "HEAD")
    revisions = REVISIONS | {commit: 1000}
    return SimpleNamespace(
        _path=str(path),
        commit=commit,
        revisions=revisions,
        get_tags=dict,
        get_branch_commits=lambda _: list(revisions),
        get_revisions=lambda wanted: {one: place for one, place in revisions.items() if one in wanted},
    )


def published(tmp_path: Path, repo: Any, show: str = "#") -> tuple[Page, str]:
    html_dir = tmp_path / "html"
    html_dir.mkdir(exist_ok=True)
    conf = SimpleNamespace(project="a <project>", show_commit_url=show, branches=["HEAD"])
    overview.write(html_dir, tmp_path / "results", BENCHMARKS, repo.revisions, conf, repo)
    html = (html_dir / "overview" / "overview.html").read_text(encoding="utf-8")
    return Page(html), html


def test_an_empty_page_says_what_to_do(tmp_path: Path, repo: Any) -> None:
    (tmp_path / "results").mkdir()
    page, html = published(tmp_path, repo)
    assert html.lstrip().startswith('<div id="overview"')
    assert "No results yet. This measures the checked-out commit: make bench" in page.text


def test_every_empty_section_says_what_to_do(tmp_path: Path, repo: Any) -> None:
    measured(tmp_path / "results", HASHES[0], {("footprint.Size.track_package",): 7})
    page, _ = published(tmp_path, repo)
    for words in (
        "Speed, memory and load time have no results yet: make bench",
        "No target has been measured yet: make bench",
        "No limit has been measured yet",
        "sets both beside each other: make peers",
        "No memory has been measured yet: make bench ONLY=Memory",
        "No speed has been measured at several depths or threads yet: make bench ONLY=generate",
        "asv finds no regression on this machine in 1 commit.",
    ):
        assert words in page.text
    assert "What changed most" not in page.text


def test_what_drifted_without_a_step_is_on_the_page(tmp_path: Path, repo: Any) -> None:
    sizes = [{("footprint.Size.track_package",): 2**20 + 100_000 * i} for i in range(12)]
    history(tmp_path / "results", *sizes[:11])
    page, _ = published(tmp_path, repo)
    assert "What drifted" not in page.text
    history(tmp_path / "results", *sizes)
    page, _ = published(tmp_path, repo)
    assert "What drifted over 12 commits" in page.text
    assert "footprint.Size.track_package +66.7 % 1.14 MiB 1.91 MiB" in page.text


def full(folder: Path) -> None:
    """Results that fill every section, on two machines, one with a name that could be a tag."""
    everything = {
        (name, *map(series.plain, combination)): 0.01
        for name, one in BENCHMARKS.items()
        for combination in itertools.product(*one["params"])
    }
    for machine in ("m", "<i>n</i>".replace("/", "_")):
        measured(folder, HASHES[0], everything, machine=machine)
        measured(folder, HASHES[1], everything | greedy(0.02), machine=machine)
    write_json(folder / "m" / "peers" / "bbbbbbbb.json", PEERS | {"commit": HASHES[1]})
    write_json(folder / "m" / "provenance" / "bbbbbbbb-py.json", {"compiler": "<GCC>"})


def test_the_page_is_whole_escaped_and_asks_for_nothing_elsewhere(tmp_path: Path, repo: Any) -> None:
    full(tmp_path / "results")
    measured(tmp_path / "results", repo.commit, greedy(0.02))
    (tmp_path / "html").mkdir()
    jump = regression("generate.Decode.track_token('2b', 1, 512)", 5, [None, 20, 0.1, 0.2])
    write_json(tmp_path / "html" / "regressions.json", {"regressions": [jump]})
    page, html = published(tmp_path, repo, show="https://x/commit/")
    for words in ("<i>n<_i>", "a <project>", "a <CPU>", "a <processor>", SUBJECT):
        assert words in page.text
        assert words not in html
    (newest, *_) = [attributes for _, attributes in page.tags if attributes.get("data-commit") == repo.commit[:8]]
    assert newest["title"] == SUBJECT
    assert not any(tag == "script" for tag, _ in page.tags)
    for tag, attributes in page.tags:
        address = attributes.get("href") or attributes.get("src") or ""
        assert tag == "a" or not address
        assert address.startswith(("#", "https://x/commit/")) or not address
    figures = [attributes for _, attributes in page.tags if "data-plot" in attributes]
    assert figures
    for attributes in figures:
        assert attributes["aria-label"]
    labels = [attributes for tag, attributes in page.tags if tag == "option"]
    assert len(labels) == 2
    assert "50.0 tok/s" in page.text
    assert "generate.Decode.track_token('2b', 1, 512) +100.0 % 100 ms 200 ms" in page.text


def test_the_browser_s_files(tmp_path: Path, repo: Any) -> None:
    full(tmp_path / "results")
    page, html = published(tmp_path, repo)
    folder = tmp_path / "html" / "overview"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "overview.html",
        "overview.css",
        "overview.js",
        "plotly.min.js",
        "machine-0.json",
        "machine-1.json",
    }
    text = [(folder / f"machine-{i}.json").read_text(encoding="utf-8") for i in (0, 1)]
    data = [json.loads(one, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for one in text]
    asked = [attributes["data-plot"] for _, attributes in page.tags if "data-plot" in attributes]
    assert sorted(asked) == sorted(name for one in data for name in one["plots"])
    facts = {short: commit["facts"] for one in data for short, commit in one["commits"].items() if commit["facts"]}
    assert facts == {"bbbbbbbb": [["compiler", "<GCC>"]]}
    stamp = re.search(r'data-stamp="(\w+)"', html)
    measured(tmp_path / "results", HASHES[1], greedy(0.03))
    _, later = published(tmp_path, repo)
    assert stamp is not None
    assert stamp[0] not in later  # so that no browser draws what it has kept


def test_subjects_come_from_the_repository(repo: Any) -> None:
    assert overview.subjects(repo) == {repo.commit: SUBJECT}


def test_a_subject_in_any_bytes_is_that_of_its_commit(tmp_path: Path) -> None:
    """A message may be written in another encoding or in none, and hold what other lines end with."""
    small_site.git(tmp_path, "init", "-q", "-b", "main")
    tree = small_site.git(tmp_path, "mktree")
    who = b"n <e@x.invalid> 1700000000 +0000"

    def commit(subject: bytes, header: bytes = b"") -> str:
        data = b"tree %s\nauthor %s\ncommitter %s\n%s\n%s\n" % (tree.encode(), who, who, header, subject)
        command = ["git", "hash-object", "-t", "commit", "-w", "--stdin"]
        made = (
            subprocess.run(command, cwd=tmp_path, input=data, capture_output=True, check=True).stdout.decode().strip()
        )
        small_site.git(tmp_path, "branch", f"at-{made}", made)
        return made

    first = commit(b"a first one")
    ends = "\v\f\x1c\x1d\x1e\x85\u2028\u2029\r"
    wanted = {
        first: "a first one",
        commit(b"caf\xe9"): "caf\ufffd",
        commit(b"caf\xe9", b"encoding ISO-8859-1\n"): "café",
        commit("naïve".encode()): "naïve",
        **{commit(f"{n}{end}{first} not this".encode()): f"{n}{end}{first} not this" for n, end in enumerate(ends)},
    }
    small_site.git(tmp_path, "config", "i18n.logOutputEncoding", "ISO-8859-1")
    assert overview.subjects(SimpleNamespace(_path=str(tmp_path))) == wanted
    for made, subject in wanted.items():
        assert commits.find(tmp_path, made).subject == subject
    assert {one.hash: one.subject for one in commits.several(tmp_path, list(wanted))} == wanted


# ---- branches ----


def of_site(site: small_site.Site) -> tuple[Page, str]:
    """What asv itself publishes."""
    done = small_site.publish(site)
    assert done.returncode == 0, done.stdout + done.stderr
    html = (site.html / "overview" / "overview.html").read_text(encoding="utf-8")
    return Page(html), html


def side_commit(site: small_site.Site) -> str:
    """A commit beside the branch, ten times slower, as a review of it leaves it."""
    small_site.git(site.root, "checkout", "-q", "-b", "side", "main~1")
    small_site.git(site.root, "commit", "-q", "--allow-empty", "-m", "an attempt", date="2026-04-01T12:00:00+0000")
    site.commits.append(small_site.git(site.root, "rev-parse", "HEAD"))
    small_site.git(site.root, "checkout", "-q", "main")
    small_site.save_results(site, len(site.commits) - 1, times=10.0)
    return site.commits[-1]


def test_a_measured_commit_beside_the_branch_is_not_the_newest(tmp_path: Path) -> None:
    site = small_site.make_site(tmp_path)
    newest, side = site.commits[-1], side_commit(site)
    page, html = of_site(site)
    assert f"{newest[:8]} library: change 11" in page.text
    assert "12 commits measured" in page.text
    assert side[:8] not in html
    assert side[:8] not in (site.html / "overview" / "machine-0.json").read_text(encoding="utf-8")
    small_site.git(site.root, "tag", "v1", side)  # asv draws tags too
    page, _ = of_site(site)
    assert f"{side[:8]} an attempt" in page.text
    assert "13 commits measured" in page.text


def test_results_that_are_all_beside_the_branch_are_said(tmp_path: Path) -> None:
    site = small_site.make_site(tmp_path)
    small_site.git(site.root, "checkout", "-q", "--orphan", "alone")
    small_site.git(site.root, "commit", "-q", "--allow-empty", "-m", "alone")
    page, _ = of_site(site)
    assert "Nothing on HEAD is measured" in page.text
    assert "12 measured commits lie elsewhere. This measures the checked-out commit: make bench" in page.text


def test_other_engines_are_shown_of_a_commit_that_asv_did_not_measure(tmp_path: Path) -> None:
    """The newest of those that it draws."""
    site = small_site.make_site(tmp_path)
    small_site.git(site.root, "commit", "-q", "--allow-empty", "-m", "compared", date="2026-04-02T12:00:00+0000")
    newest = small_site.git(site.root, "rev-parse", "HEAD")
    for commit, speed in ((site.commits[0], 20.0), (newest, 40.0), (side_commit(site), 60.0)):
        engines = {name: {"median_ts": {"decode": speed}, "samples_ts": {"decode": [speed]}} for name in ("a", "b")}
        write_json(
            site.results / "made-up" / "peers" / f"{commit}.json", PEERS | {"commit": commit, "engines": engines}
        )
    (results,) = (site.results / "made-up").glob(f"{site.commits[-1][:8]}-*.json")
    results.unlink()
    page, _ = of_site(site)
    assert f"medians; at {newest[:8]} , with changes" in page.text
    assert "a decode 40.0 tok/s" in page.text
    assert "12 commits measured" in page.text  # the others are none
    told = json.loads((site.html / "overview" / "machine-0.json").read_text(encoding="utf-8"))["commits"]
    assert told[newest[:8]]["subject"] == "compared"
