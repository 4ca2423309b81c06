"""One commit in parts: the small project in plain Python, measured by asv and interrupted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asv")

from plain_project import make
from test_history import environment, log_of, results_of

from tracking import commits, models, parts

if TYPE_CHECKING:
    from pathlib import Path

DRIVER = """
import os
import sys
from pathlib import Path
from asv.plugin_manager import plugin_manager
plugin_manager.import_plugin(".plain_environment")  # asv's command does this by itself
from tracking import asv_run, commits, parts, results
from tracking.suite import Suite
selection, broken = sys.argv[1:]
def run(root, args, env):
    if broken and args[args.index("-b") + 1].startswith(f"(?={broken}"):
        raise SystemExit(3)  # as suddenly as Ctrl-C
    return real(root, args, env)
real, asv_run.run = asv_run.run, run
root = Path.cwd()
machine = results.remember_machine("m")
one = parts.Parts(Suite(root), commits.find(root, "HEAD"), machine, selection, quick=True, model="")
sys.stdout.reconfigure(line_buffering=True)
status, _ = one.measure(one.discover(), lambda text: print("said:", text), dict(os.environ))
one.forget()
sys.exit(status)
"""


def measure(root: Path, selection: str, broken: str = "") -> tuple[int, list[str]]:
    """The status, and what was said."""
    command = [sys.executable, "-c", DRIVER, selection, broken]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [line[6:] for line in done.stdout.splitlines() if line.startswith("said: ")]


def test_an_interrupted_run_goes_on_and_a_complete_one_begins_again(tmp_path: Path) -> None:
    root = make(tmp_path / "project")
    head, tiny = commits.find(root, "HEAD"), models.select("tiny")
    notes = root / ".asv" / "bench" / "m"
    parts_of = ["1 of 2 files of benchmarks: size", "2 of 2 files of benchmarks: speed"]
    assert measure(root, tiny, "speed") == (3, parts_of)
    assert results_of(root, head.hash) == {"size.Size.track_size": [100]}
    (note,) = notes.glob(f"{head.short}-*.json")
    assert json.loads(note.read_text()) == ["size"]

    assert measure(root, f"{tiny}.*s", "size") == (3, parts_of[:1]), "another selection goes on behind nothing"
    assert measure(root, f"{tiny}.*e", "speed") == (3, parts_of)
    assert len(list(notes.iterdir())) == 2, "each goes on behind its own"
    resumed = ["size: measured by the run that was interrupted (FRESH=1 measures all again)", parts_of[1]]
    assert measure(root, tiny) == (0, resumed)
    assert (log_of(root), note.exists()) == (["1.0 tiny"], False)
    (left,) = notes.iterdir()
    assert json.loads(left.read_text()) == ["size"]

    assert measure(root, tiny) == (0, parts_of)
    assert log_of(root) == ["1.0 tiny"] * 2


def test_a_part_is_the_selected_benchmarks_of_one_file() -> None:
    found = parts.pattern("load", models.select("tiny", "Load|Decode"))
    names = ["load.Load.track_open('tiny')", "load.Load.track_open('2b')", "generate.Decode.track_token('tiny')"]
    assert [name for name in names if re.search(found, name)] == names[:1]
