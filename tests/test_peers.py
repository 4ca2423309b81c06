"""`make peers`: its arithmetic, its words, its processes; and all of it on the tiny model, where .peers/ is there."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console

import bitnet_core
from bitnet_core.synthetic import layout, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

sys.path.insert(0, str(ROOT / "scripts"))
try:
    peer_environment, peer_result, peers = map(importlib.import_module, ("peer_environment", "peer_result", "peers"))
finally:
    sys.path.remove(str(ROOT / "scripts"))
OURS, PEER = peers.OURS, peers.PEER


def result(**changes: Any) -> Any:
    """Three rounds on a quiet machine, on 2b, without AMX."""
    engines = {
        OURS: {"version": "1", "build": "fast kernels", "dtype": "i2_s", "file": "a.gguf", "file_bytes": 10**9},
        PEER: {"version": "2", "build": "AVX2", "dtype": "tq2_0", "file": "b.gguf", "file_bytes": 2 * 10**9},
    }
    engines[OURS]["bytes_per_token"], engines[PEER]["bytes_per_token"] = 500_000_000, 10**9
    fields: dict[str, Any] = {
        "preset": "2b",
        "cpu": "a processor",
        "n_threads": 2,
        "isa": "avx512vnni",
        "macs_per_token": 2 * 10**9,
        "engines": engines,
        "speeds": {
            OURS: {
                "prefill 128": [150.0, 120.0, 152.0],
                "prefill 512": [140.0, 108.0, 140.0],
                "decode": [36.0, 40.0, 44.0],
            },
            PEER: {"prefill 128": [50.0, 40.0, 40.0], "prefill 512": [35.0, 36.0, 35.0], "decode": [12.0, 10.0, 11.0]},
        },
        "read_gb_s": [22.5, 25.0, 22.0],
        "int8_peak_gmac_s": [400.0, 432.0, 400.0],
        "cosine": 0.999,
        "same_best": 15,
    }
    return peer_result.Result(**fields | changes)


# ---- arithmetic ----


def test_speeds_are_medians_and_ratios_are_taken_round_by_round() -> None:
    r = result()
    assert r.speed(OURS, "decode") == 40
    assert r.speed(PEER, "decode") == 11
    assert r.ratios("decode") == [3, 4, 4]  # the median 4 is not 40 / 11
    assert r.ratios("prefill 512") == [4, 3, 4]


def test_fractions_are_of_the_same_round() -> None:
    r = result()
    assert r.read_fraction(OURS) == pytest.approx(0.8)  # .8, .8, 1
    assert r.read_fraction(PEER) == pytest.approx(0.5)  # .53, .4, .5
    assert r.peak_fractions("prefill 512") == pytest.approx([0.7, 0.5, 0.7])


def test_goals_without_amx() -> None:
    decode, prefill, of_peak = peers_goals = peer_result.goals(result())
    assert [goal.verdict for goal in peers_goals] == ["ok", "for information", "ok"]
    assert (decode.value, prefill.value) == (4, 4)
    assert of_peak.value == pytest.approx(0.7)
    assert decode.line() == "decode / llama-cpp-python: 4.00x (3.00 to 4.00), aimed at >= 3: ok"
    assert prefill.line() == "prefill 512 / llama-cpp-python: 4.00x (3.00 to 4.00): for information"


def test_goals_with_amx() -> None:
    verdicts = [goal.verdict for goal in peer_result.goals(result(isa="amx"))]
    assert verdicts == ["ok", "missed", "for information"]
    speeds = result().speeds
    speeds[OURS]["prefill 512"] = [525.0, 540.0, 600.0]
    assert peer_result.goals(result(isa="amx", speeds=speeds))[1].verdict == "ok"  # 15, exactly


def test_what_is_missed_is_called_so() -> None:
    speeds = result().speeds
    speeds[OURS]["decode"], speeds[OURS]["prefill 512"] = [35.9, 29.9, 32.9], [119.0, 108.0, 119.0]
    assert [goal.verdict for goal in peer_result.goals(result(speeds=speeds))] == [
        "missed",
        "for information",
        "missed",
    ]


def test_small_models_are_not_judged() -> None:
    verdicts = {goal.verdict for goal in peer_result.goals(result(preset="125m"))}
    assert verdicts == {"not judged, it is for 2b", "for information"}


def test_a_busy_machine_is_noticed_and_nothing_judged() -> None:
    assert result().unsteady() == []
    busy = result(read_gb_s=[22.5, 29.3, 22.5])
    assert busy.unsteady() == ["read bandwidth 22.5 to 29.3"]
    assert peer_result.goals(busy)[0].verdict == "not judged, the machine was busy"
    assert "run it again when it is not: read bandwidth 22.5 to 29.3" in peer_result.as_table(busy)
    speeds = result().speeds
    speeds[PEER]["decode"] = [12.0, 0.6, 11.0]
    assert result(speeds=speeds).unsteady() == [f"decode of {PEER} 0.6 to 12.0"]


def test_agreement() -> None:
    a = np.array([[1.0, 2.0, 3.0], [3.0, 0.0, 4.0]])
    assert peers.agreement(a, 2 * a) == (pytest.approx(1), 2)
    b = np.array([[1.0, 2.0, 3.0], [4.0, 0.0, 3.0]])  # the second: 24 / 25, and another best token
    assert peers.agreement(a, b) == (pytest.approx(0.96), 1)


def test_each_token_is_counted_once() -> None:
    ids = list(range(600))
    asked = {test: (request, n) for test, request, n in peers.requests(ids)}
    assert tuple(asked) == peer_result.TESTS == ("prefill 128", "prefill 512", "decode")
    for n in (128, 512):
        assert asked[f"prefill {n}"] == ({"do": "prefill", "ids": ids[:n]}, n)
    request, n = asked["decode"]
    assert n == request["n"] == 32


# ---- output ----


def test_table() -> None:
    lines = peer_result.as_table(result()).splitlines()
    assert lines[0].split("  ")[0] == "engine"
    ours, peer, ratio = (line.split() for line in lines[1:4])
    assert ours == [OURS, "1", "i2_s", "1,000.0", "150", "140", "40.0", "500.0", "0.80"]
    assert peer == [PEER, "2", "tq2_0", "2,000.0", "40.0", "35.0", "11.0", "1,000.0", "0.50"]
    assert ratio == ["ratio", "3.00x", "4.00x", "4.00x"]
    assert lines[4] == ""
    text = "\n".join(lines)
    for words in (
        "synthetic 2b, arch bitnet, F16 head; 2 threads, a processor; 3 rounds in turn",
        f"{OURS}: fast kernels",
        "read bandwidth 22.5 GB/s, int8 peak 400 GMAC/s",
        "aimed at >= 3: ok",
        "cosine >= 0.9990, the same best 15 times",
    ):
        assert words in text


def test_markdown() -> None:
    lines = peer_result.as_md(result()).splitlines()
    assert {line.count("|") for line in lines[:5]} == {10}
    assert lines[4].startswith("| ratio |")
    assert all(line.startswith("- ") for line in lines[6:])


def test_json() -> None:
    record = json.loads(peer_result.as_json(result()))
    assert record["n_rounds"] == 3
    assert record["ratio"] == {"prefill 128": 3, "prefill 512": 4, "decode": 4}
    assert record["samples_ratio"]["decode"] == [3, 4, 4]
    assert record["engines"][PEER]["median_ts"]["decode"] == 11
    assert record["engines"][OURS]["samples_ts"]["decode"] == [36, 40, 44]
    assert record["engines"][OURS]["file_bytes"] == 10**9
    assert [goal["verdict"] for goal in record["goals"]] == ["ok", "for information", "ok"]
    assert record["unsteady"] == []
    assert record["check"] == {"n_tokens": 16, "least_cosine": 0.999, "same_best": 15}


@pytest.mark.parametrize(("cosine", "status"), [(0.99, 0), (0.97, 1), (float("nan"), 1)])
def test_engines_that_differ_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, cosine: float, status: int
) -> None:
    for name in ("prepare", "written_models", "check_memory"):
        monkeypatch.setattr(peers, name, lambda *_: {})
    monkeypatch.setattr(peers, "measure", lambda *_: result(cosine=cosine))
    monkeypatch.setattr(peers.surroundings, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(sys, "argv", ["peers.py", "--output", "json", "--results", str(tmp_path), "--machine", "m"])
    monkeypatch.chdir(ROOT)  # it goes there itself, and this comes back
    assert peers.main() == status
    assert json.loads(capsys.readouterr().out)["n_rounds"] == 3
    assert len(list(tmp_path.glob("m/peers/*.json"))) == (status == 0)  # what is not comparable is not kept


def test_beside_another_measurement_nothing_is_done() -> None:
    """A review, a history or a bench: whoever holds the lock of the checkout."""
    command = [sys.executable, str(ROOT / "scripts" / "peers.py"), "--preset", "tiny"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "CXX": "no-such-compiler"}  # should it begin, it does not get far
    with peers.surroundings.locked(ROOT):
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = f"peers: another measurement runs in this checkout (process {os.getpid()}): wait for its end\n"
    assert (done.stdout, done.stderr) == ("", said)


def test_the_outcome_is_kept_beside_the_results_of_the_commit(tmp_path: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    commit = head.stdout.strip()
    peers.keep(result(), tmp_path, "pool")
    peers.keep(result(preset="125m"), tmp_path, "pool")  # a small model leaves the large one's file alone
    folder = tmp_path / "pool" / "peers"
    assert {path.name for path in folder.iterdir()} == {f"{commit[:8]}.json", f"{commit[:8]}-125m.json"}
    record = json.loads((folder / f"{commit[:8]}.json").read_text(encoding="utf-8"))
    assert (record["commit"], record["preset"], record["ratio"]["decode"]) == (commit, "2b", 4)
    assert record["date"] > 1.7e12
    assert record["dirty"] in (True, False)


def test_without_a_commit_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    peers.keep(result(), tmp_path / "results", "m")
    assert not (tmp_path / "results").exists()
    assert "not kept for the dashboard: commits are measured, so this needs a git checkout" in capsys.readouterr().err


# ---- options ----


def test_options() -> None:
    assert (peers.parse([]).preset, peers.parse(["--quick"]).preset) == ("2b", "125m")
    assert peers.parse(["--rounds", "7", "--output", "json"]).rounds == 7


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--rounds", "0"], "at least 1, not '0'"),
        (["--threads", "two"], "at least 1, not 'two'"),
        (["--output", "xml"], "invalid choice: 'xml'"),
        (["--preset", "3b"], "invalid choice: '3b'"),
        (["--quick", "--preset", "2b"], "leave one of the two out"),
    ],
)
def test_wrong_options(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        peers.parse(args)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("quick", "passed"), [("QUICK=1", True), ("QUICK=0", False), ("QUICK=", False)])
def test_make_passes_options_on(tmp_path: Path, quick: str, passed: bool) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nfor word; do printf "<%s>" "$word"; done\n', encoding="utf-8")
    python.chmod(0o755)
    command = [make, "-s", "-C", str(ROOT), "peers", f"PY={python}", "BOOTSTRAP=true", quick, "ARGS=--rounds 5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"<scripts/peers.py>{'<--quick>' if passed else ''}<--rounds><5>"


# ---- the environment ----


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An environment that looks complete; its Python ends with 0, whatever it is asked."""
    folder = tmp_path / ".peers"
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n", encoding="utf-8")
    python.chmod(0o755)
    (folder / peer_environment.STAMP).write_text(json.dumps(peer_environment._wanted()), encoding="utf-8")
    return folder


