"""The C programs of tests/c, compiled with the library's sources by one plain compiler call each.

That this call needs no flag of its own is part of what is tested: instruction sets are attached to functions.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from small_model import small_model

from bitnet_core.kernels import isa_levels

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
SOURCES = sorted(str(path) for path in CSRC.rglob("*.c"))
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiler():
    return shutil.which("cc") or shutil.which("gcc") or pytest.skip("no C compiler")


def build(folder, program, *flags):
    target = folder / program
    command = [compiler(), "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}", *flags]
    command += [str(ROOT / "tests" / "c" / f"{program}.c"), *SOURCES, "-pthread", "-lm", "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


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
    out = run(build(tmp_path, "differential"), 1, 400)
    for level in isa_levels()[1:]:
        assert f"_{level}: same as scalar in 400 rounds" in out


def test_kernels_under_sanitizers(tmp_path):
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    linked = subprocess.run(
        [compiler(), *SANITIZERS, str(probe), "-o", str(tmp_path / "probe")], capture_output=True, check=False
    )
    if linked.returncode != 0:
        pytest.skip("the compiler has no address and undefined-behaviour sanitizers")
    assert "compared" in run(build(tmp_path, "differential", *SANITIZERS), 2, 60)


@pytest.mark.skipif(not Path("/proc").exists(), reason="symbols are wrapped with GNU ld's --wrap")
def test_evaluation_allocates_nothing(tmp_path, model_file):
    wrapped = ("malloc", "calloc", "realloc", "posix_memalign", "mmap")
    program = build(tmp_path, "no_alloc", *(f"-Wl,--wrap={name}" for name in wrapped))
    assert run(program, model_file) == "0 allocations during evaluation\n"
