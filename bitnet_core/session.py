"""A session: one sequence of tokens on a model, with its KV cache."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_core._lib import call, ffi, lib
from bitnet_core.exceptions import ContextOverflowError, SessionBusyError
from bitnet_core.sampling import SamplingParams
from bitnet_core.workspace import Reads, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from bitnet_core.model import Model

__all__ = ["Session", "token_array"]


def token_array(tokens: Iterable[int] | NDArray[Any]) -> NDArray[np.int32]:
    """Token ids as a C array; whatever does not fit an int32 is refused here, the rest by the library."""
    array = np.asarray(tokens if isinstance(tokens, np.ndarray) else list(tokens))
    if array.ndim != 1:
        raise ValueError(f"tokens must be a flat sequence, not of shape {array.shape}")
    if array.size == 0:
        return np.empty(0, np.int32)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"tokens must be integers, not {array.dtype}")
    limits = np.iinfo(np.int32)
    if array.min() < limits.min or array.max() > limits.max:
        raise ValueError(f"token ids must fit int32; got {array.min()} to {array.max()}")
    return np.array(array, np.int32)  # a copy: the caller's array may change while the library reads


_NOISE = -1  # in place of a token: the cache holds noise there

_NOTHING_READ = Reads(0, 0, 0)


_LOGPROBS_AT_A_TIME = 64  # 33 MB of logits for the largest vocabulary known


class Session:
    """One sequence: tokens are appended by :meth:`eval` and :meth:`generate`, and dropped by :meth:`rewind`.

    Made by :meth:`Model.session`. Used by one thread at a time: a call that arrives while another runs raises
    SessionBusyError and changes nothing. The GIL is released while it computes, so sessions of one model run in
    parallel.
    """

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int | None,
        kv_dtype: str,
        n_threads: int,
        n_batch: int | None,
        pin: bool = False,
    ) -> None:
        self._workspace = Workspace(model, n_ctx=n_ctx, n_batch=n_batch, n_threads=n_threads, pin=pin)
        self._handle = self._workspace.new_session(n_ctx, kv_dtype)
        self._request = ffi.new("bnc_request *", {"session": self._handle})
        self.model = model
        self.kv_dtype = kv_dtype
        self.n_threads = n_threads
        self._pending: list[int] = []  # yielded by generate() and not yet evaluated: at most one
        self._read_before = _NOTHING_READ  # by the blocks of a call to eval() before the last
        self._tokens: list[int] = []  # the sequence, the pending token included
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread that holds the lock

    @property
    def handle(self) -> Any:
        """The ``bnc_session *``; raises ValueError once the session is closed."""
        if self._handle is None:
            raise ValueError("the session is closed")
        return self._handle

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._handle is None

    @property
    def n_past(self) -> int:
        """Tokens in the sequence."""
        return int(lib.bnc_session_n_past(self.handle)) + len(self._pending)

    @property
    def n_ctx(self) -> int:
        """Tokens the sequence can hold."""
        return int(lib.bnc_session_n_ctx(self.handle))

    @property
    def n_batch(self) -> int:
        """Tokens evaluated in one pass over the weights."""
        return self._workspace.n_batch

    @property
    def kv_bytes(self) -> int:
        """Size of the KV cache in bytes; the system provides it page by page as positions are used."""
        return int(lib.bnc_session_kv_bytes(self.handle))

    @property
    def scratch_bytes(self) -> int:
        """Size of activations and other working memory in bytes."""
        return self._workspace.nbytes

    def eval(self, tokens: Iterable[int] | NDArray[Any], *, all_logits: bool = False) -> NDArray[np.float32]:
        """Append tokens and return logits.

        Parameters
        ----------
        tokens
            Token ids, at least one.
        all_logits
            True: of every token; False: of the last one.

        Returns
        -------
        float32 array of shape (n_tokens, n_vocab), or (n_vocab,). Its bits depend neither on the number of threads, nor
        on the level of kernels, nor on how a sequence is cut into calls.

        Raises
        ------
        ContextOverflowError
            The tokens do not fit the context.
        ValueError
            A token is not in the vocabulary, or there is none. The session is then as it was.
        """
        ids = token_array(tokens)
        n_vocab = self.model.config.n_vocab
        if ids.size == 0:
            raise ValueError("at least one token is needed")
        with _Transaction(self):
            self._check_fits(ids.size + len(self._pending))
            self._flush()
            logits = np.empty((ids.size if all_logits else 1, n_vocab), np.float32)
            self._read_before = _NOTHING_READ
            for begin in range(0, ids.size, self.n_batch):
                if begin:
                    self._read_before = self.reads
                block = ids[begin : begin + self.n_batch]
                last = begin + block.size == ids.size
                out = logits[begin : begin + block.size] if all_logits else logits
                self._eval_block(block, out if all_logits or last else None, all_logits=all_logits)
            self._tokens += ids.tolist()
        return logits if all_logits else logits[0]

    def logprobs(self, tokens: Iterable[int] | NDArray[Any]) -> NDArray[np.float64]:
        """Append tokens and return the natural logarithm of each one's probability after those before it.

        The probabilities are those of the exact logits, at temperature 1 and without a penalty. Memory stays bounded:
        the logits of at most 64 tokens exist at a time. For tokens that were generated, ask a new session about the
        prompt and them.

        Parameters
        ----------
        tokens
            Token ids, at least one.

        Returns
        -------
        float64 array of shape (n_tokens,). The first is NaN where nothing is known of it: in an empty sequence, and
        after a token whose logits are not kept, which are all but the last that :meth:`generate` yielded. Its bits
        depend on as little as those of the logits.

        Raises
        ------
        ContextOverflowError, ValueError
            As :meth:`eval`; the session is then as it was.

        Examples
        --------
        Perplexity of a text::

            with model.session() as session:
                perplexity = np.exp(-np.nanmean(session.logprobs(ids)))
        """
        ids = token_array(tokens)
        if ids.size == 0:
            raise ValueError("at least one token is needed")
        step = min(_LOGPROBS_AT_A_TIME, self.n_batch)
        logprobs = np.full(ids.size, np.nan)
        with _Transaction(self):
            self._check_fits(ids.size + len(self._pending))
            # Row 0 is what the token before a block says about its first one.
            logits = np.full((1 + min(step, ids.size), self.model.config.n_vocab), np.nan, np.float32)
            if self._pending:
                self._eval_block(np.array(self._pending, np.int32), logits[:1], all_logits=True)
                self._pending = []
            self._read_before = _NOTHING_READ
            for begin in range(0, ids.size, step):
                if begin:
                    self._read_before = self.reads
                block = ids[begin : begin + step]
                self._eval_block(block, logits[1 : 1 + block.size], all_logits=True)
                logprobs[begin : begin + block.size] = [
                    _logprob(row, token) for row, token in zip(logits, block, strict=False)
                ]
                logits[0] = logits[block.size]
            self._tokens += ids.tolist()
        return logprobs

    def generate(self, ids: Iterable[int] | NDArray[Any], params: SamplingParams | None = None) -> Iterator[int]:
        """Append ``ids``, then yield generated tokens one by one, each appended to the sequence.

        The generation ends at a token of ``params.stop``, at the model's end-of-sequence or end-of-turn token (none of
        which is yielded), after ``params.max_tokens``, or when the context is full. The session can be used afterwards,
        and continues after the last token yielded, also when the iterator was dropped early.

        Parameters
        ----------
        ids
            Prompt, or what follows in a sequence already begun. May be empty right after a generation that yielded.
        params
            Default: ``SamplingParams()``.

        Yields
        ------
        int
            Token ids.
        """
        params = params or SamplingParams()
        prompt = token_array(ids)
        if prompt.size == 0 and not self._pending:
            raise ValueError("generate needs at least one token: the last token's logits are not kept")
        return self._generate(prompt, params)

    def _generate(self, prompt: NDArray[np.int32], params: SamplingParams) -> Iterator[int]:
        if params.max_tokens == 0:
            if prompt.size:
                self.eval(prompt)
            return
        sampler = self._workspace.new_sampler(params)
        stop = {*params.stop, *(() if params.ignore_eos else self.model.end_tokens)}
        with _Transaction(self):
            tokens = np.concatenate([np.array(self._pending, np.int32), prompt])
            self._check_fits(tokens.size)
            self._workspace.use_screen()
            for token in {*self._tokens, *prompt.tolist()} - {_NOISE}:
                call(lib.bnc_sampler_accept, sampler, token)
            for begin in range(0, tokens.size - 1, self.n_batch):
                self._eval_block(tokens[begin : min(begin + self.n_batch, tokens.size - 1)], None, all_logits=False)
            token = self._sample(tokens[-1:], sampler)
            self._pending = []
            self._tokens += prompt.tolist()
        for count in range(1, params.max_tokens + 1):
            if token in stop:
                return
            position = self.n_past
            if position == self.n_ctx:  # full: the token is given out, but has no place in the sequence
                yield token
                return
            call(lib.bnc_sampler_accept, sampler, token)
            self._pending = pending = [token]
            self._tokens.append(token)
            yield token
            if count == params.max_tokens:
                return
            with _Transaction(self):
                if self._pending is not pending or self.n_past != position + 1:
                    raise RuntimeError("the session was changed while generate() was running; start a new generation")
                token = self._sample(np.array(pending, np.int32), sampler)
                self._pending = []

    def rewind(self, n: int) -> None:
        """Forget every token from position ``n`` on.

        Raises
        ------
        ValueError
            ``n`` is negative or beyond the sequence.
        """
        with _Transaction(self):
            if not 0 <= n <= self.n_past:
                raise ValueError(f"can only rewind to 0 to {self.n_past}, not {n}")
            if n == self.n_past:
                return
            call(lib.bnc_session_rewind, self.handle, n)
            self._pending = []
            del self._tokens[n:]

    def fill_kv(self, n: int, seed: int = 0) -> None:
        """Set the position to ``n`` with seeded noise in the KV cache: a deep context without its prefill.

        For benchmarks: the time of what follows is that of a real context of this depth, its logits mean nothing.
        """
        with _Transaction(self, restore_to=0):  # what was in the cache is lost, also by half of this
            call(lib.bnc_session_fill_kv, self.handle, n, seed)
            self._pending = []
            self._tokens = [_NOISE] * n

    @property
    def reads(self) -> Reads:
        """What the last call to :meth:`eval`, or the last token of :meth:`generate`, read from memory."""
        return Reads(*(a + b for a, b in zip(self._read_before, self._workspace.reads, strict=True)))

    def kernels_used(self) -> tuple[str, ...]:
        """Names of the kernels that have run in this session, as dispatch recorded them."""
        return self._workspace.kernels_used()

    def close(self) -> None:
        """Free the session. A call that is running in another thread finishes first. A second call does nothing."""
        self._handle = None
        self._workspace.close()

    def _eval_block(self, block: NDArray[np.int32], logits: NDArray[np.float32] | None, *, all_logits: bool) -> None:
        """One call into the library; the prompt comes in blocks so that Ctrl-C is noticed between them."""
        out = ffi.NULL if logits is None else ffi.from_buffer("float[]", logits)
        self._run(block, logits=out, all_logits=all_logits, sampler=ffi.NULL)

    def _flush(self) -> None:
        """Evaluate the token that generate() left behind."""
        if self._pending:
            self._eval_block(np.array(self._pending, np.int32), None, all_logits=False)
            self._pending = []

    def _check_fits(self, n_tokens: int) -> None:
        evaluated = int(lib.bnc_session_n_past(self.handle))
        if evaluated + n_tokens > self.n_ctx:
            raise ContextOverflowError(f"{n_tokens} tokens after {evaluated} do not fit a context of {self.n_ctx}")

    def _sample(self, tokens: NDArray[np.int32], sampler: Any) -> int:
        self._run(tokens, logits=ffi.NULL, all_logits=False, sampler=sampler)
        self._read_before = _NOTHING_READ
        return int(self._request.drawn)

    def _run(self, tokens: NDArray[np.int32], *, logits: Any, all_logits: bool, sampler: Any) -> None:
        session = self.handle  # named, so that a close() from another thread does not free it while the call runs
        request, data = self._request, ffi.from_buffer("int32_t[]", tokens)
        request.session, request.tokens, request.n_tokens = session, data, tokens.size
        request.logits, request.all_logits, request.sampler = logits, all_logits, sampler
        self._workspace.eval(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<Session closed>"
        return f"<Session {self.n_past}/{self.n_ctx} tokens, {self.kv_dtype} cache, {self.n_threads} threads>"


def _logprob(logits: NDArray[np.float32], token: int) -> float:
    """Logarithm of the softmax at one token, in float64; NaN where the logits are."""
    shifted = logits - logits.max().astype(np.float64)
    return float(shifted[token] - np.log(np.exp(shifted).sum()))


class _Transaction:
    """One thread inside a session; an exception, Ctrl-C included, takes the sequence back to where it was."""

    def __init__(self, session: Session, *, restore_to: int | None = None) -> None:
        self._session = session
        self._restore_to = restore_to

    def __enter__(self) -> None:
        session = self._session
        me = threading.get_ident()
        # Held by this very thread, or by nobody, is what an interrupt in the wrong place left behind.
        if not session._lock.acquire(blocking=False) and session._owner not in (None, me):  # noqa: SLF001  # one object
            raise SessionBusyError("the session is in use by another thread; give each thread its own")
        session._owner = me  # noqa: SLF001
        try:
            n_past = int(lib.bnc_session_n_past(session.handle))
        except BaseException:
            self._leave()
            raise
        self._n_past = n_past if self._restore_to is None else self._restore_to
        self._pending = session._pending if self._restore_to is None else []  # noqa: SLF001

    def __exit__(self, kind: type[BaseException] | None, value: object, traceback: object) -> None:
        session = self._session
        try:
            if kind is not None and not session.closed:
                self._restore(session)
        finally:
            self._leave()

    def _restore(self, session: Session) -> None:
        n_past = int(lib.bnc_session_n_past(session.handle))
        if n_past > self._n_past:
            call(lib.bnc_session_rewind, session.handle, self._n_past)
        session._pending = self._pending if n_past >= self._n_past else []  # noqa: SLF001
        del session._tokens[session.n_past :]  # noqa: SLF001

    def _leave(self) -> None:
        self._session._owner = None  # noqa: SLF001
        if self._session._lock.locked():  # noqa: SLF001
            self._session._lock.release()  # noqa: SLF001
