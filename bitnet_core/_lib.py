"""The only importer of the compiled module: status codes become exceptions, environment variables become options."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import psutil

from bitnet_core._native import ffi, lib
from bitnet_core.exceptions import (
    BitNetError,
    ContextOverflowError,
    GGUFError,
    SessionBusyError,
    UnsupportedModelError,
)

__all__ = ["call", "default_threads", "ffi", "isa_names", "kernels_for", "lib", "new_error", "raise_error"]

_NO_OFFSET = 2**64 - 1


def new_error() -> Any:
    """A cleared ``bnc_error *`` to pass as the last argument."""
    return ffi.new("bnc_error *")


def raise_error(err: Any, filename: str | None = None) -> NoReturn:
    """Raise the exception that a filled ``bnc_error`` stands for."""
    message = ffi.string(err.message).decode("utf-8", "replace")
    offset = None if err.offset == _NO_OFFSET else int(err.offset)
    status = err.status
    if status == lib.BNC_ERR_IO:
        raise OSError(err.os_error, f"{os.strerror(err.os_error)} ({message})", filename)
    if status == lib.BNC_ERR_NOMEM:
        raise MemoryError(message)
    if status == lib.BNC_ERR_GGUF:
        raise GGUFError(message, offset)
    if status == lib.BNC_ERR_UNSUPPORTED:
        raise UnsupportedModelError(message)
    if status == lib.BNC_ERR_ARGUMENT:
        raise ValueError(message)
    if status == lib.BNC_ERR_CONTEXT:
        raise ContextOverflowError(message)
    if status in (lib.BNC_ERR_BUSY, lib.BNC_ERR_FORKED):
        raise SessionBusyError(message)
    raise BitNetError(f"status {status}: {message}")


def call(function: Any, *args: Any, filename: str | None = None) -> None:
    """Call ``function(*args, err)`` and raise what it reports. The GIL is released while C runs."""
    err = new_error()
    if function(*args, err) != lib.BNC_OK:
        raise_error(err, filename)


def default_threads(n_threads: int | None = None) -> int:
    """``n_threads``, else ``BITNET_THREADS``, else the physical cores this process may use."""
    if n_threads is None:
        text = os.environ.get("BITNET_THREADS", "")
        if text:
            try:
                n_threads = int(text)
            except ValueError:
                raise ValueError(f"BITNET_THREADS must be a whole number, not {text!r}") from None
        else:
            allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
            n_threads = max(1, min(psutil.cpu_count(logical=False) or allowed, allowed, 256))
    if not 1 <= n_threads <= 256:
        raise ValueError(f"n_threads must be 1 to 256, not {n_threads}")
    return n_threads


def isa_names() -> tuple[str, ...]:
    """Every named level, slow to fast, supported here or not."""
    return tuple(ffi.string(lib.bnc_isa_name(i)).decode() for i in range(lib.bnc_isa_count()))


def kernels_for(isa: str | None = None) -> Any:
    """The kernel set of ``isa``, else of ``BITNET_ISA``, else the machine's best."""
    source = "isa"
    if isa is None:
        isa, source = os.environ.get("BITNET_ISA") or None, "BITNET_ISA"
    if isa is None:
        return lib.bnc_kernels_get(-1)
    names = isa_names()
    if isa not in names:
        raise ValueError(f"{source}={isa!r} is not a known level; known: {', '.join(names)}")
    kernels = lib.bnc_kernels_get(names.index(isa))
    if kernels == ffi.NULL:
        needs = ffi.string(lib.bnc_isa_needs(names.index(isa))).decode()
        has = ffi.string(lib.bnc_cpu_features()).decode()
        raise ValueError(f"{source}={isa!r} needs {needs}; this machine has: {has or 'none of them'}")
    return kernels
