"""asv's own command, whose files appear whole: `python tracking/asv_command.py run ...`.

asv writes a results file in place, so a full disk or a cut of power would leave half of one where a whole one was. Here
each is written beside and renamed, a full disk is one line, and being told to end is the same as Ctrl-C.
"""

from __future__ import annotations

import errno
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
    from asv import util  # noqa: PLC0415

    util.write_json = whole(util.write_json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asv_main.main()
    except KeyboardInterrupt:
        sys.exit("asv: interrupted")
    except OSError as error:
        if error.errno not in FULL:
            raise
        sys.stderr.write(f"asv: {error.strerror}: {error.filename or 'no file named'}\n")
        sys.exit(EXIT_FULL)


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


if __name__ == "__main__":
    main()
