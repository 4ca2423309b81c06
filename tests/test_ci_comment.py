"""The comment below a pull request: scripts/ci/comment.py against a made-up GitHub."""

from __future__ import annotations

import http.server
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scratch_repository import CI

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

spec = importlib.util.spec_from_file_location("ci_comment", CI / "comment.py")
assert spec is not None
assert spec.loader is not None
comment = importlib.util.module_from_spec(spec)
spec.loader.exec_module(comment)

HEAD = "0123456789abcdef0123456789abcdef01234567"
REPORT = "## Review of 01234567: 1 worse\n\n| | benchmark |\n|---|---|\n| 🔴 worse | `gemv.Gemv.track_gib('i2_s')` |\n"


def archive(report: str | bytes | None = REPORT, **run: Any) -> bytes:
    """An artifact as `scripts/ci/review` leaves one."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("run.json", json.dumps({"number": 7, "head": HEAD, "base": "", "status": 1} | run))
        if report is not None:
            file.writestr("review.md", report)
    return made.getvalue()


class GitHub(http.server.ThreadingHTTPServer):
    """What GitHub knows of one repository, and what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.artifacts = [{"id": 3, "name": "review", "expired": False, "size_in_bytes": 999}]
        self.archive = archive()
        head = {"sha": HEAD, "ref": "change", "repo": {"full_name": "them/core"}}
        self.pull: dict[str, Any] = {
            "number": 7,
            "state": "open",
            "head": head,
            "base": {"repo": {"full_name": "us/core"}},
        }
        self.comments: list[dict[str, Any]] = []
        self.written: list[tuple[str, str]] = []
        self.with_token: dict[str, bool] = {}

    def answer(self, method: str, path: str, data: Any) -> Any:
        prefix, _, rest = path.partition("/repos/us/core/")
        assert not prefix
        if method != "GET":
            self.written.append((method, rest))
        if method == "POST" and rest == "issues/7/comments":
            self.comments.append({"id": 90 + len(self.comments), "user": {"login": "github-actions[bot]"}, **data})
            return self.comments[-1]
        if method == "PATCH":
            (found,) = [one for one in self.comments if rest == f"issues/comments/{one['id']}"]
            found.update(data)
            return found
        name, _, query = rest.partition("?")
        if name == "issues/7/comments":
            first = 100 * (int(query.rpartition("page=")[2]) - 1)
            return self.comments[first : first + 100]
        known = {"actions/runs/5/artifacts": {"artifacts": self.artifacts}, "pulls/7": self.pull}
        return known.get(name)


