"""What all commands end with: a status, and one line where a person has to do something."""

from __future__ import annotations

import argparse
import errno
import traceback
from typing import TYPE_CHECKING

from tracking.asv_command import FULL
from tracking.errors import TrackingError
from tracking.surroundings import ended_gently

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

EXIT_UNMEASURED = 2


def amount(text: str, unit: str, below: float, bounds: str) -> float:
    """A number of some unit that something can be measured in, as an option of a command has it."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < below:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of {unit} {bounds}")
    return value


def perform(name: str, console: Console, action: Callable[[], int], *, kept: str) -> int:
    """Do it and end with its status; what a person can mend is one line and status 2."""
    try:
        with ended_gently():
            return action()
    except KeyboardInterrupt:
        console.print(f"{name}: interrupted; {kept}", markup=False)
    except TrackingError as error:
        if error.details:
            console.print(error.details, markup=False, style="dim")
        console.print(f"{name}: {error}", markup=False, style="red")
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = error.filename or "the working folder"
        full = "" if error.errno == errno.EROFS else f"; {kept}"
        console.print(f"{name}: {error.strerror}: {where}{full}", markup=False, style="red")
    except Exception:  # noqa: BLE001  # whatever it is: Python's own status, 1, would mean "worse"
        console.print(traceback.format_exc(), markup=False, style="dim")
        console.print(f"{name}: a mistake of bitnet-core itself: please report the lines above; {kept}", style="red")
    return EXIT_UNMEASURED
