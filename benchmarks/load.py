"""From a file to a first token: open, model, session, first token; and opening alone beside the PyPI `gguf` reader."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from benchmarks import common


class Load:
    """Each method does everything up to its point, from nothing: `track_first_token` opens, binds and evaluates.

    cold: the file's pages are dropped before each sample, so the disk is measured too. warm: they are in memory.
    """

    version = "1"
    timeout = 300
    params = [common.MODELS, ["warm", "cold"]]
    param_names = ["model", "page_cache"]

    def setup(self, model, page_cache):
        self.path = common.model_path(model)
        self.reader_class = common.need("bitnet_core", "GGUFReader").GGUFReader
        self.model_class = common.need("bitnet_core", "Model").Model
        self.before = None
        if page_cache == "cold":
            common.drop_page_cache(self.path)  # skips where that does not work
            self.before = lambda: common.drop_page_cache(self.path)

    @common.sampled()
    def track_open(self, model, page_cache):
        self._close_reader(self.reader_class(self.path))  # once, to warm up and to check
        return common.samples(lambda: self.reader_class(self.path), before=self.before, after=self._close_reader)

    @common.sampled()
    def track_model(self, model, page_cache):
        self.model_class.from_file(self.path).close()
        return common.samples(
            lambda: self.model_class.from_file(self.path), before=self.before, after=lambda found: found.close()
        )

    @common.sampled()
    def track_ready(self, model, page_cache):
        """As `load_s` of `bitnet targets`."""
        self._close(self._ready())
        return common.samples(self._ready, before=self.before, after=self._close)

    @common.sampled()
    def track_first_token(self, model, page_cache):
        self.expected = None
        self._close_token(self._first_token())
        return common.samples(self._first_token, before=self.before, after=self._close_token)

    def _close_reader(self, reader):
        assert reader.metadata["general.architecture"].startswith("bitnet")
        assert len(reader.infos) > 0
        reader.close()

    def _ready(self):
        model = self.model_class.from_file(self.path)
        return model, model.session()

    def _close(self, found):
        for each in reversed(found):
            each.close()

    def _first_token(self):
        model = self.model_class.from_file(self.path)
        session = model.session(n_ctx=256)
        return model, session, session.eval([1])

    def _close_token(self, found):
        model, session, logits = found
        if self.expected is None:
            self.expected = logits.copy()
        common.same_logits(logits, self.expected)
        self._close((model, session))


N_TOKENS, N_MERGES = 128_256, 280_147


class Header:
    """Open a file with the published model's vocabulary, for which a reader must not parse what nobody asks for.

    The file holds F16 and F32 tensors alone, because the PyPI reader raises on type 36, which every BitNet file has.
    """

    version = "1"
    timeout = 300
    params = [["2b-header"], ["bitnet_core", "gguf"]]
    param_names = ["file", "reader"]

    def setup_cache(self):
        return str(_write_header(Path("header.gguf").absolute()))

    def setup(self, path, file, reader):
        if reader == "bitnet_core":
            found = common.need("bitnet_core", "GGUFReader").GGUFReader
            self.open = lambda: found(path)
            self.tokens = lambda opened: list(opened.metadata["tokenizer.ggml.tokens"])
            self.close = lambda opened: opened.close()
        else:
            try:
                from gguf import GGUFReader
            except ModuleNotFoundError:
                raise NotImplementedError("the PyPI package gguf is not installed") from None
            self.open = lambda: GGUFReader(path)
            self.tokens = lambda opened: opened.fields["tokenizer.ggml.tokens"].contents()
            self.close = lambda _opened: None

    @common.sampled(rounds=1)
    def track_open(self, path, file, reader):
        return common.samples(self.open, after=self.close)  # not warmed up: the PyPI reader takes seconds each time

    @common.sampled(rounds=1)
    def track_tokens(self, path, file, reader):
        """Open, and every token as a string."""

        def open_and_read():
            opened = self.open()
            return opened, self.tokens(opened)

        def check(found):
            opened, tokens = found
            assert len(tokens) == N_TOKENS
            assert tokens[-1] == _token(N_TOKENS - 1)
            self.close(opened)

        return common.samples(open_and_read, after=check)


def _token(i: int) -> str:
    return f"token{i:x}"


def _write_header(path: Path) -> Path:
    """A valid GGUF v3 file whose metadata is as large as the published model's and whose tensors are two small ones."""

    def string(text: str) -> bytes:
        data = text.encode()
        return struct.pack("<Q", len(data)) + data

    def strings(texts: list[str]) -> bytes:
        return struct.pack("<IQ", 8, len(texts)) + b"".join(map(string, texts))

    merges = [f"{_token(i % N_TOKENS)} {_token(i * 7 % N_TOKENS)}" for i in range(N_MERGES)]
    metadata = [
        ("general.architecture", 8, string("bitnet-b1.58")),
        ("tokenizer.ggml.tokens", 9, strings([_token(i) for i in range(N_TOKENS)])),
        ("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, N_TOKENS) + bytes(4 * N_TOKENS)),
        ("tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, N_TOKENS) + np.ones(N_TOKENS, "<i4").tobytes()),
        ("tokenizer.ggml.merges", 9, strings(merges)),
    ]
    # Tensors of 64 elements: F16 (type 1) fills 128 bytes, F32 (type 0) the 256 after it; both aligned to 32.
    infos = [("half", 1, 0), ("single", 0, 128)]
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(metadata))
    header += b"".join(string(key) + struct.pack("<I", kind) + value for key, kind, value in metadata)
    header += b"".join(string(name) + struct.pack("<IQIQ", 1, 64, kind, offset) for name, kind, offset in infos)
    path.write_bytes(header + bytes(-len(header) % 32) + bytes(128 + 256))
    return path