def test_a_complete_environment_is_used_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_environment, "_install", lambda *_: pytest.fail("installed again"))
    assert peer_environment.prepare(folder, Console(stderr=True)) == folder / "bin" / "python"


@pytest.mark.parametrize("spoil", ["another version", "no stamp", "half a stamp", "a Python that does not run"])
def test_another_environment_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    stamp = folder / peer_environment.STAMP
    if spoil == "another version":
        monkeypatch.setattr(peer_environment, "REQUIREMENT", "llama-cpp-python==0.0.1")
    elif spoil == "no stamp":
        stamp.unlink()
    elif spoil == "half a stamp":
        stamp.write_text(stamp.read_text(encoding="utf-8")[:-2], encoding="utf-8")
    else:
        (folder / "bin" / "python").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    made = []
    monkeypatch.setattr(peer_environment, "_check_compilers", lambda: None)
    monkeypatch.setattr(peer_environment, "_install", lambda *_: made.append(stamp.exists()))
    peer_environment.prepare(folder, Console(stderr=True))
    assert made == [False]  # an interrupted installation is not taken for a complete one
    assert json.loads(stamp.read_text(encoding="utf-8")) == peer_environment._wanted()


def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(peers.PeersError, match=r"no CXX \(no-such-compiler\).*apt install g\+\+ "):
        peer_environment.prepare(tmp_path / ".peers", Console(stderr=True))
    assert not (tmp_path / ".peers").exists()


