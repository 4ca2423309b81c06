"""The benchmark suite itself: its rules, its helpers, and every benchmark once on the tiny model."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from test_pack import level_packs

from tracking import asv_run, models

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PREFIXES = ("time_", "timeraw_", "track_", "peakmem_", "mem_")


def load(name: str, path: Path) -> ModuleType:
    """Import a file that lies in no installed package."""
    places = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


load("benchmarks", ROOT / "benchmarks" / "__init__.py")
FILES = sorted(path for path in (ROOT / "benchmarks").glob("*.py") if path.name != "__init__.py")
MODULES = {path.stem: importlib.import_module(f"benchmarks.{path.stem}") for path in FILES}
common = MODULES["common"]
CLASSES = [
    value
    for module in MODULES.values()
    for name, value in vars(module).items()
    if inspect.isclass(value) and value.__module__ == module.__name__ and not name.startswith("_")
]
METHODS = [(cls, name) for cls in CLASSES for name in dir(cls) if name.startswith(PREFIXES)]


def full_name(cls: type, method: str, values: tuple[Any, ...]) -> str:
    """What asv calls a combination of parameters, and `-b` selects by."""
    name = f"{cls.__module__.partition('.')[2]}.{cls.__name__}.{method}"
    return f"{name}({', '.join(map(repr, values))})" if values else name


def combinations(cls: Any) -> list[tuple[Any, ...]]:
    return [c for c in itertools.product(*getattr(cls, "params", [])) if c not in getattr(cls, "skip_params", [])]


TOKENS = ("track_token", "track_token_p95")
ALL = [(cls, method, values) for cls, method in METHODS for values in combinations(cls)]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    pytest.importorskip("rich")
    return load("bench", ROOT / "scripts" / "bench.py")


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample of each; models of these tests alone; no model given."""
    monkeypatch.setenv("BITNET_BENCH_SECONDS", "0")
    monkeypatch.setenv("BITNET_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("BITNET_GGUF", raising=False)


# ---- the rules ----


def test_every_subject_is_there() -> None:
    files = {"canary", "footprint", "generate", "instructions", "kernels", "load", "memory", "quant", "roofline"}
    assert set(MODULES) == files | {"common"}
    assert len(METHODS) > 15


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_states_what_asv_must_know(cls: Any) -> None:
    assert isinstance(cls.version, str), "asv's own version does not see helpers"
    assert 0 < cls.timeout <= 600
    params = getattr(cls, "params", [])
    assert len(params) == len(getattr(cls, "param_names", []))
    for values in params:
        assert len(set(values)) == len(values) > 0
        assert all(isinstance(value, (str, int)) for value in values), "parameters are literals"
    assert all(values in itertools.product(*params) for values in getattr(cls, "skip_params", []))
    assert cls.__doc__
    if hasattr(cls, "setup_cache"):
        assert "setup_cache" in vars(cls), "asv gives an inherited setup_cache's result to the wrong class"


@pytest.mark.parametrize(("cls", "name"), METHODS, ids=lambda value: getattr(value, "__name__", value))
def test_a_method_is_of_a_kind_that_works(cls: Any, name: str) -> None:
    assert not name.startswith(("time_", "mem_")), "asv would run setup before each call, or see Python objects alone"
    method = getattr(cls, name)
    if name.startswith("track_"):
        unit = getattr(method, "unit", None) or getattr(cls, "unit", None)
        assert unit in {"seconds", "bytes", "x", "instructions"}, "lower is better"
        assert ("rounds" in vars(method)) == (unit in {"seconds", "x"}), (
            "asv reads rounds of a track_ from the function alone"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_suite_imports_on_a_commit_without_the_package(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.startswith(("bitnet_core", "gguf"))]


def test_shape_names_say_their_shapes() -> None:
    kernels = MODULES["kernels"]
    assert list(kernels.SHAPES) == kernels.SHAPE_NAMES
    for name, (n_rows, ne0) in kernels.SHAPES.items():
        assert name.endswith(f" {n_rows}x{ne0}")
        assert n_rows % kernels.BLOCK_ROWS == ne0 % 256 == 0


# ---- what `make bench` selects ----


def selected(name: str) -> list[str]:
    pattern = models.select(name)
    return [full for item in ALL if re.search(pattern, full := full_name(*item))]


def test_a_quick_run_selects_tiny_and_what_has_no_model() -> None:
    names = selected("tiny")
    assert not [name for name in names if "'2b" in name or "given" in name]
    assert {name.partition("(")[0] for name in names} >= {
        *("load.Load.track_open", "memory.Memory.track_peak_anon", "quant.Quant.track_quantize_gib"),
        *("kernels.Gemv.track_gigaweight", "kernels.Gemm.track_gigaweight", "generate.Decode.track_token"),
        *("generate.PrefillLong.track_token", "footprint.Import.timeraw_import", "canary.Read.track_gib"),
    }


@pytest.mark.parametrize(("name", "without"), [("2b", ("'given'", "'2b-qk256'")), ("given", ("'2b'", "'2b-qk256'"))])
def test_a_full_run_selects_tiny_and_its_model(name: str, without: tuple[str, ...]) -> None:
    names = selected(name)
    assert not [full for full in names for value in without if value in full]
    assert f"generate.Decode.track_token('{name}', 2, 2048)" in names
    assert "generate.Decode.track_token('tiny', 2, 0)" in names
    assert "kernels.Gemv.track_gigaweight('i2_s', 'avx2', '2b/ffn_up 6912x2560', 2)" in names


def test_the_qk256_model_is_measured_once_it_is_in_the_cache() -> None:
    from bitnet_core import synthetic

    path = synthetic.cached_path("2b", dtype="qk256")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    try:
        assert "generate.Decode.track_token('2b-qk256', 2, 0)" in selected("2b")
    finally:
        path.unlink()


def test_a_run_can_be_narrowed() -> None:
    pattern = models.select("tiny", "Decode|Read")
    names = {full_name(*item) for item in ALL if re.search(pattern, full_name(*item))}
    assert names == {
        *(f"generate.Decode.{method}('tiny', {threads}, 0)" for method in TOKENS for threads in (1, 2)),
        "canary.Read.track_gib(256)",
    }


def test_a_machine_is_remembered_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = pytest.importorskip("asv.machine")
    from tracking.results import remember_machine

    monkeypatch.setenv("HOME", str(tmp_path))
    assert remember_machine("bench-host") == "bench-host"
    file = tmp_path / ".asv-machine.json"
    known = json.loads(file.read_text(encoding="utf-8"))["bench-host"]
    assert set(known) == {name for name, _ in machine.Machine.fields}
    assert re.fullmatch(r"\d+GB", known["ram"])
    assert known["os"] in {"Linux", "Darwin"}
    before = file.read_bytes()
    assert remember_machine("bench-host") == "bench-host"
    # asv takes the only machine it knows for the host, under whatever name.
    assert remember_machine(machine.Machine.get_unique_machine_name()) == "bench-host"
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["", '{"version": 1, "x": {', "[]", "3"])
def test_a_damaged_list_of_machines_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    pytest.importorskip("asv.machine")
    from tracking.errors import TrackingError
    from tracking.results import remember_machine

    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".asv-machine.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(TrackingError, match=r"\.asv-machine\.json, in which .* is damaged: remove it"):
        remember_machine("bench-host")
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["../x", "a/b", " ", ".hidden", "-x", "a b"])
def test_the_name_of_a_machine_stays_in_the_results(name: str) -> None:
    pytest.importorskip("asv.machine")
    from tracking.errors import TrackingError
    from tracking.results import remember_machine

    with pytest.raises(TrackingError, match="is no name for a machine"):
        remember_machine(name)


