"""What all commands end with: a status, and one line where a person has to do something."""

from __future__ import annotations

import argparse
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
    except (BrokenPipeError, SystemExit):  # nobody reads on; rich makes the second of the first, with status 1
        pass
    except Exception as error:  # noqa: BLE001  # whatever it is: Python's own status, 1, would mean "worse"
        if isinstance(error, OSError) and (error.filename or error.errno in FULL):
            where = error.filename or "the working folder"
            went_on = f"; {kept}" if error.errno in FULL else ""
            console.print(f"{name}: {error.strerror}: {where}{went_on}", markup=False, style="red")
        else:
            console.print(traceback.format_exc(), markup=False, style="dim")
            console.print(
                f"{name}: a mistake of bitnet-core itself: please report the lines above; {kept}", style="red"
            )
    return EXIT_UNMEASURED
