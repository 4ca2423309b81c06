"""A small project whose commits asv measures in a second: wheels made by hand, an environment that is this Python.

All of asv is real but its installing: its plugin below is an environment that unpacks the wheel beside itself.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "version": 1,
    "project": "fake",
    "repo": ".",
    "dvcs": "git",
    "branches": ["HEAD"],
    "default_benchmark_timeout": 20,
    "env_dir": ".asv/env",
    "results_dir": ".asv/results",
    "html_dir": ".asv/html",
    "benchmark_dir": "benchmarks",
}
BUILT = CONFIG | {
    "environment_type": "plain",
    "plugins": [".plain_environment"],
    "build_command": ["python {build_dir}/setup.py {build_cache_dir}"],
    "install_command": ["in-dir={env_dir} python -m zipfile -e {wheel_file} site"],
    "uninstall_command": ["in-dir={env_dir} return-code=any rm -rf site"],
    "build_cache_size": 20,
}
ENVIRONMENT = """
import os
import sys

from asv import environment, util


class Plain(environment.Environment):
    tool_name = "plain"

    def __init__(self, conf, python, requirements, tagged_env_vars):
        self._python, self._requirements = python, requirements
        super().__init__(conf, python, requirements, tagged_env_vars)

    @classmethod
    def matches(cls, python):
        return True

    def _setup(self):
        os.makedirs(self._path)

    def find_executable(self, executable):
        return sys.executable

    def run(self, args, env=None, **options):
        env = dict(env or os.environ, ASV_PYTHONPATH=os.path.join(self._path, "site"))
        return util.check_output([sys.executable, *args], env=env, **options)
"""
WHEEL = """
import runpy
import sys
import zipfile

runpy.run_path("csrc/fake.py")  # which fails where there is something wrong in it
with zipfile.ZipFile(f"{sys.argv[1]}/fake-1.0-py3-none-any.whl", "w") as wheel:
    wheel.write("csrc/fake.py", "fake.py")
    wheel.writestr("fake-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: fake\\nVersion: 1.0\\n")
    wheel.writestr("fake-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("fake-1.0.dist-info/RECORD", "")
"""
SPEED = """
class Speed:
    version = "1"
    unit = "seconds"
    params = [["tiny", "2b"]]
    param_names = ["model"]

    def setup(self, model):
        import fake
        if not hasattr(fake, "SECONDS"):
            raise NotImplementedError("this commit lacks it")

    def track_speed(self, model):
        import fake
        with open(__file__ + ".log", "a") as log:
            log.write(f"{fake.SECONDS} {model}\\n")
        return fake.SECONDS
"""
SIZE = """
class Size:
    version = "1"
    unit = "bytes"

    def track_size(self):
        import fake
        if fake.BYTES < 0:
            raise RuntimeError("it broke")
        return fake.BYTES
"""


def git(root: Path, *args: str) -> str:
    """What git says, as somebody."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *args], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit(root: Path, subject: str, library: str | None = None) -> str:
    """Commit the working tree, with another text of the library; the hash."""
    if library is not None:
        (root / "csrc" / "fake.py").write_text(library)
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", subject)
    return git(root, "rev-parse", "HEAD")


def make(root: Path) -> Path:
    """The project, with its first commit."""
    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q", "-b", "main")
    (root / "asv.conf.json").write_text(json.dumps(BUILT))
    (root / ".gitignore").write_text("/.asv/\n__pycache__/\n*.log\n")
    (root / "benchmarks").mkdir()
    (root / "benchmarks" / "__init__.py").touch()
    (root / "benchmarks" / "speed.py").write_text(SPEED)
    (root / "benchmarks" / "size.py").write_text(SIZE)
    (root / "csrc").mkdir()
    (root / "setup.py").write_text(WHEEL)
    (root / "plain_environment.py").write_text(ENVIRONMENT)
    commit(root, "first", "SECONDS = 1.0\nBYTES = 100\n")
    return root
