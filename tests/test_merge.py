"""Merging trees of made-up results."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tracking import merge

NAN = math.nan
COLUMNS = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "samples"]


def row(values: Any, started: int = 1, version: str = "1", params: Any = (), **columns: Any) -> dict[str, Any]:
    return {
        "result": values,
        "params": [list(p) for p in params],
        "version": version,
        "started_at": started,
        "duration": 2.0,
        **columns,
    }


def result(rows: dict[str, dict[str, Any]], **identity: Any) -> bytes:
    found = {
        "commit_hash": "a" * 40,
        "env_name": "env",
        "params": {"machine": "m", "ram": "8GB"},
        "python": "3.11",
        "requirements": {},
        "env_vars": {},
        "date": 1,
        "version": 2,
        "result_columns": COLUMNS,
        "results": {name: [one.get(column) for column in COLUMNS] for name, one in rows.items()},
        "durations": {"<build>": 1.0},
        **identity,
    }
    return json.dumps(found).encode()


def rows_of(data: bytes) -> dict[str, dict[str, Any]]:
    found = json.loads(data)
    return {name: dict(zip(found["result_columns"], one, strict=False)) for name, one in found["results"].items()}


def merged(base: dict[str, bytes], added: dict[str, bytes], **options: Any) -> dict[str, bytes]:
    tree, problems = merge.trees(base, added, **options)
    assert problems == []
    return tree


def test_files_of_one_side_are_kept() -> None:
    base, added = {"m/a-env.json": result({})}, {"m/b-env.json": result({}), "n/machine.json": b"{}"}
    assert merged(base, added) == base | added
    assert merged(base, {}) == base
    assert merged({}, added) == added


@pytest.mark.parametrize("swapped", [False, True])
def test_of_one_benchmark_the_newer_row_wins(swapped: bool) -> None:
    old = {"m/a.json": result({"f.A": row([1.0], 10), "f.Old": row([5.0], 99)})}
    new = {"m/a.json": result({"f.A": row([2.0], 20), "f.New": row([6.0], 1)})}
    tree = merged(new, old) if swapped else merged(old, new)
    found = rows_of(tree["m/a.json"])
    assert {name: one["result"] for name, one in found.items()} == {"f.A": [2.0], "f.Old": [5.0], "f.New": [6.0]}
    assert found["f.A"]["started_at"] == 20


def test_combinations_that_the_newer_lacks_are_the_older_ones() -> None:
    params = [["'tiny'", "'2b'", "'given'"]]
    old = row([1.0, 2.0, NAN], 10, params=params, samples=[[1.0], [2.0], None], stats_ci_99_a=[0.9, 1.9, None])
    new = row([1.5, NAN, None], 20, params=params, samples=[[1.5], None, None])
    found = rows_of(merged({"m/a.json": result({"f.A": old})}, {"m/a.json": result({"f.A": new})})["m/a.json"])["f.A"]
    assert found["result"] == [1.5, 2.0, None]  # null failed, which says more than nothing
    assert found["samples"] == [[1.5], [2.0], None]
    assert found["stats_ci_99_a"] == [None, 1.9, None]
    assert found["started_at"] == 20


@pytest.mark.parametrize(
    "other", [{"version": "2", "params": [["'tiny'", "'2b'"]]}, {"params": [["'tiny'", "'2b'"], ["1"]]}]
)
def test_rows_of_another_version_or_with_more_parameters_are_not_mixed(other: dict[str, Any]) -> None:
    old, new = row([1.0, 2.0], 10, params=[["'tiny'", "'2b'"]]), row([1.5, NAN], 20, **other)
    tree = merged({"m/a.json": result({"f.A": old})}, {"m/a.json": result({"f.A": new})})
    first, second = rows_of(tree["m/a.json"])["f.A"]["result"]
    assert first == 1.5
    assert math.isnan(second)


def test_numbers_of_a_parameter_that_the_newer_suite_has_no_more_are_kept() -> None:
    old = row([1.0, 2.0, 3.0, 4.0], 10, params=[["'tiny'", "'2b'"], ["1", "4"]], samples=[[1.0], [2.0], None, [4.0]])
    new = row([5.0, NAN, 6.0, None], 20, params=[["'tiny'", "'wide'"], ["1", "2"]], samples=[[5.0], None, [6.0], None])
    found = rows_of(merged({"m/a.json": result({"f.A": old})}, {"m/a.json": result({"f.A": new})})["m/a.json"])["f.A"]
    assert found["params"] == [["'tiny'", "'wide'", "'2b'"], ["1", "2", "4"]]
    nan = "nan"
    assert [nan if value is not None and math.isnan(value) else value for value in found["result"]] == [
        *(5.0, nan, 2.0),
        *(6.0, None, nan),
        *(3.0, nan, 4.0),
    ]
    assert found["samples"] == [[5.0], None, [2.0], [6.0], None, None, None, None, [4.0]]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("failure", [[None], None])
def test_a_later_failure_does_not_replace_a_number(swapped: bool, failure: Any) -> None:
    old = {"m/a.json": result({"f.A": row([1.0], 10, samples=[[1.0]])})}
    new = {"m/a.json": result({"f.A": row(failure, 20)})}
    found = rows_of((merged(new, old) if swapped else merged(old, new))["m/a.json"])["f.A"]
    assert (found["result"], found["samples"]) == ([1.0], [[1.0]])


def test_numbers_of_a_parameter_that_was_moved_are_kept() -> None:
    old = {"m/a.json": result({"f.A": row([1.0, 2.0], 10, params=[["'tiny'", "'2b'"]])})}
    new = {"m/a.json": result({"f.A": row([3.0, NAN, None], 20, params=[["'wide'", "'2b'", "'tiny'"]])})}
    assert rows_of(merged(old, new)["m/a.json"])["f.A"]["result"] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("versions", "present", "kept"),
    [(("2", "1"), "2", "2"), (("2", "1"), None, "2"), (("9", "10"), None, "10"), (("1", "2"), "1", "1")],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_versions_the_present_one_wins_whenever_it_was_measured(
    versions: tuple[str, str], present: str | None, kept: str, swapped: bool
) -> None:
    known = {} if present is None else {"benchmarks.json": json.dumps({"f.A": {"version": present}}).encode()}
    old, new = (
        {"m/a.json": result({"f.A": row([float(version)], started, version)})} | known
        for version, started in zip(versions, (10, 20), strict=True)
    )
    found = rows_of((merged(new, old) if swapped else merged(old, new))["m/a.json"])["f.A"]
    assert (found["version"], found["result"]) == (kept, [float(kept)])


def test_what_does_not_change_keeps_its_bytes_and_merging_twice_is_merging_once() -> None:
    old = {"m/a.json": result({"f.B": row([1.0], 10), "f.A": row([NAN], 10)}), "benchmarks.json": b'{"f.A": {}}'}
    new = {"m/a.json": result({"f.B": row([2.0], 20)}), "benchmarks.json": b'{ "f.A":{}}'}
    once = merged(old, new)
    assert merged(once, new) == once
    assert merged(once, old) == once
    assert once["benchmarks.json"] == old["benchmarks.json"]


def test_asv_reads_what_was_merged(tmp_path: Any) -> None:
    results = pytest.importorskip("asv.results")
    old = row([1.0, 2.0], 10, params=[["'tiny'", "'2b'"]], samples=[[1.0], [2.0]], stats_ci_99_a=[1.0, 2.0])
    new = row([1.5, NAN], 20, params=[["'tiny'", "'2b'"]], samples=[[1.5], None], stats_ci_99_a=[1.5, None])
    path = tmp_path / "m" / "a-env.json"
    path.parent.mkdir()
    path.write_bytes(merged({"m/a.json": result({"f.A": old})}, {"m/a.json": result({"f.A": new})})["m/a.json"])
    found = results.Results.load(str(path), machine_name="m")
    assert found.get_result_value("f.A", [["'tiny'", "'2b'"]]) == [1.5, 2.0]
    assert found.get_result_samples("f.A", [["'tiny'", "'2b'"]]) == [[1.5], [2.0]]


@pytest.mark.parametrize("key", ["commit_hash", "params"])
def test_files_of_different_things_are_named_and_left_alone(key: str) -> None:
    base, added = {"m/a.json": result({"f.A": row([1.0])})}, {"m/a.json": result({"f.A": row([2.0], 9)}, **{key: "x"})}
    tree, problems = merge.trees(base, added)
    assert tree == base
    assert [text.startswith(f"m/a.json has another {key} on the other side") for text in problems] == [True]


def test_nothing_of_a_machine_that_is_another_one_is_merged() -> None:
    base = {"m/machine.json": b'{"ram": "8GB"}', "m/a.json": result({}), "n/a.json": result({})}
    added = {"m/machine.json": b'{"ram": "9GB"}', "m/b.json": result({}), "n/b.json": result({})}
    tree, problems = merge.trees(base, added)
    assert tree == base | {"n/b.json": added["n/b.json"]}
    assert len(problems) == 1
    assert problems[0].startswith("m/machine.json describes another machine")
    same = added | {"m/machine.json": b'{ "ram":"8GB" }'}
    assert "m/b.json" in merged(base, same)


def test_the_higher_version_of_a_benchmark_describes_it() -> None:
    ours = {"version": 2, "f.A": {"version": "9"}, "f.B": {"version": "1", "unit": "s"}, "f.C": {"version": "2"}}
    theirs = {"version": 2, "f.A": {"version": "10"}, "f.B": {"version": "1", "unit": "B"}, "f.D": {"version": "1"}}
    expected = {
        "version": 2,
        "f.A": theirs["f.A"],
        "f.B": ours["f.B"],
        "f.C": ours["f.C"],
        "f.D": theirs["f.D"],
    }
    assert merge.benchmarks(ours, theirs) == expected
    here, there = ({"benchmarks.json": json.dumps(one).encode()} for one in (ours, theirs))
    for tree in (merged(here, there), merged(there, here, prefer_added=True)):
        assert json.loads(tree["benchmarks.json"]) == expected


def test_other_files_are_those_of_the_side_that_is_preferred() -> None:
    base, added = {"m/peers/a.json": b"{}", "README": b"a"}, {"m/peers/a.json": b"[1]", "README": b"b"}
    assert merged(base, added) == base
    assert merged(base, added, prefer_added=True) == added


def test_what_was_skipped_on_either_side_is_in_both() -> None:
    base = {"m/skipped/a.json": b'{"f.A": "1", "f.B": "1"}'}
    added = {"m/skipped/a.json": b'{"f.B": "2", "f.C": "1"}', "m/skipped/b.json": b"{}"}
    here, there = merged(base, added), merged(base, added, prefer_added=True)
    assert json.loads(here["m/skipped/a.json"]) == {"f.A": "1", "f.B": "1", "f.C": "1"}
    assert json.loads(there["m/skipped/a.json"]) == {"f.A": "1", "f.B": "2", "f.C": "1"}
    assert merged(here, added) == here


def record(date: int, *models: dict[str, Any]) -> dict[str, bytes]:
    return {"m/provenance/a.json": json.dumps({"date": date, "models": list(models)}).encode()}


def test_the_models_of_both_sides_are_known_of_united_rows() -> None:
    tiny, given = {"name": "tiny", "sha256": "1"}, {"name": "given", "file": "a.gguf", "sha256": "2"}
    base, added = record(1, tiny, given), record(2, {"name": "given"}, {"name": "2b", "sha256": "3"})
    here, there = merged(base, added), merged(base, added, prefer_added=True)
    names = {"date": 1, "models": [tiny, given, {"name": "2b", "sha256": "3"}]}
    assert json.loads(here["m/provenance/a.json"]) == names
    assert json.loads(there["m/provenance/a.json"]) == {"date": 2, "models": [given, names["models"][2], tiny]}
    assert merged(here, added) == here
    assert merged(base, record(1, tiny)) == base


def test_another_file_under_the_name_of_a_model_is_named() -> None:
    base, added = record(1, {"name": "given", "sha256": "1"}), record(2, {"name": "given", "sha256": "2"})
    tree, (problem,) = merge.trees(base, added, prefer_added=True)
    assert tree == base
    assert problem.startswith("m/provenance/a.json names another file for the model 'given' on the other side")
    for damaged in ({"models": 3}, {"models": [3]}, {"models": [{}]}):
        tree, (problem,) = merge.trees(base, {"m/provenance/a.json": json.dumps(damaged).encode()})
        assert (tree, "is damaged (no record of models" in problem) == (base, True)


def test_a_row_without_a_list_of_values_gives_way() -> None:
    odd, good = row(3, started=1, params=[["1"]]), row([4.0], started=2, params=[["1"]])
    tree = merged({"m/a-env.json": result({"f.A": odd})}, {"m/a-env.json": result({"f.A": good})})
    assert rows_of(tree["m/a-env.json"])["f.A"]["result"] == [4.0]


def test_what_asv_would_leave_out_is_counted() -> None:
    known = {"version": 2, "f.A": {"version": "2"}, "f.B": {"version": "1"}}
    tree = {
        "benchmarks.json": json.dumps(known).encode(),
        "m/a.json": result({"f.A": row([1.0], version="1"), "f.B": row([1.0]), "f.Gone": row([1.0])}),
        "m/b.json": result({"f.A": row([1.0], version="1")}),
        "m/c.json": result({"f.A": row([1.0], version="2")}),
    }
    assert merge.left_out(tree) == {"f.A": 2}


@pytest.mark.parametrize(
    ("path", "data", "wrong"),
    [
        ("m/a.json", result({"f.A": row([1.0])})[:-9], "is damaged (Unterminated string"),
        ("m/a.json", b"", "is damaged (Expecting value"),
        ("m/a.json", b"[]", "is damaged (no JSON object)"),
        ("m/a.json", b"{}", "is damaged (no asv results: KeyError('result_columns'))"),
        ("m/a.json", b'{"result_columns": [], "results": 3}', "is damaged (no asv results"),
        ("benchmarks.json", b"{", "is damaged"),
        ("m/a.json", result({"f.A": row([1.0])}), ""),
        ("m/machine.json", b"{}", ""),
        ("README", b"{", ""),
    ],
)
def test_damage_is_named(path: str, data: bytes, wrong: str) -> None:
    found = merge.damage(path, data)
    assert found.startswith(wrong)
    assert bool(found) == bool(wrong)
