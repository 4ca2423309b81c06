"""The command, as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from test_receipt import changed
from typer.testing import CliRunner

from bitnet_core import Model, SamplingParams, cli, dequantize, quantize
from bitnet_core.cli import app
from bitnet_core.gguf import GGUFReader
from bitnet_core.gguf_writer import GGUFWriter
from bitnet_core.targets import Better, Target
from bitnet_core.terminal import one_line


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch, tmp_path):
    for name in ("BITNET_GGUF", "BITNET_QK256_MODEL", "BITNET_SEED", "BITNET_DETERMINISTIC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BITNET_CACHE_DIR", str(tmp_path / "cache"))


def bitnet(*arguments, exit_code=0):
    """Run the command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="bitnet")
    assert result.exit_code == exit_code, result.output
    return result


def fails(*arguments):
    """The one line that a failing command prints."""
    result = bitnet(*arguments, exit_code=1)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("bitnet: ")
    return result.stderr.removeprefix("bitnet: ").rstrip("\n")


# ---- as a program ----


def test_module_and_version():
    done = subprocess.run(
        [sys.executable, "-m", "bitnet_core", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count(".") == 2


def test_importing_the_package_does_not_import_the_command():
    code = "import bitnet_core, sys; print([m for m in ('typer', 'rich', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


COMMANDS = ["info", "synth", "quantize", "dequantize", "generate", "bench", "targets", "verify", "cpu"]


def test_help_lists_every_command():
    listed = [line.split()[0] for line in bitnet("--help").stdout.split("Commands:")[1].splitlines() if line.strip()]
    assert listed == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    text = bitnet(command, "--help").stdout
    assert f"Example: bitnet {command}" in text


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_removes_the_half_written_file(tmp_path):
    out = tmp_path / "model.gguf"
    command = [sys.executable, "-m", "bitnet_core", "synth", "2b", str(out)]
    # A suite that runs in the background was told to ignore SIGINT, and would hand that on.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(command, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, heard)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 2**24 for path in tmp_path.glob(".*.tmp")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    stderr = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert stderr == b"bitnet: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_traceback_on_request(tmp_path):
    result = CliRunner().invoke(app, ["--traceback", "info", str(tmp_path / "no.gguf")])
    assert isinstance(result.exception, FileNotFoundError)


# ---- info ----


def test_info(tiny_model):
    text = bitnet("info", tiny_model).stdout
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert lines["bitnet-b1.58.embedding_length"] == ["256"]
    assert lines["tokenizer.ggml.tokens"] == ["512", "values"]
    assert lines["n_head_kv"] == ["2"]
    assert lines["i2_s"] == ["14", "1,179,648", "0.3"]
    assert "blk.0.attn_q.weight" not in text


def test_info_tensors(tiny_model):
    text = bitnet("info", tiny_model, "--tensors").stdout
    line = next(line for line in text.splitlines() if line.startswith("blk.1.ffn_down.weight"))
    assert line.split()[1:5] == ["i2_s", "256", "x", "512"]
    assert line.split()[-1] == "32,800"


def test_info_json(tiny_model):
    found = json.loads(bitnet("info", tiny_model, "--json").stdout)
    assert found["config"]["n_layer"] == 2
    assert found["not_runnable"] is None
    assert found["metadata"]["tokenizer.ggml.merges"] == {"array_of": 240}
    assert found["metadata"]["general.architecture"] == "bitnet-b1.58"
    assert len(found["tensors"]) == 24
    assert found["tensors"][0]["shape"] == [512, 256]


def test_info_of_a_file_that_is_no_model(vectors):
    text = bitnet("info", vectors / "mini.gguf").stdout
    assert "not a model that can be run here" in text
    assert "general.alignment" in text


def test_info_of_what_is_no_gguf_file(tmp_path):
    path = tmp_path / "x.gguf"
    assert fails("info", path).startswith(f"{path}: No such file or directory")
    path.write_bytes(b"hello" * 10)
    assert "GGUF" in fails("info", path)


def test_terminal_codes_in_a_file_are_not_obeyed(tmp_path):
    with GGUFWriter(tmp_path / "x.gguf") as writer:
        writer.add("general.name", "a\x1b[31mb\n[bold]c", "string")
    text = bitnet("info", tmp_path / "x.gguf").stdout
    assert r"a\x1b[31mb\n[bold]c" in text


def test_info_of_many_unknown_types_and_long_texts(tmp_path):
    """In time that grows with the file only, not with its square."""
    n = 20_000
    with GGUFWriter(tmp_path / "x.gguf") as writer:
        writer.add("general.name", "\x1b" * 10_000_000, "string")
        for i in range(n):
            writer.add_tensor(f"t{i}", (32,), gguf_type=1000 + i, nbytes=32)
        for i in range(n):
            writer.write_tensor(f"t{i}", bytes(32))
    with GGUFReader(tmp_path / "x.gguf") as reader:
        begin = time.perf_counter()
        rows = cli._totals(reader)
        assert time.perf_counter() - begin < 5  # one pass takes 0.1 s, a pass for each type a minute
    assert len(rows) == n
    assert rows[7][:3] == ("type id 1007", "1", "32")
    begin = time.perf_counter()
    assert one_line("\x1b" * 10_000_000).endswith("... (10,000,000 characters)")
    assert time.perf_counter() - begin < 1


# ---- synth ----


def test_synth_of_an_unknown_architecture(tmp_path):
    for arch in ("", "llama"):
        message = fails("synth", "tiny", tmp_path / "x.gguf", "--arch", arch)
        assert message == f"arch {arch!r} is not one of: bitnet-b1.58, bitnet-25, bitnet"
    assert list(tmp_path.iterdir()) == []


def test_synth(tmp_path):
    out = tmp_path / "model.gguf"
    assert bitnet("synth", "tiny", out, "--dtype", "qk256", "--seed", 7).stdout.startswith(f"{out}: ")
    with Model.from_file(out) as model:
        assert model.config.dtype == "qk256"
        assert model.metadata["bitnet_core.synthetic"] == "preset tiny seed 7 version 1"


def test_synth_does_not_replace_unless_told(tmp_path):
    out = tmp_path / "model.gguf"
    out.write_bytes(b"precious")
    assert fails("synth", "tiny", out) == f"{out}: exists already; --force replaces it"
    assert out.read_bytes() == b"precious"
    bitnet("synth", "tiny", out, "--force")
    assert out.read_bytes()[:4] == b"GGUF"


def test_synth_of_an_unknown_preset(tmp_path):
    assert fails("synth", "9b", tmp_path / "x.gguf") == "preset '9b' is not one of: tiny, 125m, 700m, 2b"


# ---- quantize, dequantize ----


@pytest.fixture
def weights(tmp_path):
    x = np.random.default_rng(0).standard_normal((4, 256)).astype(np.float32)
    np.save(tmp_path / "w.npy", x)
    return x


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "i2_s", "qk256", "bitnet32", "q8_0", "q6_k"])
def test_quantize_to_gguf_and_back(tmp_path, weights, dtype):
    out, back = tmp_path / "w.gguf", tmp_path / "back.npy"
    text = bitnet("quantize", tmp_path / "w.npy", out, "--dtype", dtype, "--name", "my.weight").stdout
    assert f"{dtype} 4 x 256" in text
    with GGUFReader(out) as reader:
        assert reader.info("my.weight").dtype == dtype
        assert reader.info("my.weight").shape == (4, 256)
    bitnet("dequantize", out, back)
    expected = dequantize(quantize(weights, dtype), dtype, weights.shape)
    assert np.array_equal(np.load(back), expected)
    error = np.abs(expected - weights).max()
    assert f"error at most {error:.3g}," in text


