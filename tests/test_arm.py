"""The kernels for Arm, where there is a cross compiler and an emulator: held to the scalar ones as this machine's are.

A processor emulated without an instruction set shows that its level is not chosen there: it would be killed.
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from small_model import small_model

from bitnet_core import Model

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
STRICT = ("-std=c11", "-O2", "-pthread", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}")
PACKAGES = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user clang"

# Emulated processors, and the levels that each must take.
LEVELS = {"cortex-a53": ["neon"], "neoverse-n1": ["neon", "dotprod"], "max": ["neon", "dotprod", "i8mm"]}
COMPILERS = {"gcc": ["aarch64-linux-gnu-gcc"], "clang": ["clang", "--target=aarch64-linux-gnu"]}


def lacks(what):
    return pytest.skip(f"no {what} here (Debian: apt install {PACKAGES})")


def emulator():
    return shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static") or lacks("emulator of AArch64")


@pytest.fixture(scope="session", params=list(COMPILERS))
def programs(request, tmp_path_factory):
    """A folder with the C programs of tests/c for AArch64; the library is compiled once for all of them."""
    emulator()  # without one there is nothing to compile for
    command, folder = COMPILERS[request.param], tmp_path_factory.mktemp(request.param)
    (folder / "probe.c").write_text("#include <pthread.h>\nint main(void) { return 0; }\n")
    probe = [*command, *STRICT, "-static", "probe.c", "-lm", "-o", "probe"]
    if not shutil.which(command[0]) or subprocess.run(probe, cwd=folder, capture_output=True, check=False).returncode:
        lacks(f"{request.param} with a C library for AArch64")
    subprocess.run([*command, *STRICT, "-c", *map(str, sorted(CSRC.rglob("*.c")))], cwd=folder, check=True)
    objects = [path.name for path in sorted(folder.glob("*.o"))]
    for program in ("differential", "levels"):
        source = str(ROOT / "tests" / "c" / f"{program}.c")
        subprocess.run([*command, *STRICT, "-static", source, *objects, "-lm", "-o", program], cwd=folder, check=True)
    return folder


def run(cpu, *command):
    done = subprocess.run([emulator(), "-cpu", cpu, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("cpu", LEVELS)
def test_every_kernel_gives_the_bits_of_the_scalar_one(programs, cpu):
    *lines, total = run(cpu, programs / "differential", 1, 200)
    assert total == f"compared {len(lines)} kernels"
    names = [line.removesuffix(": same as scalar in 200 rounds") for line in lines]
    assert list(dict.fromkeys(name.rpartition("_")[2] for name in names)) == LEVELS[cpu]
    best = LEVELS[cpu][-1]
    assert {f"gemm_i2_s_{best}", f"gemm_qk256_{best}", f"int8_peak_{best}"} <= set(names)


@pytest.mark.parametrize("dtype", ["i2_s", "qk256"])
def test_a_model_answers_with_the_bits_it_has_here(programs, tmp_path, dtype):
    """Logits and greedy tokens at every level, and on this machine: where the code was compiled makes no difference."""
    recipe = small_model(dtype=dtype, tied=False, n_embd=384, n_head=12, n_head_kv=3, n_ff=512)
    path = recipe.write(tmp_path / "model.gguf")
    lines = run("max", programs / "levels", path, tmp_path / "answer")
    assert lines == [f"{level}: the bits of scalar" for level in ["scalar", *LEVELS["max"]]]
    n_prompt, n_single, n_generated = 21, 3, 20
    prompt = (np.arange(n_prompt + n_single) * 37 + 11) % recipe.shape.n_vocab
    expected = []
    with Model.from_file(path) as model:
        for kv_dtype in ("f16", "f32"):
            with model.session(kv_dtype=kv_dtype) as session:
                expected.append(session.eval(prompt, all_logits=True))
                tokens = [1]
                for _ in range(n_generated):
                    tokens.append(int(session.eval(tokens[-1:]).argmax()))
                expected.append(np.array(tokens[1:], np.int32))
                assert len(set(tokens)) > 3
    assert (tmp_path / "answer").read_bytes() == b"".join(part.tobytes() for part in expected)
