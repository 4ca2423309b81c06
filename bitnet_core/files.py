"""Files that appear whole or not at all, and the folder where generated ones are kept."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["AtomicFile", "cache_dir", "check_destination", "check_free_space", "locked_folder"]

# A leading dot hides the temporary file from globs such as models/**/*.gguf; the suffix tells it from every real one.
_TEMP_SUFFIX = ".tmp"
_TEMP_NAME = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}" + re.escape(_TEMP_SUFFIX), re.DOTALL)


class AtomicFile:
    """A binary file that takes its name only when it is complete.

    The bytes go to a temporary file in the folder of ``path``; leaving the ``with`` block normally flushes them to
    the disk and renames the file over ``path``, any exception (also KeyboardInterrupt) removes it.

    Parameters
    ----------
    path : str or os.PathLike
        The final name. A symbolic link is followed, so that the link stays.

    Raises
    ------
    FileNotFoundError
        The folder does not exist.
    OSError
        ``path`` exists and is not a regular file: it would be replaced, and nobody wants that of ``/dev/null``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_destination(path)
        self.path = Path(os.path.realpath(path))
        self.temp = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}{_TEMP_SUFFIX}")
        self.file: BinaryIO = self.temp.open("xb")

    def __enter__(self) -> BinaryIO:
        return self.file

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    def commit(self) -> None:
        """Flush to the disk and take the final name."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            self.temp.replace(self.path)
        except BaseException:
            self.discard()
            raise
        _sync_folder(self.path.parent)

    def discard(self) -> None:
        """Close and remove the temporary file; nothing happens to ``path``."""
        try:
            self.file.close()  # writes what is buffered, which a full disk refuses
        finally:
            self.temp.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the system lets a folder be opened."""
    if os.name != "posix":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_destination(path: str | os.PathLike[str]) -> None:
    """Raise the errors that :class:`AtomicFile` raises for ``path``, before the work whose result goes there."""
    real = Path(os.path.realpath(path))
    if real.exists() and not real.is_file():
        raise OSError(errno.EINVAL, "exists and is not a regular file", str(path))
    if not real.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder to write into does not exist", str(real.parent))


def check_free_space(path: str | os.PathLike[str], nbytes: int) -> None:
    """Raise ``OSError`` (ENOSPC) unless the folder of ``path`` has room for ``nbytes`` bytes."""
    folder = Path(os.path.realpath(path)).parent
    free = shutil.disk_usage(folder).free
    if free < nbytes:
        mib = 1024 * 1024
        raise OSError(
            errno.ENOSPC,
            f"the file needs {nbytes / mib:,.1f} MiB, the disk has {free / mib:,.1f} MiB free",
            str(folder),
        )


def cache_dir() -> Path:
    """``BITNET_CACHE_DIR``, else the user's cache folder of this system; not created here."""
    given = os.environ.get("BITNET_CACHE_DIR")
    if given:
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "bitnet-core"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "bitnet-core"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bitnet-core"


@contextlib.contextmanager
def locked_folder(folder: Path, names: str) -> Iterator[None]:
    """Create ``folder`` and hold it exclusively: one process, and one thread of it, at a time.

    The lock is the kernel's and ends with the process, so a crash leaves nothing to clean up. Temporary files of
    :class:`AtomicFile` found once it is held were left by a writer that was killed, and are removed, if they were to
    become a file that the regular expression ``names`` matches: the folder may be one where others write, too. Where
    the system cannot lock a folder the writers still never see each other's half-written files, they only do the work
    twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl  # noqa: PLC0415 - does not exist on Windows
    except ImportError:
        yield
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        for path in list(folder.iterdir()):
            temp = _TEMP_NAME.fullmatch(path.name)
            if temp and re.fullmatch(names, temp["name"]) and path.is_file() and not path.is_symlink():
                path.unlink(missing_ok=True)
        yield
    finally:
        os.close(fd)
