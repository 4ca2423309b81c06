"""The experiments: scratch commits leave no trace, plants fit the library as it is, and counts are counted right."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asv")

from tracking import commits, trust
from tracking.errors import TrackingError

ROOT = Path(__file__).resolve().parent.parent
PATCHES = sorted(trust.PLANTS.glob("*.patch"))


def git(root: Path, *args: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *args], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


# ---- scratch commits ----


def traces(root: Path) -> tuple[str, ...]:
    """All that a user has: branches, index, files."""
    files = sorted(
        (str(p.relative_to(root)), p.read_bytes()) for p in root.rglob("*") if ".git" not in p.parts and p.is_file()
    )
    index = (root / ".git" / "index").read_bytes()
    return git(root, "for-each-ref"), git(root, "status", "--porcelain"), repr(index), repr(files)


def test_a_twin_has_the_tree_and_another_name(root: Path) -> None:
    before = traces(root)
    head = commits.find(root, "HEAD")
    twin = commits.twin(root, head)
    assert twin.hash != head.hash
    assert git(root, "rev-parse", f"{twin.hash}^{{tree}}") == git(root, "rev-parse", "HEAD^{tree}")
    assert commits.parent(root, twin).hash == head.hash
    assert commits.twin(root, head) == twin, "a build of it is found again"
    assert traces(root) == before


def test_a_planted_commit_has_the_patch_and_nothing_of_the_tree(root: Path, tmp_path: Path) -> None:
    patch = tmp_path.parent / f"{tmp_path.name}.patch"
    patch.write_text("--- a/a.txt\n+++ b/a.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n")
    (root / "a.txt").write_text("what the user has not committed\n")
    before = traces(root)
    planted = commits.planted(root, commits.find(root, "HEAD"), patch)
    assert git(root, "show", f"{planted.hash}:a.txt") == "one\n2\nthree"
    assert traces(root) == before


def test_a_patch_that_does_not_fit_is_named(root: Path, tmp_path: Path) -> None:
    patch = tmp_path.parent / f"{tmp_path.name}.patch"
    patch.write_text("--- a/a.txt\n+++ b/a.txt\n@@ -1,1 +1,1 @@\n-nine\n+9\n")
    with pytest.raises(TrackingError, match=rf"{patch.name} does not fit"):
        commits.planted(root, commits.find(root, "HEAD"), patch)


# ---- plants ----


def test_each_plant_has_its_patch() -> None:
    assert sorted(plant.patch for plant in trust.TABLE) == [patch.stem for patch in PATCHES]
    assert len(trust.TABLE) * trust.PLANT_REVIEWS >= 60
    for plant in trust.TABLE:
        assert re.search(plant.bench, plant.target)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda path: path.stem)
def test_a_plant_fits_the_library(patch: Path, tmp_path: Path) -> None:
    """When it does not, the library has changed there: make the patch anew."""
    touched = re.findall(r"^\+\+\+ b/(.*)$", patch.read_text(), re.MULTILINE)
    for name in touched:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git(tmp_path, "init", "-q")
    git(tmp_path, "apply", "--recount", str(patch))
    assert touched
    for name in touched:
        text = (tmp_path / name).read_text()
        assert text != (ROOT / name).read_text()
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_the_targets_and_the_twenty_are_benchmarks_that_exist() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "benchmarks").glob("*.py")))
    for plant in trust.TABLE:
        _, cls, method = plant.target.partition("(")[0].split(".")
        assert f"class {cls}(" in text or f"class {cls}:" in text
        assert f"def {method}(" in text
    assert re.search(trust.SAME_BENCH, "generate.Prefill.track_token('tiny', 1, 16)")
    assert not re.search(trust.SAME_BENCH, "generate.Decode.track_token('tiny', 1, 512)")
    assert not re.search(trust.SAME_BENCH, "generate.Decode.track_token('2b', 1, 0)")


# ---- counting ----


@pytest.mark.parametrize(
    ("hits", "n", "expected"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (5, 10, (0.2366, 0.7634)), (57, 60, (0.8630, 0.9829))],
)
def test_wilson_bounds(hits: int, n: int, expected: tuple[float, float]) -> None:
    assert trust.wilson(hits, n) == pytest.approx(expected, abs=1e-4)


def record(kind: str, index: int, **verdicts: str) -> dict[str, Any]:
    common = {"commit": "c" * 40, "cpu": "A", "load": 0.5, "steal": 0.0, "minutes": 1.0, "target": "t"}
    ratios = dict.fromkeys(verdicts, 1.06)
    return common | {"kind": kind, "index": index, "verdicts": verdicts, "ratios": ratios}


def test_the_summary_counts() -> None:
    records = [
        record("same", 0, a="same", b="worse", t="cannot tell", c="same"),
        record("same", 1, a="better", b="same"),
        *[record("kernel-5", i, t="worse" if i else "cannot tell") for i in range(4)],
        record("open-5", 0, t="better"),
        record("memory-2", 0, t="worse"),
    ]
    text = trust.summary(records, commits.Commit("c" * 40, "", ""))
    assert "| wrong verdicts | 2 of 6 |" in text
    assert "| cannot tell | 1 of 6 |" in text
    assert "| all of 5 % (median measured: +6.0 %) | 5 | found | 3 of 5 | 60.0 %" in text
    assert "| kernel-5 (median measured: +6.0 %) | 4 | found | 3 of 4 |" in text
    assert "| memory-2 (median measured: +6.0 %) | 1 | found | 1 of 1 |" in text
    assert "none done yet" in trust.summary(records, commits.Commit("d" * 40, "", ""))


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_no_number_of_reviews_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        trust.parse(["--each", number])
    assert ended.value.code == 2
    assert f"'{number}' is no number of reviews above 0" in capsys.readouterr().err


def test_a_plant_that_was_changed_is_another_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernel-5.patch").write_text("one", encoding="utf-8")
    monkeypatch.setattr(trust, "PLANTS", tmp_path)
    experiment = trust.Experiment("kernel-5", 0, "bench", 3.0, "target")
    before = experiment.digest
    assert replace(experiment, index=1).digest == before
    assert len({before, replace(experiment, budget=1.0).digest, replace(experiment, bench="b").digest}) == 3
    (tmp_path / "kernel-5.patch").write_text("two", encoding="utf-8")
    assert experiment.digest != before


def test_what_is_done_is_not_done_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    carried: list[tuple[str, int]] = []

    def carry_out(_root: Path, commit: commits.Commit, experiment: trust.Experiment, _console: Any) -> dict[str, Any]:
        if len(carried) == 2:
            carried.append(("interrupted", 0))
            raise KeyboardInterrupt
        carried.append((experiment.kind, experiment.index))
        known = {"commit": commit.hash, "digest": experiment.digest}
        return record(experiment.kind, experiment.index, t="worse") | known

    monkeypatch.setattr(trust, "carry_out", carry_out)
    args = ["--only", "same", "kernel-5", "--same", "2", "--each", "1"]
    assert trust.main(args) == 2
    assert "same command goes on" in capsys.readouterr().out
    lines = (root / trust.FILE).read_bytes()
    (root / trust.FILE).write_bytes(lines + b'{"commit": "cut off he')
    assert trust.main(args) == 0
    assert carried == [("same", 0), ("same", 1), ("interrupted", 0), ("kernel-5", 0)]
    kept = [json.loads(line) for line in (root / trust.FILE).read_text().splitlines()]
    assert [(one["kind"], one["index"]) for one in kept] == [("same", 0), ("same", 1), ("kernel-5", 0)]
    assert "| kernel-5 " in (root / trust.FILE).with_suffix(".md").read_text()
    assert trust.main([*args, "--summary", "--budget", "1"]) == 0
    assert "none done yet" in (root / trust.FILE).with_suffix(".md").read_text(), "reviews of another length"
    assert trust.main([*args, "--summary"]) == 0