def test_a_full_disk_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=10**9))
    monkeypatch.setattr(peer_environment, "_check_compilers", lambda: None)
    monkeypatch.setattr(peer_environment, "_install", lambda *_: pytest.fail("began to install"))
    with pytest.raises(peers.PeersError, match=r"needs 1\.0 GiB in .*, 0\.9 GiB are free"):
        peer_environment.prepare(tmp_path / ".peers", Console(stderr=True))


def test_too_little_memory_is_noticed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "x.gguf"
    model.write_bytes(bytes(1000))
    monkeypatch.setattr(peers.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    with pytest.raises(peers.PeersError, match=r"need 1\.5 GiB of memory, 0\.9 GiB are available"):
        peers.check_memory({OURS: model, PEER: model})


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["WARNING: Retrying ... NewConnectionError('no route')", "ERROR: last"], "needs PyPI.*NewConnectionError"),
        (["g++: fatal error: Killed signal terminated program cc1plus"], "needs more memory"),
        (["write failed: No space left on device", "ERROR: x"], "needs more space"),
        (["fine", "CMake Error: the compiler is broken", "ERROR: later"], "^CMake Error: the compiler is broken$"),
        ([], "pip said nothing"),
    ],
)
def test_why_pip_failed(lines: list[str], said: str) -> None:
    assert re.search(said, peer_environment.reason(lines))