@pytest.mark.parametrize("layout", ["128", "64", "row4"])
def test_quantize_to_bare_bytes_and_back(tmp_path, weights, layout):
    out, back = tmp_path / "w.bin", tmp_path / "back.npy"
    bitnet("quantize", tmp_path / "w.npy", out, "--scale", "0.5", "--layout", layout)
    assert out.read_bytes() == quantize(weights, "i2_s", scale=0.5, layout=layout).tobytes()
    bitnet("dequantize", out, back, "--dtype", "i2_s", "--shape", "4,256", "--layout", layout)
    assert np.array_equal(np.load(back), np.clip(np.round(weights / 0.5), -1, 1) * np.float32(0.5))


def test_dequantize_a_tensor_of_a_model(tiny_model, tmp_path):
    bitnet("dequantize", tiny_model, tmp_path / "q.npy", "--tensor", "blk.1.attn_q.weight")
    with GGUFReader(tiny_model) as reader:
        expected = dequantize(reader.tensors["blk.1.attn_q.weight"], "i2_s", (256, 256))
    assert np.array_equal(np.load(tmp_path / "q.npy"), expected)


@pytest.mark.usefixtures("weights")
def test_quantize_and_dequantize_say_what_is_wrong(tiny_model, tmp_path):
    w, out = tmp_path / "w.npy", tmp_path / "out"
    assert fails("quantize", tiny_model, out) == f"{tiny_model} is not a .npy file"
    assert "layout" in fails("quantize", w, tmp_path / "x.gguf", "--layout", "64")
    assert "scale 'half'" in fails("quantize", w, out, "--scale", "half")
    assert "dtype 'q4_0'" in fails("quantize", w, out, "--dtype", "q4_0")
    np.save(tmp_path / "c.npy", np.zeros(4, complex))
    assert "must hold numbers" in fails("quantize", tmp_path / "c.npy", out)
    np.save(tmp_path / "n.npy", np.full((1, 128), np.nan, np.float32))
    assert "element 0" in fails("quantize", tmp_path / "n.npy", out)
    assert "has 24 tensors; choose one" in fails("dequantize", tiny_model, out)
    assert "no tensor 'nope'" in fails("dequantize", tiny_model, out, "--tensor", "nope")
    assert "need --dtype and --shape" in fails("dequantize", w, out)
    assert "the buffer has" in fails("dequantize", w, out, "--dtype", "i2_s", "--shape", "1,128")
    assert "--shape takes whole numbers" in fails("dequantize", w, out, "--dtype", "i2_s", "--shape", "1x128")
    assert not out.exists()
    out.touch()
    assert "--force" in fails("quantize", w, out)
    assert "--force" in fails("dequantize", tiny_model, out, "--tensor", "blk.0.attn_q.weight")


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("i2_s_64", (4, 256)), ("i2_s_row4", (4, 256)), *(("bitnet32", (n,)) for n in (128, 256, 384, 512))],
)
def test_quantize_refuses_a_gguf_file_that_would_be_misread(tmp_path, dtype, shape):
    np.save(tmp_path / "w.npy", np.ones(shape, np.float32))
    message = fails("quantize", tmp_path / "w.npy", tmp_path / "w.gguf", "--dtype", dtype)
    assert f"cannot say that this tensor is {dtype}: it would be read as i2_s; write bare bytes" in message
    assert [path.name for path in tmp_path.iterdir()] == ["w.npy"]
    bitnet("quantize", tmp_path / "w.npy", tmp_path / "w.bin", "--dtype", dtype)
    assert (tmp_path / "w.bin").read_bytes() == quantize(np.ones(shape, np.float32), dtype).tobytes()