def test_what_looks_like_markup_is_said_as_it_is(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from tracking.progress import Progress

    for terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, width=200, force_terminal=terminal, soft_wrap=True)
        monkeypatch.setattr(bench, "console", console)
        bench.say("measuring commit 12345678 (build: look in [/opt] and [red])", "yellow")
        with Progress(console, "history", 2) as progress:
            progress.show("12345678 build: look in [/opt] and [red]", "1 of 2 [/commits]", 1)
        assert out.getvalue().count("look in [/opt] and [red]") >= 2
        assert "1 of 2 [/commits]" in out.getvalue()


def test_a_command_that_is_said_can_be_pasted(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("asv")
    from tracking import parts

    args = asv_run.measure_args("f" * 40, ["^(?!.*'(2b|given)')(?=.*(?:))"], "m", quick=True)
    monkeypatch.chdir(ROOT)  # a Suite changes it
    monkeypatch.setattr(parts.Parts, "discover", lambda _: ["load"])
    monkeypatch.setattr(parts.Parts, "measure", lambda *_: (7, args))
    monkeypatch.setattr(bench.models, "choose", lambda *_, **__: (tmp_path / "a.gguf", "tiny"))
    assert bench.bench(quick=True, only="", machine="m", fresh=False) == 7
    said = capsys.readouterr().out.split("to see more: ")[1]
    assert shlex.split(said)[3:] == ["-v", *args]


def test_the_environment_of_asv(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITNET_ISA", "scalar")
    env = bench.asv_environment()
    assert "BITNET_ISA" not in env
    assert " " not in env["PIP_CONSTRAINT"], "pip splits the variable at spaces"
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


# ---- helpers ----


def test_samples_stops_at_the_time_or_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(common.samples(lambda: None)["samples"]) == 1  # no time at all: still one
    assert len(common.samples(lambda: None, least=20)["samples"]) == 20  # of fewer there is no 95th percentile
    monkeypatch.delenv("BITNET_BENCH_SECONDS")
    assert len(common.samples(lambda: None, seconds=60, most=5)["samples"]) == 5


def test_samples_times_the_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def spend(seconds: float) -> float:
        nonlocal now
        now += seconds
        return seconds

    monkeypatch.setattr(common.time, "perf_counter", lambda: now)
    monkeypatch.delenv("BITNET_BENCH_SECONDS")
    given = []
    measured = common.samples(
        lambda: spend(0.25),
        before=lambda: spend(10),
        after=lambda x: (given.append(x), spend(20)),
        seconds=60,
        per=1e-3,
    )
    assert measured == {"samples": [250.0, 250.0], "number": 1}
    assert given == [0.25, 0.25]


@pytest.mark.parametrize(
    ("each", "expected"),
    [(0.04, 6), (0.25, 4)],  # those that end within the tenth of a second that warms up do not count
)
def test_samples_are_taken_behind_the_warm_up(monkeypatch: pytest.MonkeyPatch, each: float, expected: int) -> None:
    now, calls = 0.0, 0

    def measure() -> float:
        nonlocal now, calls
        now, calls = now + each, calls + 1
        return float(calls)

    monkeypatch.setattr(common.time, "perf_counter", lambda: now)
    monkeypatch.delenv("BITNET_BENCH_SECONDS")
    found = common.repeated(measure, seconds=0.2 if each == 0.04 else 0.9)["samples"]
    assert found == [float(i) for i in range(calls - expected + 1, calls + 1)]
    monkeypatch.setenv("BITNET_BENCH_SECONDS", "0")
    now, calls = 0.0, 0
    assert common.repeated(measure)["samples"] == [1.0], "a dry run calls it once"


def test_quantile() -> None:
    assert common.quantile({"samples": [float(x) for x in range(101)], "number": 1}, 0.95) == 95.0


def test_same_logits() -> None:
    logits = np.array([1.0, 2.0], np.float32)
    common.same_logits(logits, logits.copy())
    with pytest.raises(AssertionError, match="differ"):
        common.same_logits(logits, np.nextafter(logits, np.float32(3)))
    with pytest.raises(AssertionError, match="not finite"):
        common.same_logits(logits * np.float32(np.nan), logits)


def test_need_skips_what_the_commit_lacks() -> None:
    assert common.need("bitnet_core.kernels", "matmul").matmul
    with pytest.raises(NotImplementedError, match="no bitnet_core"):
        common.need("bitnet_core.not_yet")
    with pytest.raises(NotImplementedError, match="no not_yet"):
        common.need("bitnet_core.kernels", "matmul", "not_yet")


def test_need_fails_when_the_package_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitnet_core", None)
    with pytest.raises(ModuleNotFoundError):
        common.need("bitnet_core.kernels")


def test_an_argument_that_the_commit_lacks_skips() -> None:
    from bitnet_core import SamplingParams, dtypes

    common.need_argument(SamplingParams, "ignore_eos")
    common.need_argument(dtypes.quantize, "out")
    with pytest.raises(NotImplementedError, match=r"^quantize of this commit has no speed$"):
        common.need_argument(dtypes.quantize, "speed")


def test_threads_and_levels_that_are_not_there_are_skipped() -> None:
    common.need_threads(1)
    common.need_isa("scalar")
    with pytest.raises(NotImplementedError, match="threads"):
        common.need_threads(1000)
    with pytest.raises(NotImplementedError, match="avx1024"):
        common.need_isa("avx1024")


def test_tiny_is_written_and_2b_is_not() -> None:
    assert common.model_path("tiny").is_file()
    for name in ("2b", "2b-qk256"):
        with pytest.raises(NotImplementedError, match="cached_model"):
            common.model_path(name)


def test_the_given_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="BITNET_GGUF"):
        common.model_path("given")
    monkeypatch.setenv("BITNET_GGUF", "model.gguf")
    with pytest.raises(ValueError, match="absolute"):
        common.model_path("given")
    monkeypatch.setenv("BITNET_GGUF", str(tmp_path / "model.gguf"))
    with pytest.raises(FileNotFoundError, match=r"model\.gguf"):
        common.model_path("given")
    (tmp_path / "model.gguf").touch()
    assert common.model_path("given") == tmp_path / "model.gguf"


def test_the_page_cache_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "pages"
    path.write_bytes(bytes(1 << 20))
    assert common.resident_fraction(path) == 1.0
    try:
        common.drop_page_cache(path)
    except NotImplementedError as reason:
        pytest.skip(str(reason))
    assert common.resident_fraction(path) <= 0.01
    path.read_bytes()
    assert common.resident_fraction(path) == 1.0


# ---- instruction counts ----


@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_a_count_is_the_same_twice_and_sees_half_a_percent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These sources twice, and a commit of them whose matrix product does a little more."""
    callgrind = MODULES["instructions"].Callgrind
    work = ("track_instructions", ("gemv i2_s", "scalar"))
    monkeypatch.chdir(tmp_path)
    first, second = run_once(callgrind, *work), run_once(callgrind, *work)
    project = tmp_path / "project"
    shutil.copytree(ROOT / "csrc", project / "csrc", ignore=shutil.ignore_patterns("__pycache__"))
    matmul = project / "csrc" / "matmul.c"
    text, begin = matmul.read_text(encoding="utf-8"), "static void i32_worker(void *arg, int ith, int nth) {"
    assert text.count(begin) == 1
    slower = text.replace(begin, begin + " for (volatile int64_t i = 0; i < 5000; i++) {}")
    matmul.write_text(slower, encoding="utf-8")
    monkeypatch.setenv("ASV_COMMIT", commit_all(project))
    monkeypatch.setenv("ASV_CONF_DIR", str(project))
    with monkeypatch.context() as patch:
        patch.setitem(CACHES, callgrind, (callgrind().setup_cache(),))
        planted = run_once(callgrind, *work)
    assert first == second
    assert 1.002 < planted / first < 1.005


def commit_all(folder: Path) -> str:
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "csrc"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_what_cannot_be_counted_is_skipped_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instructions = MODULES["instructions"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASV_COMMIT", "0" * 40)
    monkeypatch.setenv("ASV_CONF_DIR", str(ROOT))
    found = instructions.Callgrind().setup_cache()
    assert found[0] == ""
    assert ("git has no csrc of 00000000" in found[1]) or "is not installed" in found[1]
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delitem(CACHES, instructions.Callgrind, raising=False)
    with pytest.raises(NotImplementedError, match="valgrind is not installed"):
        run_once(instructions.Callgrind, "track_instructions", ("open", "scalar"))
    del CACHES[instructions.Callgrind]


# ---- every benchmark of the tiny model, once ----


CACHES: dict[Any, tuple[Any]] = {}  # asv, too, makes them once a class


def run_once(cls: Any, method: str, values: tuple[Any, ...]) -> Any:
    """What asv does with one combination of parameters."""
    benchmark = cls()
    if hasattr(cls, "setup_cache") and cls not in CACHES:
        CACHES[cls] = (benchmark.setup_cache(),)
    cache = CACHES.get(cls, ())
    if hasattr(cls, "setup"):
        benchmark.setup(*cache, *values)
    try:
        return getattr(benchmark, method)(*cache, *values)
    finally:
        if hasattr(cls, "teardown"):
            benchmark.teardown(*cache, *values)


def may_be_skipped(values: tuple[Any, ...]) -> bool:
    """Skipping must have a reason in this machine: elsewhere it would hide that the API was renamed."""
    from bitnet_core import kernels

    isas = {value for value in values if value in common.ISAS}
    if set(values) & set(MODULES["instructions"].WORKS) and not shutil.which("valgrind"):
        return True
    if "packed" in values and not level_packs(kernels.chosen_isa()):
        return True
    return "cold" in values or common.all_threads() < 2 or bool(isas - set(kernels.isa_levels()))


TINY = [item for item in ALL if not re.search("'(2b|given)", full_name(*item))]


@pytest.mark.parametrize(("cls", "method", "values"), TINY, ids=[full_name(*item) for item in TINY])
def test_a_benchmark_runs_and_its_value_makes_sense(
    cls: Any, method: str, values: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        found = run_once(cls, method, values)
    except NotImplementedError as reason:
        if not may_be_skipped(values):
            raise
        pytest.skip(str(reason))
    if method.startswith("timeraw_"):
        for code in found:
            exec(code, {})  # noqa: S102  # our own text
    elif method.startswith("peakmem_"):
        assert found is None
    elif isinstance(found, dict):
        assert found["number"] == 1
        assert len(found["samples"]) == 1
        assert 0 < found["samples"][0] < math.inf
    else:
        assert 0 < found < math.inf


@pytest.mark.parametrize("reader", ["bitnet_core", "gguf"])
@pytest.mark.parametrize("method", ["track_open", "track_tokens"])
def test_the_header_benchmark_runs_with_both_readers(
    reader: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MODULES["load"], "N_TOKENS", 1000)
    monkeypatch.setattr(MODULES["load"], "N_MERGES", 1500)
    try:
        found = run_once(MODULES["load"].Header, method, ("2b-header", reader))
    except NotImplementedError as reason:
        if reader != "gguf":
            raise
        pytest.skip(str(reason))
    assert 0 < found["samples"][0] < math.inf


def test_decoding_at_depth_runs() -> None:
    decode = MODULES["generate"].Decode()
    decode.setup("tiny", 1, 400)
    try:
        assert decode.session.n_past == 402
        assert decode.track_token("tiny", 1, 400)["samples"][0] > 0
        assert decode.session.n_past == 401
    finally:
        decode.teardown()


# ---- a wrong answer is not timed ----


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitnet_core import kernels

    right = kernels.matmul
    monkeypatch.setattr(kernels, "matmul", lambda *args, **options: right(*args, **options) + 1)
    with pytest.raises(AssertionError, match="wrong"):
        run_once(MODULES["kernels"].Gemv, "track_gigaweight", ("i2_s", "scalar", "tiny/ffn_up 512x256", 1))


def test_a_wrong_sum_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitnet_core import kernels

    monkeypatch.setattr(kernels, "read_sum", lambda *_args, **_options: 0)
    with pytest.raises(AssertionError, match="wrong"):
        run_once(MODULES["canary"].Read, "track_gib", (1,))


def test_wrong_logits_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitnet_core import Session

    right = Session.eval
    monkeypatch.setattr(Session, "eval", lambda self, tokens: right(self, tokens) + len(tokens))
    for name, values in (("Prefill", ("tiny", 1, 16)), ("Decode", ("tiny", 1, 0)), ("KVCache", ("tiny", "none", 32))):
        cls = getattr(MODULES["generate"], name)
        method = next(method for found, method in METHODS if found is cls)
        with pytest.raises(AssertionError, match="differ"):
            run_once(cls, method, values)


def test_a_wrong_conversion_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitnet_core import dtypes

    right = dtypes.quantize
    monkeypatch.setattr(
        dtypes, "quantize", lambda x, *args, **options: right(-x if len(x) > 16 else x, *args, **options)
    )
    with pytest.raises(AssertionError, match="correlation"):
        run_once(MODULES["quant"].Quant, "track_quantize_gib", ("i2_s", "tiny 4 MiB"))
