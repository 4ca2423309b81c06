"""A model: hyper-parameters and weights of a GGUF file, used where they lie."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from bitnet_core._lib import call, default_threads, ffi, isa_names, kernels_for, lib
from bitnet_core.batch import Batch
from bitnet_core.dtypes import nbytes
from bitnet_core.exceptions import LiveViewsError, UnsupportedModelError
from bitnet_core.gguf import GGUFReader
from bitnet_core.session import Session

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Model", "ModelConfig", "Packing"]

# Bytes of a head from which screening it pays: a smaller one fits the processor's caches.
_SCREEN_FROM = 16 << 20
_SCREEN_AT_MOST = 0.75  # of the head's bytes
_SCREENS = {"screened": lib.BNC_SCREEN_DITHERED, "proven": lib.BNC_SCREEN_PROVEN}
_HEADS = ("auto", "exact", *_SCREENS)
_WEIGHTS = ("file", "packed", "auto")
_PACK_FROM = 1.05  # times as fast as from the file: for less, packing is not worth its memory


@dataclass(frozen=True)
class ModelConfig:
    """Hyper-parameters under GGUF's names.

    ``dtype`` is that of the ternary matrices, ``head_dtype`` that of the matrix that makes logits, and ``tied_head``
    says that this matrix is ``token_embd.weight``.
    """

    arch: str
    n_vocab: int
    n_ctx: int
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_embd_head: int
    n_rot: int
    n_ff: int
    rms_eps: float
    rope_freq_base: float
    dtype: str
    head_dtype: str
    tied_head: bool


@dataclass(frozen=True)
class Packing:
    """Where the ternary matrices are read from, and what was measured to choose it.

    Attributes
    ----------
    weights : str
        ``"file"``: from the mapped file; ``"packed"``: from a copy in memory at 1.6 bits a weight.
    nbytes : int
        Anonymous memory that the copy takes; 0 if there is none.
    seconds : float
        Time to measure and to make it.
    gain : float or None
        Time of a pass over some of the matrices (the first 128 MiB of the file's) from the file, by that packed: the
        shortest of at most 16 each, taken in turn. None if nothing was measured.
    reason : str
        Why ``"auto"`` did not pack; else empty.
    """

    weights: str
    nbytes: int = 0
    seconds: float = 0.0
    gain: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.weights == "file":
            return f"from the file ({self.reason})" if self.reason else "from the file"
        return f"packed: {self.nbytes / 1e6:.1f} MB in {self.seconds:.2f} s, {self.gain:.2f} times as fast"


_FROM_FILE = Packing("file")


def _pack(handle: Any, weights: str, n_threads: int) -> Packing:
    if weights == "file":
        return _FROM_FILE
    report = ffi.new("bnc_pack_report *")
    try:
        call(lib.bnc_pack_model, handle, n_threads, _PACK_FROM if weights == "auto" else 0.0, report)
    except UnsupportedModelError as error:
        if weights == "auto":
            return Packing("file", reason=str(error))
        raise
    if report.bytes:
        return Packing("packed", int(report.bytes), report.seconds, report.gain)
    reason = f"packed weights are {report.gain:.2f} times as fast, which is not {_PACK_FROM}"
    return Packing("file", 0, report.seconds, report.gain, reason)


def _screen_pays(handle: Any, config: ModelConfig) -> bool:
    head = nbytes(config.head_dtype, (config.n_vocab, config.n_embd))
    return head >= _SCREEN_FROM and int(lib.bnc_screen_bytes(handle, lib.BNC_SCREEN_DITHERED)) <= head * _SCREEN_AT_MOST


def _end_tokens(handle: Any) -> frozenset[int]:
    raw = lib.bnc_model_get_config(handle)
    return frozenset(int(token) for token in (raw.eos_token, raw.eot_token) if token >= 0)


def _config(handle: Any) -> ModelConfig:
    raw = lib.bnc_model_get_config(handle)
    values = {field.name: getattr(raw, field.name) for field in fields(ModelConfig)}
    values["arch"] = ffi.string(raw.arch).decode()
    for name in ("dtype", "head_dtype"):
        values[name] = ffi.string(lib.bnc_dtype_at(values[name]).name).decode()
    values["tied_head"] = bool(raw.tied_head)
    return ModelConfig(**values)


class Model:
    """Weights bound by name to a mapped file. Immutable, and shared freely between threads; sequences are sessions.

    Made by :meth:`from_file`. A context manager; :meth:`close` unmaps the file.

    Attributes
    ----------
    config : ModelConfig
    reader : GGUFReader
        The file, for metadata and tensors.
    isa : str
        The level of kernels its sessions use.
    n_threads : int
        What its sessions use unless told otherwise.
    packing : Packing
        Where the ternary matrices are read from; the time and the memory that packing them took.
    end_tokens : frozenset[int]
        Ids that end a generation: end of sequence, and end of turn (declared, or found by its text ``<|eot_id|>``,
        which published files do not declare).

    Examples
    --------
    >>> import tempfile
    >>> from bitnet_core import Model, SamplingParams
    >>> from bitnet_core.synthetic import write_model
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = write_model(folder.name + "/tiny.gguf", "tiny")
    >>> with Model.from_file(path) as model, model.session() as session:
    ...     ids = list(session.generate([1, 2, 3], SamplingParams(temperature=0, max_tokens=5)))
    >>> len(ids)
    5
    """

    def __init__(
        self, reader: GGUFReader, handle: Any, n_threads: int, head: str = "auto", packing: Packing = _FROM_FILE
    ) -> None:
        self.reader = reader
        self.packing = packing
        self.n_threads = n_threads
        self.config = _config(handle)
        self.end_tokens = _end_tokens(handle)
        self.isa = isa_names()[lib.bnc_kernels_isa(lib.bnc_model_get_kernels(handle))]
        self._hold = reader.hold("a model")
        self._handle = handle
        self._head = head
        self._screen: Any = None
        self._screen_lock, self._screen_pid = threading.Lock(), os.getpid()
        self._sessions: weakref.WeakSet[Session | Batch] = weakref.WeakSet()

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        n_threads: int | None = None,
        isa: str | None = None,
        mmap: bool = True,
        dtype: str | None = None,
        validate: bool = False,
        head: str = "auto",
        weights: str = "file",
    ) -> Self:
        """Open a GGUF file of architecture ``bitnet-b1.58``, ``bitnet-25`` or ``bitnet``.

        Parameters
        ----------
        path
            The file.
        n_threads
            Threads of a session; default ``BITNET_THREADS``, else the physical cores.
        isa
            Level of kernels; default ``BITNET_ISA``, else the best the machine has.
        mmap
            False reads the file into memory instead of mapping it.
        dtype
            What tensor type id 36 means (``"i2_s"`` or ``"qk256"``), for a file whose sizes leave it open.
        validate
            Read all weights once and reject codes without meaning. Without it such a code counts as code - 1.
        head
            How :meth:`Session.generate` finds the next token. ``"exact"`` reads the whole head. ``"screened"`` makes a
            4-bit copy of it (0.28 of an F16 head) on the first call, and reads that and the few rows that can hold the
            token: the tokens are those of the exact head, with a failure probability of 1e-12 a token.
            ``"proven"`` makes an 8-bit copy (0.50 of an F16 head) whose bound holds without any probability.
            ``"auto"`` is ``"screened"`` for heads of 16 MiB or more whose copy is at most three quarters as large, else
            ``"exact"``. Logits that are asked for are always exact.
        weights
            Where the ternary matrices are read from. ``"file"``: where they lie, without a copy. ``"packed"``: i2_s
            matrices are copied into memory at 1.6 bits a weight, 0.8 of the file's; logits keep their bits. The file's
            pages are given back one matrix after another. ``"auto"``: packed if that is measured to be 1.05 times as
            fast. See :attr:`packing` for what was chosen and what it took.

        Raises
        ------
        GGUFError
            The file breaks a rule of the format; or a matrix to be packed holds a code without meaning.
        UnsupportedModelError
            The architecture, a hyper-parameter or a tensor is not what this library runs; the message names it. Or
            ``weights="packed"`` for matrices that cannot be packed, or where the kernels of this machine and level
            would make them slower.
        OSError
            The file cannot be opened or read.
        """
        if head not in _HEADS:
            raise ValueError(f"head must be one of {', '.join(_HEADS)}, not {head!r}")
        if weights not in _WEIGHTS:
            raise ValueError(f"weights must be one of {', '.join(_WEIGHTS)}, not {weights!r}")
        threads, kernels = default_threads(n_threads), kernels_for(isa)
        reader = GGUFReader(path, mmap=mmap, dtype=dtype)
        try:
            options = ffi.new("bnc_model_options *", {"kernels": kernels, "validate": validate})
            out = ffi.new("bnc_model **")
            call(lib.bnc_model_new, reader.handle, options, out)
            handle = ffi.gc(out[0], lib.bnc_model_free)
            return cls(reader, handle, threads, head, _pack(handle, weights, threads))
        except BaseException:
            reader.close()
            raise

    @property
    def handle(self) -> Any:
        """The ``bnc_model *``; raises ValueError once the model is closed."""
        if self._handle is None:
            raise ValueError("the model is closed")
        return self._handle

    @property
    def metadata(self) -> Any:
        """The file's metadata; see :class:`GGUFReader`."""
        return self.reader.metadata

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one token with all logits must read: weights once, as they lie, without the KV cache."""
        return int(lib.bnc_model_bytes_per_token(self.handle))

    @property
    def head(self) -> str:
        """How :meth:`Session.generate` finds the next token: ``"exact"``, ``"screened"`` or ``"proven"``."""
        if self._head != "auto":
            return self._head
        return "screened" if _screen_pays(self.handle, self.config) else "exact"

    @property
    def screened(self) -> bool:
        """Whether :meth:`Session.generate` finds tokens with a copy of the head instead of reading all of it."""
        return self.head in _SCREENS

    @property
    def screen_bytes(self) -> int:
        """Size of that copy in bytes, 0 as long as it is not made."""
        return 0 if self._screen is None else int(lib.bnc_screen_bytes(self.handle, _SCREENS[self.head]))

    def screen(self) -> Any:
        """The ``bnc_screen *`` of a screened model, made on the first call (the head is read once); else NULL."""
        if not self.screened:
            return ffi.NULL
        if self._screen_pid != os.getpid():  # forked, perhaps while a thread of the parent held the lock
            self._screen_lock, self._screen_pid = threading.Lock(), os.getpid()
        with self.reader.hold("the making of a screen"), self._screen_lock:
            if self._screen is None:
                out = ffi.new("bnc_screen **")
                # A secret seed: weights could be made to defeat a dither that is known.
                seed = int.from_bytes(os.urandom(8), "little")
                call(lib.bnc_screen_new, self.handle, _SCREENS[self.head], self.n_threads, seed, out)
                self._screen = ffi.gc(out[0], lib.bnc_screen_free)
        return self._screen

    def session(
        self,
        n_ctx: int | None = None,
        *,
        kv_dtype: str = "f16",
        n_threads: int | None = None,
        n_batch: int | None = None,
        pin: bool = False,
    ) -> Session:
        """Start a sequence.

        Parameters
        ----------
        n_ctx
            Positions its KV cache holds; default and largest value: the model's. Memory is taken as positions are used.
        kv_dtype
            Type of cached keys and values. With ``"f16"`` and ``"f32"`` attention computes in float32. ``"q8_0"`` is
            int8 in blocks of 32 with a float16 scale, 0.53 of the bytes of ``"f16"``; attention then rounds queries and
            weights, too (docs/performance.md shows the error).
        n_threads
            Default: the model's.
        n_batch
            Tokens of a prompt evaluated in one pass over the weights; default 256.
        pin
            Bind each thread to a processor of its own while it computes. Worth it where the system moves threads
            about; harmful where something else wants the same processor.

        Raises
        ------
        ValueError
            A value is out of range.
        UnsupportedModelError
            ``kv_dtype="q8_0"``, and the model's heads are no multiple of 32 elements, or longer than 512.
        MemoryError
            The cache or the activations do not fit in memory.
        """
        threads = default_threads(self.n_threads if n_threads is None else n_threads)
        session = Session(self, n_ctx=n_ctx, kv_dtype=kv_dtype, n_threads=threads, n_batch=n_batch, pin=pin)
        self._sessions.add(session)
        return session

    def batch(
        self,
        n_seq: int = 16,
        *,
        n_ctx: int | None = None,
        kv_dtype: str = "f16",
        n_threads: int | None = None,
        n_batch: int | None = None,
        pin: bool = False,
    ) -> Batch:
        """Start a batch: several sequences that decode together, in one pass over the weights a step.

        Parameters
        ----------
        n_seq
            Sequences that decode at the same time, 1 to 1024; more may join and wait for a place. Working memory
            grows by 16 bytes a word of the vocabulary for each.
        n_ctx, kv_dtype, n_threads, n_batch, pin
            As for :meth:`session`; ``n_ctx`` is the longest that a sequence can become.
        """
        threads = default_threads(self.n_threads if n_threads is None else n_threads)
        batch = Batch(self, n_seq=n_seq, n_ctx=n_ctx, kv_dtype=kv_dtype, n_threads=threads, n_batch=n_batch, pin=pin)
        self._sessions.add(batch)
        return batch

    def close(self) -> None:
        """Free the model and unmap its file. A second call does nothing.

        Raises
        ------
        LiveViewsError
            Sessions are still open, or arrays still look into the file; the model then stays usable.
        """
        if self._handle is None:
            return
        n_live = sum(not session.closed for session in self._sessions)
        if n_live:
            raise LiveViewsError(f"{n_live} session{'s are' if n_live > 1 else ' is'} still open; close them first")
        self._hold.release()
        try:
            self.reader.close()
        except LiveViewsError:
            self._hold = self.reader.hold("a model")
            raise
        self._handle = self._screen = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except LiveViewsError:
            # Frames of an exception on its way hold sessions and views: that exception is the news. The file is then
            # unmapped when they are gone.
            if kind is None:
                raise

    def __repr__(self) -> str:
        state = " closed" if self._handle is None else ""
        c = self.config
        packed = "" if self.packing.weights == "file" else f" {self.packing}"
        return f"<Model {self.reader.path} {c.arch} {c.n_layer}x{c.n_embd} {c.dtype}{packed} isa={self.isa}{state}>"
