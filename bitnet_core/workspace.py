"""A workspace: the threads and activations with which sessions of a model are evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bitnet_core._lib import call, ffi, lib
from bitnet_core.kernels import kernel_at

if TYPE_CHECKING:
    from bitnet_core.model import Model
    from bitnet_core.sampling import SamplingParams

__all__ = ["KV_DTYPES", "Reads", "Workspace"]

KV_DTYPES = {"f16": lib.BNC_KV_F16, "f32": lib.BNC_KV_F32, "q8_0": lib.BNC_KV_Q8_0}


class Reads(NamedTuple):
    """Bytes that an evaluation read, each counted once for each pass over the weights.

    ``exact_rows`` are the rows of the head whose logits were computed: all of them, or those that the screen could not
    rule out.
    """

    weight_bytes: int
    kv_bytes: int
    exact_rows: int


class Workspace:
    """Shared by the sessions that decode together; a :class:`Session` made alone has one of its own.

    One caller at a time, over all of its sessions.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_threads: int,
        n_ctx: int | None = None,
        n_batch: int | None = None,
        n_seq: int = 1,
        pin: bool = False,
    ) -> None:
        for name, value in (("n_ctx", n_ctx), ("n_batch", n_batch), ("n_seq", n_seq)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        options = ffi.new("bnc_workspace_options *")
        options.n_ctx, options.n_batch, options.n_seq = n_ctx or 0, n_batch or 0, n_seq
        options.n_threads, options.pin = n_threads, pin
        out = ffi.new("bnc_workspace **")
        call(lib.bnc_workspace_new, model.handle, options, out)
        # The C objects below must outlive it, also when the garbage collector takes all of them at once: the
        # destructor holds them.
        below = [model, model.handle, model.reader.hold("a session")]

        def free(handle: Any) -> None:
            lib.bnc_workspace_free(handle)
            below.clear()

        self._handle = ffi.gc(out[0], free)
        self.model = model
        self.n_threads = n_threads

    @property
    def handle(self) -> Any:
        """The ``bnc_workspace *``; raises ValueError once it is closed."""
        if self._handle is None:
            raise ValueError("the session or batch is closed")
        return self._handle

    @property
    def n_batch(self) -> int:
        """Tokens evaluated in one pass over the weights."""
        return int(lib.bnc_workspace_n_batch(self.handle))

    @property
    def nbytes(self) -> int:
        """Size of activations and other working memory in bytes."""
        return int(lib.bnc_workspace_bytes(self.handle))

    @property
    def reads(self) -> Reads:
        """What the last evaluation read from memory."""
        raw = lib.bnc_workspace_reads(self.handle)
        return Reads(int(raw.weight_bytes), int(raw.kv_bytes), int(raw.exact_rows))

    def use_screen(self) -> None:
        """Find tokens with the model's screen, if it has one; made on the first call."""
        call(lib.bnc_workspace_set_screen, self.handle, self.model.screen())

    def eval(self, requests: Any, n: int = 1) -> None:
        """Evaluate an array of ``n`` ``bnc_request`` of different sessions together; see ``bnc_eval``."""
        call(lib.bnc_eval, self.handle, requests, n)

    def new_session(self, n_ctx: int | None, kv_dtype: str) -> Any:
        """A ``bnc_session *``: an empty sequence."""
        if kv_dtype not in KV_DTYPES:
            raise ValueError(f"kv_dtype must be one of {', '.join(KV_DTYPES)}, not {kv_dtype!r}")
        options = ffi.new("bnc_session_options *", {"n_ctx": n_ctx or 0, "kv_dtype": KV_DTYPES[kv_dtype]})
        out = ffi.new("bnc_session **")
        call(lib.bnc_session_new, self.handle, options, out)
        return ffi.gc(out[0], lib.bnc_session_free)

    def new_sampler(self, params: SamplingParams) -> Any:
        """A ``bnc_sampler *`` for the model's vocabulary."""
        fields = ("temperature", "top_k", "top_p", "repetition_penalty", "seed")
        sampling = ffi.new("bnc_sampling *", {name: getattr(params, name) for name in fields})
        out = ffi.new("bnc_sampler **")
        call(lib.bnc_sampler_new, self.model.config.n_vocab, sampling, out)
        return ffi.gc(out[0], lib.bnc_sampler_free)

    def kernels_used(self) -> tuple[str, ...]:
        """Names of the kernels that have run, as dispatch recorded them."""
        indices = ffi.new("int32_t[]", lib.bnc_kernel_count())
        n = lib.bnc_workspace_kernels_used(self.handle, indices, len(indices))
        return tuple(sorted(kernel_at(indices[i]).name for i in range(n)))

    def close(self) -> None:
        """Free it. A call that is running in another thread finishes first. A second call does nothing."""
        self._handle = None
