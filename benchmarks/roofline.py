"""How near the limit: times a roof that is measured beside it, in turn, so that a drifting machine moves both.

1 is the limit itself (fewer is better): decoding cannot be faster than its bytes are read, prefill not faster than
its multiply-accumulates run from registers. The other ratios set two ways of the library beside each other.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from benchmarks import common

READ_MIB = 256  # as canary.Read
N_READS = 4
THREADS = 2  # the goals are stated for two


class _Read:
    """The best plain read, as a call; a buffer that no cache holds."""

    def make_read(self):
        read_sum = common.need("bitnet_core.kernels", "read_sum").read_sum
        buffer = np.ones(READ_MIB << 20, np.uint8)
        self.read = lambda: read_sum(buffer, n_threads=THREADS, repeat=N_READS)
        self.read_bytes = N_READS * buffer.size


def opened(name, **options):
    """A model for two threads; skips where it or they are not there."""
    common.need_threads(THREADS)
    return common.need("bitnet_core", "Model").Model.from_file(common.model_path(name), n_threads=THREADS, **options)


def sampling(max_tokens, temperature=0.0):
    """Parameters for that many tokens, whatever they are."""
    params = common.need("bitnet_core", "SamplingParams").SamplingParams
    common.need_argument(params, "ignore_eos")
    return params(temperature=temperature, max_tokens=max_tokens, ignore_eos=True)


class Gemv(_Read):
    """One token times a matrix that no cache holds, over the plain read of as many bytes."""

    version = "1"
    timeout = 120
    params = [["i2_s", "qk256"], common.FAST_ISAS, ["attn 409600x2560", "ffn_down 153600x6912"]]
    param_names = ["dtype", "isa", "shape"]

    def setup(self, dtype, isa, shape):
        common.need_isa(isa)
        common.need_threads(THREADS)
        self.make_read()
        dtypes = common.need("bitnet_core.dtypes", "quantize", "nbytes")
        matmul = common.need("bitnet_core.kernels", "matmul").matmul
        n_rows, ne0 = map(int, shape.split()[1].split("x"))
        random = np.random.default_rng(42)
        scale = {"scale": 1.0} if dtype == "i2_s" else {}
        block = dtypes.quantize(random.integers(-1, 2, (64, ne0)).astype(np.float32), dtype, **scale)
        tail = 2 * block.size - dtypes.nbytes(dtype, (128, ne0))
        weights = np.concatenate([np.tile(block[: block.size - tail], n_rows // 64), block[block.size - tail :]])
        activation = random.integers(-127, 128, (1, ne0)).astype(np.int8)
        self.multiply = lambda: matmul(weights, dtype, n_rows, activation, isa=isa, n_threads=THREADS, repeat=2)
        self.bytes = 2 * weights.size
        first = self.multiply()
        assert np.array_equal(first[0, :64], first[0, -64:]), "equal rows have different products"

    @common.compared()
    def track_read(self, dtype, isa, shape):
        return common.ratios(self.multiply, self.read, per=self.bytes, per_beside=self.read_bytes)


FLOAT_MIB = 128  # of the tensors that are converted: four times a large last-level cache
# A dtype, its layout, the scale asked for, and the passes over the floats: i2_s reads them twice for "absmean".
CONVERSIONS = {
    "f32": ("f32", "128", "absmean", 1),
    "f16": ("f16", "128", "absmean", 1),
    "bf16": ("bf16", "128", "absmean", 1),
    "i2_s": ("i2_s", "128", 1.0, 1),
    "i2_s absmean": ("i2_s", "128", "absmean", 2),
    "i2_s_64": ("i2_s", "64", 1.0, 1),
    "i2_s_row4": ("i2_s", "row4", 1.0, 1),
    "qk256": ("qk256", "128", "absmean", 1),
    "bitnet32": ("bitnet32", "128", "absmean", 1),
    "q8_0": ("q8_0", "128", "absmean", 1),
    "q6_k": ("q6_k", "128", "absmean", 1),
}


class _Conversion:
    """A tensor in one format, packed and unpacked into the same arrays again and again: no page is new."""

    def prepare(self, form, isa):
        common.need_isa(isa)
        common.need_threads(THREADS)
        dtypes = common.need("bitnet_core.dtypes", "quantize", "dequantize")
        common.need_argument(dtypes.quantize, "out")
        self.kernels = common.need("bitnet_core.kernels", "read_sum", "fill")
        dtype, layout, scale, self.passes = CONVERSIONS[form]
        few = np.random.default_rng(42).standard_normal((64, 4096), np.float32)
        self.x = np.tile(few, (FLOAT_MIB, 1))  # 64 rows are a MiB
        how = {"layout": layout, "isa": isa, "n_threads": THREADS}
        packed = dtypes.quantize(self.x, dtype, scale=scale, **how)
        scalar = dtypes.quantize(self.x[-64:], dtype, scale=scale, layout=layout, isa="scalar")
        back = dtypes.dequantize(packed, dtype, self.x.shape, **how)
        if scale != "absmean" or dtype != "i2_s":  # the mean of all rows is that of a few only in the real numbers
            few_back = dtypes.dequantize(scalar, dtype, few.shape, layout=layout, isa="scalar")
            assert np.array_equal(back[-64:], few_back), "differs from scalar"
        self.quantize = lambda: dtypes.quantize(self.x, dtype, scale=scale, out=packed, **how)
        self.dequantize = lambda: dtypes.dequantize(packed, dtype, self.x.shape, out=back, **how)
        self.read = lambda: self.kernels.read_sum(self.x, n_threads=THREADS)
        self.fill = lambda: self.kernels.fill(back, 1, n_threads=THREADS)


class Quantize(_Conversion):
    """Packing, over the plain read of the floats, once for each pass over them; what is written counts for nothing."""

    version = "1"
    timeout = 120
    params = [list(CONVERSIONS), ["scalar", "avx2"]]
    param_names = ["form", "isa"]

    def setup(self, form, isa):
        self.prepare(form, isa)

    @common.compared()
    def track_read(self, form, isa):
        return common.ratios(self.quantize, self.read, seconds=0.5, per=self.passes)


class Dequantize(_Conversion):
    """Unpacking, over the plain fill of the same output, past the caches; what is read counts for nothing."""

    version = "1"
    timeout = 120
    params = [[form for form in CONVERSIONS if form != "i2_s absmean"], ["scalar", "avx2"]]
    param_names = ["form", "isa"]

    def setup(self, form, isa):
        self.prepare(form, isa)

    @common.compared()
    def track_fill(self, form, isa):
        return common.ratios(self.dequantize, self.fill, seconds=0.5)


# Options of from_file.
WAYS = {
    "greedy": {},
    "greedy, packed": {"weights": "packed"},
    "greedy, proven": {"head": "proven"},
    "all logits": {},
}


class Decode(_Read):
    """A token of a whole model, over the plain read of the bytes that it read."""

    version = "1"
    timeout = 300
    params = [["2b", "2b-qk256"], list(WAYS)]
    param_names = ["model", "way"]
    skip_params = [("2b-qk256", "greedy, packed")]  # its four values are two bits

    def setup(self, model, way):
        if WAYS[way]:  # a commit that has packing has both options
            common.need("bitnet_core.model", "Packing")
        self.make_read()
        self.model = opened(model, **WAYS[way])
        self.session = self.model.session(n_ctx=512)
        if way.startswith("greedy"):
            stream = self.session.generate([1], sampling(500))
            self.token = lambda: next(stream)
        else:
            self.token = lambda: self.session.eval([1])
        self.token()
        self.token()

    def teardown(self, *_):
        if hasattr(self, "session"):
            self.session.close()
            self.model.close()

    def tokens(self):
        for _ in range(4):
            self.token()

    @common.compared()
    def track_read(self, model, way):
        if not hasattr(self.session, "reads"):
            raise NotImplementedError("this commit does not count what it reads")
        self.token()
        n_bytes = sum(self.session.reads[:2])
        return common.ratios(self.tokens, self.read, seconds=4.0, per=4 * n_bytes, per_beside=self.read_bytes)


class Prefill:
    """512 tokens at once, over their multiply-accumulates from registers."""

    version = "1"
    timeout = 300
    params = [["2b", "2b-qk256"], [512]]
    param_names = ["model", "tokens"]

    def setup(self, model, tokens):
        int8_peak = common.need("bitnet_core.kernels", "int8_peak").int8_peak
        self.model = opened(model)
        self.session = self.model.session(n_ctx=tokens)
        self.peak = lambda: int8_peak(1 << 30, n_threads=THREADS)
        self.tokens = np.random.default_rng(42).integers(0, self.model.config.n_vocab, tokens)

    def teardown(self, *_):
        if hasattr(self, "session"):
            self.session.close()
            self.model.close()

    def prompt(self):
        self.session.rewind(0)
        self.session.eval(self.tokens)

    @common.compared()
    def track_peak(self, model, tokens):
        c = self.model.config
        matrices = c.n_layer * c.n_embd * (2 * c.n_head * c.n_embd_head + 2 * c.n_head_kv * c.n_embd_head + 3 * c.n_ff)
        return common.ratios(self.prompt, self.peak, seconds=12.0, per=matrices * tokens, per_beside=THREADS << 30)


class Batch:
    """A token of 16 sequences that decode together, over a token of one alone: 0.0625 would be for nothing."""

    version = "1"
    timeout = 300
    params = [["2b"], [16]]
    param_names = ["model", "sequences"]

    def setup(self, model, sequences):
        self.model = opened(model)
        if not hasattr(self.model, "batch"):
            self.model.close()
            raise NotImplementedError("this commit decodes one sequence at a time")
        self.session = self.model.session(n_ctx=512)
        stream = self.session.generate([1], sampling(500))
        self.alone = lambda: [next(stream) for _ in range(4)]
        self.batch = self.model.batch(sequences, n_ctx=512)
        members = [self.batch.join([1 + i], sampling(500)) for i in range(sequences)]
        self.together = self.batch.step
        first = self.alone()
        for _ in first:
            self.together()
        assert members[0].tokens == first, "a sequence of a batch differs from the same sequence alone"

    def teardown(self, *_):
        if hasattr(self, "batch"):
            self.batch.close()
            self.session.close()
            self.model.close()

    @common.compared()
    def track_alone(self, model, sequences):
        return common.ratios(self.together, self.alone, seconds=8.0, per=sequences, per_beside=4)


class Format:
    """A greedy token of the QK256 model, over one of the I2_S model."""

    version = "1"
    timeout = 300
    params = [["2b-qk256"], ["2b"]]
    param_names = ["model", "over"]

    def setup(self, model, over):
        self.opened = []
        self.streams = []
        for name in (model, over):
            found = opened(name)
            session = found.session(n_ctx=512)
            self.opened += [session, found]
            stream = session.generate([1], sampling(500))
            next(stream)
            next(stream)
            self.streams.append(stream)

    def teardown(self, *_):
        for each in getattr(self, "opened", []):
            each.close()

    @common.compared()
    def track_token(self, model, over):
        ours, others = ((lambda s=stream: [next(s) for _ in range(4)]) for stream in self.streams)
        return common.ratios(ours, others, seconds=4.0)


class Bytes:
    """What a generated token reads from memory, without the cache: the median of 16 tokens."""

    version = "1"
    timeout = 300
    unit = "bytes"
    params = [["tiny", "2b", "2b-qk256", "given"], ["greedy", "top-k 50"]]
    param_names = ["model", "sampling"]

    def setup(self, model, way):
        path = common.model_path(model)
        params = sampling(16, 0.0 if way == "greedy" else 0.7)
        self.model = common.need("bitnet_core", "Model").Model.from_file(path)
        self.session = self.model.session(n_ctx=64)
        if not hasattr(self.session, "reads"):
            self.session.close()
            self.model.close()
            raise NotImplementedError("this commit does not count what it reads")
        self.sampling = params

    def teardown(self, *_):
        if hasattr(self, "sampling"):  # asv calls this after a skip too
            self.session.close()
            self.model.close()

    def track_token(self, model, way):
        self.session.rewind(0)  # a review calls this more than once
        found = [self.session.reads.weight_bytes for _ in self.session.generate([1, 2, 3], self.sampling)]
        return float(np.median(found[1:]))


# The measured process: imports first, then the clock.
PROBE = r"""
import json, sys, time
import numpy as np
import bitnet_core

prompt = np.random.default_rng(42).integers(0, 500, int(sys.argv[3]))
start = time.perf_counter()
with bitnet_core.Model.from_file(sys.argv[1], n_threads=int(sys.argv[2])) as model, model.session() as session:
    params = bitnet_core.SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
    token = next(session.generate(prompt, params))
    seconds = time.perf_counter() - start
    session.rewind(0)
    assert token == int(session.eval(prompt).argmax())
print(json.dumps(seconds))
"""


class FirstToken:
    """From a path to the first token after a prompt, in a fresh process after its imports, the file in memory."""

    version = "1"
    timeout = 300
    params = [["tiny", "2b", "given"], [128]]
    param_names = ["model", "prompt"]

    def setup(self, model, prompt):
        self.path = str(common.model_path(model))
        common.need_threads(THREADS)
        common.need("bitnet_core", "Model")
        sampling(1)

    @common.sampled(rounds=1)
    def track_fresh(self, model, prompt):
        return common.repeated(lambda: self.measure(prompt), seconds=15.0, most=5)

    def measure(self, prompt):
        command = [sys.executable, "-c", PROBE, self.path, str(THREADS), str(prompt)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout)
