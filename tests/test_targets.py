"""The table of promises, its verdicts, and the measurement that feeds it."""

import json
import math
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_model import small_model

from bitnet_core import BitNetError, GGUFError, dtypes, measuring
from bitnet_core.gguf import GGUFReader
from bitnet_core.synthetic import write_model
from bitnet_core.targets import TARGETS, Better, Measurement, Report, Target, Verdict, measure, number, targets_for


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("BITNET_QK256_MODEL", "BITNET_SEED"):
        monkeypatch.delenv(name, raising=False)


def limits(targets):
    return {t.metric: (t.sign, t.baseline, t.target) for t in targets}


# ---- the table ----


def test_promises_are_those_of_the_contract():
    assert limits(TARGETS) == {
        "load_s": ("<", 60, 0.1),
        "memory_ratio": ("<", 15, 1.1),
        "peak_memory_mb": ("<", 8192, None),
        "quantize_mb_s": (">", 10, 1000),
        "dequantize_mb_s": (">", 10, 1000),
        "tokens_per_second": (">", 5, 5),
        "average_token_latency_ms": ("<", 1000, 200),
        "first_token_latency_ms": ("<", None, None),
    }


def test_qk256_has_its_own_baselines_for_speed():
    assert targets_for("i2_s") is TARGETS
    changed = dict(limits(targets_for("qk256")).items() - limits(TARGETS).items())
    assert changed == {"tokens_per_second": (">", 0.05, 5), "average_token_latency_ms": ("<", 20_000, 200)}


@pytest.mark.parametrize(
    ("better", "value", "verdict"),
    [
        (Better.LOWER, 0.9, Verdict.TARGET),
        (Better.LOWER, 1.0, Verdict.BASELINE),  # a target must be beaten
        (Better.LOWER, 2.0, Verdict.BASELINE),  # a baseline only kept
        (Better.LOWER, 2.1, Verdict.FAIL),
        (Better.LOWER, math.nan, Verdict.FAIL),
        (Better.HIGHER, 1.1, Verdict.TARGET),
        (Better.HIGHER, 1.0, Verdict.BASELINE),
        (Better.HIGHER, 0.5, Verdict.BASELINE),
        (Better.HIGHER, 0.4, Verdict.FAIL),
        (Better.HIGHER, math.nan, Verdict.FAIL),
    ],
)
def test_verdict(better, value, verdict):
    baseline = 2.0 if better is Better.LOWER else 0.5
    assert Target("m", "m", "u", better, baseline, 1.0).verdict(value) is verdict


def test_verdict_without_limits():
    assert Target("m", "m", "u", Better.LOWER, None, None).verdict(1e9) is Verdict.NONE
    assert Target("m", "m", "u", Better.LOWER, 2.0, None).verdict(1e-9) is Verdict.BASELINE


def test_measurement_is_judged_by_its_median():
    measurement = Measurement(TARGETS[0], (0.01, 0.05, 100.0))
    assert measurement.value == 0.05
    assert measurement.mean == pytest.approx(33.353, rel=1e-3)
    assert measurement.spread == (0.01, 100.0)
    assert measurement.verdict is Verdict.TARGET
    assert measurement.cells() == (TARGETS[0].title, "0.0500 s", "<= 60", "< 0.1", "meets target")
    assert measurement.detail_cells() == (TARGETS[0].title, "33.4", "0.0100 to 100", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (100, "100"), (99.96, "100.0"), (9.5, "9.50"), (0.5, "0.500"), (0, "0"), (math.nan, "nan")],
)
def test_number(value, text):
    assert number(value) == text


# ---- the measurement ----


@pytest.fixture(scope="module")
def report(tiny_model):
    steps = []
    made = measure(tiny_model, n_threads=1, n_runs=2, n_tokens=4, progress=steps.append)
    assert steps == ["memory", "load", "quantize and dequantize", "decode"]
    return made


def test_every_metric_is_measured(report, tiny_model):
    assert [m.target for m in report.measurements] == list(TARGETS)
    n_samples = {m.target.metric: len(m.samples) for m in report.measurements}
    assert {metric for metric, n in n_samples.items() if n == 1} == {"memory_ratio", "peak_memory_mb"}
    assert {n for metric, n in n_samples.items() if n != 1} == {2}
    assert all(value > 0 and math.isfinite(value) for m in report.measurements for value in m.samples)
    assert report.model == tiny_model
    assert report.file_bytes == tiny_model.stat().st_size
    assert report.config["n_embd"] == 256
    assert report.config["dtype"] == "i2_s"
    assert report.synthetic == "preset tiny seed 42 version 1"
    assert report.environment["n_threads"] == 1
    assert report.tokens_generated == 4


def test_figures_hang_together(report):
    """Relations that hold at any speed."""
    for speed, latency in zip(
        report["tokens_per_second"].samples, report["average_token_latency_ms"].samples, strict=True
    ):
        assert speed * latency == pytest.approx(1000)
    assert report.total_time_ms > 3 * min(report["average_token_latency_ms"].samples)
    # Evaluating reads all weights where they lie: the pages of the file are resident.
    assert report["memory_ratio"].value >= 0.9
    assert report["peak_memory_mb"].value > report["memory_ratio"].value * report.file_bytes / 2**20
    assert report["load_s"].value < 5
    assert report.deterministic
    with pytest.raises(KeyError):
        report["speed"]


def test_kernels_are_those_that_ran(report):
    isa = report.environment["isa"]
    assert any(name.startswith("gemv_i2_s") for name in report.kernels)
    assert not any("qk256" in name for name in report.kernels)
    if isa == "scalar":
        assert all(name.endswith("_scalar") for name in report.kernels)


