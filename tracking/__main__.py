"""`python -m tracking COMMAND`: one command a module."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "review": "compare two commits: worse, better, same or cannot tell, for each benchmark",
    "history": "measure a range of commits, and publish their curves",
    "archive": "keep results on a branch of their own, and fetch what others kept there",
    "trust": "how far a review can be trusted: commits without a difference, and planted ones",
}


def main(argv: list[str]) -> int:
    """Run the command that is named first; 2 when there is none."""
    if argv and argv[0] in COMMANDS:
        status: int = importlib.import_module(f"tracking.{argv[0]}").main(argv[1:])
        return status
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    text = "\n".join(["python -m tracking COMMAND [--help]", "", *lines])
    asked = bool(argv) and argv[0] in {"-h", "--help"}
    print(text, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # while it was still being imported
        sys.exit(2)
