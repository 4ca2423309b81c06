"""What a night does, in clones that last one night: scripts/ci/nightly and keep, with a program for `tracking`."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from scratch_repository import BASH, CI, commit, git, program

if TYPE_CHECKING:
    from pathlib import Path

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
