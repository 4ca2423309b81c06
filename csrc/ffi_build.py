"""Build-time only: describes the extension module ``bitnet_core._native`` to cffi.

The declarations that cffi needs are the marked region of ``bitnet_core.h``, unchanged, so the C interface is stated
once and the C compiler checks it against the library.
"""

from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).resolve().parent
ROOT = CSRC.parent


def public_declarations() -> str:
    """The text between the cdef markers of the public header."""
    header = (CSRC / "bitnet_core.h").read_text(encoding="utf-8")
    return header.split("/* cdef begin */")[1].split("/* cdef end */")[0]


def sources() -> list[str]:
    """Every C file of the library, relative to the repository's root as setuptools wants them."""
    return sorted(str(path.relative_to(ROOT)) for path in CSRC.rglob("*.c"))


ffi = FFI()
ffi.cdef(public_declarations())
ffi.set_source(
    "bitnet_core._native",
    '#include "bitnet_core.h"',
    sources=sources(),
    include_dirs=["csrc"],
    depends=sorted(str(p.relative_to(ROOT)) for p in [*CSRC.rglob("*.h"), *CSRC.rglob("*.def")]),
    # No contraction (one rounding for a * b + c), whatever the compiler's default: the bits of results depend on it.
    extra_compile_args=["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-pthread"],
    extra_link_args=["-pthread"],
    libraries=["m"],
)
