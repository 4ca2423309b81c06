"""What several commands of ``bitnet`` take: options, and texts turned into what they stand for."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FileDtype", "Isa", "ModelFile", "Threads", "Weights", "axes", "refuse_existing", "whole_numbers"]

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF file.", show_default=False)]
Threads = Annotated[int | None, typer.Option(help="Default: BITNET_THREADS, else the physical cores.")]
Isa = Annotated[str | None, typer.Option(help="Level of kernels, see `bitnet cpu`. Default: the best here.")]
FileDtype = Annotated[
    str | None, typer.Option(help="What tensor type id 36 means (i2_s or qk256), if the file does not say.")
]
Weights = Annotated[
    str, typer.Option(help="Ternary matrices: file, packed (1.6 bits a weight, in memory), or auto, by measurement.")
]


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise FileExistsError for a file that is there, unless it may be replaced."""
    if path.exists() and not force:
        raise FileExistsError(errno.EEXIST, "exists already; --force replaces it", str(path))


def whole_numbers(option: str, text: str) -> list[int]:
    """Read numbers with commas or spaces between them; the message of a ValueError names the option."""
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        from bitnet_core.terminal import one_line  # noqa: PLC0415 - only here is it needed

        shown = one_line(repr(text))
        raise ValueError(f"{option} takes whole numbers with commas between them, not {shown}") from None


def axes(shape: Sequence[int]) -> str:
    """Return ``"2560 x 6912"``."""
    return " x ".join(map(str, shape))
