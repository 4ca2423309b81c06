"""The order of csrc/ as docs/architecture.md draws it, and what the library asks of the system, read from the files."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"

# A file may include files of its own noun and of the rows above it; nouns of one row do not know each other. The noun
# of gguf_scan.c is gguf. What is not listed is above them all: it may include anything, and nothing may include it.
ORDER = (
    ("base", "bitnet_core"),
    ("error",),
    ("cpu", "threads", "cursor", "candidates", "pages"),
    ("dtype",),
    ("kernels",),
    ("convert", "matmul", "gguf", "sampler"),
    ("model",),
    ("screen", "pack"),
    ("workspace",),
    ("session",),
    ("forward",),
    ("eval",),
)
TOP = len(ORDER)
# X-macro lists belong to the noun that expands them.
NOUN_OF_LIST = {"isa.def": "cpu", "arch.def": "model"}

# What a library inside Python must never do: print, end the process, read the environment, wait for signals.
FORBIDDEN = {
    *("printf", "fprintf", "vprintf", "vfprintf", "dprintf", "puts", "fputs", "putc", "fputc", "putchar", "perror"),
    *("fwrite", "write", "stdout", "stderr", "stdin", "syslog"),
    *("exit", "_exit", "_Exit", "quick_exit", "abort", "atexit", "__assert_fail", "__assert_rtn", "raise", "kill"),
    *("getenv", "secure_getenv", "setenv", "putenv", "environ", "system", "popen", "signal", "sigaction", "fork"),
    *("rand", "srand", "random", "strtok", "setlocale"),
}
ALLOCATING = {"malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "mmap", "munmap", "strdup"}


def noun(path: Path) -> str:
    """The noun a file belongs to: its name up to an underscore, or its folder."""
    if path.name in NOUN_OF_LIST:
        return NOUN_OF_LIST[path.name]
    if path.parent.name == "kernels":
        return "kernels"
    known = {name for row in ORDER for name in row}
    stem = path.stem
    while stem not in known and "_" in stem:
        stem = stem.rpartition("_")[0]
    return stem if stem in known else path.stem


def rank(name: str) -> int:
    return next((i for i, row in enumerate(ORDER) if name in row), TOP)


def files() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in {".c", ".h"})


def includes(path: Path) -> list[Path]:
    """The files of the library that one includes, found as the compiler finds them: beside it, then in csrc/."""
    names = re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
    found = []
    for name in names:
        here = [folder / name for folder in (path.parent, CSRC) if (folder / name).is_file()]
        assert here, f"{path.relative_to(CSRC)} includes {name}, which is nowhere"
        found.append(here[0].resolve())
    return found


def wrong_edge(path: Path, included: Path) -> str | None:
    """Why one file may not include another, or None."""
    here, there = noun(path), noun(included)
    edge = f"{path.relative_to(CSRC)} includes {included.relative_to(CSRC)}"
    if rank(there) == TOP:
        return f"{edge}: {there} has no place in ORDER"
    if here != there and rank(there) == rank(here):
        return f"{edge}: sideways, neither comes before the other"
    if rank(there) > rank(here):
        return f"{edge}: backwards, {there} comes after {here}"
    # Inside kernels/, one implementation does not know another; what several share is a header that no source has.
    if here == there == "kernels" and included.stem != "kernels" and included.with_suffix(".c").is_file():
        return f"{edge}: sideways, one kernel file knows another"
    return f"{edge}: a source is not for including" if included.suffix == ".c" else None


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(CSRC)))
def test_no_backward_or_sideways_include(path: Path) -> None:
    wrong = [reason for included in includes(path) if (reason := wrong_edge(path, included))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "included", "word"),
    [
        ("error.c", "gguf.h", "backwards"),
        ("cpu.h", "threads.h", "sideways"),
        ("gguf_scan.c", "model.h", "backwards"),
        ("kernels/kernels.h", "gguf.h", "backwards"),
        ("model.c", "unheard_of.h", "no place"),
        ("base.h", "error.h", "backwards"),
        ("session.c", "gguf_scan.c", "a source"),
    ],
)
def test_wrong_edges_are_seen(path: str, included: str, word: str) -> None:
    reason = wrong_edge(CSRC / path, CSRC / included)
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize(
    ("path", "included"),
    [("gguf_scan.c", "gguf.h"), ("kernels/i2_s_avx2.c", "kernels/kernels.h"), ("forward.c", "base.h")],
)
def test_right_edges_are_accepted(path: str, included: str) -> None:
    assert wrong_edge(CSRC / path, CSRC / included) is None


def test_the_public_header_stands_alone() -> None:
    assert includes(CSRC / "bitnet_core.h") == []


# ---- symbols ----


def nm(*args: str) -> list[str]:
    """Names that nm prints, without versions, and without the underscore that macOS puts in front."""
    tool = shutil.which("nm")
    if tool is None:
        pytest.skip("no nm here (Debian: apt install binutils)")
    lines = subprocess.run([tool, *args], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    names = [line.split()[-1].partition("@")[0] for line in lines if line.strip() and not line.endswith(":")]
    return [name[1:] if sys.platform == "darwin" else name for name in names]


def test_the_module_exports_its_entry_alone() -> None:
    from bitnet_core import _native

    dynamic = [] if sys.platform == "darwin" else ["--dynamic"]
    assert nm(*dynamic, "--defined-only", "--extern-only", _native.__file__) == ["PyInit__native"]


def compiler() -> list[str]:
    """The one that built Python, else cc, with its options."""
    for command in (shlex.split(sysconfig.get_config_var("CC") or "cc"), ["cc"]):
        if shutil.which(command[0]):
            return command
    pytest.skip("no C compiler here")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What each source of the library, compiled alone, wants from elsewhere."""
    command = compiler()
    folder = tmp_path_factory.mktemp("objects")
    sources = [path for path in files() if path.suffix == ".c"]

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.parent.name}-{source.stem}.o"
        options = ["-std=c11", "-O0", "-pthread", "-I", str(CSRC), "-c", str(source), "-o", str(target)]
        subprocess.run([*command, *options], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        targets = list(pool.map(compile_one, sources))
    wanted = {}
    for source, target in zip(sources, targets, strict=True):
        wanted[str(source.relative_to(CSRC))] = set(nm("--undefined-only", str(target)))
    return wanted


def test_the_library_never_prints_exits_or_reads_the_environment(
    objects: dict[str, set[str]],
) -> None:
    found = {source: sorted(wanted & FORBIDDEN) for source, wanted in objects.items() if wanted & FORBIDDEN}
    assert not found


def test_kernels_and_the_forward_pass_never_allocate(objects: dict[str, set[str]]) -> None:
    hot = {
        source: wanted
        for source, wanted in objects.items()
        if source == "forward.c" or (source.startswith("kernels/") and source != "kernels/kernels.c")
    }
    found = {source: sorted(wanted & ALLOCATING) for source, wanted in hot.items() if wanted & ALLOCATING}
    assert not found


def test_a_forbidden_call_would_be_seen(tmp_path: Path, objects: dict[str, set[str]]) -> None:
    assert "memcpy" not in FORBIDDEN
    assert any(objects.values()), "nm found nothing that any object wants"
    source = tmp_path / "bad.c"
    source.write_text('#include <stdio.h>\nvoid f(void) { fprintf(stderr, "%d", 1); }\n', encoding="utf-8")
    target = source.with_suffix(".o")
    subprocess.run([*compiler(), "-c", str(source), "-o", str(target)], check=True)
    assert {"fprintf", "stderr"} <= set(nm("--undefined-only", str(target))) & FORBIDDEN
