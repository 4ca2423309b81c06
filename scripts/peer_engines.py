"""One engine of `make peers`, in a process of its own: reads requests, one JSON object a line, and answers each.

`python peer_engines.py bitnet-core` and `python peer_engines.py llama-cpp-python`, each by the Python that has the
engine. A request names a method of it (open, prefill, decode, logits) and the arguments; the answer is what it
returned, or `{"error": ...}`. The end of the input ends the process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np


class BitnetCore:
    """The engine of this repository, as a user gets it: the machine's best kernels, head="auto"."""

    def open(self, path: str, n_ctx: int, n_threads: int | None) -> dict[str, Any]:
        """Open the model and begin a sequence."""
        import bitnet_core

        self.model = bitnet_core.Model.from_file(path, n_threads=n_threads)
        self.session = self.model.session(n_ctx)
        self.sampling = bitnet_core.SamplingParams
        return {
            "version": bitnet_core.__version__,
            "build": f"{self.model.isa} kernels, head {'screened' if self.model.screened else 'exact'}",
            "isa": self.model.isa,
            "n_threads": self.model.n_threads,
        }

    def prefill(self, ids: list[int]) -> dict[str, float]:
        """Time the evaluation of a prompt; its logits are there at the end."""
        self.session.rewind(0)
        begin = time.perf_counter()
        self.session.eval(ids)
        return {"seconds": time.perf_counter() - begin}

    def decode(self, ids: list[int], n: int) -> dict[str, Any]:
        """Time n greedy tokens after the first; bytes_per_token is what the last of them read."""
        self.session.rewind(0)
        params = self.sampling(temperature=0, max_tokens=n + 1, ignore_eos=True)
        answer = _timed(self.session.generate(ids, params), n)
        return answer | {"bytes_per_token": self.session.reads.weight_bytes + self.session.reads.kv_bytes}

    def logits(self, ids: list[int], out: str) -> dict[str, Any]:
        """Save the logits after each of the tokens: float32, (n_tokens, n_vocab)."""
        self.session.rewind(0)
        np.save(out, self.session.eval(ids, all_logits=True))
        return {}


class LlamaCppPython:
    """llama-cpp-python through its own Python calls: Llama.eval for prompts, Llama.generate for tokens."""

    def open(self, path: str, n_ctx: int, n_threads: int) -> dict[str, Any]:
        """Load the model; prompts go through in one piece, and attention takes the faster of its two ways."""
        import llama_cpp

        self.api = llama_cpp
        self.llama = llama_cpp.Llama(
            path,
            n_ctx=n_ctx,
            n_batch=512,
            n_ubatch=512,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            flash_attn=True,
            verbose=False,
        )
        return {
            "version": llama_cpp.__version__,
            "build": " ".join(self._features()),
            "n_threads": n_threads,
        }

    def _features(self) -> list[str]:
        """What it was built with, from a text like `CPU : AVX = 1 | AVX2 = 1 | OPENMP = 1 | `."""
        parts = self.api.llama_print_system_info().decode().replace(":", "|").split("|")
        return [name.strip() for name, _, value in (part.partition("=") for part in parts) if value.strip() == "1"]

    def prefill(self, ids: list[int]) -> dict[str, float]:
        """Time the evaluation of a prompt; its logits are there at the end."""
        self.llama.reset()
        begin = time.perf_counter()
        self.llama.eval(ids)
        return {"seconds": time.perf_counter() - begin}

    def decode(self, ids: list[int], n: int) -> dict[str, Any]:
        """Time n greedy tokens after the first."""
        self.llama.reset()
        return _timed(self.llama.generate(ids, temp=0.0, repeat_penalty=1.0), n)

    def logits(self, ids: list[int], out: str) -> dict[str, Any]:
        """Save the logits after each of the tokens: float32, (n_tokens, n_vocab)."""
        self.llama.reset()
        rows = []
        for token in ids:
            self.llama.eval([token])
            row = self.api.llama_get_logits_ith(self.llama.ctx, -1)
            rows.append(np.ctypeslib.as_array(row, shape=(self.llama.n_vocab(),)).copy())
        np.save(out, np.array(rows))
        return {}


ENGINES = {"bitnet-core": BitnetCore, "llama-cpp-python": LlamaCppPython}


def _timed(tokens: Any, n: int) -> dict[str, Any]:
    """Take n tokens after the first on the clock; the first one is the prompt's."""
    made = [next(tokens)]
    begin = time.perf_counter()
    made += [next(tokens) for _ in range(n)]
    return {"seconds": time.perf_counter() - begin, "tokens": made}


def serve(name: str) -> None:
    """Answer until the input ends. What the engine prints goes to the standard error output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine = ENGINES[name]()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(engine, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001 - every one is handed to the process that asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
