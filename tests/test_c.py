"""The C programs of tests/c, compiled with the library's sources by one plain compiler call each.

That this call needs no flag of its own is part of what is tested: instruction sets are attached to functions.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from small_model import small_model

from bitnet_core.kernels import available, cpu_features, isa_levels

HERE = Path(__file__).parent / "c"
CSRC = Path(__file__).parent.parent / "csrc"
SOURCES = sorted(str(path) for path in CSRC.rglob("*.c"))
# What the differential program needs of it, so that the others need not be compiled for that one again and again.
KERNELS = [path for path in SOURCES if "/kernels/" in path or path.endswith(("/cpu.c", "/dtype.c", "/error.c"))]
EMULATED = ("_avxvnni.c", "_amx.c")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiler():
    return shutil.which("cc") or shutil.which("gcc") or pytest.skip("no C compiler")


def compile_c(*arguments):
    command = [compiler(), "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}", f"-I{HERE}", "-pthread"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build(folder, program, *flags, sources=SOURCES):
    target = folder / program
    compile_c(*flags, HERE / f"{program}.c", *sources, "-lm", "-o", target)
    return target


def build_emulated(folder, *flags):
    """The differential program of the levels that emulated.h stands in for."""
    objects = []
    for source in KERNELS:
        if source.endswith(EMULATED):
            objects.append(folder / f"{Path(source).stem}.o")
            compile_c(*flags, "-include", "emulated.h", "-c", source, "-o", objects[-1])
    others = [source for source in KERNELS if not source.endswith(EMULATED)]
    flags = (*flags, "-DBNC_EMULATED")
    return build(folder, "differential", *flags, sources=[*others, HERE / "emulated_amx.c", *objects])


def has_sanitizers(folder):
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    command = [compiler(), *SANITIZERS, str(probe), "-o", str(folder / "probe")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return small_model().write(tmp_path_factory.mktemp("c") / "model.gguf")


def test_a_compiler_that_fuses_is_refused():
    """gcc in its own dialect makes one rounding of a * b + c where the machine can: other bits, without a word."""
    command = [compiler(), "-std=gnu11", "-fsyntax-only", f"-I{CSRC}", str(CSRC / "error.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:  # clang does not fuse under the pragma in base.h
        version = subprocess.run([compiler(), "--version"], capture_output=True, text=True, check=True).stdout
        assert "clang" in version
    else:
        assert "compile with -std=c11" in done.stderr


def test_every_kernel_gives_the_bits_of_the_scalar_one(tmp_path):
    """Random data, awkward sizes, buffers that end at an unmapped page; one line a kernel."""
    out = run(build(tmp_path, "differential", sources=KERNELS), 1, 400)
    for row in available():
        if row.isa != "scalar" and row.isa in isa_levels() and row.op != "arrange":
            assert f"{row.name}: same as scalar in 400 rounds" in out


def test_kernels_under_sanitizers(tmp_path):
    if not has_sanitizers(tmp_path):
        pytest.skip("the compiler has no address and undefined-behaviour sanitizers")
    assert "compared" in run(build(tmp_path, "differential", *SANITIZERS, sources=KERNELS), 2, 60)


def test_kernels_of_levels_that_are_emulated(tmp_path, emulated_levels):
    """The same lines that run where the instructions exist, with stand-ins for them: tests/c/emulated.h."""
    rows = [row for row in available() if row.isa in {"avxvnni", "amx"}]
    if not rows:
        pytest.skip("no level is emulated for this processor or compiler")
    if not {"avx2", "f16c", "avx512", "avx512vnni"} <= set(cpu_features()):
        pytest.skip("the stand-ins need avx512vnni")
    out = run(build_emulated(tmp_path, *(SANITIZERS if has_sanitizers(tmp_path) else ())), 3, 150)
    for row in rows:
        assert f"{row.name}: same as scalar in 150 rounds" in out
    emulated_levels.update(row.isa for row in rows)


@pytest.mark.skipif(not Path("/proc").exists(), reason="symbols are wrapped with GNU ld's --wrap")
def test_evaluation_allocates_nothing(tmp_path, model_file):
    wrapped = ("malloc", "calloc", "realloc", "posix_memalign", "mmap")
    program = build(tmp_path, "no_alloc", *(f"-Wl,--wrap={name}" for name in wrapped))
    assert run(program, model_file) == "0 allocations during evaluation\n"
