"""asv's own command, whose files appear whole: `python tracking/asv_command.py run ...`.

asv writes a results file in place, so a full disk or a cut of power would leave half of one where a whole one was. Here
each is written beside and renamed, a full disk is one line, being told to end is the same as Ctrl-C, and what was never
run is not written down as failed.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

EXIT_FULL = 3  # asv itself ends with 0, 1 or 2
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def main() -> None:
    """Run asv with the arguments of this process."""
    del sys.path[0]  # this folder, whose modules have names of their own
    from asv import main as asv_main  # noqa: PLC0415  # this file is also read for its constants
    from asv import results, util  # noqa: PLC0415

    util.write_json = whole(util.write_json)
    results.Results.get_result_value = told_apart(results.Results.get_result_value)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asv_main.main()
    except KeyboardInterrupt:
        sys.exit("asv: interrupted")
    except OSError as error:
        if error.errno not in FULL and not error.filename:
            raise
        sys.stderr.write(f"asv: {error.strerror}: {error.filename or 'no file named'}\n")
        sys.exit(EXIT_FULL if error.errno in FULL else 1)


def whole(write: Any) -> Any:
    """A function that writes a file, made to write it beside and rename it."""

    def write_whole(path: str, *args: Any, **options: Any) -> None:
        beside = Path(f"{path}.writing-{os.getpid()}")  # not .json: asv reads every file of that name
        try:
            write(str(beside), *args, **options)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    return write_whole


def told_apart(get: Any) -> Any:
    """`asv.results.Results.get_result_value`, made to tell combinations that a file lacks from those that failed.

    asv gives None for both, and writes it down as a failure when it adds others to the file. NaN is its value for what
    was not asked for.
    """

    def get_result_value(self: Any, key: str, params: list[list[str]]) -> list[Any]:
        had = set(itertools.product(*(self.get_result_params(key) or [])))
        row = zip(itertools.product(*params), get(self, key, params), strict=True)
        return [value if values in had else math.nan for values, value in row]

    return get_result_value


if __name__ == "__main__":
    main()
