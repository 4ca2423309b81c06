"""What loading a model and generating takes, in a process of its own, relative to what it held after the imports.

peak_anon      memory the library asked for: KV cache, activations, its own tables
resident_file  pages of the mapped model that lie in memory: shared, and given back whenever another process needs them
peak_total     the most the process grew by, both together

`Memory` evaluates, which reads the whole head; `Generating` finds tokens as users do, which `bitnet targets` promises.
The three are honest where one "peak memory" is not: an mmap reader looks as large as its file, and `ru_maxrss` also
counts imports, and what the parent held when it forked. `peakmem_load` is that familiar figure, for comparison.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import common

# The measured process. Anonymous memory has no high-water mark in Linux, so a thread looks every 2 ms.
PROBE = r"""
import gc, json, sys, threading
import numpy as np
import bitnet_core

def status():
    with open("/proc/self/status") as file:
        rows = dict(line.split(":", 1) for line in file)
    return {key: int(rows[key].split()[0]) * 1024 for key in ("RssAnon", "RssFile", "RssShmem", "VmRSS", "VmHWM")}

peak_anon, stop = 0, threading.Event()

def watch():
    global peak_anon
    while True:
        peak_anon = max(peak_anon, status()["RssAnon"])
        if stop.wait(0.002):
            return

path, n_ctx = sys.argv[1], int(sys.argv[2])  # 0: as many positions as a session has by default
watcher = threading.Thread(target=watch, daemon=True)  # or a failure below would wait for it for ever
watcher.start()
gc.collect()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the high-water mark VmHWM starts again from here
base = status()
peak_anon = base["RssAnon"]
with bitnet_core.Model.from_file(path) as model:
    with model.session(n_ctx=min(n_ctx, model.config.n_ctx)) if n_ctx else model.session() as session:
        if n_ctx:
            session.eval(list(range(1, 9)))
            logits = session.eval([9])
            assert logits.shape == (model.config.n_vocab,) and np.isfinite(logits).all()
        else:
            tokens = list(session.generate(list(range(8)), bitnet_core.SamplingParams(temperature=0.0, max_tokens=2)))
            assert tokens and all(0 <= token < model.config.n_vocab for token in tokens)
        after = status()
stop.set()
watcher.join()
print(json.dumps({
    "peak_anon": max(peak_anon, after["RssAnon"]) - base["RssAnon"],
    "resident_file": after["RssFile"] + after["RssShmem"] - base["RssFile"] - base["RssShmem"],
    "peak_total": after["VmHWM"] - base["VmRSS"],
    "process_peak": after["VmHWM"],
}))
"""


class _Child:
    """A process that runs the probe."""

    timeout = 120
    unit = "bytes"
    params = [common.MODELS]
    param_names = ["model"]

    def setup(self, model):
        self.path = common.model_path(model)
        common.need("bitnet_core", "Model", "SamplingParams")
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            raise NotImplementedError("this system has no /proc/self/clear_refs") from None

    def _measure(self, n_ctx):
        command = [sys.executable, "-c", PROBE, str(self.path), str(n_ctx)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        size = self.path.stat().st_size
        assert 0 < found["peak_anon"] <= found["peak_total"] < found["process_peak"], found
        assert size // 4 < found["resident_file"] < 2 * size + (1 << 20), (found, size)
        return found


class Memory(_Child):
    """Bytes after loading a model, a session of 2048 positions (or all the model has) and nine tokens."""

    version = "1"

    def track_peak_anon(self, model):
        return self._measure(2048)["peak_anon"]

    def track_resident_file(self, model):
        return self._measure(2048)["resident_file"]

    def track_peak_total(self, model):
        return self._measure(2048)["peak_total"]


class Generating(_Child):
    """Bytes while loading a model and generating two tokens after a prompt of eight, greedily."""

    version = "1"

    def track_peak_total(self, model):
        return self._measure(0)["peak_total"]

    def track_process_peak(self, model):
        return self._measure(0)["process_peak"]


class PeakMem:
    """The familiar figure: the largest resident size of the whole process, imports included."""

    version = "1"
    timeout = 120
    params = [common.MODELS]
    param_names = ["model"]

    def setup(self, model):
        self.path = common.model_path(model)
        self.model_class = common.need("bitnet_core", "Model").Model

    def peakmem_load(self, model):
        with self.model_class.from_file(self.path) as opened, opened.session(n_ctx=256) as session:
            session.eval([1])
