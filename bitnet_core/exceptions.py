"""What can go wrong, as a tree.

::

    BitNetError
    ├── GGUFError (ValueError)                  a malformed file; .offset is the byte position
    │   └── ShardedFileError                    one part of a split file; .missing names the siblings that are not there
    ├── UnsupportedModelError (NotImplementedError)  a sound file that this library does not run
    ├── ContextOverflowError (ValueError)       more tokens than the session's context holds
    ├── SessionBusyError (RuntimeError)         a session used by two threads at once, or after a fork
    ├── LiveViewsError (BufferError)            close() while arrays still look into the mapping
    └── ModelNotFoundError (FileNotFoundError)  no model anywhere discovery looks; .looked_at lists the places

A value out of range is a plain ``ValueError`` or ``TypeError``, a failing system call a plain ``OSError``.
"""

from __future__ import annotations

__all__ = [
    "BitNetError",
    "ContextOverflowError",
    "GGUFError",
    "LiveViewsError",
    "ModelNotFoundError",
    "SessionBusyError",
    "ShardedFileError",
    "UnsupportedModelError",
]


class BitNetError(Exception):
    """Base of every error that is this library's own."""


class GGUFError(BitNetError, ValueError):
    """A GGUF file that breaks a rule of the format.

    ``offset`` is the byte position where the rule is broken, or None where no single position is to blame.
    """

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"byte {offset}: {message}")
        self.offset = offset


class ShardedFileError(GGUFError):
    """One part of a split file; ``missing`` names the sibling files that are not beside it."""

    def __init__(self, message: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class UnsupportedModelError(BitNetError, NotImplementedError):
    """A sound file whose architecture, tensors or hyper-parameters this library does not run."""


class ContextOverflowError(BitNetError, ValueError):
    """More tokens than the session's context holds."""


class SessionBusyError(BitNetError, RuntimeError):
    """A session was called while another thread was inside it, or in a child made by fork()."""


class LiveViewsError(BitNetError, BufferError):
    """A reader was closed while arrays still look into its mapping."""


class ModelNotFoundError(BitNetError, FileNotFoundError):
    """No model was found; ``looked_at`` lists every place that was tried, in order."""

    def __init__(self, looked_at: tuple[str, ...]) -> None:
        places = "\n".join(f"  {place}" for place in looked_at)
        super().__init__(
            f"no GGUF model found; looked at:\n{places}\nSet BITNET_GGUF=/path/to/model.gguf, or write a synthetic one "
            "with: bitnet synth 2b model.gguf"
        )
        self.looked_at = looked_at

    def __str__(self) -> str:
        return str(self.args[0])