# ---- the engines ----


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny.gguf", "tiny", arch="bitnet")


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("PYTHONPATH", str(Path(bitnet_core.__file__).parent.parent))
    with peers.Engine(OURS, sys.executable) as engine:
        yield engine


def test_our_engine_answers(ours: Any, model: Path, tmp_path: Path) -> None:
    opened = ours.ask("open", path=str(model), n_ctx=512, n_threads=1)
    assert (opened["version"], opened["n_threads"]) == (bitnet_core.__version__, 1)
    ids = [3, 1, 4, 1, 5]
    assert ours.ask("prefill", ids=ids)["seconds"] > 0
    decoded = ours.ask("decode", ids=ids, n=6)
    assert decoded["seconds"] > 0
    assert 0 < decoded["bytes_per_token"] < model.stat().st_size
    ours.ask("logits", ids=ids, out=str(tmp_path / "x.npy"))
    params = bitnet_core.SamplingParams(temperature=0, max_tokens=7, ignore_eos=True)
    with bitnet_core.Model.from_file(model) as m, m.session() as session:
        assert decoded["tokens"] == list(session.generate(ids, params))
        session.rewind(0)
        assert np.array_equal(np.load(tmp_path / "x.npy"), session.eval(ids, all_logits=True))


def test_an_engine_says_what_is_wrong_and_goes_on(ours: Any, model: Path) -> None:
    with pytest.raises(peers.PeersError, match=r"bitnet-core could not open: .*nowhere\.gguf"):
        ours.ask("open", path="nowhere.gguf", n_ctx=512, n_threads=1)
    assert ours.ask("open", path=str(model), n_ctx=512, n_threads=1)["n_threads"] == 1


def test_the_end_of_an_engine_is_told(ours: Any) -> None:
    ours._process.kill()
    ours._process.wait()
    with pytest.raises(
        peers.PeersError, match=r"bitnet-core could not prefill: its process ended with -9 \(killed; .*memory"
    ):
        ours.ask("prefill", ids=[1])


def test_an_engine_that_is_not_there() -> None:
    with peers.Engine("nobody", sys.executable) as engine, pytest.raises(peers.PeersError, match="KeyError: 'nobody'"):
        engine.ask("open", path="x", n_ctx=1, n_threads=1)


def test_both_engines_on_the_tiny_model(tmp_path: Path) -> None:
    """All of it; both compute the same from the two files."""
    if not peer_environment.is_ready(ROOT / ".peers"):
        pytest.skip("llama-cpp-python is not installed in .peers/; `make peers QUICK=1` does it")
    command = [
        sys.executable,
        str(ROOT / "scripts" / "peers.py"),
        "--preset",
        "tiny",
        "--rounds",
        "2",
        "--output",
        "json",
        "--results",
        str(tmp_path / "results"),
    ]
    package = str(Path(bitnet_core.__file__).parent.parent)
    env = os.environ | {"PYTHONPATH": package, "BITNET_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["check"]["least_cosine"] > 0.995
    assert set(record["engines"]) == {OURS, PEER}
    for engine, dtype in ((OURS, "i2_s"), (PEER, "tq2_0")):
        figures = record["engines"][engine]
        assert figures["file_bytes"] == layout("tiny", dtype, arch="bitnet").file_size
        assert [len(figures["samples_ts"][test]) for test in peer_result.TESTS] == [2, 2, 2]
        assert all(speed > 0 for samples in figures["samples_ts"].values() for speed in samples)
    assert record["engines"][PEER]["version"] == peer_environment.REQUIREMENT.partition("==")[2]
