"""Put the review of a pull request into one comment below it, and keep that comment current.

Run by benchmark-comment.yml after a benchmark run ended, with a token that may write comments. The run itself had code
of the pull request in it, so everything it left is a stranger's: the number of the pull request is believed only if
GitHub agrees that this pull request is at the commit that was measured, sizes are bounded, and the text can mention
nobody and load nothing. Nothing of the pull request is checked out or run. Needs the standard library alone.

What it reads: GITHUB_EVENT_PATH (the event `workflow_run`), GITHUB_REPOSITORY, GITHUB_API_URL, GITHUB_TOKEN.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import Any

ARTIFACT = "review"
MARKER = "<!-- bitnet-core: review -->"  # by which the comment is found again; no text of a stranger can hold it
AUTHOR = "github-actions[bot]"
HEADINGS = {
    0: "Benchmarks: nothing was found to be worse",
    1: "Benchmarks: something is worse",
    2: "Benchmarks: could not be measured, or not all of it",
}
MOST_ARCHIVE = 20 * 2**20  # bytes of the artifact
MOST_RUN = 4096  # of run.json
MOST_REPORT = 2**20  # of review.md
MOST_COMMENT = 60_000  # characters; GitHub refuses 65,536
SECONDS = 30  # for an answer of GitHub

# What would reach out of the comment, and where a space without width takes its meaning away.
NOTHING = "\u200b"
HARMLESS = (
    (r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", ""),  # what cannot be seen
    (r"&(?=#?\w+;)", "&" + NOTHING),  # entities, which could stand for any of the following
    (r"<(?!/?details>|/?summary>|br>)(?=[A-Za-z/!?])", "<" + NOTHING),  # HTML but what a report is folded with
    (r"@(?=\w)", "@" + NOTHING),  # mentions
    (r"#(?=\d)|(?i:(?<![A-Za-z0-9])GH-)(?=\d)", r"\g<0>" + NOTHING),  # other issues
    (r"\](?=[(\[:])", "]" + NOTHING),  # links, images, and where they lead
    # What becomes a link by itself, also behind "_", which is no edge of a word.
    (r"(?i)(?<![A-Za-z0-9])(?:(?:https?|ftp|mailto|xmpp):|www(?=\.))", r"\g<0>" + NOTHING),
    (r"(?i)(?:`{3,}|~{3,})(?=[ \t]*(?:mermaid|geojson|topojson|stl|math))", r"\g<0>" + NOTHING),  # drawings
)


class CommentError(Exception):
    """Why there is no comment; one line."""


class Superseded(Exception):  # noqa: N818 - it is no error
    """The pull request has moved on since, or is closed: a newer run speaks for it."""


def main() -> int:
    """Comment; 1 when that was not possible."""
    try:
        event = json.loads(Path(os.environ["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
        github = GitHub(os.environ["GITHUB_API_URL"], os.environ["GITHUB_REPOSITORY"], os.environ["GITHUB_TOKEN"])
        say(comment(github, event["workflow_run"]))
    except Superseded as why:
        say(f"no comment: {why}")
    except CommentError as error:
        say(f"::error title=Comment::{error}")
        return 1
    return 0


def say(text: str) -> None:
    """One line of the log."""
    print(text)  # noqa: T201


def comment(github: GitHub, run: dict[str, Any]) -> str:
    """Read what a run left, check it, and post it; what was done."""
    if run["event"] != "pull_request":
        raise CommentError(f"run {run['id']} was not of a pull request")
    found, report = read_artifact(github.artifact(run["id"]))
    number, status = check_run(found, run["head_sha"])
    check_pull(github.call("GET", f"pulls/{number}"), run, github.repository)
    return post(github, number, body(report, status, run))


# ---- what a stranger may have written ----


def read_artifact(data: bytes) -> tuple[dict[str, Any], str]:
    """run.json and review.md of an artifact; nothing else of it is looked at, and nothing is written to the disk."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = json.loads(read_member(archive, "run.json", MOST_RUN))
            report = read_member(archive, "review.md", MOST_REPORT).decode("utf-8", "replace")
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
        raise CommentError(f"the artifact is damaged ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise CommentError("run.json is no object")
    return found, report


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A file of the archive, unless it is larger than it may be, whatever its header says."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise CommentError(f"the artifact has no {name}") from None
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise zipfile.BadZipFile
    with archive.open(info) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise CommentError(f"{name} has more than {most} bytes")
    return data


def check_run(found: dict[str, Any], head_sha: str) -> tuple[int, int]:
    """The number of the pull request and the status of the review, of the commit that GitHub says was run."""
    number, status = found.get("number"), found.get("status")
    if type(number) is not int or not 0 < number < 2**31:
        raise CommentError("run.json names no pull request")
    if type(status) is not int or status not in HEADINGS:
        raise CommentError("run.json has no status of a review")
    if found.get("head") != head_sha:
        raise CommentError(f"another commit than {head_sha[:8]} was measured")
    return number, status


def check_pull(pull: dict[str, Any], run: dict[str, Any], repository: str) -> None:
    """Whether GitHub agrees that the run was this pull request's.

    The event lists no pull requests when they come from a fork, so the pull request is asked where its head is.
    """
    head, source = pull["head"], (run.get("head_repository") or {}).get("full_name")
    if pull["base"]["repo"]["full_name"] != repository or (head.get("repo") or {}).get("full_name") != source:
        raise CommentError(f"pull request {pull['number']} is not that of the run")
    if head["ref"] != run["head_branch"]:
        raise CommentError(f"pull request {pull['number']} is of another branch than the run")
    if pull["state"] != "open":
        raise Superseded(f"pull request {pull['number']} is closed")
    if head["sha"] != run["head_sha"]:
        raise Superseded(f"pull request {pull['number']} was pushed to since")


def harmless(text: str) -> str:
    """A stranger's Markdown without mentions, images, links and HTML; it looks the same otherwise."""
    for pattern, instead in HARMLESS:
        text = re.sub(pattern, instead, text)
    return text


def body(report: str, status: int, run: dict[str, Any]) -> str:
    """The comment: our own lines first, since what follows may leave anything open."""
    url = run["html_url"]
    where = f"{run['head_sha'][:8]}, attempt {int(run['run_attempt'])}: [log, and the artifact with all rounds]({url})"
    lines = [MARKER, f"### {HEADINGS[status]}", f"{where}. Ratios are head / base: lower is better everywhere."]
    text = harmless(report)
    room = MOST_COMMENT - len("\n\n".join(lines)) - 100
    if len(text) > room:
        lines.append("The report is longer than a comment may be: its end is in the artifact alone.")
        text = text[: text.rfind("\n", 0, room) + 1] or text[:room]
    return "\n\n".join([*lines, text])


# ---- GitHub ----


class GitHub:
    """The few calls of GitHub's REST interface that a comment needs, for one repository."""

    def __init__(self, url: str, repository: str, token: str) -> None:
        self.url, self.repository, self.token = url.rstrip("/"), repository, token

    def call(self, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
        """One call; its answer is JSON."""
        answer = self._open(method, f"{self.url}/repos/{self.repository}/{path}", data)
        try:
            return json.loads(answer)
        except ValueError:
            raise CommentError(f"GitHub's answer to {method} {path} is no JSON") from None

    def artifact(self, run_id: int) -> bytes:
        """The archive that a run uploaded last."""
        listed = self.call("GET", f"actions/runs/{int(run_id)}/artifacts?name={ARTIFACT}&per_page=100")["artifacts"]
        there = [one for one in listed if one["name"] == ARTIFACT and not one["expired"]]
        if not there:
            raise CommentError(f"run {run_id} has no artifact {ARTIFACT!r}: it ended before one was uploaded")
        newest = max(there, key=lambda one: one["id"])
        if newest["size_in_bytes"] > MOST_ARCHIVE:
            raise CommentError(f"the artifact has {newest['size_in_bytes']} bytes, more than {MOST_ARCHIVE}")
        path = f"actions/artifacts/{int(newest['id'])}/zip"
        return self._open("GET", f"{self.url}/repos/{self.repository}/{path}", None)

    def _open(self, method: str, url: str, data: dict[str, Any] | None) -> bytes:
        encoded = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(url, data=encoded, method=method)  # noqa: S310 - GitHub's address
        request.add_header("Accept", "application/vnd.github+json")
        request.add_header("X-GitHub-Api-Version", "2022-11-28")
        # Archives lie on another host, which has no business with the token: it does not go along.
        request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                found: bytes = answer.read(MOST_ARCHIVE + 1)
        except urllib.error.HTTPError as error:
            raise CommentError(f"GitHub answered {method} {request.selector} with {error.code}") from None
        except OSError as error:
            raise CommentError(f"GitHub did not answer {method} {request.selector}: {error}") from None
        if len(found) > MOST_ARCHIVE:
            raise CommentError(f"GitHub's answer to {method} {request.selector} is too long")
        return found


def post(github: GitHub, number: int, text: str) -> str:
    """Change our comment below the pull request, or write the first one."""
    ours = find(github, number)
    if ours is None:
        github.call("POST", f"issues/{number}/comments", {"body": text})
        return f"commented on pull request {number}"
    github.call("PATCH", f"issues/comments/{ours}", {"body": text})
    return f"brought the comment on pull request {number} up to date"


def find(github: GitHub, number: int) -> int | None:
    """The comment with our marker, unless somebody else wrote it."""
    page = 1
    while True:
        comments = github.call("GET", f"issues/{number}/comments?per_page=100&page={page}")
        for one in comments:
            if one["user"]["login"] == AUTHOR and one["body"].startswith(MARKER):
                return int(one["id"])
        if len(comments) < 100:
            return None
        page += 1


if __name__ == "__main__":
    sys.exit(main())
