"""Converting tensors to and from each format, all threads. Time is per GiB of the float32 side, whatever the format."""

from __future__ import annotations

import numpy as np

from benchmarks import common

# The packed formats, and the two half-precision ones that need rounding.
DTYPES = ["f16", "bf16", "i2_s", "qk256", "bitnet32", "q8_0", "q6_k"]
NE0 = 4096  # a row; every format's block divides it
MIB = {"tiny 4 MiB": 4, "2b 64 MiB": 64}  # within a cache, and a matrix of the 2B model, which is not


class Quant:
    """1 / value is GiB of float32 a second; canary.Read says how fast the machine reads one."""

    version = "1"
    timeout = 120
    params = [DTYPES, ["tiny 4 MiB", "2b 64 MiB"]]
    param_names = ["dtype", "size"]

    def setup(self, dtype, size):
        dtypes = common.need("bitnet_core.dtypes", "quantize", "dequantize")
        common.need_convertible(dtype)
        self.mib = MIB[size]
        shape = (self.mib * (1 << 20) // 4 // NE0, NE0)
        threads = common.all_threads()
        self.x = np.random.default_rng(42).standard_normal(shape, dtype=np.float32)
        self.out = np.empty(shape, np.float32)
        self.quantize = lambda: dtypes.quantize(self.x, dtype, n_threads=threads)
        self.packed = self.quantize()
        self.dequantize = lambda: dtypes.dequantize(self.packed, dtype, shape, n_threads=threads, out=self.out)
        self.dequantize()
        self._check(dtypes, dtype)

    def _check(self, dtypes, dtype):
        """Some rows against the scalar kernels, which define the answer, and all of them against the input."""
        few = self.x[:16]
        packed = dtypes.quantize(few, dtype)
        assert np.array_equal(packed, dtypes.quantize(few, dtype, isa="scalar")), "quantize differs from scalar"
        restored = dtypes.dequantize(packed, dtype, few.shape)
        assert np.array_equal(restored, dtypes.dequantize(packed, dtype, few.shape, isa="scalar")), "dequantize differs"
        likeness = np.corrcoef(self.x[::64].ravel(), self.out[::64].ravel())[0, 1]
        assert likeness > 0.75, f"what was restored has correlation {likeness:.3f} with the input"

    @common.sampled()
    def track_quantize_gib(self, dtype, size):
        return common.samples(self.quantize, per=self.mib / 1024)

    @common.sampled()
    def track_dequantize_gib(self, dtype, size):
        return common.samples(self.dequantize, per=self.mib / 1024)
