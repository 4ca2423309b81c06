"""What the machine itself can do: the roof every other figure leans on, and a sign when the machine has changed."""

from __future__ import annotations

import numpy as np

from benchmarks import common


class Read:
    """Best plain read of memory, all threads, several streams each with prefetch: what decoding is measured against.

    The buffer is larger than any last-level cache and touched once, so that its pages exist. It is read four times in a
    call, since a call of 10 ms that starts its threads comes out a tenth slower. 1 / value is GiB/s.
    """

    version = "2"
    timeout = 60
    params = [[256]]
    param_names = ["mib"]

    def setup(self, mib):
        self.read_sum = common.need("bitnet_core.kernels", "read_sum").read_sum
        self.threads = common.all_threads()
        words = np.arange(mib << 17, dtype=np.uint64)  # 2**17 words of 8 bytes are a MiB
        self.buffer = words.view(np.uint8)
        expected = int(words.sum(dtype=np.uint64))
        assert self.read_sum(self.buffer, n_threads=self.threads) == expected, "the sum of what was read is wrong"

    @common.sampled()
    def track_gib(self, mib):
        return common.samples(
            lambda: self.read_sum(self.buffer, n_threads=self.threads, repeat=4), seconds=0.5, per=4 * mib / 1024
        )


class Fill:
    """Best plain write of memory past the caches, all threads: what dequantizing is set against. 1 / value is GiB/s."""

    version = "1"
    timeout = 60
    params = [[256]]
    param_names = ["mib"]

    def setup(self, mib):
        fill = common.need("bitnet_core.kernels", "fill").fill
        threads = common.all_threads()
        buffer = np.zeros(mib << 20, np.uint8)
        self.fill = lambda: fill(buffer, 1, n_threads=threads, repeat=4)
        self.fill()
        assert buffer.all(), "not all bytes were written"

    @common.sampled()
    def track_gib(self, mib):
        return common.samples(self.fill, seconds=0.5, per=4 * mib / 1024)


class Int8:
    """Peak of int8 multiply-accumulate from registers, all threads together, at the machine's best level.

    Per 1e9 of them, so that 1 ms is 1 ps each.
    """

    version = "1"
    timeout = 60
    params = [[1 << 28]]
    param_names = ["macs"]

    def setup(self, macs):
        self.int8_peak = common.need("bitnet_core.kernels", "int8_peak").int8_peak
        self.threads = common.all_threads()
        checksum = self.int8_peak(macs, n_threads=self.threads)
        assert checksum == self.int8_peak(macs, n_threads=self.threads), "the checksum of equal work differs"

    @common.sampled()
    def track_gigamac(self, macs):
        return common.samples(
            lambda: self.int8_peak(macs, n_threads=self.threads), seconds=0.5, per=macs * self.threads / 1e9
        )
