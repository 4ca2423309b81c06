"""`python -m tracking archive keep|fetch`: results on a branch of their own, off main.

The branch `results` holds what .asv/results does, and shares no commit with main. It is written with git's plumbing:
the working tree, the index and HEAD are never touched, and the branch moves in one step or not at all.

asv numbers the commits of all references by their dates, and those numbers are the axis of its curves. So a commit of
results is dated before all others: it lengthens the axis at its invisible beginning, not in the middle of the curves.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from rich.console import Console

from tracking import commits, merge, report
from tracking.command import EXIT_UNMEASURED, perform
from tracking.errors import TrackingError
from tracking.surroundings import locked

BRANCH = "results"
REF = f"refs/heads/{BRANCH}"
RESULTS = Path(".asv") / "results"
ATTEMPTS = 5  # at moving a branch that others move too
DATE = "@0 +0000"
SOMEBODY = {"NAME": "bitnet-core results", "EMAIL": "results@bitnet-core.invalid"}
MOST_NAMED = 3
EXAMPLE = "example: python -m tracking archive keep --push"


def main(argv: list[str]) -> int:
    """Keep or fetch; 2 when some of it could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m tracking archive", description="Keep results on a branch.", epilog=EXAMPLE
    )
    actions = parser.add_subparsers(dest="action", required=True)
    keep = actions.add_parser("keep", help=f"add the results here to the branch {BRANCH}")
    keep.add_argument("--push", action="store_true", help="push the branch too, merged with what others pushed")
    actions.add_parser("fetch", help=f"add what the branch {BRANCH} has, here and at the remote, to the results here")
    options = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)

    def action() -> int:
        root = Path.cwd()
        commits.find(root, "HEAD")  # or say that this is no repository
        commits.check_root(root)
        with locked(root):
            archive = Archive(root, console)
            return archive.keep(push=options.push) if options.action == "keep" else archive.fetch()

    return perform("archive", console, action, kept="branch and results are as they were")


