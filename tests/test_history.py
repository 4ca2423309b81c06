"""A history from end to end: commits of a small project in plain Python, measured by asv."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asv")

from plain_project import commit, git, make

from tracking import asv_run, commits, history, surroundings
from tracking.commits import Commit
from tracking.errors import TrackingError

ROOT = Path(__file__).resolve().parent.parent
DRIVER = """
import sys
from asv.plugin_manager import plugin_manager
plugin_manager.import_plugin(".plain_environment")  # asv's command does this by itself
from tracking import history, machine
machine.look.__defaults__ = (0.0,)
sys.exit(history.main(sys.argv[1:]))
"""
SLOWER = "SECONDS = 1.5\nBYTES = 100\n"


def run(root: Path, *args: str) -> tuple[int, str]:
    """The command, as its own process, and what it says."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "--quick", *args],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def environment(root: Path) -> dict[str, str]:
    wanted = {"HOME": str(root.parent), "BITNET_CACHE_DIR": str(root.parent / "cache"), "PYTHONPATH": str(ROOT)}
    return os.environ | wanted


def log_of(root: Path) -> list[str]:
    """The combinations that were run, in their order."""
    path = root / "benchmarks" / "speed.py.log"
    return path.read_text().splitlines() if path.is_file() else []


def results_of(root: Path, found: str) -> dict[str, Any]:
    (path,) = (root / ".asv" / "results").glob(f"*/{found[:8]}-*.json")
    data = json.loads(path.read_text())
    return {name: values[0] for name, values in data["results"].items()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], str]:
    """A project, its commits by subject, and what the history of all of them said."""
    root = make(tmp_path_factory.mktemp("history") / "project")
    hashes = {"first": git(root, "rev-parse", "HEAD")}
    for subject, library in {
        "documents": None,
        "slower": SLOWER,
        "broken": "this is no Python\n",
        "without": "BYTES = -1\n",
        "last": "SECONDS = 1.6\nBYTES = 150\n",
    }.items():
        hashes[subject] = commit(root, subject, library)
    status, said = run(root, "--revs", "ALL")
    assert status == 2, said  # since a benchmark failed
    return root, hashes, said


