"""Find a model to run when none is named.

The order: the ``BITNET_GGUF`` environment variable; the official model's folder, ``models/microsoft-bitnet-...``; any
``models/**/*.gguf`` that is not hidden. Folders are looked for under the working directory, its parents up to the
repository root, and the repository that this package was imported from.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bitnet_core.exceptions import ModelNotFoundError
from bitnet_core.synthetic import cached_model

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["find_model", "model_or_synthetic", "qk256_model"]

_OFFICIAL_FOLDER = Path("models") / "microsoft-bitnet-b1.58-2B-4T-gguf"
_OFFICIAL_FILES = ("ggml-model-i2_s.gguf", "model.gguf")


def find_model() -> Path:
    """Return the model to use.

    Returns
    -------
    pathlib.Path
        An existing file, absolute.

    Raises
    ------
    FileNotFoundError
        ``BITNET_GGUF`` is set to a file that does not exist.
    ModelNotFoundError
        Nothing was found; its message and ``looked_at`` list every place, in order.
    """
    given = _from_environment("BITNET_GGUF")
    if given is not None:
        return given
    looked_at = ["BITNET_GGUF (not set)"]
    roots = _roots()
    for root in roots:
        for name in _OFFICIAL_FILES:
            path = root / _OFFICIAL_FOLDER / name
            if path.is_file():
                return path
            looked_at.append(str(path))
    for root in roots:
        folder = root / "models"
        found = sorted(path for path in folder.rglob("*.gguf") if path.is_file() and not _is_hidden(path, folder))
        if found:
            return found[0]
        looked_at.append(str(root / "models" / "**" / "*.gguf"))
    raise ModelNotFoundError(tuple(looked_at))


def model_or_synthetic(preset: str = "2b", *, progress: Callable[[int, int], None] | None = None) -> tuple[Path, bool]:
    """Return the model to use, else a synthetic one from the cache, and whether it is the synthetic one.

    Parameters
    ----------
    preset : str
        Shape of the synthetic model; see :data:`bitnet_core.synthetic.PRESETS`.
    progress : callable, optional
        Called with (bytes done, bytes in total) while the synthetic model is being written.

    Raises
    ------
    FileNotFoundError
        ``BITNET_GGUF`` is set to a file that does not exist: nobody who set it wants another model.
    """
    try:
        return find_model(), False
    except ModelNotFoundError:
        return cached_model(preset, progress=progress), True


def qk256_model() -> Path | None:
    """Return the file that ``BITNET_QK256_MODEL`` names; None when it is not set, or to something else than a file.

    Set to anything, it selects the QK256 baselines of :func:`bitnet_core.targets.measure`.
    """
    path = Path(os.environ.get("BITNET_QK256_MODEL") or os.devnull).expanduser().absolute()
    return path if path.is_file() else None


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file in the folder, or a folder on the way to it, has a leading dot, as half a download may."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(value).expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, f"{variable} is set, but there is no such file", value)
    return path


def _roots() -> list[Path]:
    """Return the working directory, its parents up to the repository root, and the package's own repository."""
    here = Path.cwd()
    roots = [here]
    repository = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)
    if repository is not None:
        roots += [folder for folder in here.parents if folder.is_relative_to(repository)]
    package_root = _package_root()
    if (package_root / "pyproject.toml").is_file() and package_root not in roots:  # a checkout, not site-packages
        roots.append(package_root)
    return roots


def _package_root() -> Path:
    return Path(__file__).resolve().parent.parent
