"""The integer matrix products, alone: no scale, no attention, no norms.

Time is per 1e9 weights (and token): 1 ms is 1 ps each. The same matrix is multiplied again and again, repeated in C, so
it stays in a cache where it fits: this is the kernel's own speed. How fast weights come from memory shows in
generate.py, beside canary.Read.
"""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks import common

DTYPES = ["i2_s", "qk256", "pack5"]
# Rows x ne0, named by the model that has them.
SHAPES = {
    "tiny/ffn_up 512x256": (512, 256),
    "2b/attn_q 2560x2560": (2560, 2560),
    "2b/attn_k 640x2560": (640, 2560),
    "2b/ffn_up 6912x2560": (6912, 2560),
    "2b/ffn_down 2560x6912": (2560, 6912),
}
SHAPE_NAMES = [
    "tiny/ffn_up 512x256",
    "2b/attn_q 2560x2560",
    "2b/attn_k 640x2560",
    "2b/ffn_up 6912x2560",
    "2b/ffn_down 2560x6912",
]
BLOCK_ROWS = 64  # rows of random weights; the matrix holds them over and over
LACKING = [("pack5", "avx2"), ("pack5", "avxvnni")]  # whose kernel is the scalar one
CALL_SECONDS = 0.005  # a timed call lasts about this long, or one product


class _Product:
    """Weights, activations and the exact answer of one product."""

    version = "1"
    timeout = 120

    def prepare(self, dtype, isa, shape, n_tokens, threads):
        common.need_isa(isa)
        common.need_threads(threads)
        dtypes = common.need("bitnet_core.dtypes", "quantize", "dequantize", "nbytes")
        matmul = common.need("bitnet_core.kernels", "matmul").matmul
        n_rows, ne0 = SHAPES[shape]
        random = np.random.default_rng(42)
        block = random.integers(-1, 2, (BLOCK_ROWS, ne0)).astype(np.float32)
        file_dtype = "i2_s" if dtype == "pack5" else dtype
        packed = dtypes.quantize(block, file_dtype, **({"scale": 1.0} if file_dtype == "i2_s" else {}))
        # What the packed codes stand for: with scale 1, whole numbers.
        codes = dtypes.dequantize(packed, file_dtype, block.shape).astype(np.int64)
        if dtype == "pack5":
            packed = common.need("bitnet_core.kernels", "pack").pack(packed, file_dtype, block.shape)
        # Rows lie one after the other; what a tensor has beyond its rows is its tail.
        tail = 2 * packed.size - dtypes.nbytes(dtype, (2 * BLOCK_ROWS, ne0))
        body = packed[: packed.size - tail]
        weights = np.concatenate([np.tile(body, n_rows // BLOCK_ROWS), packed[packed.size - tail :]])
        activations = random.integers(-127, 128, (n_tokens, ne0)).astype(np.int8)
        self.products = n_rows * ne0 * n_tokens

        def multiply(repeat):
            return matmul(weights, dtype, n_rows, activations, isa=isa, n_threads=threads, repeat=repeat)

        expected = np.tile(activations.astype(np.int64) @ codes.T, n_rows // BLOCK_ROWS)
        assert np.array_equal(multiply(1), expected), "the product is wrong"
        seconds = common.samples(lambda: multiply(1), most=3, seconds=0.1)["samples"]
        self.repeat = max(1, round(CALL_SECONDS / min(seconds)))
        self.multiply = lambda: multiply(self.repeat)

    def measure(self):
        return common.samples(self.multiply, seconds=0.25, per=self.products * self.repeat / 1e9)


class Gemv(_Product):
    """One token: what decoding does."""

    params = [DTYPES, common.ISAS, SHAPE_NAMES, common.THREADS]
    param_names = ["dtype", "isa", "shape", "threads"]
    skip_params = [(*pair, *rest) for pair in LACKING for rest in itertools.product(SHAPE_NAMES, common.THREADS)]

    def setup(self, dtype, isa, shape, threads):
        self.prepare(dtype, isa, shape, 1, threads)

    @common.sampled()
    def track_gigaweight(self, dtype, isa, shape, threads):
        return self.measure()


class Gemm(_Product):
    """Many tokens at once: what prefill does."""

    params = [DTYPES, common.FAST_ISAS, SHAPE_NAMES, common.THREADS, [16, 128]]
    param_names = ["dtype", "isa", "shape", "threads", "tokens"]
    skip_params = [
        (*pair, *rest) for pair in LACKING for rest in itertools.product(SHAPE_NAMES, common.THREADS, [16, 128])
    ]

    def setup(self, dtype, isa, shape, threads, tokens):
        self.prepare(dtype, isa, shape, tokens, threads)

    @common.sampled()
    def track_gigaweight(self, dtype, isa, shape, threads, tokens):
        return self.measure()


class GemmScalar(Gemm):
    """The reference needs about a second a call, so it has fewer of them."""

    params = [DTYPES, ["scalar"], SHAPE_NAMES, [1], [16]]
    skip_params = []

    @common.sampled(rounds=1)
    def track_gigaweight(self, dtype, isa, shape, threads, tokens):
        return self.measure()
