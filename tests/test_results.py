"""asv's result files as tracking reads and writes them, of made-up numbers."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("asv")

from asv import util
from asv.results import Results
from asv.runner import BenchmarkResult

from tracking import asv_command, results
from tracking.commits import Commit
from tracking.rounds import Round
from tracking.suite import Case

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = Commit("0123abcd" + 32 * "0", "a subject", "HEAD")
C = {"name": "a.B.track_c", "version": "1", "params": [["'tiny'", "'2b'"], ["1", "2"]]}
D = {"name": "a.B.track_d", "version": "1", "params": []}
E = {"name": "a.B.track_e", "version": "2", "params": []}


def case(benchmark: dict[str, Any], index: int | None = None) -> Case:
    values = [f"{model}, {threads}" for model in C["params"][0] for threads in C["params"][1]]
    full = benchmark["name"] if index is None else f"{benchmark['name']}({values[index]})"
    return Case(benchmark["name"], index, full, "seconds", "track", 60.0, None)


def written(folder: Path, rows: dict[str, Any], env: str = "env") -> None:
    """A results file of the commit."""
    (folder / "m").mkdir(exist_ok=True)
    record = {
        "commit_hash": COMMIT.hash,
        "env_name": env,
        "date": 0,
        "params": {"machine": "m"},
        "python": "3",
        "requirements": {},
        "env_vars": {},
        "result_columns": ["result", "params", "version"],
        "results": rows,
        "durations": {},
        "version": 2,
    }
    (folder / "m" / f"0123abcd-{env}.json").write_text(json.dumps(record), encoding="utf-8")


def suite_of(folder: Path, *benchmarks: dict[str, Any]) -> Any:
    class Known(dict[str, Any]):
        pass

    return SimpleNamespace(
        results_dir=folder, env=SimpleNamespace(name="env"), benchmarks=Known((one["name"], one) for one in benchmarks)
    )


def test_values_are_of_present_benchmarks_versions_and_the_environment(tmp_path: Path) -> None:
    rows = {
        C["name"]: [[1.0, None, math.nan, None], C["params"], "1"],
        D["name"]: [[2.0], [], "1"],
        E["name"]: [None, [], "1"],  # of another version
        "a.B.track_renamed": [None, [], "1"],
    }
    written(tmp_path, rows)
    written(tmp_path, {D["name"]: [None, [], "1"]}, env="another")
    suite = suite_of(tmp_path, C, D, E)
    cases = [*(case(C, i) for i in (0, 1, 2)), case(D), case(E)]
    found = results.values_of(suite, COMMIT, "m", cases)
    skipped = found.pop("a.B.track_c('2b', 1)")
    assert skipped is not None
    assert math.isnan(skipped)
    assert found == {"a.B.track_c('tiny', 1)": 1.0, "a.B.track_c('tiny', 2)": None, "a.B.track_d": 2.0}


def test_a_benchmark_that_failed_as_a_whole_failed_with_each_parameter(tmp_path: Path) -> None:
    written(tmp_path, {C["name"]: [None, C["params"], "1"]})
    found = results.values_of(suite_of(tmp_path, C), COMMIT, "m", [case(C, 0), case(C, 3)])
    assert found == {"a.B.track_c('tiny', 1)": None, "a.B.track_c('2b', 2)": None}


def test_a_number_is_kept_when_a_review_had_nothing_to_put_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is not here any more, or the other side's failure, says nothing of what was measured before."""
    monkeypatch.setenv("HOME", str(tmp_path))
    results.remember_machine("m")
    written(tmp_path, {C["name"]: [[1.0, 2.0, 3.0, 4.0], C["params"], "1"], D["name"]: [[5.0], [], "1"]})
    suite = suite_of(tmp_path, C, D)
    suite.env = SimpleNamespace(name="env", python="3", requirements={}, env_vars={})
    suite.repo = SimpleNamespace(get_date=lambda _: 0)
    suite.benchmarks.benchmark_selection = {C["name"]: None, D["name"]: None}
    suite.benchmarks.save = lambda: None
    fulls = [case(C, i).full for i in range(4)]
    rounds = {
        fulls[0]: [Round(fulls[0], skipped={"base": "no model", "head": "no model"})],
        fulls[1]: [Round(fulls[1], failed={"head": "broke"})],
        fulls[2]: [Round(fulls[2], pairs=[(6.0, 7.0)], low={"base": 6.0, "head": 7.0})],
        D["name"]: [Round(D["name"], skipped={"base": "no such thing"})],
    }
    path = results.save(suite, COMMIT, "base", rounds, "m")
    assert path == tmp_path / "m" / "0123abcd-env.json"
    cases = [*(case(C, i) for i in range(4)), case(D)]
    assert list(results.values_of(suite, COMMIT, "m", cases).values()) == [1.0, 2.0, 6.0, 4.0, 5.0]
    results.save(suite, COMMIT, "head", rounds, "m")
    assert list(results.values_of(suite, COMMIT, "m", cases).values()) == [1.0, None, 7.0, 4.0, 5.0]


def test_asvs_files_are_whole_or_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.json"
    util.write_json(str(path), {"a": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        util.write_json(str(path), {"a": 1, "b": object()})
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("benchmarks.json", before)]


def test_a_parameter_that_was_added_but_not_run_is_not_written_down_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """asv fills what a file lacks with None, which is its word for a failure."""

    def filled() -> list[Any]:
        found = Results({"machine": "m"}, {}, "0" * 40, 0, "3", "env", {})
        for params, value, index in (([["1", "2"]], 1.0, [0]), ([["1", "2", "3", "4"]], 3.0, [2])):
            n = len(params[0])
            result = BenchmarkResult([value] * n, [[value]] * n, [1] * n, 0, "", None)
            if params == [["1", "2"]]:
                result.result[1] = None
            benchmark = {"name": "a", "version": "1", "params": params}
            found.add_result(benchmark, result, record_samples=True, selected_idx=index if n > 2 else None)
        row: list[Any] = found.get_result_value("a", [["1", "2", "3", "4"]])
        return row

    assert filled() == [1.0, None, 3.0, None], "asv alone"
    monkeypatch.setattr(Results, "get_result_value", asv_command.told_apart(Results.get_result_value))
    *known, added = filled()
    assert known == [1.0, None, 3.0]
    assert math.isnan(added)
