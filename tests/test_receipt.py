"""The receipt and its verifier."""

import copy
import hashlib
import json

import pytest

from bitnet_core import receipt as receipts
from bitnet_core.targets import measure

SOUND = {
    "schema_version": "1.0.0",
    "timestamp": "2025-06-01T12:00:00+00:00",
    "compute_path": "real",
    "backend": "cpu",
    "kernels": ["gemv_i2_s_avx2", "head_f16_avx2"],
    "deterministic": True,
    "environment": {"os": "Linux"},
    "model_info": {
        "path": "/models/model.gguf",
        "sha256": "4221b252fdd5fd25e15847adfeb5ee88886506ba50b8a34548374492884c2162",
        "quantization_format": "i2_s",
        "layers": 30,
        "hidden_size": 2560,
        "heads": 20,
        "kv_heads": 5,
        "vocab_size": 128256,
    },
    "performance": {
        "load_s": 0.01,
        "tokens_generated": 32,
        "total_time_ms": 2000.0,
        "tokens_per_second": 20.0,
        "first_token_latency_ms": 450.0,
        "average_token_latency_ms": 50.0,
        "peak_memory_mb": 1200.0,
        "memory_ratio": 1.01,
        "quantize_mb_s": 5000,
        "dequantize_mb_s": 6000.0,
    },
}


def changed(path, value):
    """SOUND with one field set to a value, or removed where the value is Ellipsis."""
    receipt = copy.deepcopy(SOUND)
    *parents, name = path.split(".")
    fields = receipt
    for parent in parents:
        fields = fields[parent]
    if value is ...:
        del fields[name]
    else:
        fields[name] = value
    return receipt


def test_sound_receipt():
    assert receipts.verify(SOUND) == []
    receipts.check(SOUND)


@pytest.mark.parametrize("timestamp", ["2025-06-01T12:00:00Z", "2025-06-01t12:00:00.25z", "2025-06-01T12:00:00-05:30"])
def test_rfc3339_timestamps(timestamp):
    assert receipts.verify(changed("timestamp", timestamp)) == []


PROBLEMS = [
    ("schema_version", "1.1.0", "schema_version is '1.1.0'"),
    ("schema_version", ..., "schema_version is None"),
    ("timestamp", "2025-06-01 12:00:00", "RFC 3339"),
    ("timestamp", "2025-13-01T12:00:00Z", "RFC 3339"),
    ("timestamp", "2025-06-01T12:00:00", "RFC 3339"),
    ("timestamp", 0, "timestamp must be a string"),
    ("compute_path", "mock", "compute_path must be 'real'"),
    ("backend", "", "backend is empty"),
    ("kernels", [], "kernels is empty"),
    ("kernels", ["gemv_i2_s_avx2", "Mock_gemv"], "a mock computes nothing"),
    ("kernels", [""], "no name"),
    ("kernels", [1], "no name"),
    ("kernels", "gemv_i2_s_avx2", "kernels must be a list"),
    ("deterministic", 1, "deterministic must be true or false"),
    ("environment", {}, "environment is empty"),
    ("environment", ..., "environment is missing"),
    ("extra", 1, "extra is not part of schema 1.0.0"),
    ("model_info.extra", 1, "model_info.extra is not part"),
    ("model_info", [], "model_info must be an object"),
    ("model_info.sha256", "4221", "64 lower-case hexadecimal digits"),
    ("model_info.path", "", "model_info.path is empty"),
    ("model_info.layers", 0, "model_info.layers must be at least 1"),
    ("model_info.layers", 30.0, "model_info.layers must be a whole number"),
    ("model_info.layers", True, "model_info.layers must be a whole number"),
    ("model_info.kv_heads", 3, "20 heads cannot share 3 kv_heads"),
    ("performance", None, "performance must be an object"),
    ("performance.tokens_generated", 0, "performance.tokens_generated must be above zero"),
    ("performance.tokens_generated", 1.5, "performance.tokens_generated must be a whole number"),
    ("performance.tokens_per_second", 0.0, "performance.tokens_per_second must be above zero"),
    ("performance.tokens_per_second", "20", "performance.tokens_per_second must be a number"),
    ("performance.tokens_per_second", 2000.0, "contradict each other"),
    ("performance.tokens_generated", 1, "not total_time_ms"),
    ("performance.tokens_generated", 3200, "not total_time_ms"),
    pytest.param("performance.tokens_generated", 10**300, "not total_time_ms", id="300 digits"),
    ("performance.total_time_ms", 20_000.0, "not total_time_ms"),
    pytest.param("performance.load_s", 10**400, "load_s must be above zero and finite, not 1000", id="400 digits"),
    ("performance.load_s", -1.0, "performance.load_s must be above zero"),
    ("performance.memory_ratio", float("nan"), "performance.memory_ratio must be above zero"),
    ("performance.peak_memory_mb", float("inf"), "performance.peak_memory_mb must be above zero"),
    ("performance.first_token_latency_ms", 4000.0, "longer than all tokens"),
    ("performance.quantize_mb_s", ..., "performance.quantize_mb_s is missing"),
]


@pytest.mark.parametrize(("path", "value", "problem"), PROBLEMS)
def test_one_problem_at_a_time(path, value, problem):
    problems = receipts.verify(changed(path, value))
    assert len(problems) == 1
    assert problem in problems[0]
    with pytest.raises(ValueError, match="does not verify"):
        receipts.check(changed(path, value))


@pytest.mark.parametrize("receipt", [None, [], "x", 1, {}])
def test_what_is_no_receipt_at_all(receipt):
    assert receipts.verify(receipt)


def test_every_field_is_needed():
    for name in SOUND:
        assert receipts.verify(changed(name, ...))
    for group in ("model_info", "performance"):
        for name in SOUND[group]:
            assert receipts.verify(changed(f"{group}.{name}", ...)) == [f"{group}.{name} is missing"]


def test_written_and_read_again(tmp_path):
    receipts.write(tmp_path / "r.json", SOUND)
    assert receipts.read(tmp_path / "r.json") == SOUND
    assert list(tmp_path.iterdir()) == [tmp_path / "r.json"]


def test_unsound_receipt_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="kernels is empty"):
        receipts.write(tmp_path / "r.json", changed("kernels", []))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe"])
def test_file_that_is_not_json(tmp_path, data):
    (tmp_path / "r.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"r\.json is not a JSON file"):
        receipts.read(tmp_path / "r.json")


def test_sha256_of_a_file(tmp_path):
    data = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(data)
    seen = []
    found = receipts.file_sha256(tmp_path / "x", progress=lambda done, total: seen.append((done, total)))
    assert found == hashlib.sha256(data).hexdigest()
    assert seen[-1] == (2_560_000, 2_560_000)
    assert len(seen) == 3


def test_receipt_of_a_measured_model(tiny_model):
    report = measure(tiny_model, n_runs=1, n_tokens=3)
    receipt = receipts.make(report, receipts.file_sha256(tiny_model))
    assert receipts.verify(json.loads(json.dumps(receipt))) == []
    assert receipt["model_info"]["layers"] == 2
    assert receipt["model_info"]["quantization_format"] == "i2_s"
    assert receipt["performance"]["tokens_generated"] == 3
    assert any(name.startswith("gemv_i2_s_") for name in receipt["kernels"])