@pytest.fixture
def copy(measured: tuple[Path, dict[str, str], str], tmp_path: Path) -> Path:
    """The measured project, to go on with."""
    shutil.copytree(measured[0].parent, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy" / measured[0].name


# ---- a whole history ----


def test_each_commit_is_measured_once_and_what_cannot_be_is_named(
    measured: tuple[Path, dict[str, str], str],
) -> None:
    root, hashes, said = measured
    short = {subject: found[:8] for subject, found in hashes.items()}
    assert "6 commits from" in said
    assert (
        f"1 build the same as the one before them and are left out (--all measures them): {short['documents']}" in said
    )
    order = [line.split("(")[1].split(")")[0] for line in said.splitlines() if " of 5: " in line or "Syntax" in line]
    assert order == ["last", "first", "broken", "slower", "without", "broken"]  # the end names what is missing again
    assert f"not measured: {short['broken']} (broken): does not build: SyntaxError: invalid syntax" in said
    log = f".asv/history/{os.uname().nodename}/{short['without']}.log"
    assert f"failed on {short['without']}: size.Size.track_size; see {log}" in said
    assert "it broke" in (root / log).read_text()
    assert log_of(root) == ["1.6 tiny", "1.0 tiny", "1.5 tiny"]
    assert results_of(root, hashes["slower"])["speed.Speed.track_speed"][0] == 1.5
    assert results_of(root, hashes["slower"])["size.Size.track_size"] == [100]
    assert sorted(path.name[:8] for path in (root / ".asv" / "results").glob("*/provenance/*.json")) == sorted(
        short[subject] for subject in ("first", "slower", "without", "last")
    )
    (skipped,) = (root / ".asv" / "results").glob("*/skipped/*.json")
    assert (skipped.stem, json.loads(skipped.read_text())) == (
        short["without"],
        {"speed.Speed.track_speed('tiny')": "1"},
    )
    assert not list((root / ".asv" / "results").glob(f"*/{short['documents']}-*"))
    assert not list((root / ".asv").rglob("*.writing-*"))


def test_what_became_slower_is_said_with_its_commits(measured: tuple[Path, dict[str, str], str]) -> None:
    root, hashes, said = measured
    short = {subject: found[:8] for subject, found in hashes.items()}
    slower = [line.removeprefix("history: slower: ") for line in said.splitlines() if "slower: +" in line]
    assert slower[:2] == [
        f"+50.0 % speed.Speed.track_speed('tiny') in {short['first']}..{short['slower']} (slower)",
        f"+50.0 % size.Size.track_size in {short['slower']}..{short['last']} (last)",
    ]
    assert "look at the curves: make preview" in said
    assert (root / ".asv" / "html" / "index.html").is_file()


def test_a_fresh_clone_with_the_results_measures_nothing_that_was_skipped(copy: Path) -> None:
    shutil.rmtree(copy / ".asv" / "history")
    status, said = run(copy, "--revs", "HEAD~1", "--only", "speed")
    assert (status, "1 of 1 commits were complete before" in said) == (0, True), said


def test_nothing_is_measured_twice_but_what_changed_its_version(copy: Path) -> None:
    status, said = run(copy, "--revs", "ALL")
    assert "4 of 5 commits were complete before" in said
    assert status == 2  # what failed has still no result
    assert len(log_of(copy)) == 3
    size = copy / "benchmarks" / "size.py"
    size.write_text(size.read_text().replace('"1"', '"2"').replace("fake.BYTES < 0", "False"))
    before = (copy / "benchmarks" / "speed.py.log").read_text()
    status, said = run(copy, "--revs", "HEAD~1", "HEAD")
    assert "the working tree is dirty" in said
    assert status == 0
    assert said.count(" of 2: ") == 2
    assert (copy / "benchmarks" / "speed.py.log").read_text() == before


def test_only_one_commit_and_again_what_could_not_run(copy: Path) -> None:
    (copy / "benchmarks" / "size.py").write_text(
        (copy / "benchmarks" / "size.py").read_text().replace("fake.BYTES < 0", "False")
    )
    status, said = run(copy, "--revs", "HEAD~1", "--only", "size")
    assert status == 2
    assert "1 of 1 commits were complete before" in said
    status, said = run(copy, "--revs", "HEAD^!", "HEAD~1", "--only", "size", "--retry")
    assert status == 0
    assert "(without): 1 measured" in said
    assert "1 of 2 commits were complete before" in said


def test_a_number_that_a_quick_run_left_out_is_measured_later(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asv's --skip-existing would take the benchmark for measured, since one of its combinations is."""
    code = DRIVER.replace("sys.exit", "history.models.choose = lambda console, quick: ('2b', '2b')\nsys.exit")
    monkeypatch.setitem(globals(), "DRIVER", code)
    status, said = run(copy, "--revs", "HEAD")
    assert status == 0, said
    assert log_of(copy)[3:] == ["1.6 2b"]
    assert results_of(copy, git(copy, "rev-parse", "HEAD"))["speed.Speed.track_speed"] == [1.6, 1.6]


def test_a_parameter_that_was_added_is_measured_and_has_not_failed(copy: Path) -> None:
    """asv gives None for a combination that a file lacks, as for one that failed."""
    speed = copy / "benchmarks" / "speed.py"
    speed.write_text(speed.read_text().replace('["tiny", "2b"]', '["tiny", "tiny-wide", "2b"]'))
    status, said = run(copy, "--revs", "HEAD")
    assert status == 0, said
    assert log_of(copy)[3:] == ["1.6 tiny-wide"]
    assert "1 of 1: " in said
    status, said = run(copy, "--revs", "HEAD")
    assert (status, "1 of 1 commits were complete before" in said, len(log_of(copy))) == (0, True, 4), said


def test_a_parameter_that_was_added_and_left_out_is_measured_later(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """asv writes None, a failure, for combinations that neither the file nor the run has."""
    speed = copy / "benchmarks" / "speed.py"
    speed.write_text(speed.read_text().replace('["tiny", "2b"]', '["tiny", "tiny-wide", "2b", "2b-wide"]'))
    assert run(copy, "--revs", "HEAD")[0] == 0
    code = DRIVER.replace("sys.exit", "history.models.choose = lambda console, quick: ('2b', '2b')\nsys.exit")
    monkeypatch.setitem(globals(), "DRIVER", code)
    status, said = run(copy, "--revs", "HEAD")
    assert status == 0, said
    assert log_of(copy)[3:] == ["1.6 tiny-wide", "1.6 2b", "1.6 2b-wide"]


def test_the_budget_ends_it_and_the_same_command_goes_on(copy: Path) -> None:
    shutil.rmtree(copy / ".asv" / "results")
    status, said = run(copy, "--revs", "ALL", "--budget", "0.0000001")
    assert status == 0
    assert "the budget is used: 0 of 5 commits done, the same command goes on" in said


def test_being_told_to_end_loses_one_file_of_benchmarks_of_one_commit(copy: Path) -> None:
    commit(copy, "slow", "BYTES = 1\nSECONDS = 1\n")
    speed = copy / "benchmarks" / "speed.py"
    speed.write_text(
        speed.read_text().replace(
            "        with open", "        import time; time.sleep(fake.SECONDS * 60)\n        with open"
        )
    )
    command = [sys.executable, "-c", DRIVER, "--quick", "--revs", "HEAD"]
    process = subprocess.Popen(command, cwd=copy, env=environment(copy), stdout=subprocess.PIPE, text=True)
    place, found = copy / ".asv" / "results", git(copy, "rev-parse", "--short=8", "HEAD")
    for _ in range(1200):
        if list(place.glob(f"*/{found}-*.json")):
            break
        time.sleep(0.1)
    runs = pytest.raises(TrackingError, match=f"another measurement runs in this checkout .process {process.pid}.")
    with runs, surroundings.locked(copy):
        pass
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.endswith("history: interrupted; what was measured is kept, and the same command goes on\n")
    assert results_of(copy, found) == {"size.Size.track_size": [1]}
    assert list(place.glob(f"*/provenance/{found}-*.json")), "also of what was interrupted"
    with surroundings.locked(copy):  # nothing of it is left running
        assert (copy / ".asv" / "lock").read_text() == str(os.getpid())
    git(copy, "checkout", "-q", "benchmarks")
    status, said = run(copy, "--revs", "HEAD")
    assert status == 0
    assert log_of(copy)[-1] == "1 tiny"
    assert results_of(copy, found)["size.Size.track_size"] == [1]


# ---- bad input ----


def test_values_of_another_model_do_not_count_for_the_one_that_is_given(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.parent / "some.gguf"
    model.write_bytes(b"a model")
    code = DRIVER.replace(
        "sys.exit", f"history.models.choose = lambda *_, **__: (Path({str(model)!r}), 'given')\nsys.exit"
    )
    monkeypatch.setitem(globals(), "DRIVER", "from pathlib import Path\n" + code)
    (path,) = (copy / ".asv" / "results").glob(f"*/provenance/{git(copy, 'rev-parse', '--short=8', 'HEAD')}-*")
    given = {"name": "given", "file": "old.gguf", "sha256": hashlib.sha256(b"a model").hexdigest()}
    path.write_text(json.dumps({"models": [given]}))
    status, said = run(copy, "--revs", "HEAD")
    assert status == 0, said
    path.write_text(json.dumps({"models": [given | {"sha256": "0"}]}))
    status, said = run(copy, "--revs", "HEAD")
    assert status == 0, "recorded before it would have been measured, and then it was not"
    (found,) = (copy / ".asv" / "results").glob(f"*/{path.name}")
    found.write_text(found.read_text().replace("'tiny'", "'given'"))
    status, said = run(copy, "--revs", "HEAD")
    assert status == 2
    assert "was measured with another model (old.gguf): name a machine for this one" in said.splitlines()[-1]
    path.write_text(json.dumps({"models": [{"name": "given"}]}))
    status, said = run(copy, "--revs", "HEAD")
    assert (status, "it is not known which model was given" in said.splitlines()[-1]) == (2, True)


def test_a_commit_of_which_nothing_can_be_recorded_stops_no_other(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = DRIVER.replace("sys.exit", "history.provenance.QUESTIONS = 'raise SystemExit(1)'\nsys.exit")
    monkeypatch.setitem(globals(), "DRIVER", code)
    shutil.rmtree(copy / ".asv" / "results")
    status, said = run(copy, "--revs", "HEAD", "HEAD~3")
    assert status == 2, said
    assert said.count(" of 2: ") == 2
    assert said.count("where its numbers come from is not recorded: ") == 2
    assert "look at the curves" in said


def test_a_damaged_results_file_is_named_and_the_others_go_on(copy: Path) -> None:
    (path,) = (copy / ".asv" / "results").glob(f"*/{git(copy, 'rev-parse', '--short=8', 'HEAD~3')}-*")
    path.write_text(path.read_text()[:-20])
    status, said = run(copy, "--revs", "HEAD~3", "HEAD")
    assert status == 2
    assert "(slower): its results file is damaged, remove it to measure again: " in said
    assert "1 of 2 commits were complete before" in said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--revs", "nonsense"], "unknown revision 'nonsense'; `git fetch` may bring it"),
        (["--revs", "nonsense..main"], "unknown revision 'nonsense'"),
        (["--revs", "main..main"], "no commit in main..main: the range is empty"),
        (["--revs", "main...HEAD"], "'main...HEAD' is no range of a history; write main..HEAD"),
        (["--revs=--all"], "'--all' is no revision"),
        (["--revs", "HEAD", "--only", "*"], "'*' is no regular expression"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(copy: Path, args: list[str], message: str) -> None:
    status, said = run(copy, *args)
    assert status == 2
    assert said.startswith(f"history: {message}")
    assert len(said.splitlines()) == 1


def test_no_benchmark_is_said(copy: Path) -> None:
    status, said = run(copy, "--revs", "HEAD", "--only", "NoSuchThing")
    assert status == 2
    assert "no benchmark matches" in said.splitlines()[-1]


def test_only_commits_that_do_not_build_are_a_failure(copy: Path) -> None:
    status, said = run(copy, "--revs", "HEAD~2")
    assert status == 2
    assert "does not build: SyntaxError" in said


def test_a_full_disk_is_not_taken_for_a_commit_that_does_not_build(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = DRIVER.replace("sys.exit", "history.asv_run.SPACE = 1 << 60\nsys.exit")
    monkeypatch.setitem(globals(), "DRIVER", code)
    status, said = run(copy, "--revs", "HEAD~2")
    assert status == 2
    assert said.splitlines()[-1].startswith("history: the disk is full (")
    assert "does not build" not in said


# ---- parts ----


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = make(tmp_path / "small")
    for subject in ("b", "c", "d"):
        commit(root, subject, f"BYTES = {ord(subject)}\n")
    return root


def subjects(root: Path, *words: str) -> str:
    return " ".join(found.subject for found in commits.several(root, words))


def test_revisions_are_ranges_names_and_all(small: Path) -> None:
    assert subjects(small, "ALL") == "first b c d"
    assert subjects(small, "HEAD~2..HEAD") == "c d"
    assert subjects(small, "HEAD~2..") == "c d"
    assert subjects(small, "HEAD", "HEAD~3", "HEAD^!") == "first d"  # in their order, once
    assert subjects(small, "HEAD~3..HEAD~2", "HEAD") == "b d"
    with pytest.raises(TrackingError, match=r"no commit in HEAD\.\.HEAD~1: the range is empty"):
        subjects(small, "HEAD..HEAD~1")


def test_a_range_follows_first_parents(small: Path) -> None:
    git(small, "checkout", "-q", "-b", "side", "HEAD~1")
    commit(small, "aside", "BYTES = 9\n")
    git(small, "checkout", "-q", "main")
    git(small, "merge", "-q", "-s", "ours", "--no-edit", "-m", "merged", "side")
    assert subjects(small, "HEAD~2..HEAD") == "d merged"
    assert [found.subject for found in history.different(small, commits.several(small, ["ALL"]))] == [
        *("first", "b", "c", "d")  # the merge took nothing
    ]


def test_a_shallow_clone_is_named(small: Path) -> None:
    git(small.parent, "clone", "-q", "--depth", "2", f"file://{small}", "shallow")
    for words in (["ALL"], ["HEAD~3..HEAD"]):
        with pytest.raises(TrackingError, match=r"shallow.*`git fetch --unshallow` brings the rest"):
            commits.several(small.parent / "shallow", words)
    assert subjects(small.parent / "shallow", "HEAD~1..HEAD") == "d"


def test_commits_that_build_the_same_as_the_one_before_are_left_out(small: Path) -> None:
    (small / "README").write_text("words")
    commit(small, "documents")
    (small / "setup.py").write_text((small / "setup.py").read_text() + "# build\n")
    commit(small, "build")
    commit(small, "back to d", None)
    chosen = commits.several(small, ["ALL"])
    assert [found.subject for found in history.different(small, chosen)] == ["first", "b", "c", "d", "build"]
    alone = commits.several(small, ["HEAD"])  # nothing measured stands for it
    assert history.different(small, alone) == alone


@pytest.mark.parametrize(
    ("n", "order"), [(0, []), (1, [0]), (2, [1, 0]), (3, [2, 0, 1]), (9, [8, 0, 4, 2, 6, 1, 3, 5, 7])]
)
def test_the_ends_come_first_then_the_middles(n: int, order: list[int]) -> None:
    chosen = [Commit(str(i), "", "") for i in range(n)]
    assert [int(found.hash) for found in history.bisected(chosen)] == order


def test_bench_says_that_something_runs() -> None:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(surroundings.locked(ROOT))
        except TrackingError:
            pytest.skip("a measurement runs in this checkout")
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "bench.py"), "--quick"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert f"another measurement runs in this checkout (process {os.getpid()})" in " ".join(done.stdout.split())


def test_what_became_slower_on_another_machine_is_not_said(tmp_path: Path) -> None:
    """asv names the machine in the path of a graph, and besides where there are several."""
    found = [
        [f"a.B.{name}", f"graphs/branch-main/machine-{machine}/a.B.json", params, None, 2.0, 1.0, [[1, 2, 1.0, 2.0]]]
        for name, machine, params in (
            ("ours", "m", {"machine": "m"}),
            ("theirs", "n", {"machine": "n"}),
            ("only", "m", {}),
            ("only_theirs", "n", {}),
        )
    ]
    (tmp_path / "regressions.json").write_text(json.dumps({"regressions": found}))
    (tmp_path / "index.json").write_text(json.dumps({"revision_to_hash": {"1": "a" * 40, "2": "b" * 40}}))
    chosen = [Commit("b" * 40, "slower", "")]
    names = {"a.B.ours", "a.B.theirs", "a.B.only", "a.B.only_theirs"}
    assert history.regressions(tmp_path, chosen, "m", names) == [
        f"+100.0 % a.B.{name} in aaaaaaaa..bbbbbbbb (slower)" for name in ("ours", "only")
    ]
    assert history.regressions(tmp_path, chosen, "m", {"a.B.only"}) == [
        "+100.0 % a.B.only in aaaaaaaa..bbbbbbbb (slower)"
    ], "nobody asked for the other"


def test_time_left_is_of_the_commits_before() -> None:
    one = history.History.__new__(history.History)
    one.seconds = [10.0, 20.0]
    assert one.left(3) == 45.0


def test_a_long_list_is_cut() -> None:
    assert history.listed(["a", "b", "c"], 3) == "a, b, c"
    assert history.listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert asv_run.measure_args("f" * 40, ["^a$", "^b$"], "m", quick=True)[-6:] == [
        *("-b", "^a$", "-b", "^b$", "--attribute", "rounds=1")
    ]