def test_dequantize_of_a_gguf_file_takes_no_shape(tiny_model, tmp_path):
    message = fails("dequantize", tiny_model, tmp_path / "x.npy", "--tensor", "output_norm.weight", "--shape", "1,2")
    assert "says the shape of each tensor itself; leave out --shape" in message


# ---- generate ----


def test_generate_prints_ids(tiny_model):
    options = ["--ids", "1,2,3", "-n", 12, "--temperature", 0.9, "--top-k", 20, "--top-p", 0.8, "--seed", 5]
    result = bitnet("generate", tiny_model, *options, "--repetition-penalty", 1.2, "--threads", 1, "--isa", "scalar")
    params = SamplingParams(max_tokens=12, temperature=0.9, top_k=20, top_p=0.8, seed=5, repetition_penalty=1.2)
    with Model.from_file(tiny_model, n_threads=1, isa="scalar") as model, model.session() as session:
        expected = list(session.generate([1, 2, 3], params))
    assert [int(word) for word in result.stdout.split()] == expected
    assert result.stderr.startswith(f"{len(expected)} tokens: 1 threads, scalar, first token after 3 of prompt in ")
    assert "tok/s" in result.stderr


def test_generate_stops(tiny_model):
    first = bitnet("generate", tiny_model, "--ids", "1", "-n", 5, "--temperature", 0).stdout.split()
    stopped = bitnet("generate", tiny_model, "--ids", "1", "-n", 5, "--temperature", 0, "--stop", first[2]).stdout
    assert stopped.split() == first[: first.index(first[2])]
    assert bitnet("generate", tiny_model, "--ids", "1", "-n", 0).stdout == "\n"


