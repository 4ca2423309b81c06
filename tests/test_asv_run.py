"""Running asv: files that appear whole, the last word of a log, and the end of an interrupted run."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracking import asv_command, asv_run
from tracking.errors import TrackingError

ROOT = Path(__file__).resolve().parent.parent


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a-env.json"

    def write(name: str, text: str, *, fail: bool = False) -> None:
        Path(name).write_text(text[:3] if fail else text)
        assert not name.endswith(".json")  # asv reads all of those
        if fail:
            raise OSError(errno.ENOSPC, "No space left on device", name)

    whole = asv_command.whole(write)
    whole(str(path), "first")
    with pytest.raises(OSError, match="No space left"):
        whole(str(path), "second", fail=True)
    assert path.read_text() == "first"
    with path.open() as reader:
        whole(str(path), "third")
        assert reader.read() == "first"  # who reads it meanwhile has the old one, whole
    assert path.read_text() == "third"
    assert list(tmp_path.iterdir()) == [path]


def test_asv_writes_its_files_that_way(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: asv's own writing would leave half of the file."""
    pytest.importorskip("asv")
    (tmp_path / "asv.conf.json").write_text('{"version": 1, "project": "p", "repo": "."}')
    home = tmp_path / "home"
    home.mkdir()
    machine = home / ".asv-machine.json"
    machine.write_text(before := json.dumps({"version": 1, "other": {"machine": "other", "cpu": "x" * 2000}}))
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(asv_run.COMMAND), "machine", "--yes", "--machine", "m", "--cpu", "y"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert machine.read_text() == before
    assert list(home.iterdir()) == [machine]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asv_run, "COMMAND", tmp_path / "full.py")
    (tmp_path / "full.py").write_text(f"import sys; print('asv: it is full'); sys.exit({asv_command.EXIT_FULL})")
    with pytest.raises(
        TrackingError, match=r"the disk is full \(\d+ MB free in .*make room, and run it again"
    ) as error:
        asv_run.run(tmp_path, [], log=tmp_path / "logs" / "a.log")
    assert error.value.details == "asv: it is full"


def test_logs_grow_and_the_status_is_asvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asv_run, "COMMAND", tmp_path / "echo.py")
    (tmp_path / "echo.py").write_text(
        "import os, sys; print(*sys.argv[1:], os.getcwd(), flush=True); sys.stderr.write('said\\n'); sys.exit(7)"
    )
    log = tmp_path / "a.log"
    assert asv_run.run(tmp_path, ["one", "two"], log=log) == 7
    assert asv_run.run(tmp_path, ["three"], log=log) == 7
    assert log.read_text() == f"one two {tmp_path}\nsaid\nthree {tmp_path}\nsaid\n"


def test_an_interrupted_run_ends_asv_once_and_waits_for_it(tmp_path: Path) -> None:
    """SIGTERM to the caller: the stand-in for asv takes a moment to end its own work, and is waited for."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "pathlib.Path('began').touch()\n"
        "try:\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    time.sleep(0.3)\n    pathlib.Path('ended').write_text('gently')\n"
    )
    code = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from tracking import asv_run; from tracking.command import perform\n"
        "asv_run.COMMAND = Path('slow.py')\n"
        "sys.exit(perform('test', Console(), lambda: asv_run.run(Path.cwd(), []), kept='all is kept'))"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    for _ in range(1000):
        if (tmp_path / "began").exists():
            break
        time.sleep(0.05)
    caller.send_signal(signal.SIGTERM)
    said, _ = caller.communicate(timeout=60)
    assert caller.returncode == 2
    assert said == "test: interrupted; all is kept\n"
    assert (tmp_path / "ended").read_text() == "gently"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("building\nerror: no such header\nnote: see above\n", "error: no such header"),
        ("a.c:3: fatal error: x.h: No such file\ncompilation terminated.\n", "a.c:3: fatal error: x.h: No such file"),
        (
            "Traceback (most recent call last):\n  x\nModuleNotFoundError: No module named 'y'\n\n",
            "ModuleNotFoundError: No module named 'y'",
        ),
        ("one\ntwo\n ··· \n", "two"),
        # What pip says below the reason names no cause.
        (
            "a.c:1:1: error: b\na.c:2:1: error: c\nerror: command 'gcc' failed\nERROR: Failed to build x",
            "a.c:1:1: error: b",
        ),
        (
            "error: [Errno 2] No such file: 'cc'\nERROR: Failed building wheel for x",
            "error: [Errno 2] No such file: 'cc'",
        ),
        ("", "it gave no reason"),
    ],
)
def test_the_last_word_says_why(text: str, word: str) -> None:
    assert asv_run.last_word(text) == word
