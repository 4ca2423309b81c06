"""The receipt of a measured run, a JSON file of schema 1.0.0, and the verifier that tells real from invented.

::

    {
      "schema_version": "1.0.0",
      "timestamp": "2025-06-01T12:00:00+00:00",         RFC 3339
      "compute_path": "real",
      "backend": "cpu",
      "kernels": ["gemv_i2_s_avx2", ...],               those that ran, recorded by dispatch
      "deterministic": true,                            repeated runs made the same tokens; false after a single run
      "environment": {...},                             what the figures depend on; free
      "model_info": {"path", "sha256", "quantization_format", "layers", "hidden_size", "heads", "kv_heads",
                     "vocab_size"},
      "performance": {"load_s", "tokens_generated", "total_time_ms", "tokens_per_second", "first_token_latency_ms",
                      "average_token_latency_ms", "peak_memory_mb", "memory_ratio", "quantize_mb_s", "dequantize_mb_s"}
    }
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import reprlib
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitnet_core.files import AtomicFile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from bitnet_core.targets import Report

__all__ = ["SCHEMA_VERSION", "check", "file_sha256", "make", "read", "verify", "write"]

SCHEMA_VERSION = "1.0.0"

_FIELDS: dict[str, type] = {
    "schema_version": str,
    "timestamp": str,
    "compute_path": str,
    "backend": str,
    "kernels": list,
    "deterministic": bool,
    "environment": dict,
    "model_info": dict,
    "performance": dict,
}
_MODEL_FIELDS: dict[str, type] = {
    "path": str,
    "sha256": str,
    "quantization_format": str,
    "layers": int,
    "hidden_size": int,
    "heads": int,
    "kv_heads": int,
    "vocab_size": int,
}
_PERFORMANCE_FIELDS: dict[str, type] = {
    "load_s": float,
    "tokens_generated": int,
    "total_time_ms": float,
    "tokens_per_second": float,
    "first_token_latency_ms": float,
    "average_token_latency_ms": float,
    "peak_memory_mb": float,
    "memory_ratio": float,
    "quantize_mb_s": float,
    "dequantize_mb_s": float,
}
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAUSE_MS = (
    100.0  # the figures are medians, so the run that took the total may have had another first token than they say
)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = 80
_NAMES = {
    str: "a string",
    list: "a list",
    bool: "true or false",
    dict: "an object",
    int: "a whole number",
    float: "a number",
}


# ---- make and store ----


def make(report: Report, sha256: str) -> dict[str, Any]:
    """Return the receipt of a measurement of the model whose file has that SHA-256."""
    config = report.config
    measured = {m.target.metric: m.value for m in report.measurements}
    rest = {"tokens_generated": report.tokens_generated, "total_time_ms": report.total_time_ms}
    return {
        "schema_version": SCHEMA_VERSION,
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "compute_path": "real",
        "backend": "cpu",
        "kernels": list(report.kernels),
        "deterministic": report.deterministic,
        "environment": report.environment,
        "model_info": {
            "path": str(report.model),
            "sha256": sha256,
            "quantization_format": config["dtype"],
            "layers": config["n_layer"],
            "hidden_size": config["n_embd"],
            "heads": config["n_head"],
            "kv_heads": config["n_head_kv"],
            "vocab_size": config["n_vocab"],
        },
        "performance": {name: (measured | rest)[name] for name in _PERFORMANCE_FIELDS},
    }


def file_sha256(path: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None) -> str:
    """Return the SHA-256 of a file in hexadecimal; ``progress`` is called with (bytes done, bytes in total)."""
    path = Path(path)
    total, done = path.stat().st_size, 0
    digest = hashlib.sha256()
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while n := file.readinto(buffer):
            digest.update(memoryview(buffer)[:n])
            done += n
            if progress is not None:
                progress(done, total)
    return digest.hexdigest()


def write(path: str | os.PathLike[str], receipt: dict[str, Any]) -> None:
    """Write a receipt; the file appears whole or not at all.

    Raises
    ------
    ValueError
        The receipt does not verify: a file that would be rejected is not written.
    """
    check(receipt)
    with AtomicFile(path) as file:
        file.write((json.dumps(receipt, indent=2, allow_nan=False) + "\n").encode())


def read(path: str | os.PathLike[str]) -> Any:
    """Return the parsed JSON of a receipt, not verified; ValueError names the file if it is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # JSON and UTF-8 errors are both
        raise ValueError(f"{path} is not a JSON file: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is not a receipt: its JSON nests too deeply to be read") from None


# ---- verify ----


def check(receipt: Any) -> None:
    """Raise ValueError, listing every problem, unless the receipt verifies."""
    problems = verify(receipt)
    if problems:
        raise ValueError("the receipt does not verify: " + "; ".join(problems))


