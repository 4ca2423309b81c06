"""A review from end to end: two commits of a small project in plain Python, whose benchmarks give made-up values.

Everything is real but asv's building of wheels: git, asv's discovery, environment and result files, workers, rounds.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("asv")

import plain_project
from rich.console import Console

from tracking import pair, report, review, suite, surroundings
from tracking.errors import TrackingError
from tracking.review import Options
from tracking.rounds import Round, Store
from tracking.suite import Side

if TYPE_CHECKING:
    from tracking.commits import Commit

LIBRARY = "SECONDS = {seconds}\nBYTES = {bytes}\nHEAD = {head}\n"
BENCHMARKS = """
import itertools, os, time
from pathlib import Path

JITTER = itertools.cycle([1.0, 1.002, 0.999, 1.001])

def sampled(value):
    time.sleep(0.001)
    return {"samples": [value * next(JITTER)], "number": 1}

class Times:
    version = "1"
    timeout = 20
    unit = "seconds"
    params = [["quick", "slow"]]
    param_names = ["kind"]

    def setup(self, kind):
        import fake
        self.value = fake.SECONDS if kind == "slow" else 1.0

    def track_time(self, kind):
        print("benchmarks may print")
        return sampled(self.value)

class Bytes:
    version = "1"
    unit = "bytes"

    def track_bytes(self):
        import fake
        return fake.BYTES

class Cached:
    version = "1"
    unit = "seconds"

    def setup_cache(self):
        import fake
        Path("made").write_text("here")
        return 2.0 + fake.HEAD

    def track_cached(self, cache):
        assert Path("made").read_text() == "here"
        return sampled(2.0 if cache in (2.0, 3.0) else 9.0)

class Bad:
    version = "1"
    unit = "seconds"
    timeout = 0.5

    def track_raises(self):
        import fake
        if fake.HEAD:
            raise RuntimeError("it broke")
        return 1.0

    def track_crashes(self):
        import fake
        if fake.HEAD:
            os.abort()
        return 1.0

    def track_hangs(self):
        import fake
        time.sleep(600 * fake.HEAD)  # ended long before
        return 1.0

    def track_nothing(self):
        import fake
        return 1.0 - fake.HEAD

class Skipped:
    version = "1"
    unit = "seconds"

    def setup(self):
        if not Path(__file__).with_name("machine").exists():
            raise NotImplementedError("no such machine")

    def track_skipped(self):
        return 1.0

class Mem:
    version = "1"

    def peakmem_block(self):
        import fake
        block = bytearray(b"x" * (fake.BYTES * 20))
"""

COUNTS = """
class Count:
    version = "1"
    unit = "instructions"
    params = ["changed", "unchanged"]

    def track_instructions(self, work):
        import fake
        return fake.BYTES if work == "changed" else 1000
"""
NEEDS_A_TOOL = """
    def setup(self, work):
        if not Path(__file__).with_name("tool").exists():
            raise NotImplementedError("no tool")
