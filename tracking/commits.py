"""Commits: names to hashes, what a clone lacks, and scratch commits that no branch knows."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.errors import TrackingError

if TYPE_CHECKING:
    from collections.abc import Sequence

BUILT = ("csrc", "bitnet_core", "setup.py", "pyproject.toml")  # what a build is made of
# A scratch commit is the same commit each time it is made, so that a build of it is found again.
SCRATCH = {
    "GIT_AUTHOR_NAME": "bitnet-core experiment",
    "GIT_AUTHOR_EMAIL": "experiment@bitnet-core.invalid",
    "GIT_COMMITTER_NAME": "bitnet-core experiment",
    "GIT_COMMITTER_EMAIL": "experiment@bitnet-core.invalid",
    "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}


@dataclass(frozen=True)
class Commit:
    """One commit of the repository, by its full hash."""

    hash: str
    subject: str
    name: str  # what the user called it

    @property
    def short(self) -> str:
        """As long as asv's file names have it."""
        return self.hash[:8]


def git(root: Path, *args: str, env: dict[str, str] | None = None, given: str | None = None) -> str:
    """What git says, of what it is given on its standard input; its own words are the error.

    Messages come in UTF-8 whatever they were written in, what is none is replaced, and lines end where git ends them.
    """
    full = None if env is None else os.environ | env
    command = ["git", "-c", "i18n.logOutputEncoding=UTF-8", *args]
    text = None if given is None else os.fsencode(given)
    try:
        done = subprocess.run(command, cwd=root, env=full, input=text, capture_output=True, check=False)
    except FileNotFoundError:
        raise TrackingError("no git found") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"git {args[0]} ended with status {done.returncode}"
        raise TrackingError(said.splitlines()[0], said)
    return done.stdout.decode("utf-8", "replace").rstrip("\n")


def check_root(root: Path) -> None:
    """Refuse a folder that has no suite."""
    if not (root / "asv.conf.json").is_file():
        raise TrackingError(f"no asv.conf.json in {root}: run this at the top of the repository")


def find(root: Path, name: str) -> Commit:
    """The commit of a name; says when it is the clone that lacks it."""
    if name.startswith("-"):
        raise TrackingError(f"{name!r} is no revision")
    if ".." in name:
        raise TrackingError(f"{name!r} is a range, where one commit is asked for")
    try:
        commit = git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except TrackingError:
        if not is_repository(root):
            raise TrackingError("commits are measured, so this needs a git checkout with at least one commit") from None
        if is_shallow(root):
            raise TrackingError(
                f"unknown revision {name!r}: this clone is shallow, and `git fetch --unshallow` brings the rest"
            ) from None
        raise TrackingError(f"unknown revision {name!r}; `git fetch` may bring it") from None
    return Commit(commit, git(root, "log", "-1", "--format=%s", commit), name)


def parent(root: Path, commit: Commit) -> Commit:
    """The first parent of a commit."""
    try:
        return find(root, f"{commit.hash}^")
    except TrackingError as error:
        if "shallow" in str(error):
            raise TrackingError(
                f"the parent of {commit.name} is not here: this clone is shallow, "
                "and `git fetch --unshallow` brings the rest"
            ) from None
        raise TrackingError(f"{commit.name} has no parent: name what to compare it with, BASE=<revision>") from None


def inputs(root: Path, commit: Commit) -> str:
    """What a build of a commit is made of: the same, where the builds are."""
    return git(root, "ls-tree", commit.hash, "--", *BUILT)


def several(root: Path, words: Sequence[str]) -> list[Commit]:
    """The commits that words name, oldest first, each once.

    A word is a revision, a range `a..b` along first parents, or ALL: the first parents of HEAD to the very first.
    """
    names: dict[str, str] = {}
    for word in words:
        for found in _expanded(root, word):
            names.setdefault(found, word)
    if not names:
        raise TrackingError(f"no commit in {' '.join(words)}: the range is empty")
    # Of all their ancestors, since git sorts what it walks.
    listed = git(root, "log", "--topo-order", "--reverse", "--format=%H %s", "--stdin", given="\n".join(names))
    pairs = (line.split(" ", 1) for line in listed.split("\n"))
    return [Commit(found, subject, names[found]) for found, subject in pairs if found in names]


def _expanded(root: Path, word: str) -> list[str]:
    low, dots, high = word.partition("..")
    if high.startswith("."):
        raise TrackingError(f"{word!r} is no range of a history; write {low}..{high[1:]}")
    if dots:
        begin, end = find(root, low or "HEAD"), find(root, high or "HEAD")
        return git(root, "rev-list", "--first-parent", end.hash, f"^{begin.hash}").split()
    if word == "ALL":
        head = find(root, "HEAD")
        if is_shallow(root):
            raise TrackingError(
                "this clone is shallow and has not ALL commits; `git fetch --unshallow` brings the rest"
            )
        return git(root, "rev-list", "--first-parent", head.hash).split()
    return [find(root, word.removesuffix("^!")).hash]  # asv's users write HEAD^!


def is_repository(root: Path) -> bool:
    """Whether git knows this folder and a commit in it."""
    done = subprocess.run(["git", "rev-parse", "--verify", "-q", "HEAD"], cwd=root, capture_output=True, check=False)
    return done.returncode == 0


def is_shallow(root: Path) -> bool:
    """Whether the history was cut when the repository was cloned."""
    return git(root, "rev-parse", "--is-shallow-repository") == "true"


def changed_files(root: Path) -> list[str]:
    """Files of the working tree that no commit has as they are."""
    return [line[3:] for line in git(root, "status", "--porcelain").splitlines()]


# ---- scratch commits ----


def twin(root: Path, commit: Commit) -> Commit:
    """Another commit with the same tree: what an experiment compares a commit with, since it cannot with itself."""
    return _commit_tree(root, f"{commit.hash}^{{tree}}", commit, f"the same as {commit.short}")


def planted(root: Path, commit: Commit, patch: Path) -> Commit:
    """The commit with a patch applied, made in an index of its own: no branch, index or file of the user changes."""
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(root, "read-tree", commit.hash, env=env)
        try:
            git(root, "apply", "--cached", "--recount", str(patch.resolve()), env=env)
        except TrackingError as error:
            raise TrackingError(f"{patch.name} does not fit {commit.short}: {error}") from None
        tree = git(root, "write-tree", env=env)
    return _commit_tree(root, tree, commit, f"planted: {patch.stem}")


def _commit_tree(root: Path, tree: str, parent_: Commit, subject: str) -> Commit:
    """A commit that only its hash leads to; git forgets it in its own time."""
    commit = git(root, "commit-tree", tree, "-p", parent_.hash, "-m", subject, env=SCRATCH)
    return Commit(commit, subject, subject)
