"""Small models with any one thing changed, and the same network in numpy float32: the second oracle.

The network is written from the description of the graph (docs/formats.md), not from the library.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import gguf
import numpy as np
from gguf_bytes import BOOL, F32, STRING, U32, File, Tensor, i2_s, kv

from bitnet_core import quantize

F32_TYPE, F16_TYPE, BF16_TYPE, Q8_0_TYPE, Q6_K_TYPE, TYPE_36 = 0, 1, 30, 8, 14, 36


@dataclass(frozen=True)
class Shape:
    arch: str = "bitnet-b1.58"
    n_vocab: int = 300
    n_ctx: int = 64
    n_embd: int = 128
    n_layer: int = 2
    n_head: int = 4
    n_head_kv: int = 2
    n_rot: int = 32
    n_ff: int = 256
    rms_eps: float = 1e-5
    freq_base: float = 10000.0
    dtype: str = "i2_s"
    head_type: int = F16_TYPE
    tied: bool = True

    @property
    def n_embd_head(self):
        return self.n_embd // self.n_head


def qk256(values):
    """Rows of -2, -1, 1, 2, padded to 256 columns, four codes a byte, the first in the lowest bits."""
    codes = np.searchsorted([-2, -1, 1, 2], values).astype(np.uint8)
    codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 256)), constant_values=2)
    quads = codes.reshape(codes.shape[0], -1, 4)
    return (quads << np.array([0, 2, 4, 6], np.uint8)).sum(axis=2).astype(np.uint8).tobytes()


def floats_bytes(values, type_id):
    if type_id == F32_TYPE:
        return values.astype("<f4").tobytes()
    if type_id == F16_TYPE:
        return values.astype("<f2").tobytes()
    if type_id in (Q8_0_TYPE, Q6_K_TYPE):
        return quantize(values, "q8_0" if type_id == Q8_0_TYPE else "q6_k").tobytes()
    return (values.astype("<f4").view(np.uint32) >> 16).astype("<u2").tobytes()


@dataclass
class SmallModel:
    """Random weights of a shape: ``weights`` as float arrays, ``kvs`` and ``tensors`` as they go into the file."""

    shape: Shape
    seed: int = 0
    weights: dict = field(default_factory=dict)
    kvs: dict = field(default_factory=dict)
    tensors: dict = field(default_factory=dict)

    def __post_init__(self):
        s, rng = self.shape, np.random.default_rng(self.seed)
        a = s.arch
        for key, type_id, value in [
            ("general.architecture", STRING, a),
            (f"{a}.vocab_size", U32, s.n_vocab),
            (f"{a}.context_length", U32, s.n_ctx),
            (f"{a}.embedding_length", U32, s.n_embd),
            (f"{a}.block_count", U32, s.n_layer),
            (f"{a}.feed_forward_length", U32, s.n_ff),
            (f"{a}.rope.dimension_count", U32, s.n_rot),
            (f"{a}.attention.head_count", U32, s.n_head),
            (f"{a}.attention.head_count_kv", U32, s.n_head_kv),
            (f"{a}.attention.layer_norm_rms_epsilon", F32, s.rms_eps),
            (f"{a}.rope.freq_base", F32, s.freq_base),
        ]:
            self.kvs[key] = kv(key, type_id, value)
        if s.dtype == "qk256":
            self.kvs["bitnet_core.qk256"] = kv("bitnet_core.qk256", BOOL, True)
        self.add_floats("token_embd.weight", rng.standard_normal((s.n_vocab, s.n_embd)), s.head_type)
        if not s.tied:
            self.add_floats("output.weight", rng.standard_normal((s.n_vocab, s.n_embd)), s.head_type)
        for il in range(s.n_layer):
            n_kv = s.n_head_kv * s.n_embd_head
            for role, n in [
                ("attn_norm", s.n_embd),
                ("attn_sub_norm", s.n_embd),
                ("ffn_norm", s.n_embd),
                ("ffn_sub_norm", s.n_ff),
            ]:
                self.add_floats(f"blk.{il}.{role}.weight", 1 + 0.1 * rng.standard_normal(n), F32_TYPE)
            for role, n_rows, ne0 in [
                ("attn_q", s.n_embd, s.n_embd),
                ("attn_k", n_kv, s.n_embd),
                ("attn_v", n_kv, s.n_embd),
                ("attn_output", s.n_embd, s.n_embd),
                ("ffn_gate", s.n_ff, s.n_embd),
                ("ffn_up", s.n_ff, s.n_embd),
                ("ffn_down", s.n_embd, s.n_ff),
            ]:
                self.add_matrix(f"blk.{il}.{role}.weight", n_rows, ne0, rng)
        self.add_floats("output_norm.weight", 1 + 0.1 * rng.standard_normal(s.n_embd), F32_TYPE)

    def add_floats(self, name, values, type_id):
        data = floats_bytes(values, type_id)
        self.tensors[name] = Tensor(name, tuple(reversed(values.shape)), type_id, data)
        if type_id == F32_TYPE:
            self.weights[name] = values.astype(np.float32)
        elif type_id == F16_TYPE:
            self.weights[name] = values.astype(np.float16).astype(np.float32)
        elif type_id in (Q8_0_TYPE, Q6_K_TYPE):
            rows = np.frombuffer(data, np.uint8).reshape(len(values), -1)
            self.weights[name] = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(type_id))
        else:
            self.weights[name] = (
                (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(values.shape)
            )

    def add_matrix(self, name, n_rows, ne0, rng):
        if self.shape.dtype == "qk256":
            values = rng.choice([-2, -1, 1, 2], (n_rows, ne0))
            data, scale = qk256(values), 1.0
        else:
            values = rng.integers(-1, 2, (n_rows, ne0))
            scale = float(np.float32(rng.uniform(0.5, 2) / np.sqrt(ne0)))
            data = i2_s(values.ravel().tolist(), scale)
        self.tensors[name] = Tensor(name, (ne0, n_rows), TYPE_36, data)
        self.weights[name] = (values, np.float32(scale))

    def write(self, path):
        path.write_bytes(bytes(File(list(self.kvs.values()), list(self.tensors.values()))))
        return path

    # ---- the network ----

    def logits(self, tokens):
        """(n_tokens, n_vocab) float32."""
        s, w = self.shape, self.weights
        x = w["token_embd.weight"][tokens]
        angle = np.arange(len(tokens), dtype=np.float32)[:, None] * self.inverse_frequencies()
        cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
        for il in range(s.n_layer):
            p = f"blk.{il}."
            h = self.rms_norm(x, w[p + "attn_norm.weight"])
            q = self.rotate(self.bit_linear(h, p + "attn_q").reshape(len(x), s.n_head, -1), cos, sin)
            k = self.rotate(self.bit_linear(h, p + "attn_k").reshape(len(x), s.n_head_kv, -1), cos, sin)
            v = self.bit_linear(h, p + "attn_v").reshape(len(x), s.n_head_kv, -1)
            a = self.rms_norm(self.attention(q, k, v).reshape(len(x), -1), w[p + "attn_sub_norm.weight"])
            x = x + self.bit_linear(a, p + "attn_output")
            h = self.rms_norm(x, w[p + "ffn_norm.weight"])
            f = self.activation(self.bit_linear(h, p + "ffn_gate")) * self.bit_linear(h, p + "ffn_up")
            x = x + self.bit_linear(self.rms_norm(f, w[p + "ffn_sub_norm.weight"]), p + "ffn_down")
        head = w["token_embd.weight"] if s.tied else w["output.weight"]
        return self.rms_norm(x, w["output_norm.weight"]) @ head.T

    def inverse_frequencies(self):
        i = np.arange(0, self.shape.n_rot, 2, dtype=np.float32)
        return (1.0 / self.shape.freq_base ** (i / self.shape.n_rot)).astype(np.float32)

    def rms_norm(self, x, weight):
        return (x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(self.shape.rms_eps))) * weight

    def bit_linear(self, x, role):
        values, scale = self.weights[role + ".weight"]
        s = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
        q = np.clip(np.round(x * s), -128, 127).astype(np.int64)
        return ((q @ values.T).astype(np.float32) / s) * scale

    def rotate(self, x, cos, sin):
        half = self.shape.n_rot // 2
        a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)

    def attention(self, q, k, v):
        s = self.shape
        k, v = (np.repeat(t, s.n_head // s.n_head_kv, axis=1) for t in (k, v))
        scores = np.einsum("thd,jhd->htj", q, k) * np.float32(1 / np.sqrt(s.n_embd_head))
        scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -np.inf)
        p = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.einsum("htj,jhd->thd", p / p.sum(axis=-1, keepdims=True), v)

    def activation(self, gate):
        return gate / (1 + np.exp(-gate)) if self.shape.arch == "bitnet" else np.maximum(gate, 0) ** 2


def small_model(**changes):
    return SmallModel(replace(Shape(), **changes))