"""


class PlainSuite(suite.Suite):
    """Builds a commit by unpacking it."""

    def prepare(self) -> None:
        pass

    def build(self, commit: Commit, label: str, folder: Path) -> Side:
        site = folder / label
        shutil.rmtree(site, ignore_errors=True)
        site.mkdir()
        archive = subprocess.run(
            ["git", "archive", commit.hash, "fake.py"], cwd=self.root, capture_output=True, check=True
        )
        subprocess.run(["tar", "-x", "-C", str(site)], input=archive.stdout, check=True)
        return Side(label, commit, site, Path(sys.executable))


def git(root: Path, *args: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *args], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit_library(root: Path, *, seconds: float, size: int, head: int) -> str:
    (root / "fake.py").write_text(LIBRARY.format(seconds=seconds, bytes=size, head=head))
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", f"head {head}")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    git(root, "init", "-q", "-b", "main")
    (root / "asv.conf.json").write_text(
        json.dumps(plain_project.CONFIG | {"environment_type": "existing", "pythons": ["same"]})
    )
    (root / ".gitignore").write_text("/.asv/\n__pycache__/\n")
    (root / "benchmarks").mkdir()
    (root / "benchmarks" / "__init__.py").touch()
    (root / "benchmarks" / "all.py").write_text(BENCHMARKS)
    (root / "benchmarks" / "instructions.py").write_text(COUNTS)
    commit_library(root, seconds=1.0, size=1000000, head=0)
    commit_library(root, seconds=1.2, size=1020000, head=1)
    return root


@pytest.fixture
def root(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "project"
    shutil.copytree(origin, place)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(review, "Suite", PlainSuite)
    monkeypatch.setattr(pair, "ROUND_SECONDS", 0.02)
    monkeypatch.setattr(pair, "SLICE_SECONDS", 0.004)
    monkeypatch.setattr(review.machine.time, "sleep", lambda _seconds: None)
    return place


def run(root: Path, **options: Any) -> tuple[Any, str]:
    out = io.StringIO()
    console = Console(file=out, width=400, highlight=False, soft_wrap=True)
    return review.review(root, replace(Options(budget=2.0), **options), console), out.getvalue()


def command(_root: Path, *args: str) -> tuple[int, str]:
    """The command itself, in this process, and what it says."""
    out = io.StringIO()
    original = review.Console
    try:
        review.Console = lambda **options: original(file=out, width=400, **options)  # type: ignore[assignment,misc]
        return review.main(list(args)), out.getvalue()
    finally:
        review.Console = original  # type: ignore[misc]


# ---- a whole review ----


def test_a_review_finds_what_is_there(root: Path) -> None:
    found, said = run(root)
    words = {row.benchmark: row.word for row in found.rows}
    assert words == {
        "all.Times.track_time('quick')": "same",
        "all.Times.track_time('slow')": "worse",
        "all.Bytes.track_bytes": "worse",
        "all.Cached.track_cached": "same",
        "all.Mem.peakmem_block": "worse",
        "all.Bad.track_raises": "failed",
        "all.Bad.track_crashes": "failed",
        "all.Bad.track_hangs": "failed",
        "all.Bad.track_nothing": "failed",
        "all.Skipped.track_skipped": "skipped",
        "instructions.Count.track_instructions('changed')": "worse",
        "instructions.Count.track_instructions('unchanged')": "same",
    }
    assert found.status == 1
    rows = {row.benchmark: row for row in found.rows}
    slow = rows["all.Times.track_time('slow')"]
    assert slow.ratio == pytest.approx(1.2, abs=0.005)
    assert slow.low > 1.1
    assert any(text.startswith("all.Bytes.track_bytes +2.0 %") for text in slow.moved)
    assert "it broke" in rows["all.Bad.track_raises"].reason
    assert "signal 6" in rows["all.Bad.track_crashes"].reason
    assert "no answer within 0 s" in rows["all.Bad.track_hangs"].reason
    assert "cannot be compared" in rows["all.Bad.track_nothing"].reason
    assert rows["all.Skipped.track_skipped"].reason == "no such machine"
    assert said.index("worse: all.") < said.index("failed: all.")

    folder = next((root / ".asv" / "review").glob("*-*"))
    text = (folder / "review.md").read_text()
    assert text.index("all.Times.track_time('slow')") < text.index("<details>") < text.index("track_time('quick')")
    data = json.loads((folder / "review.json").read_text())
    assert data["status"] == 1
    assert data["machine"]["cpu"]
    assert {row["benchmark"]: row["word"] for row in data["rows"]} == words

    # asv's own command reads what was written.
    results = root / ".asv" / "results"
    names = sorted(path.name for path in results.glob("*/*-*.json"))
    assert [name[:8] for name in names] == sorted(git(root, "rev-parse", rev)[:8] for rev in ("HEAD", "HEAD^"))
    assert sorted(path.name for path in results.glob("*/provenance/*")) == names
    compared = subprocess.run(
        [sys.executable, "-m", "asv", "compare", "HEAD^", "HEAD"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"\| \+ +\|.*1\.20 +\| all\.Times\.track_time\('slow'\)", compared)
    assert re.search(r"\| ! +\|.*failed.*all\.Bad\.track_raises", compared)
    assert not list(results.glob(".writing-*"))


def test_what_changed_is_held_against_counts_that_nobody_asked_for(root: Path) -> None:
    def counted(found: Any) -> list[str]:  # other counters, as CPU time, may move by chance
        slow = next(row for row in found.rows if row.word == "worse")
        return [text for text in slow.moved if "instructions" in text]

    found, _ = run(root, bench="Times")
    assert counted(found) == ["instructions.Count.track_instructions('changed') +2.0 %"]
    assert {row.benchmark.partition(".")[0] for row in found.rows} == {"all"}, "counts have no verdict of their own"
    found, _ = run(root, bench="Times", name="without", with_counts=False)
    assert counted(found) == []
    found, _ = run(root, bench="Cached")
    assert found.count("worse") == 0
    rounds = [folder / "rounds.jsonl" for folder in (root / ".asv" / "review").glob("*-*")]
    assert sum("instructions.Count" in path.read_text() for path in rounds) == 1, "counted without a reason"


def test_counts_that_are_the_same_say_so() -> None:
    row = report.Row("all.Times.track_time", "seconds", "worse", 1.2)
    review.add_counts([row], [Round("instructions.Count", low={"base": 1000.0, "head": 1001.0})])
    assert row.moved == ["instructions: unchanged in the 1 hot paths that were counted"]


def test_counts_that_fail_are_named_and_cost_no_budget(root: Path) -> None:
    path = root / "benchmarks" / "instructions.py"
    path.write_text(COUNTS.replace("import fake\n", "import fake\n        assert work == 'changed' or not fake.HEAD\n"))
    found, _ = run(root, bench="Times")
    (note,) = [note for note in found.notes if "counted" in note]
    assert note.startswith("instructions.Count.track_instructions('unchanged') could not be counted: head: ")
    store = next((root / ".asv" / "review").glob("*-*")) / "rounds.jsonl"
    seconds = [json.loads(line) for line in store.read_text().splitlines()[1:]]
    assert found.minutes == pytest.approx(sum(one["seconds"] for one in seconds if "Times" in one.get("full", "")) / 60)


def test_counts_that_could_not_run_are_told_and_tried_again(root: Path) -> None:
    path = root / "benchmarks" / "instructions.py"
    path.write_text("from pathlib import Path\n" + COUNTS + NEEDS_A_TOOL)
    found, _ = run(root, bench="Times")
    assert [note for note in found.notes if "count" in note] == ["instructions could not be counted: no tool"]
    path.with_name("tool").touch()
    found, _ = run(root, bench="Times")
    assert "track_instructions('changed') +2.0 %" in " ".join(found.of("worse")[0].moved)
    assert not [note for note in found.notes if "count" in note]


def test_damaged_results_are_named_and_the_report_is_kept(root: Path) -> None:
    place = root / ".asv" / "results" / os.uname().nodename
    run(root, bench="Times")
    for path in place.glob("*-*.json"):
        path.write_text("{")
    status, said = command(root, "--bench", "Times")
    assert status == 2, "1 would mean worse"
    assert "are damaged, so nothing was added to them" in said
    assert "Traceback" not in said
    assert next((root / ".asv" / "review").glob("*-*/review.md")).stat().st_size > 0


def test_a_mistake_of_our_own_is_not_taken_for_worse(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "add_counts", lambda *_: 1 / 0)
    status, said = command(root, "--bench", "Times")
    assert status == 2
    assert "ZeroDivisionError" in said
    assert "please report the lines above" in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", ".asv/results"),
            "Permission denied: .asv/results\n",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "please report the lines above"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ""),
        (SystemExit(1), ""),  # what rich makes of a broken pipe
    ],
)
def test_no_failure_of_the_system_is_taken_for_worse(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(report, "print_table", fail)
    status, said = command(root, "--bench", "Times")
    assert status == 2
    assert words in said


def test_a_name_that_no_machine_can_have_is_said_before_anything_is_measured(root: Path) -> None:
    status, said = command(root, "--machine", "my box")
    assert (status, len(said.splitlines())) == (2, 2)
    assert "'my box' is no name for a machine" in said


def test_what_could_not_run_before_is_tried_again(root: Path) -> None:
    first, _ = run(root, bench="Skipped|Bytes")
    assert {row.word for row in first.rows} == {"skipped", "worse"}
    (root / "benchmarks" / "machine").touch()
    none_left, said = run(root, bench="Skipped|Bytes", budget=1e-9)
    assert "the budget of 1e-09 minutes is used" in said
    assert {row.word for row in none_left.rows} == {"skipped", "worse"}, "what is known stays known"
    again, said = run(root, bench="Skipped|Bytes")
    assert {row.word for row in again.rows} == {"same", "worse"}
    assert "going on with" in said


def test_a_budget_that_is_used_is_used(root: Path) -> None:
    """Rounds take less than the time: processes begin between them."""
    run(root, bench="Bytes")
    store = next((root / ".asv" / "review").glob("*-*")) / "rounds.jsonl"
    used = json.loads(store.read_text().splitlines()[-1])["spent"]
    assert used > Store(store, json.loads(store.read_text().splitlines()[0])["key"]).seconds
    path = root / "benchmarks" / "machine"
    path.touch()
    _, said = run(root, bench="Bytes", budget=0.999 * used / 60)
    assert "minutes is used; a larger BUDGET goes on" in said


def test_commits_that_build_the_same_are_named(root: Path) -> None:
    found, _ = run(root, bench="Bytes")
    assert any("both commits build the same" in note for note in found.notes), "fake.py is in no folder of a build"
    (root / "csrc").mkdir()
    (root / "csrc" / "a.c").touch()
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "built")
    found, _ = run(root, bench="Bytes")
    assert not any("build the same" in note for note in found.notes)


def test_rounds_of_another_model_that_was_given_do_not_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(root, bench="Bytes")
    model = root.parent / "some.gguf"
    for text in (b"a model", b"another"):
        model.write_bytes(text)
        monkeypatch.setenv("BITNET_GGUF", str(model))
        assert "or the model that is given, changed since the earlier rounds" in run(root, bench="Bytes")[1]
    assert "going on with" in run(root, bench="Bytes")[1]


def test_what_is_decided_is_not_measured_again(root: Path) -> None:
    first, _ = run(root, bench="Times|Bytes")
    again, said = run(root, bench="Times|Bytes")
    assert "going on with" in said
    assert [(row.benchmark, row.word, row.rounds) for row in again.rows] == [
        (row.benchmark, row.word, row.rounds) for row in first.rows
    ]
    fresh, said = run(root, bench="Times|Bytes", fresh=True)
    assert "going on with" not in said
    assert fresh.count("worse") == 2


def test_an_interrupted_review_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = run(root, bench="Times", name="whole")
    real = pair.Pair.round
    calls = iter(range(100))

    def interrupted(self: Any, case: Any, first: str) -> Any:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return real(self, case, first)

    monkeypatch.setattr(pair.Pair, "round", interrupted)
    status, said = command(root, "--bench", "Times")
    assert status == 2
    assert "interrupted" in said
    assert "same command goes on" in said
    monkeypatch.setattr(pair.Pair, "round", real)
    found, said = run(root, bench="Times")
    assert "going on with 5 rounds" in said
    assert [row.word for row in found.rows] == [row.word for row in whole.rows] == ["worse", "same"]


def test_the_budget_ends_it_and_a_larger_one_goes_on(root: Path) -> None:
    found, _ = run(root, bench="Times", budget=1e-5)
    assert found.count("cannot tell") == 2
    assert {row.reason for row in found.rows} == {"the time was over before it was measured"}
    assert found.status == 2
    found, _ = run(root, bench="Times", budget=2.0)
    assert found.count("cannot tell") == 0
    _, said = run(root, bench="Times", budget=1e-3)
    assert "is used; a larger BUDGET goes on" in said


def test_the_line_of_the_report_runs_one_benchmark_alone(root: Path) -> None:
    found, _ = run(root, bench="Times")
    row = next(row for row in found.rows if row.word == "worse")
    program, *args = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {row.again}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert program == ".venv/bin/python"
    assert args[:3] == ["-m", "tracking", "review"]
    status, said = command(root, *args[3:])
    assert status == 1
    assert "review: 1 worse\n" in said


def test_the_parent_needs_no_name_and_a_merge_base_may_be_given(root: Path) -> None:
    status, said = command(root, "--bench", "Bytes")
    assert status == 1
    status, said = command(root, "--base", "HEAD", "--head", "HEAD^", "--bench", "Bytes")
    assert status == 0
    assert "1 better" in said


# ---- bad input: one clear line each ----


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--head", "nonsense"], "unknown revision 'nonsense'"),
        (["--head", "HEAD^..HEAD"], "is a range, where one commit is asked for"),
        (["--base", "HEAD"], "are the same commit"),
        (["--head", "HEAD^"], "HEAD^ has no parent: name what to compare it with, BASE=<revision>"),
        (["--bench", "*"], "is no regular expression"),
        (["--bench", "NoSuchThing"], "no benchmark matches 'NoSuchThing'"),
        (["--head=--all"], "is no revision"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(root: Path, args: list[str], message: str) -> None:
    status, said = command(root, *args)
    assert status == 2
    assert message in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_shallow_clone_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{root}", "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    status, said = command(tmp_path / "shallow")
    assert status == 2
    assert "this clone is shallow, and `git fetch --unshallow` brings the rest" in said


def test_a_folder_without_the_configuration_or_repository_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert "run this at the top of the repository" in command(empty)[1]
    shutil.copy(root / "asv.conf.json", empty)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    status, said = command(empty)
    assert status == 2
    assert "needs a git checkout" in said


def test_a_dirty_tree_is_measured_without_its_changes_and_says_so(root: Path) -> None:
    (root / "fake.py").write_text(LIBRARY.format(seconds=50.0, bytes=1, head=0))
    found, said = run(root, bench="Bytes")
    assert "the working tree is dirty (fake.py)" in said
    assert found.rows[0].ratio == pytest.approx(1.02)
    assert any("dirty" in note for note in found.notes)


def test_a_commit_that_does_not_build_shows_the_end_of_the_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asv.util import ProcessError

    def broken(_self: Any, _conf: Any, _repo: Any, _commit: str) -> None:
        raise ProcessError(["pip"], 1, "\n".join(f"line {i}" for i in range(99)), "error: no such header")

    monkeypatch.setattr(review, "Suite", suite.Suite)
    monkeypatch.setattr("asv.environment.ExistingEnvironment.install_project", broken)
    status, said = command(root)
    assert status == 2
    assert said.splitlines()[-1].endswith("(head 0) does not build: error: no such header")
    assert "error: no such header" in said
    assert "line 98" in said
    assert "line 5\n" not in said


def test_a_second_review_says_that_there_is_a_first(root: Path) -> None:
    place = root / ".asv"
    place.mkdir()
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        status, said = command(root)
    assert status == 2
    assert said.splitlines()[-1] == "review: another measurement runs in this checkout (process 4711): wait for its end"
    with surroundings.locked(root):
        assert (place / "lock").read_text() == str(os.getpid())


def test_a_full_disk_is_said_and_what_was_measured_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Store.add
    calls = iter(range(100))

    def full(self: Store, found: Any) -> None:
        if next(calls) == 3:
            raise TrackingError(f"{self.path} could not be written (No space left on device)")
        real(self, found)

    monkeypatch.setattr(Store, "add", full)
    status, said = command(root, "--bench", "Times")
    assert status == 2
    assert "No space left on device" in said.splitlines()[-1]
    monkeypatch.setattr(Store, "add", real)
    assert "going on with 3 rounds" in run(root, bench="Times")[1]


def test_a_suite_that_does_not_import_is_said(root: Path) -> None:
    (root / "benchmarks" / "all.py").write_text("import no_such_module\n")
    status, said = command(root)
    assert status == 2
    assert "the benchmarks could not be imported" in said.splitlines()[-1]


def test_changed_benchmarks_begin_again(root: Path) -> None:
    run(root, bench="Bytes")
    path = root / "benchmarks" / "all.py"
    path.write_text(path.read_text() + textwrap.dedent("\nOTHER = 1\n"))
    _, said = run(root, bench="Bytes")
    assert "the benchmarks, or the model that is given, changed since the earlier rounds" in said


# ---- parts ----


def test_quantiles() -> None:
    assert pair.quantile([3.0], 0.1) == 3.0
    assert pair.quantile([float(x) for x in range(101)], 0.1) == pytest.approx(10.0)
    assert pair.quantile([4.0, 2.0], 0.5) == pytest.approx(3.0)


def test_a_round_has_an_even_number_of_pairs_that_fit() -> None:
    case = suite.Case("a", None, "a", "seconds", "track", 1.0, None)
    assert [pair.pairs_wanted(case, seconds) for seconds in (0.001, 0.05, 0.1, 0.3, 9.0)] == [16, 10, 4, 2, 2]
    assert pair.pairs_wanted(replace(case, unit="bytes"), 0.001) == 1


def test_both_sides_begin_on_the_same_processor_and_each_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    class Answers:
        def __init__(self, side: str) -> None:
            self.side = side

        def open(self, _case: suite.Case) -> None:
            return None

        def ask(self, order: dict[str, Any], _timeout: float) -> dict[str, Any]:
            if "slice" in order:
                asked.append((self.side, order["turn"]))
            return {"values": [1.0], "moved": {}}

    two = pair.Pair.__new__(pair.Pair)
    two.workers = {side: Answers(side) for side in ("base", "head")}  # type: ignore[misc]
    monkeypatch.setattr(pair, "pairs_wanted", lambda *_: 4)
    two.round(suite.Case("a", None, "a", "seconds", "track", 1.0, None), "base")
    once = ["base", "head", "head", "base"]
    assert asked == [(side, 0) for side in once] + [(side, 1) for side in once]


def test_a_slice_begins_on_the_processor_whose_turn_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))  # which a worker takes away
    spec = importlib.util.spec_from_file_location("a_worker", pair.WORKER)
    assert spec is not None
    assert spec.loader is not None
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    allowed: list[list[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, to: allowed.append(sorted(to)), raising=False)
    for turn in range(3):
        worker.begin_on(turn)
    assert allowed == [[1], [1, 3], [3], [1, 3], [1], [1, 3]]

    def forbidden(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "sched_setaffinity", forbidden, raising=False)
    worker.begin_on(0)
    assert len(allowed) == 6, "where it is forbidden, slices begin where they are"


@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("generate.Decode.track_token('tiny', 1, 0)", True),
        ("instructions.Callgrind.track_instructions('gemv i2_s', 'avx2')", True),
        ("footprint.Size.track_package", True),
        ("kernels.Gemv.track_gigaweight('i2_s', 'avx2', '2b/ffn_down 2560x6912', 1)", True),
        ("kernels.Gemm.track_gigaweight('i2_s', 'avx2', '2b/ffn_down 2560x6912', 1, 16)", True),
        ("kernels.Gemv.track_gigaweight('i2_s', 'avx2', '2b/ffn_down 2560x6912', 2)", False),
        ("kernels.Gemv.track_gigaweight('i2_s', 'avx2', '2b/ffn_down 2560x6912', 16)", False),
        ("kernels.Gemv.track_gigaweight('i2_s', 'avx2', 'tiny/ffn_up 512x256', 1)", False),
        ("generate.Decode.track_token_p95('2b', 2, 0)", False),
        ("roofline.Decode.track_token('2b', 1)", False),
        ("canary.Read.track_gib(256)", False),
        ("load.Header.track_open('2b-header', 'gguf')", False),
        ("peers.Decode.track_token('llama.cpp')", False),
    ],
)
def test_the_default_is_what_can_be_decided_in_its_budget(name: str, measured: bool) -> None:
    assert bool(re.search(review.DEFAULT_BENCH, name)) is measured


def test_nan_and_infinity_stay_out_of_json() -> None:
    from tracking.report import _finite

    assert _finite({"a": [math.inf, math.nan, 1.0]}) == {"a": [None, None, 1.0]}