def verify(receipt: Any) -> list[str]:
    """Return what is wrong with a receipt; nothing if it is sound.

    Rejected are an unknown schema, missing, unknown and wrongly typed fields, a compute path other than "real", no
    kernels or one called mock, zero tokens or zero speed, figures that are not positive or contradict each other,
    such as a number of tokens that does not take the total time at that speed.

    Parameters
    ----------
    receipt
        What :func:`read` returns: anything that JSON can hold.
    """
    if not isinstance(receipt, dict):
        return ["a receipt is a JSON object"]
    if receipt.get("schema_version") != SCHEMA_VERSION:
        return [f"schema_version is {_shown(receipt.get('schema_version'))}; only {SCHEMA_VERSION!r} is known"]
    problems = list(_field_problems(receipt, _FIELDS, ""))
    for name, fields in (("model_info", _MODEL_FIELDS), ("performance", _PERFORMANCE_FIELDS)):
        if isinstance(receipt.get(name), dict):
            problems += _field_problems(receipt[name], fields, f"{name}.")
    if problems:
        return problems  # what follows relies on the fields
    return [*_run_problems(receipt), *_model_problems(receipt["model_info"]), *_speed_problems(receipt["performance"])]


def _field_problems(fields: dict[str, Any], expected: dict[str, type], prefix: str) -> Iterator[str]:
    for name, kind in expected.items():
        if name not in fields:
            yield f"{prefix}{name} is missing"
        elif not _is_a(fields[name], kind):
            yield f"{prefix}{name} must be {_NAMES[kind]}, not {_shown(fields[name])}"
    for name in fields.keys() - expected.keys():
        yield f"{prefix}{_shown(name)[1:-1]} is not part of schema {SCHEMA_VERSION}"


def _is_a(value: Any, kind: type) -> bool:
    if kind in (int, float):
        allowed = (int,) if kind is int else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool)
    return isinstance(value, kind)


def _run_problems(receipt: dict[str, Any]) -> Iterator[str]:
    if not _is_rfc3339(receipt["timestamp"]):
        yield f"timestamp {_shown(receipt['timestamp'])} is not an RFC 3339 time with an offset"
    if receipt["compute_path"] != "real":
        yield f"compute_path must be 'real', not {_shown(receipt['compute_path'])}"
    if not receipt["backend"]:
        yield "backend is empty"
    if not receipt["environment"]:
        yield "environment is empty"
    if not receipt["kernels"]:
        yield "kernels is empty: nothing is known to have run"
    for kernel in receipt["kernels"]:
        if not isinstance(kernel, str) or not kernel.strip():
            yield f"kernels holds {_shown(kernel)}, which is no name"
        elif "mock" in kernel.lower():
            yield f"kernels holds {_shown(kernel)}: a mock computes nothing"


def _model_problems(model: dict[str, Any]) -> Iterator[str]:
    if not _SHA256.fullmatch(model["sha256"]):
        yield f"model_info.sha256 must be 64 lower-case hexadecimal digits, not {_shown(model['sha256'])}"
    for name in ("path", "quantization_format"):
        if not model[name]:
            yield f"model_info.{name} is empty"
    counts = {name: model[name] for name, kind in _MODEL_FIELDS.items() if kind is int}
    for name, value in counts.items():
        if value < 1:
            yield f"model_info.{name} must be at least 1, not {_shown(value)}"
    if min(counts.values()) >= 1 and model["heads"] % model["kv_heads"]:
        yield f"model_info: {_shown(model['heads'])} heads cannot share {_shown(model['kv_heads'])} kv_heads"


def _speed_problems(performance: dict[str, Any]) -> Iterator[str]:
    bad = {name: value for name, value in performance.items() if not _is_positive(value)}
    for name, value in bad.items():
        yield f"performance.{name} must be above zero and finite, not {_shown(value)}"
    if bad:
        return
    figures = {name: float(value) for name, value in performance.items()}  # products of whole numbers could be endless
    first_ms, total_ms = figures["first_token_latency_ms"], figures["total_time_ms"]
    if first_ms > total_ms * 1.5:
        yield "performance: the first token took longer than all tokens"
    elif not 0.5 < figures["tokens_per_second"] * figures["average_token_latency_ms"] / 1000 < 2:
        yield "performance: tokens_per_second and average_token_latency_ms contradict each other"
    else:
        expected_ms = first_ms + (figures["tokens_generated"] - 1) * 1000 / figures["tokens_per_second"]
        if expected_ms > 2 * total_ms + _PAUSE_MS or total_ms > 2 * expected_ms + _PAUSE_MS:
            n_tokens = _shown(performance["tokens_generated"])
            yield (
                f"performance: {n_tokens} tokens at tokens_per_second take about {expected_ms:.4g} ms, "
                f"not total_time_ms, {total_ms:.4g}"
            )


def _is_positive(value: float) -> bool:
    try:
        number = float(value)
    except OverflowError:  # a whole number that no float holds
        return False
    return math.isfinite(number) and number > 0


def _shown(value: Any) -> str:
    """Write a value of the file, which may be long or deep, in one short line."""
    return _SHORT.repr(value)


def _is_rfc3339(text: str) -> bool:
    if not _RFC3339.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(re.sub(r"\.\d+", "", text.upper()).replace("Z", "+00:00"))
    except ValueError:
        return False
    return True
