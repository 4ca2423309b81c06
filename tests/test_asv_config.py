"""asv.conf.json: asv takes unknown keys without a word, and its defaults do not build this project."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Every key that asv 0.6.6 reads.
KNOWN = {
    *("version", "project", "project_url", "repo", "repo_subdir", "dvcs", "branches", "show_commit_url"),
    *("pythons", "environment_type", "matrix", "include", "exclude", "conda_channels", "conda_environment_file"),
    *("build_command", "install_command", "uninstall_command", "build_cache_size", "install_timeout"),
    *("benchmark_dir", "default_benchmark_timeout", "launch_method", "env_dir", "results_dir", "html_dir"),
    *("hash_length", "regressions_first_commits", "regressions_thresholds", "plugins"),
}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    text = (ROOT / "asv.conf.json").read_text(encoding="utf-8")
    return json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))  # comments stand on lines of their own


@pytest.fixture(scope="module")
def constraints() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (ROOT / "constraints-bench.txt").read_text(encoding="utf-8").splitlines():
        requirement = line.partition("#")[0].partition(";")[0].strip()
        if requirement:
            name, equal, version = requirement.partition("==")
            assert equal, f"{line!r} does not pin"
            found.setdefault(name, set()).add(version)
    return found


def test_every_key_is_one_that_asv_reads(config: dict[str, Any]) -> None:
    assert set(config) <= KNOWN


def test_asv_agrees_on_the_keys() -> None:
    asv_config = pytest.importorskip("asv.config")
    read_by_others = {"version", "project_url", "build_cache_size"}  # not defaults of the class
    assert set(vars(asv_config.Config())) <= KNOWN
    assert KNOWN - set(vars(asv_config.Config())) <= read_by_others


def test_the_repository_is_measured_where_it_lies(config: dict[str, Any]) -> None:
    assert config["repo"] == "."
    assert config["dvcs"] == "git"
    assert config["branches"] == ["HEAD"], "a pull request's checkout has no local main"
    assert (ROOT / config["benchmark_dir"] / "__init__.py").is_file()


def test_what_is_generated_lies_under_dot_asv(config: dict[str, Any]) -> None:
    for key in ("env_dir", "results_dir", "html_dir"):
        assert config[key].startswith(".asv/")
    assert "/.asv/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_commands_avoid_what_breaks(config: dict[str, Any]) -> None:
    (build,) = config["build_command"]
    assert "--no-deps" in build, "else numpy's wheel lies beside ours and asv cannot choose"
    assert "--no-build-isolation" in build, "else a build needs the network"
    (install,) = config["install_command"]
    assert "--force-reinstall" not in install, "else every commit installs numpy again"
    assert "-c {conf_dir}/constraints-bench.txt" in install
    assert install.startswith("in-dir={env_dir} "), "else pip sees the checkout"
    assert config["uninstall_command"] == ["return-code=any python -m pip uninstall -y {project}"]


def test_the_environment_is_made_of_pypi_alone(config: dict[str, Any]) -> None:
    assert config["environment_type"] == "virtualenv"
    assert "pythons" not in config, "the Python that runs asv is the one that is there"
    assert not {"conda_channels", "conda_environment_file"} & set(config)


def test_processes_start_the_way_peakmem_needs(config: dict[str, Any]) -> None:
    assert config["launch_method"] == "spawn"
    assert config["build_cache_size"] >= 20, "two is too few for a history"
    assert config["default_benchmark_timeout"] >= 300


def test_asv_runner_is_pinned_where_it_does_not_split_series(
    config: dict[str, Any], constraints: dict[str, set[str]]
) -> None:
    # Any other requirement in the matrix becomes part of each series' name.
    assert config["matrix"] == {"req": {"pip+asv_runner": [f"=={v}" for v in constraints["asv_runner"]]}}


def test_what_influences_a_measurement_is_pinned(constraints: dict[str, set[str]]) -> None:
    assert set(constraints) >= {"numpy", "cffi", "psutil", "gguf", "setuptools", "asv_runner"}


def test_asv_itself_is_pinned() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"asv==0.6.6"' in text, "its files, its version of this configuration and what we read of them change"


def test_plugins_are_names_that_asv_does_not_ignore(config: dict[str, Any]) -> None:
    assert config["plugins"] == [".tracking.dashboard.publisher"]
    for name in config["plugins"]:
        assert name.startswith("."), "else asv looks among its own, and says nothing when it finds none"
        assert (ROOT / (name[1:].replace(".", "/") + ".py")).is_file()


def test_what_asv_loads_for_every_command_is_light() -> None:
    """`asv run` loads the plugin too: it must need nothing that only pages need."""
    pytest.importorskip("asv")
    code = "import sys, asv.main; before = set(sys.modules); import tracking.dashboard.publisher; "
    code += (
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; print(*new - sys.stdlib_module_names)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["tracking"]


def test_no_place_or_index_of_one_machine_is_named() -> None:
    for name in (
        "asv.conf.json",
        "constraints-bench.txt",
        "Makefile",
        "scripts/bootstrap",
        "scripts/bench.py",
        ".ci/run",
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"index-url|find-links|/opt/|/root/|/home/|/work/", text), name