class Handler(http.server.BaseHTTPRequestHandler):
    server: GitHub

    def handle_any(self) -> None:
        self.server.with_token[self.path] = self.headers["Authorization"] == "Bearer secret"
        if self.path.endswith("actions/artifacts/3/zip"):
            self.send_response(302)
            self.send_header("Location", f"{self.server.url}/storage")
            self.end_headers()
            return
        if self.path == "/storage":
            self.reply(200, self.server.archive)
            return
        size = int(self.headers["Content-Length"] or 0)
        answer = self.server.answer(self.command, self.path, json.loads(self.rfile.read(size)) if size else None)
        self.reply(404 if answer is None else 200, json.dumps(answer).encode())

    do_GET = do_POST = do_PATCH = handle_any  # noqa: N815 - the names that the server looks for

    def reply(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


RUN = {
    "id": 5,
    "event": "pull_request",
    "head_sha": HEAD,
    "head_branch": "change",
    "head_repository": {"full_name": "them/core"},
    "html_url": "https://github.com/us/core/actions/runs/5",
    "run_attempt": 1,
    "pull_requests": [],  # as it is for forks
}


def run_comment(github: GitHub, tmp_path: Path, **run: Any) -> subprocess.CompletedProcess[str]:
    (tmp_path / "event.json").write_text(json.dumps({"workflow_run": RUN | run}), encoding="utf-8")
    env = {
        "PATH": os.environ["PATH"],
        "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
        "GITHUB_REPOSITORY": "us/core",
        "GITHUB_API_URL": github.url,
        "GITHUB_TOKEN": "secret",
    }
    command = [sys.executable, "-I", "-W", "error", str(CI / "comment.py")]  # -I: the standard library is enough
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_first_comment_is_written_and_later_ones_replace_it(github: GitHub, tmp_path: Path) -> None:
    done = run_comment(github, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "commented on pull request 7\n", "")
    (written,) = github.comments
    assert written["body"].startswith(f"{comment.MARKER}\n\n### Benchmarks: something is worse\n")
    assert "actions/runs/5)" in written["body"]
    assert "head / base: lower is better" in written["body"]
    assert written["body"].endswith(REPORT), "a report of ours looks as it was written"

    github.archive = archive("## Review: all the same", status=0)
    done = run_comment(github, tmp_path, run_attempt=2)
    assert (done.returncode, done.stdout) == (0, "brought the comment on pull request 7 up to date\n")
    (written,) = github.comments
    assert "nothing was found to be worse" in written["body"]
    assert "attempt 2" in written["body"]
    assert "1 worse" not in written["body"]
    assert github.written == [("POST", "issues/7/comments"), ("PATCH", "issues/comments/90")]


def test_what_could_not_be_measured_is_told_as_well(github: GitHub, tmp_path: Path) -> None:
    github.archive = archive("## The commits could not be compared\n\nno commit in common", status=2)
    assert run_comment(github, tmp_path).returncode == 0
    assert "### Benchmarks: could not be measured" in github.comments[0]["body"]
    assert "no commit in common" in github.comments[0]["body"]


def test_our_comment_is_found_among_many_and_nobody_elses_is_touched(github: GitHub, tmp_path: Path) -> None:
    def said(number: int, login: str, text: str) -> dict[str, Any]:
        return {"id": number, "user": {"login": login}, "body": text}

    github.comments = [said(n, "someone", f"{comment.MARKER} mine") for n in range(150)]
    github.comments += [said(200, "github-actions[bot]", f"of another workflow {comment.MARKER}")]
    github.comments += [said(201, "github-actions[bot]", f"{comment.MARKER}\n\nold")]
    assert run_comment(github, tmp_path).returncode == 0
    assert github.written == [("PATCH", "issues/comments/201")]
    github.comments.pop()
    assert run_comment(github, tmp_path).returncode == 0
    assert github.written[1:] == [("POST", "issues/7/comments")]


def test_the_token_stays_with_github(github: GitHub, tmp_path: Path) -> None:
    assert run_comment(github, tmp_path).returncode == 0
    assert github.with_token.pop("/storage") is False
    assert github.with_token
    assert all(github.with_token.values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"artifacts": []}, "has no artifact 'review'"),
        ({"artifacts": [{"id": 3, "name": "review", "expired": True, "size_in_bytes": 9}]}, "has no artifact"),
        ({"artifacts": [{"id": 3, "name": "review", "expired": False, "size_in_bytes": 2**30}]}, "bytes, more than"),
        ({"archive": b"PK no archive"}, "the artifact is damaged"),
        ({"archive": archive()[:300]}, "the artifact is damaged"),
        ({"archive": archive(report=None)}, "the artifact has no review.md"),
        ({"archive": archive(report=b"x" * (2**20 + 1))}, "review.md has more than 1048576 bytes"),
        ({"archive": archive(number="7")}, "run.json names no pull request"),
        ({"archive": archive(number=True)}, "run.json names no pull request"),
        ({"archive": archive(number=-7)}, "run.json names no pull request"),
        ({"archive": archive(number="7/../8")}, "run.json names no pull request"),
        ({"archive": archive(number=8)}, "with 404"),
        ({"archive": archive(status=3)}, "run.json has no status"),
        ({"archive": archive(head="f" * 40)}, "another commit than 01234567 was measured"),
    ],
)
def test_an_artifact_that_is_not_as_it_must_be_is_not_posted(
    github: GitHub, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    vars(github).update(change)
    done = run_comment(github, tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("::error title=Comment::")
    assert words in done.stdout
    assert github.written == []


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"state": "closed"}, 0, "pull request 7 is closed"),
        ({"head": {"sha": "f" * 40, "ref": "change", "repo": {"full_name": "them/core"}}}, 0, "was pushed to since"),
        ({"head": {"sha": HEAD, "ref": "other", "repo": {"full_name": "them/core"}}}, 1, "is of another branch"),
        ({"head": {"sha": HEAD, "ref": "change", "repo": {"full_name": "you/core"}}}, 1, "is not that of the run"),
        ({"head": {"sha": HEAD, "ref": "change", "repo": None}}, 1, "is not that of the run"),
        ({"base": {"repo": {"full_name": "you/core"}}}, 1, "is not that of the run"),
    ],
)
def test_a_pull_request_that_is_not_the_runs_gets_no_comment(
    github: GitHub, tmp_path: Path, change: dict[str, Any], status: int, words: str
) -> None:
    github.pull.update(change)
    done = run_comment(github, tmp_path)
    assert (done.returncode, words in done.stdout) == (status, True), done.stdout + done.stderr
    assert github.written == []