class Archive:
    """The branch, and the results here.

    Parameters
    ----------
    root : Path
        The repository.
    console : rich.console.Console
        Where it says what it does.
    """

    def __init__(self, root: Path, console: Console) -> None:
        self.root, self.console = root, console
        self.results = root / RESULTS
        self.remote = find_remote(root)
        self.problems: list[str] = []
        self.damaged: set[str] = set()  # files here that are left alone

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        self.console.print(f"archive: {text}", markup=False, style=style or None)

    # ---- what is asked for ----

    def keep(self, *, push: bool) -> int:
        """Commit the results here to the branch."""
        if merge.BENCHMARKS not in self.here():
            raise TrackingError(f"no sound results in {RESULTS}: `make bench` or `make history` measures some")
        for _ in range(ATTEMPTS):
            self.commit()
            if not push:
                if self.remote:
                    self.say(f"to share it: git push {self.remote} {BRANCH}")
                return self.conclude()
            if self.push():
                return self.conclude()
            self.get()
        raise TrackingError(f"others moved {BRANCH} at {self.remote} {ATTEMPTS} times meanwhile: run it again")

    def fetch(self) -> int:
        """Merge the branch into the results here; what is only here stays."""
        reached = self.get()
        tips = self.tips()
        if not tips:
            where = f"here or at {self.remote}" if self.remote else "here, and no remote"
            raise TrackingError(f"no branch {BRANCH} {where}: `make results-keep` makes it")
        here = self.here()
        merged, problems = merge.trees(here, self.kept(tips))
        self.problems += problems
        changed = [path for path in merged if path.endswith(".json") and here.get(path) != merged[path]]
        changed = [path for path in changed if path not in self.damaged]
        for path in changed:
            file = self.results / path
            file.parent.mkdir(parents=True, exist_ok=True)
            report.write_whole(file, merged[path].decode())
        n = sum(map(merge.is_result, changed))
        self.say(f"{n} results files are new or have more than before; `make history` or `make publish` shows them")
        self.tell_left_out(merged)
        status = self.conclude()
        return status if reached else EXIT_UNMEASURED

    def conclude(self) -> int:
        """Name what was left out; the status."""
        for text in self.problems:
            self.say(text, "red")
        return EXIT_UNMEASURED if self.problems else 0

    # ---- results here ----

    def here(self) -> dict[str, bytes]:
        """The files under .asv/results that can be read; the others are named at the end."""
        found = {}
        for file in sorted(self.results.rglob("*.json")):
            path = file.relative_to(self.results)
            if not any(part.startswith(".") for part in path.parts):  # what a killed writer left
                found[path.as_posix()] = file.read_bytes()
        sound = self.sound(found, str(RESULTS))
        self.damaged = found.keys() - sound.keys()
        return sound

    def sound(self, tree: dict[str, bytes], where: str) -> dict[str, bytes]:
        """Without what is damaged."""
        damaged = {path: wrong for path, data in tree.items() if (wrong := merge.damage(path, data))}
        self.problems += [
            f"{path} in {where} {wrong}: skipped; remove it to measure or fetch it again"
            for path, wrong in damaged.items()
        ]
        return {path: data for path, data in tree.items() if path not in damaged}

    def kept(self, tips: list[str]) -> dict[str, bytes]:
        """What commits of the branch hold together."""
        tree: dict[str, bytes] = {}
        for tip in tips:
            tree, problems = merge.trees(tree, self.sound(read(self.root, tip), f"the branch {BRANCH}"))
            self.problems += problems
        return tree

    def tell_left_out(self, tree: dict[str, bytes]) -> None:
        """What asv will not show, which it does not say itself."""
        counts = merge.left_out(tree)
        if counts:
            names = sorted(counts, key=lambda name: (-counts[name], name))
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            shown = ", ".join(f"{name} ({counts[name]} commits)" for name in names[:MOST_NAMED])
            self.say(
                f"of another version than the benchmarks here, so the dashboard lacks them: {shown}{more}", "yellow"
            )

    # ---- the branch ----

    def tips(self) -> list[str]:
        """The commits of the branch here and of the last one seen at the remote; neither contains the other."""
        refs = [REF, *([f"refs/remotes/{self.remote}/{BRANCH}"] if self.remote else [])]
        found = [tip for tip in (resolve(self.root, ref) for ref in refs) if tip]
        return commits.git(self.root, "merge-base", "--independent", *found).split() if found else []

    def commit(self) -> None:
        """Move the branch here to a commit of everything; again from the beginning when somebody else moved it."""
        for place in commits.git(self.root, "worktree", "list", "--porcelain").split("\n\n"):
            if f"branch {REF}" in place.split("\n"):
                raise TrackingError(f"{BRANCH} is checked out in {place.split()[1]}: switch that to another branch")
        for _ in range(ATTEMPTS):
            self.problems = []
            before, tips = resolve(self.root, REF), self.tips()
            merged, problems = merge.trees(self.kept(tips), self.here(), prefer_added=True)
            self.problems += problems
            tree = write(self.root, merged)
            if len(tips) == 1 and commits.git(self.root, "rev-parse", f"{tips[0]}^{{tree}}") == tree:
                after, said = tips[0], f"{BRANCH} has all of it already"
            else:
                after, said = self.commit_tree(tree, tips), f"{sum(map(merge.is_result, merged))} results files kept"
            try:
                commits.git(self.root, "update-ref", "-m", "results: keep", REF, after, before)
            except TrackingError:
                if resolve(self.root, REF) == before:
                    raise
                continue
            self.say(f"{said}, in {after[:8]} on branch {BRANCH}")
            self.tell_left_out(merged)
            return
        raise TrackingError(f"somebody else moves {BRANCH} all the time: run it again")

    def commit_tree(self, tree: str, parents: list[str]) -> str:
        """A commit of a tree, by whoever uses this."""
        env = {"GIT_COMMITTER_DATE": DATE}
        asked = ["git", "var", "GIT_COMMITTER_IDENT"]
        if subprocess.run(asked, cwd=self.root, capture_output=True, check=False).returncode:
            env |= {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in SOMEBODY.items()}
        options = [word for parent in parents for word in ("-p", parent)]
        return commits.git(self.root, "commit-tree", tree, *options, "-m", "results: what was measured", env=env)

    # ---- the remote ----

    def get(self) -> bool:
        """Fetch the remote's branch, if there are both; False when the remote cannot be reached."""
        if not self.remote:
            return True
        try:
            if not commits.git(self.root, "ls-remote", "--heads", self.remote, REF):
                return True
            there = f"refs/remotes/{self.remote}/{BRANCH}"
            commits.git(self.root, "fetch", "--quiet", "--no-tags", self.remote, f"+{REF}:{there}")
        except TrackingError as error:
            self.say(f"{self.remote} cannot be reached, so only what is here is used: {error}", "red")
            return False
        return True

    def push(self) -> bool:
        """Give the remote the branch; False when it has something newer."""
        if not self.remote:
            raise TrackingError(f"no remote to push to: `git remote add origin URL`; {BRANCH} is kept here")
        try:
            commits.git(self.root, "push", "--quiet", self.remote, f"{REF}:{REF}", env={"LC_ALL": "C"})
        except TrackingError as error:
            if any(words in error.details for words in ("(fetch first)", "(non-fast-forward)")):
                return False
            raise TrackingError(f"{BRANCH} is kept here, but could not be pushed: {error}", error.details) from None
        self.say(f"pushed to {self.remote}")
        return True


# ---- git's plumbing ----


def find_remote(root: Path) -> str:
    """The remote that shares the branch: origin, or the only one."""
    names = commits.git(root, "remote").split()
    return "origin" if "origin" in names else names[0] if len(names) == 1 else ""


def resolve(root: Path, ref: str) -> str:
    """The commit of a reference; "" when there is none."""
    done = subprocess.run(
        ["git", "rev-parse", "--verify", "-q", f"{ref}^{{commit}}"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def read(root: Path, commit: str) -> dict[str, bytes]:
    """The files of a commit, which must be one of results."""
    done = subprocess.run(["git", "archive", "--format=tar", commit], cwd=root, capture_output=True, check=False)
    if done.returncode:
        raise TrackingError(f"{commit[:8]} of {BRANCH} could not be read", done.stderr.decode(errors="replace"))
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar if member.isfile()]
        tree = {name: file.read() for name, file in members if file}
    if merge.BENCHMARKS not in tree:
        raise TrackingError(f"the branch {BRANCH} holds something else than results ({merge.BENCHMARKS} is missing)")
    return tree


def write(root: Path, tree: dict[str, bytes]) -> str:
    """A tree object of files, made in an index of its own."""
    with tempfile.TemporaryDirectory(dir=root / ".asv", prefix=".keeping-") as folder:
        files = [Path(folder) / str(n) for n in range(len(tree))]
        for file, data in zip(files, tree.values(), strict=True):
            file.write_bytes(data)
        named = "".join(f"{file}\n" for file in files)
        blobs = commits.git(root, "hash-object", "-w", "--no-filters", "--stdin-paths", given=named).split()
        index = "".join(f"100644 {blob}\t{path}\0" for blob, path in zip(blobs, tree, strict=True))
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        commits.git(root, "update-index", "-z", "--add", "--index-info", env=env, given=index)
        return commits.git(root, "write-tree", env=env)
