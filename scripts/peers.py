"""`make peers`: bitnet-core against llama-cpp-python, on the same weights, in turn, and the table of ratios.

Run by the Python of .venv, from anywhere. llama-cpp-python is compiled for this machine, once, in an environment of its
own (.peers/, pinned, some minutes). Both engines run a synthetic model of the architecture "bitnet" (llama.cpp's graph,
which has SiLU) with the same ternary weights and the same F16 embedding that serves as the head: in I2_S here, in TQ2_0
there. The two files are kept in the cache folder (BITNET_CACHE_DIR).

The outcome is also left beside asv's results, `<machine>/peers/<commit>.json`, for the dashboard.

Each engine has a process of its own and stays loaded. After a warm-up every round measures the machine's int8 peak,
each prompt, the machine's read bandwidth, and the decoding, one engine after the other. Figures are medians of the
rounds, ratios medians of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from peer_environment import PeersError, prepare
from peer_result import ARCH, LEAST_COSINE, N_CHECK, OURS, OUTPUTS, PEER, PROMPTS, TESTS, Result
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # tracking/ is not installed

from tracking import surroundings  # noqa: E402
from tracking.command import EXIT_UNMEASURED  # noqa: E402
from tracking.errors import TrackingError  # noqa: E402
from tracking.machine import asv_name  # noqa: E402

DTYPES = {OURS: "i2_s", PEER: "tq2_0"}
N_DECODE = 32
N_START = 8  # tokens of the prompt that decoding continues
SEED = 42
READ_BYTES = 256 << 20  # more than one core's share of any last-level cache
N_PROBES = 7  # of which the median counts: a single one, 0.05 s long, may meet anything
SPARE_BYTES = 3 << 29  # working memory of both, beyond their files
console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """One line of this program; the results alone go to the standard output."""
    console.print("[bold]peers:[/bold]", Text(text, style))


def main() -> int:
    """Parse the options and do it all; 0 when both engines were measured and compute the same."""
    options = parse()
    options.machine = asv_name(options.machine)
    os.chdir(ROOT)
    with surroundings.locked(ROOT):  # compiling disturbs a measurement as much as another one does
        return compare(options)


def compare(options: argparse.Namespace) -> int:
    """Bring the other engine, measure both, print and keep the outcome."""
    peer_python = prepare(ROOT / ".peers", console)
    files = written_models(options.preset)
    check_memory(files)
    result = measure(peer_python, files, options)
    sys.stdout.write(OUTPUTS[options.output](result) + "\n")
    sys.stdout.flush()
    if not result.cosine >= LEAST_COSINE:  # so that NaN is noticed
        say(f"the engines do not compute the same: cosine of logits {result.cosine:.4f}, not {LEAST_COSINE}", "red")
        return 1
    keep(result, options.results, options.machine)
    return 0


def parse(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the options; --quick is --preset 125m."""
    parser = argparse.ArgumentParser(prog="make peers", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the preset 125m instead of 2b: seconds, and no verdicts")
    parser.add_argument("--preset", choices=("tiny", "125m", "700m", "2b"), help="shape of the model (2b)")
    parser.add_argument("--rounds", type=positive, default=3, help="how often each figure is taken (3)")
    parser.add_argument("--threads", type=positive, help="threads of both engines (the physical cores)")
    parser.add_argument("--output", choices=tuple(OUTPUTS), default="table", help="what is printed (table)")
    parser.add_argument(
        "--machine", default=os.environ.get("MACHINE", ""), help="asv's name for this machine (MACHINE)"
    )
    parser.add_argument("--results", type=Path, default=ROOT / ".asv" / "results", help="where asv keeps its results")
    options = parser.parse_args(args)
    if options.quick and options.preset:
        parser.error("--quick chooses the preset; leave one of the two out")
    options.preset = options.preset or ("125m" if options.quick else "2b")
    return options


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


# ---- the models ----


def written_models(preset: str) -> dict[str, Path]:
    """The model of each engine, written to the cache folder on first use."""
    from bitnet_core import synthetic

    files = {}
    for engine, dtype in DTYPES.items():
        columns = (
            TextColumn(f"[bold]peers:[/bold] writing the {preset} model in {dtype}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None, visible=False)
            files[engine] = synthetic.cached_model(
                preset,
                dtype=dtype,
                arch=ARCH,
                progress=lambda done, total, bar=bar, task=task: bar.update(
                    task, completed=done, total=total, visible=True
                ),
            )
    return files


def check_memory(files: dict[str, Path]) -> None:
    """Both models must stay in the page cache at once: reading from a disk is not what is compared."""
    need = sum(path.stat().st_size for path in files.values()) + SPARE_BYTES
    available = psutil.virtual_memory().available
    if available < need:
        raise PeersError(
            f"both engines together need {need / 2**30:.1f} GiB of memory, {available / 2**30:.1f} GiB are available; "
            "close other programs, or take a smaller --preset"
        )


# ---- the engines ----


class Engine:
    """A process that runs one engine; see peer_engines.py."""

    def __init__(self, name: str, python: str | Path) -> None:
        self.name = name
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - as long as this
        script = Path(__file__).with_name("peer_engines.py")
        self._process = subprocess.Popen(
            [python, script, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            start_new_session=True,  # Ctrl-C is this program's to handle
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the engine and return its answer.

        Raises
        ------
        PeersError
            The call failed, or the process ended.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - both are pipes
        try:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": self._reason()}
        if "error" in answer:
            raise PeersError(f"{self.name} could not {do}: {answer['error']}")
        return dict(answer)

    def _reason(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        last = (self._stderr.read().strip().splitlines() or ["it said nothing"])[-1]
        killed = " (killed; the system may be out of memory)" if status == -signal.SIGKILL else ""
        return f"its process ended with {status}{killed}: {last}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()


# ---- what is kept ----


def keep(result: Result, results: Path, machine: str) -> None:
    """Leave the outcome beside asv's results of the checked-out commit, one file a model; none without a commit."""
    from bitnet_core.files import AtomicFile
    from tracking import commits

    try:
        commit = commits.find(ROOT, "HEAD")
        date = int(commits.git(ROOT, "show", "-s", "--format=%at", commit.hash))
        changed = commits.changed_files(ROOT)
    except TrackingError as error:
        say(f"not kept for the dashboard: {error}")
        return
    about = {
        "commit": commit.hash,
        "date": 1000 * date,  # as asv has them
        "dirty": any(name.startswith(("csrc/", "bitnet_core/")) for name in changed),
    }
    folder = results / machine / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    name = commit.short if result.preset == "2b" else f"{commit.short}-{result.preset}"
    path = folder / f"{name}.json"
    with AtomicFile(path) as file:
        file.write(json.dumps(about | json.loads(OUTPUTS["json"](result)), indent=1).encode() + b"\n")
    say(f"kept as {path}; `make bench` shows it on the dashboard")


# ---- measuring ----


def measure(peer_python: Path, files: dict[str, Path], options: argparse.Namespace) -> Result:
    """Run both engines in turn."""
    ids = drawn_ids(options.preset)
    with contextlib.ExitStack() as alive, console.status("[bold]peers:[/bold] loading") as status:
        engines = [alive.enter_context(Engine(*pair)) for pair in ((OURS, sys.executable), (PEER, peer_python))]
        result = opened(engines, files, options)
        status.update("[bold]peers:[/bold] comparing logits")
        result.cosine, result.same_best = compared(engines, ids[:N_CHECK])
        machine = Machine(result.n_threads)
        status.update("[bold]peers:[/bold] warm-up")
        for engine in engines:
            engine.ask("prefill", ids=ids)
            engine.ask("decode", ids=ids[:N_START], n=2)
        for i in range(options.rounds):
            result.int8_peak_gmac_s.append(machine.int8_peak_gmac_s())
            for test, request, n in requests(ids):
                if test == "decode":
                    result.read_gb_s.append(machine.read_gb_s())
                for engine in engines:
                    status.update(f"[bold]peers:[/bold] round {i + 1} of {options.rounds}: {test}, {engine.name}")
                    answer = engine.ask(**request)
                    result.speeds[engine.name][test].append(n / answer["seconds"])
                    if "bytes_per_token" in answer:
                        result.engines[engine.name]["bytes_per_token"] = answer["bytes_per_token"]
    return result


def requests(ids: list[int]) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Each test: its name, what an engine is asked, and the tokens that take its time."""
    for n in PROMPTS:
        yield f"prefill {n}", {"do": "prefill", "ids": ids[:n]}, n
    yield "decode", {"do": "decode", "ids": ids[:N_START], "n": N_DECODE}, N_DECODE


def drawn_ids(preset: str) -> list[int]:
    """Random tokens, the same in every run."""
    from bitnet_core.synthetic import PRESETS

    return np.random.default_rng(SEED).integers(PRESETS[preset].n_vocab, size=max(PROMPTS)).tolist()


def opened(engines: Sequence[Engine], files: dict[str, Path], options: argparse.Namespace) -> Result:
    """Open both models, ours first: it knows how many threads there are to be."""
    from bitnet_core import kernels
    from bitnet_core.measuring import cpu_name
    from bitnet_core.synthetic import layout

    found = {}
    n_threads = options.threads
    for engine in engines:
        path = files[engine.name]
        found[engine.name] = engine.ask("open", path=str(path), n_ctx=max(PROMPTS), n_threads=n_threads)
        n_threads = found[engine.name].pop("n_threads")
        found[engine.name] |= {"dtype": DTYPES[engine.name], "file": str(path), "file_bytes": path.stat().st_size}
    if "avx2" in kernels.cpu_features() and "AVX2" not in found[PEER]["build"].split():
        raise PeersError(
            f"{PEER} was not built for this machine ({found[PEER]['build']}): remove .peers/ and try again"
        )
    # llama.cpp reads every tensor for every token, its head being the embedding.
    found[PEER]["bytes_per_token"] = sum(t.nbytes for t in layout(options.preset, DTYPES[PEER], arch=ARCH).tensors)
    matrices = [t for t in layout(options.preset, DTYPES[OURS]).tensors if t.dtype == DTYPES[OURS]]
    return Result(
        preset=options.preset,
        cpu=cpu_name(),
        n_threads=n_threads,
        isa=found[OURS].pop("isa"),
        macs_per_token=sum(math.prod(t.shape) for t in matrices),
        engines=found,
        speeds={name: {test: [] for test in TESTS} for name in found},
    )


def compared(engines: Sequence[Engine], ids: list[int]) -> tuple[float, int]:
    """The smallest cosine between both engines' logits after each token, and how often the best token is the same."""
    with tempfile.TemporaryDirectory() as folder:
        logits = []
        for engine in engines:
            path = str(Path(folder) / f"{engine.name}.npy")
            engine.ask("logits", ids=ids, out=path)
            logits.append(np.load(path).astype(np.float64))  # (n_tokens, n_vocab)
    return agreement(*logits)


def agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """Smallest cosine of two rows, and how many pairs of rows have their largest value in the same place."""
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(cosines.min()), int((a.argmax(axis=1) == b.argmax(axis=1)).sum())


class Machine:
    """What the machine can do at best, by this repository's probes."""

    def __init__(self, n_threads: int) -> None:
        from bitnet_core import kernels

        self._kernels = kernels
        self._n_threads = n_threads
        self._buffer = np.ones(READ_BYTES, np.uint8)  # written, so that its pages exist
        self._n_macs = 1 << 22
        while self._n_macs < 1 << 34 and self._peak_seconds() < 0.05:
            self._n_macs *= 2

    def read_gb_s(self) -> float:
        """Plain reads by all threads, 1e9 bytes a second."""
        return 4 * READ_BYTES / statistics.median(self._read_seconds() for _ in range(N_PROBES)) / 1e9

    def int8_peak_gmac_s(self) -> float:
        """Multiply-accumulates from registers by all threads, 1e9 a second."""
        seconds = statistics.median(self._peak_seconds() for _ in range(N_PROBES))
        return self._n_macs * self._n_threads / seconds / 1e9

    def _read_seconds(self) -> float:
        begin = time.perf_counter()
        self._kernels.read_sum(self._buffer, n_threads=self._n_threads, repeat=4)
        return time.perf_counter() - begin

    def _peak_seconds(self) -> float:
        begin = time.perf_counter()
        self._kernels.int8_peak(self._n_macs, n_threads=self._n_threads)
        return time.perf_counter() - begin


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("peers: terminated"))  # an exit that ends the engines, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("peers: interrupted; nothing of this run was kept")
    except TrackingError as problem:
        sys.stderr.write(f"peers: {problem}\n")
        sys.exit(EXIT_UNMEASURED)
    except (PeersError, OSError) as problem:
        sys.exit(f"peers: {problem}")