def test_a_run_of_a_push_is_not_asked_for_its_artifact(github: GitHub, tmp_path: Path) -> None:
    done = run_comment(github, tmp_path, event="push")
    assert (done.returncode, "was not of a pull request" in done.stdout) == (1, True)
    assert github.with_token == {}


def test_github_that_does_not_answer_is_one_line(github: GitHub, tmp_path: Path) -> None:
    github.url = "http://127.0.0.1:9"
    done = run_comment(github, tmp_path)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")
    assert "did not answer GET" in done.stdout


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("@someone and @org/team", ["@s", "@o"]),
        ("&#64;someone &commat;someone", ["&#64;", "&commat;"]),
        ("@\u200b\u2060@someone \u202eback", ["@s", "\u202e"]),
        ("![](https://evil.example/x.png)", ["](", "https:/"]),
        ("[click][1]\n\n[1]: https://evil.example", ["][", "]:", "https:/"]),
        ("<img src=x> <details open> </script> <!-- bitnet-core: review -->", ["<i", "<d", "</s", "<!"]),
        ("www.evil.example ftp://evil.example MAILTO:a@evil.example", ["www.", "ftp:/", "MAILTO:a"]),
        ("_https://evil.example _www.evil.example_ éhttp://evil.example", ["https:/", "http:/", "www."]),
        ("_GH-12_ égh-12", ["GH-1", "gh-1"]),
        ("#12 us/core#12 GH-12 gh-12", ["#1", "GH-1", "gh-1"]),
        ("```mermaid\n~~~ geojson\n", ["```m", "~~~ g"]),
    ],
)
def test_a_strangers_text_reaches_nobody_and_loads_nothing(text: str, gone: list[str]) -> None:
    made = comment.harmless(text)
    assert [one for one in gone if one in made] == []
    visible = text.replace("\u200b", "").replace("\u202e", "")
    assert made.replace("\u200b", "") == visible, "what can be seen stays as it was"


def test_a_report_that_is_too_long_is_cut_between_lines_and_says_so() -> None:
    line = "| ⚪ same | `gemv.Gemv.track_gib('i2_s', 'avx512vnni', 2)` |\n"
    made = comment.body(line * 3000, 0, RUN)
    assert len(made) < 65_536
    assert made.endswith(f"\n{line}")
    assert "its end is in the artifact alone" in made.partition("| ")[0]
    assert len(comment.body("x" * 200_000, 0, RUN)) < 65_536
    assert "the artifact alone" not in comment.body(line, 0, RUN)


def test_a_report_of_ours_is_not_changed() -> None:
    pytest.importorskip("asv")
    from test_report import made, row

    from tracking import report

    again = report.again_command("0123abcd", "4567cdef", "gemv.Gemv.track_gib('i2_s', 'avx2', 2)")
    rows = [row(word, f"gemv.Gemv.track_gib('{word}')", 1.2, again=again) for word in report.ORDER]
    rows[0].moved = ["page faults +50.0 % (2 to 3 a value)"]
    text = report.markdown(made(*rows))
    assert "<details><summary>" in text
    assert comment.harmless(text) == text
