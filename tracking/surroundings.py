"""What a measurement runs in: variables, a lock, and how it is ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracking.errors import TrackingError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = Path(".asv") / "lock"
IGNORED = ("BITNET_ISA", "BITNET_THREADS")  # a series means the machine's best kernels, and names its threads


def asv_environment(root: Path) -> dict[str, str]:
    """All variables that asv, its builds and the workers run with."""
    env = {name: value for name, value in os.environ.items() if name not in IGNORED}
    # asv looks for python3.X on the path: it must find the one that runs this.
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    constraints = root / "constraints-bench.txt"
    if constraints.is_file():
        # Build requirements are pinned too. As a URL, because pip splits the variable at spaces.
        env["PIP_CONSTRAINT"] = constraints.as_uri()
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    if "CC" not in env and not shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]):
        env["CC"] = "cc"  # as scripts/bootstrap does
    return env


@contextlib.contextmanager
def surroundings(root: Path) -> Iterator[None]:
    """The variables that builds and workers see; ours are as before when it ends."""
    before, wanted = dict(os.environ), asv_environment(root)
    os.environ.clear()
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Alone on this checkout: asv's environment has one user, and two measurements disturb each other.

    The system frees the lock of a process that ends, however it ends, with those that it handed the lock down to.
    """
    path = root / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().strip() or "unknown"
            raise TrackingError(
                f"another measurement runs in this checkout (process {who}): wait for its end"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        os.set_inheritable(file.fileno(), True)
        yield


@contextlib.contextmanager
def ended_gently() -> Iterator[None]:
    """Being told to end is the same as Ctrl-C."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
