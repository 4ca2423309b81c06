"""The last word of a benchmark job: what `scripts/ci/review` found, as one line of its log and as its exit status.

Run as its own step after the artifact was uploaded: a job that ends with the review itself would keep its evidence to
itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WORDS = {
    0: ("notice", "nothing was found to be worse"),
    1: ("error", "something is worse"),
    2: ("error", "could not be measured, or not all of it"),
}


def main(argv: list[str]) -> int:
    """Read the folder that is named; 0, 1 or 2 as the review, and 2 when there is none."""
    folder = Path(argv[0] if argv else "review-artifact")
    try:
        status = json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]
        kind, text = WORDS[status]
    except (OSError, ValueError, KeyError, TypeError) as error:
        status, kind = 2, "error"
        text = f"there is no review in {folder} ({type(error).__name__}); see the steps before"
    # GitHub shows such a line beside the pull request's checks.
    print(f"::{kind} title=Benchmarks::{text}{summary(folder)}")  # noqa: T201
    return int(status)


def summary(folder: Path) -> str:
    """How many benchmarks got which verdict, in one line."""
    try:
        found = json.loads((folder / "review.json").read_text(encoding="utf-8"))["summary"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f": {' '.join(str(found).split())[:200]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
