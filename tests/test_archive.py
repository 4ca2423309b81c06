"""The branch of results: made-up results in scratch repositories."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asv")

from plain_project import commit, git, make
from test_merge import result, row

from tracking import archive, commits, surroundings

BENCHMARKS = json.dumps({"version": 2, "f.A": {"version": "1"}}).encode()
MACHINE = b'{"machine": "m", "version": 1}'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in ("NAME", "EMAIL"):
        monkeypatch.delenv(f"GIT_COMMITTER_{name}", raising=False)
    place = make(tmp_path / "project")
    monkeypatch.chdir(place)
    return place


def put(root: Path, files: dict[str, bytes]) -> None:
    for name, data in ({"benchmarks.json": BENCHMARKS, "m/machine.json": MACHINE} | files).items():
        path = root / ".asv" / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def here(root: Path) -> dict[str, bytes]:
    place = root / ".asv" / "results"
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def command(root: Path, *args: str) -> tuple[int, str]:
    """The command itself, in this process, and what it says."""
    out, before = io.StringIO(), Path.cwd()
    original = archive.Console
    try:
        os.chdir(root)
        archive.Console = lambda **options: original(file=out, width=400, **options)  # type: ignore[assignment,misc]
        return archive.main(list(args)), out.getvalue()
    finally:
        archive.Console = original  # type: ignore[misc]
        os.chdir(before)


def clone(root: Path, name: str) -> Path:
    git(root.parent, "clone", "-q", str(root.parent / "shared"), name)
    return root.parent / name


@pytest.fixture
def shared(root: Path) -> Path:
    """The project has a remote."""
    git(root.parent, "init", "-q", "--bare", "-b", "main", "shared")
    git(root, "remote", "add", "origin", str(root.parent / "shared"))
    git(root, "push", "-q", "origin", "main")
    return root


def test_results_are_kept_and_come_back(root: Path) -> None:
    put(root, {"m/a-env.json": result({"f.A": row([1.0])}), "m/provenance/a.json": b"{}"})
    kept = here(root)
    status, said = command(root, "keep")
    assert status == 0
    assert "1 results files kept, in " in said
    assert "git push" not in said  # there is no remote
    assert archive.read(root, "results") == kept
    subprocess.run(["rm", "-r", ".asv/results"], cwd=root, check=True)
    status, said = command(root, "fetch")
    assert (status, here(root)) == (0, kept)
    assert "1 results files are new" in said


def test_what_a_killed_writer_left_is_not_kept(root: Path) -> None:
    put(root, {"m/a-env.json": result({}), ".writing-x/m/a-env.json": b"{"})
    assert command(root, "keep")[0] == 0
    assert "m/a-env.json" in archive.read(root, "results")
    assert not any(path.startswith(".") for path in archive.read(root, "results"))


def test_nothing_of_the_user_is_touched(root: Path) -> None:
    (root / "csrc" / "fake.py").write_text("staged")
    git(root, "add", "-A")
    (root / "csrc" / "fake.py").write_text("not staged")
    before = [
        git(root, *words) for words in (["status", "--porcelain=v2", "--branch"], ["diff"], ["rev-parse", "HEAD"])
    ]
    put(root, {"m/a-env.json": result({})})
    assert command(root, "keep")[0] == 0
    after = [git(root, *words) for words in (["status", "--porcelain=v2", "--branch"], ["diff"], ["rev-parse", "HEAD"])]
    assert after == before
    assert git(root, "rev-list", "--count", "results") == "1"
    joint = subprocess.run(["git", "merge-base", "main", "results"], cwd=root, capture_output=True, check=False)
    assert (joint.returncode, joint.stdout) == (1, b"")  # no commit in common


def test_the_branch_grows_and_what_is_there_already_makes_no_commit(root: Path) -> None:
    put(root, {"m/a-env.json": result({"f.A": row([1.0])})})
    command(root, "keep")
    status, said = command(root, "keep")
    assert "results has all of it already" in said
    assert (status, git(root, "rev-list", "--count", "results")) == (0, "1")
    (root / ".asv" / "results" / "m" / "a-env.json").unlink()
    put(root, {"m/b-env.json": result({"f.A": row([2.0])})})
    command(root, "keep")
    assert {"m/a-env.json", "m/b-env.json"} <= set(archive.read(root, "results"))
    assert git(root, "rev-list", "--count", "results") == "2"


def test_asv_numbers_commits_as_if_there_were_no_results(root: Path) -> None:
    from asv.plugins.git import Git

    def numbers() -> list[int]:
        found = Git(str(root), str(root)).get_revisions(set(git(root, "rev-list", "HEAD").split()))
        return sorted(found.values())

    for n in range(3):
        put(root, {f"m/{n}-env.json": result({})})
        assert command(root, "keep")[0] == 0
        commit(root, f"later {n}")
    assert git(root, "rev-list", "--count", "results") == "3"
    assert numbers() == [3, 4, 5, 6]  # without a gap


def test_what_was_measured_in_two_clones_comes_together(shared: Path) -> None:
    """Diverged branches: the second push is refused, merged, and tried again."""
    other = clone(shared, "other")
    put(shared, {"m/a-env.json": result({"f.A": row([1.0], 10)}), "m/b-env.json": result({})})
    put(other, {"m/a-env.json": result({"f.A": row([2.0], 20)}), "n/c-env.json": result({}), "n/machine.json": b"{}"})
    status, said = command(shared, "keep", "--push")
    assert (status, "pushed to origin" in said) == (0, True)
    status, said = command(other, "keep", "--push")
    assert (status, "pushed to origin" in said) == (0, True)
    for place in (shared, other):
        assert command(place, "fetch")[0] == 0
    assert here(shared) == here(other)
    assert set(here(shared)) > {"m/a-env.json", "m/b-env.json", "n/c-env.json"}
    assert json.loads(here(shared)["m/a-env.json"])["results"]["f.A"][0] == [2.0]
    assert command(shared, "keep")[0] == 0
    assert git(shared, "rev-parse", "results") == git(shared, "rev-parse", "origin/results")


def test_a_push_is_named_not_done(shared: Path) -> None:
    put(shared, {})
    status, said = command(shared, "keep")
    assert status == 0
    assert "to share it: git push origin results" in said
    assert git(shared, "ls-remote", "origin", "results") == ""


def test_a_branch_that_moves_meanwhile_is_merged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, {"m/a-env.json": result({"f.A": row([1.0])})})
    assert command(root, "keep")[0] == 0
    real, moved = archive.write, []

    def moving(place: Path, tree: dict[str, bytes]) -> str:
        if not moved:
            moved.append(True)
            other = real(place, archive.read(place, "results") | {"m/z-env.json": result({})})
            git(place, "update-ref", archive.REF, git(place, "commit-tree", other, "-p", "results", "-m", "other"))
        return real(place, tree)

    monkeypatch.setattr(archive, "write", moving)
    put(root, {"m/b-env.json": result({})})
    assert command(root, "keep")[0] == 0
    assert {"m/a-env.json", "m/b-env.json", "m/z-env.json"} <= set(archive.read(root, "results"))


def test_versions_that_asv_will_not_show_are_named(root: Path) -> None:
    put(root, {"m/a-env.json": result({"f.A": row([1.0], version="0")})})
    status, said = command(root, "keep")
    assert status == 0
    assert "of another version than the benchmarks here, so the dashboard lacks them: f.A (1 commits)" in said


def test_a_fetch_leaves_what_is_only_here_and_writes_whole_files(root: Path) -> None:
    put(root, {"m/a-env.json": result({"f.A": row([1.0], 10)})})
    command(root, "keep")
    put(root, {"m/a-env.json": result({"f.B": row([3.0], 5)}), "m/only-env.json": result({})})
    assert command(root, "fetch")[0] == 0
    found = json.loads(here(root)["m/a-env.json"])["results"]
    assert {name: values[0] for name, values in found.items()} == {"f.A": [1.0], "f.B": [3.0]}
    assert "m/only-env.json" in here(root)
    assert not list((root / ".asv").rglob(".writing-*"))


# ---- bad input ----


def test_no_results_and_no_branch_are_said(root: Path) -> None:
    status, said = command(root, "keep")
    assert (status, said) == (
        2,
        "archive: no sound results in .asv/results: `make bench` or `make history` measures some\n",
    )
    status, said = command(root, "fetch")
    assert (status, said) == (2, "archive: no branch results here, and no remote: `make results-keep` makes it\n")


def test_no_branch_at_the_remote_is_said(shared: Path) -> None:
    assert command(shared, "fetch") == (
        2,
        "archive: no branch results here or at origin: `make results-keep` makes it\n",
    )


def test_a_remote_that_cannot_be_reached_is_said_and_the_branch_here_used(shared: Path) -> None:
    put(shared, {"m/a-env.json": result({})})
    command(shared, "keep")
    git(shared, "remote", "set-url", "origin", str(shared.parent / "nowhere"))
    (shared / ".asv" / "results" / "m" / "a-env.json").unlink()
    status, said = command(shared, "fetch")
    assert status == 2
    assert said.startswith("archive: origin cannot be reached, so only what is here is used: fatal: ")
    assert "m/a-env.json" in here(shared)
    put(shared, {"m/b-env.json": b"{"})
    status, said = command(shared, "fetch")
    assert (status, said.splitlines()[-1].startswith("archive: m/b-env.json in .asv/results is damaged (")) == (2, True)
    (shared / ".asv" / "results" / "m" / "b-env.json").unlink()
    status, said = command(shared, "keep", "--push")
    assert status == 2
    assert "results is kept here, but could not be pushed" in said.splitlines()[-1]


@pytest.mark.parametrize("action", ["keep", "fetch"])
def test_a_damaged_file_is_named_and_the_others_go_on(root: Path, action: str) -> None:
    whole = result({"f.A": row([1.0])})
    put(root, {"m/a-env.json": whole, "m/b-env.json": whole})
    command(root, "keep")
    put(root, {"m/a-env.json": whole[:-7], "m/c-env.json": whole})
    (root / ".asv" / "results" / "m" / "b-env.json").unlink()
    status, said = command(root, action)
    assert status == 2
    assert said.splitlines()[-1].startswith("archive: m/a-env.json in .asv/results is damaged (")
    if action == "keep":
        tree = archive.read(root, "results")
        assert (tree["m/a-env.json"], tree["m/c-env.json"]) == (whole, whole)
    else:
        assert (here(root)["m/a-env.json"], here(root)["m/b-env.json"]) == (whole[:-7], whole)


def test_a_shallow_clone_keeps_and_fetches(shared: Path) -> None:
    put(shared, {"m/a-env.json": result({})})
    command(shared, "keep", "--push")
    git(shared.parent, "clone", "-q", "--depth", "1", f"file://{shared.parent}/shared", "shallow")
    place = shared.parent / "shallow"
    assert command(place, "fetch")[0] == 0
    put(place, {"m/b-env.json": result({})})
    assert command(place, "keep", "--push")[0] == 0
    assert {"m/a-env.json", "m/b-env.json"} <= set(archive.read(shared.parent / "shared", "results"))


def test_another_branch_of_that_name_is_left_alone(root: Path) -> None:
    git(root, "branch", "results", "main")
    put(root, {"m/a-env.json": result({})})
    for action in ("keep", "fetch"):
        status, said = command(root, action)
        assert status == 2
        assert "the branch results holds something else than results" in said
    assert git(root, "rev-parse", "results") == git(root, "rev-parse", "main")


def test_a_branch_that_is_checked_out_is_not_moved(root: Path) -> None:
    put(root, {"m/a-env.json": result({})})
    command(root, "keep")
    git(root, "worktree", "add", "-q", str(root.parent / "tree"), "results")
    put(root, {"m/b-env.json": result({})})
    status, said = command(root, "keep")
    assert status == 2
    assert f"results is checked out in {root.parent / 'tree'}" in said


def test_the_second_of_two_says_so(root: Path) -> None:
    put(root, {})
    with surroundings.locked(root):
        status, said = command(root, "keep")
    assert status == 2
    assert said == f"archive: another measurement runs in this checkout (process {os.getpid()}): wait for its end\n"
    assert command(root, "keep")[0] == 0


def test_a_full_disk_moves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, {"m/a-env.json": result({})})
    command(root, "keep")
    before = git(root, "rev-parse", "results")

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device", "somewhere")

    put(root, {"m/b-env.json": result({})})
    monkeypatch.setattr(archive.Path, "write_bytes", full)
    status, said = command(root, "keep")
    monkeypatch.undo()
    assert (status, said) == (
        2,
        "archive: No space left on device: somewhere; branch and results are as they were\n",
    )
    assert git(root, "rev-parse", "results") == before
    assert not list((root / ".asv").glob(".keeping-*"))


def test_somebody_without_a_name_may_keep(root: Path) -> None:
    git(root, "config", "user.useConfigOnly", "true")
    put(root, {})
    assert command(root, "keep")[0] == 0
    assert commits.git(root, "log", "-1", "--format=%cn %ct", "results") == "bitnet-core results 0"
