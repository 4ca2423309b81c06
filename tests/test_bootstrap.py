"""scripts/bootstrap: what it says when something is missing, and when it has nothing to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import plain_project
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("dirname", "sed", "cat", "find", "sort", "xargs", "cksum", "rm", "mv", "sh")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that bootstrap looks at, in a folder whose name has a space."""
    folder = tmp_path / "a checkout"
    for name in ("scripts/bootstrap", "pyproject.toml", "setup.py", "csrc/base.h"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(checkout: Path, tools: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(tools), "TMPDIR": str(checkout.parent), **env}
    command = [shutil.which("sh") or "/bin/sh", str(checkout / "scripts" / "bootstrap"), *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def tools_with(tmp_path: Path, **more: str) -> Path:
    """A search path with the ordinary tools and those that are named; each is a script of one line."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, line in more.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


# A Python that is there, but lacks the parts that distributions put into packages of their own.
BARE_PYTHON = f"""exec '{sys.executable}' -I -c 'import sys, sysconfig
class NoEnsurepip:
    def find_spec(self, name, path=None, target=None):
        if name == "ensurepip":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoEnsurepip())
sysconfig.get_path = lambda name: "/nowhere"
sysconfig.get_config_var = lambda name: "cc"
exec(sys.argv[-1])' "$@" """


def test_each_missing_thing_has_one_line_that_names_the_package(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout, tools_with(tmp_path, python3=BARE_PYTHON), "test")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for what, package in (
        ("git", "apt install git"),
        ("make", "apt install make"),
        ("venv", f"apt install python{version}-venv"),
        ("Python.h", f"apt install python{version}-dev"),
        ("C compiler", "apt install gcc libc6-dev"),
    ):
        (line,) = [line for line in lines if f" {what}" in line.partition(". Install")[0]]
        assert package in line
        assert "dnf install" in line
        assert "macOS" in line
    assert len(lines) == 5
    assert not (checkout / ".venv").exists()


def test_no_python_at_all(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout, tools_with(tmp_path, git="exit", make="exit"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no Python 3.10 or newer" in done.stderr


def test_a_python_or_compiler_that_is_named_must_work(checkout: Path, tmp_path: Path) -> None:
    tools = tools_with(tmp_path, git="exit", make="exit", old="exit 1")
    done = run(checkout, tools, PYTHON="old")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "PYTHON=old" in done.stderr
    done = run(checkout, tools, PYTHON=sys.executable, CC="old -m64")
    assert done.returncode == 1
    assert "tried: old -m64" in done.stderr


def test_nothing_is_done_when_nothing_changed(checkout: Path, tmp_path: Path) -> None:
    tools = tools_with(tmp_path)
    stamp = made(checkout, tools)
    before = stamp.stat().st_mtime_ns
    done = run(checkout, tools, "test")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changed", "said"), [("pyproject.toml", "installing"), ("csrc/base.h", "building the extension")]
)
def test_a_change_is_seen(checkout: Path, tmp_path: Path, changed: str, said: str) -> None:
    tools = tools_with(tmp_path, git="exit", make="exit", cc="exit")
    made(checkout, tools)
    with (checkout / changed).open("a", encoding="utf-8") as file:
        file.write("\n")
    done = run(checkout, tools, "test", CC="cc")
    assert said in done.stdout
    assert done.returncode == 1, "the stand-in for Python neither installs nor builds"


def test_what_was_interrupted_is_done_again(checkout: Path, tmp_path: Path) -> None:
    tools = tools_with(tmp_path, git="exit", make="exit", cc="exit")
    made(checkout, tools).unlink()  # it is written last
    assert "installing" in run(checkout, tools, "test", CC="cc").stdout


def test_another_extra_is_installed(checkout: Path, tmp_path: Path) -> None:
    tools = tools_with(tmp_path, git="exit", make="exit", cc="exit")
    made(checkout, tools)
    assert "with: test lint" in run(checkout, tools, "lint", CC="cc").stdout


def made(checkout: Path, tools: Path) -> Path:
    """An environment as bootstrap leaves it: a Python that answers questions and installs nothing, and the stamp."""
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    # -m and setup.py are refused, -c and a script on standard input are passed on.
    python.write_text(
        f'#!/bin/sh\ncase "$1" in -c|-) exec "{sys.executable}" "$@" ;; *) exit 1 ;; esac\n', encoding="utf-8"
    )
    python.chmod(0o755)
    (checkout / "bitnet_core").mkdir()
    (checkout / "bitnet_core" / "_native.abi3.so").touch()
    # The checksums are those that its own functions find.
    script = (checkout / "scripts" / "bootstrap").read_text(encoding="utf-8")
    functions = script[: script.index("\n# Which interpreter")].replace(
        'cd -- "$(dirname -- "$0")/.."', f'cd "{checkout}"'
    )
    env = {"PATH": str(tools), "CC": "cc"} if os.path.lexists(tools / "cc") else {"PATH": str(tools)}
    subprocess.run(
        [shutil.which("sh") or "/bin/sh", "-c", f'{functions}\nwrite_stamp "$(sum_project)" "$(sum_native)" test\n'],
        env=env,
        check=True,
    )
    return checkout / ".venv" / "bootstrap"


@pytest.mark.parametrize("target", ["bench", "check-bench"])
def test_make_passes_on_quotes(tmp_path: Path, target: str) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor word; do printf "<%s>" "$word"; done\n', encoding="utf-8")
    python.chmod(0o755)
    only = "Decode.*'tiny', 1|\"a  b\""
    command = [make, "-s", "-C", str(ROOT), target, f"PY={python}", "BOOTSTRAP=true", f"ONLY={only}", "MACHINE=it's"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"<--only><{only}>" in done.stdout
    assert target != "bench" or "<--machine><it's>" in done.stdout


def test_preview_publishes_what_is_newer_than_the_pages(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    shutil.copy(ROOT / "Makefile", tmp_path / "Makefile")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "python $*"\n', encoding="utf-8")
    python.chmod(0o755)
    sources = (".asv/results/m/0123abcd-py.json", "asv.conf.json", "tracking/dashboard/page/overview.css")
    others = (".asv/results/benchmarks.json", "tracking/dashboard/__pycache__/plots.pyc", ".asv/html/index.json")
    others += ("tracking/jumps.py", "tracking/results.py", "bitnet_core/targets.py")
    for name in sources + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    plain_project.git(tmp_path, "init", "-q")
    head = plain_project.commit(tmp_path, "a subject")
    (tmp_path / ".asv/published").write_text(head + "\n", encoding="utf-8")

    def age() -> None:
        for path in tmp_path.rglob("*"):
            os.utime(path, (1000, 1000))

    def preview() -> list[str]:
        command = [make, "-s", "-C", str(tmp_path), "preview", f"PY={python}", "BOOTSTRAP=true"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    shown = ["python -m asv preview --browser"]
    said = "preview: something is newer than the pages; publishing them anew"
    published = [said, "python tracking/asv_command.py publish --no-pull", *shown]
    age()
    assert preview() == shown
    (tmp_path / others[1]).touch()  # Python's own
    assert preview() == shown
    for name in sources:
        (tmp_path / name).touch()
        assert preview() == published, name
        age()
    (tmp_path / sources[0]).unlink()
    assert preview() == published, "what was removed stands in the pages"
    age()
    plain_project.commit(tmp_path, "another")
    assert preview() == published, "asv draws the commits of HEAD"
    assert preview() == shown
    (tmp_path / ".asv/html/index.json").unlink()  # nothing was published, or it was not done
    assert preview() == published