def test_table_has_a_line_for_each_metric(report):
    lines = report.table().splitlines()
    assert len(lines) == 1 + len(TARGETS)
    assert lines[0].split() == list(Report.COLUMNS)
    for line, measurement in zip(lines[1:], report.measurements, strict=True):
        for cell in measurement.cells():
            assert cell in line
    assert "file-backed" in report.details()
    assert "packed side" in report.details()
    assert "a synthetic model (preset tiny" in report.heading()
    assert "synthetic" not in replace(report, synthetic=None, model=Path("m.gguf")).heading()


def test_failed_lists_what_is_beyond_its_baseline(report):
    assert report.failed == ()
    slow = Measurement(report["load_s"].target, (61.0,))
    made = replace(report, measurements=(slow, *report.measurements[1:]))
    assert made.failed == (slow,)
    assert "FAILS baseline" in made.table()


def test_qk256_baselines_apply_by_the_file(tiny_qk256_model):
    made = measure(tiny_qk256_model, n_runs=1, n_tokens=2)
    assert made.config["dtype"] == "qk256"
    assert made["tokens_per_second"].target.baseline == 0.05
    assert any(name.startswith("gemv_qk256") for name in made.kernels)


def test_qk256_baselines_apply_by_the_variable(tiny_model, monkeypatch):
    monkeypatch.setenv("BITNET_QK256_MODEL", "1")
    made = measure(tiny_model, n_runs=1, n_tokens=2)
    assert made.config["dtype"] == "i2_s"
    assert made["average_token_latency_ms"].target.baseline == 20_000


def test_isa_is_passed_on(tiny_model):
    made = measure(tiny_model, n_runs=1, n_tokens=2, isa="scalar")
    assert made.environment["isa"] == "scalar"
    assert all(name.endswith("_scalar") for name in made.kernels)


def test_decoding_ends_in_time(tiny_model, monkeypatch):
    monkeypatch.setattr(measuring, "_MAX_DECODE_S", 0.0)
    assert measure(tiny_model, n_runs=1, n_tokens=100).tokens_generated == 2


def test_seed_chooses_the_prompt(monkeypatch):
    default = measuring._prompt(512)
    assert default == measuring._prompt(512)
    assert len(default) == 8
    assert all(0 <= token < 512 for token in default)
    monkeypatch.setenv("BITNET_SEED", "7")
    assert measuring._prompt(512) != default
    monkeypatch.setenv("BITNET_SEED", "x")
    with pytest.raises(ValueError, match="BITNET_SEED must be a whole number, not 'x'"):
        measuring._prompt(512)


def test_wrong_conversion_is_no_figure(tiny_model, monkeypatch):
    """A fast quantizer that is wrong must not be praised."""
    right = dtypes.quantize

    def wrong(*args, **kwargs):
        packed = right(*args, **kwargs)
        packed[5] ^= np.uint8(1)
        return packed

    monkeypatch.setattr(dtypes, "quantize", wrong)
    with pytest.raises(BitNetError, match=r"blk\.0\.ffn_down\.weight: .* other codes"):
        measure(tiny_model, n_runs=1, n_tokens=2)


@pytest.mark.parametrize("scale", [1e-7, 3e-6, -0.5, -1e-7, 1e-40, 0.0])
def test_any_scale_of_the_file_is_measured(tmp_path, scale):
    changed = dict.fromkeys(["blk.0.attn_q.weight", "blk.0.ffn_down.weight"], scale)
    path = with_scales(tmp_path / "m.gguf", changed)
    made = measure(path, n_runs=1, n_tokens=2)
    assert made["quantize_mb_s"].value > 0


def with_scales(path, scales):
    """The tiny model with other scales at the end of some matrices."""
    write_model(path, "tiny")
    with GGUFReader(path) as reader:
        ends = {info.name: info.offset + info.nbytes for info in reader.infos}
    data = bytearray(path.read_bytes())
    for name, scale in scales.items():
        struct.pack_into("<f", data, ends[name] - 32, scale)
    path.write_bytes(data)
    with GGUFReader(path) as reader:  # offsets are those of the file
        for name, scale in scales.items():
            assert reader.tensors[name][-32:-28].view("<f4")[0] == np.float32(scale)
    return path


def test_prompt_of_the_memory_figure_fits_a_small_vocabulary(tmp_path, capsys):
    path = tmp_path / "m.gguf"
    small_model(n_vocab=5).write(path)
    measuring._print_footprint({"path": str(path), "n_threads": 1, "isa": None, "dtype": None, "weights": "file"})
    assert json.loads(capsys.readouterr().out)["growth_peak"] >= 0


def test_a_single_run_is_not_called_deterministic(tiny_model, report):
    once = measure(tiny_model, n_runs=1, n_tokens=2)
    assert once.deterministic is False
    assert "a single run: whether" in once.heading()
    assert report.n_runs == 2
    assert report.deterministic is True
    assert "a single run" not in report.heading()


def test_errors_of_the_file_are_its_own(tmp_path):
    path = tmp_path / "no.gguf"
    with pytest.raises(FileNotFoundError):
        measure(path)
    path.write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(GGUFError, match="version"):
        measure(path)


def test_failing_child_says_why(tiny_model, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BitNetError, match="measures memory failed: exit status 1"):
        measure(tiny_model)


@pytest.mark.parametrize("arguments", [{"n_runs": 0}, {"n_tokens": 1}])
def test_too_few_runs_or_tokens(tiny_model, arguments):
    with pytest.raises(ValueError, match="at least"):
        measure(tiny_model, **arguments)