def test_generate_says_what_is_wrong(tiny_model):
    assert "512 is not in the vocabulary" in fails("generate", tiny_model, "--ids", "512", "-n", 1).replace(
        "token ", ""
    )
    assert "--ids takes whole numbers with commas" in fails("generate", tiny_model, "--ids", "1,a")
    assert "temperature must be" in fails("generate", tiny_model, "--ids", "1", "--temperature", -1)
    assert "isa='sse'" in fails("generate", tiny_model, "--ids", "1", "--isa", "sse")
    assert "n_threads must be" in fails("generate", tiny_model, "--ids", "1", "--threads", 0)
    assert bitnet("generate", tiny_model, exit_code=2).stderr.count("--ids") >= 1


@pytest.mark.parametrize("option", ["--ids", "--stop"])
def test_token_ids_beyond_int32_are_one_line(tiny_model, option):
    ids = [] if option == "--ids" else ["--ids", "1"]
    message = fails("generate", tiny_model, *ids, option, "99999999999999999999")
    assert message == f"{option}: token ids are 0 to 2147483647; 99999999999999999999 is none"
    assert len(fails("generate", tiny_model, *ids, option, "9" * 5000)) < 300


# ---- targets, verify, cpu ----


def test_targets_looks_at_the_folder_of_the_receipt_first(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("bitnet_core.targets.measure", None)  # is not reached
    message = fails("targets", tiny_model, "--receipt", tmp_path / "nodir" / "r.json")
    assert message == f"{tmp_path / 'nodir'}: the folder to write into does not exist"


def test_verify_of_a_number_that_no_float_holds(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(changed("performance.load_s", 10**400)))
    result = bitnet("verify", path, exit_code=1)
    assert result.stderr.startswith(f"{path}: performance.load_s must be above zero and finite, not 1000")
    assert len(result.stderr) < len(str(path)) + 200


@pytest.mark.parametrize("depth", [50, 400, 100_000])
def test_verify_of_deep_nesting(tmp_path, depth):
    path = tmp_path / "r.json"
    path.write_text('{"schema_version": ' + "[" * depth + "]" * depth + "}")
    result = bitnet("verify", path, exit_code=1)
    assert result.stderr.count("\n") == 1
    assert str(path) in result.stderr


def test_targets_and_verify(tiny_model, tmp_path):
    receipt = tmp_path / "receipt.json"
    result = bitnet("targets", tiny_model, "--quick", "--receipt", receipt, "--threads", 1)
    assert str(tiny_model) in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("memory / file size"))
    assert "<= 15" in line
    assert "< 1.1" in line
    assert json.loads(receipt.read_text())["environment"]["n_threads"] == 1
    assert bitnet("verify", receipt).stdout == f"{receipt}: sound\n"
    changed = json.loads(receipt.read_text()) | {"kernels": ["mock"], "compute_path": "mock"}
    receipt.write_text(json.dumps(changed))
    result = bitnet("verify", receipt, exit_code=1)
    assert result.stderr.count(f"{receipt}: ") == 2
    receipt.write_text("{")
    assert "is not a JSON file" in fails("verify", receipt)


def test_targets_fails_beyond_a_baseline(tiny_model, monkeypatch):
    impossible = Target("load_s", "load", "s", Better.LOWER, 1e-9, 1e-10)
    monkeypatch.setattr("bitnet_core.measuring.targets_for", lambda _dtype: (impossible,))
    assert "FAILS baseline" in bitnet("targets", tiny_model, "--quick", exit_code=1).stdout


def test_targets_without_a_model_uses_a_synthetic_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bitnet_core.discovery._package_root", lambda: tmp_path)
    text = bitnet("targets", "--quick").stdout
    assert text.startswith(str(tmp_path / "cache" / "tiny-i2_s-seed42-v1.gguf"))
    assert "a synthetic model" in text


def test_targets_prefers_the_qk256_model_that_is_named(tiny_qk256_model, monkeypatch):
    monkeypatch.setenv("BITNET_QK256_MODEL", str(tiny_qk256_model))
    text = bitnet("targets", "--quick").stdout
    assert text.startswith(str(tiny_qk256_model))
    assert ">= 0.05" in text


def test_cpu():
    text = bitnet("cpu").stdout
    assert "instruction sets: " in text
    assert "gemv_i2_s_scalar" in text
    assert text.count("(used)") == 1
