"""A batch: several sequences that decode together, one pass over the weights for all of them."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from bitnet_core._lib import call, ffi, lib
from bitnet_core.exceptions import ContextOverflowError, SessionBusyError
from bitnet_core.sampling import SamplingParams
from bitnet_core.session import token_array
from bitnet_core.workspace import Reads, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from bitnet_core.model import Model

__all__ = ["Batch", "Sequence"]


class Sequence:
    """One sequence of a batch; made by :meth:`Batch.join`.

    Attributes
    ----------
    params : SamplingParams
    n_prompt : int
        Tokens of its prompt.
    tokens : list[int]
        Generated so far.
    finish_reason : str or None
        None while it runs or waits; ``"stop"``: an end token or one of ``params.stop`` came; ``"length"``:
        ``params.max_tokens`` are made; ``"context"``: no position is left; ``"left"``: :meth:`Batch.leave` was called.
    """

    def __init__(self, n_prompt: int, params: SamplingParams) -> None:
        self.params = params
        self.n_prompt = n_prompt
        self.tokens: list[int] = []
        self.finish_reason: str | None = None

    def __repr__(self) -> str:
        return f"<Sequence {self.n_prompt}+{len(self.tokens)} tokens, {self.finish_reason or 'not finished'}>"


class _Member:
    """A sequence inside its batch."""

    def __init__(self, sequence: Sequence, prompt: NDArray[np.int32], stop: frozenset[int]) -> None:
        self.sequence = sequence
        self.ahead = prompt  # to be evaluated: what is left of the prompt, later the last token
        self.stop = stop
        self.n_past = 0
        self.handle: Any = None  # the bnc_session *, once it runs
        self.sampler: Any = None

    def start(self, workspace: Workspace, n_ctx: int, kv_dtype: str) -> None:
        sampler = workspace.new_sampler(self.sequence.params)
        for token in set(self.ahead.tolist()):
            call(lib.bnc_sampler_accept, sampler, token)
        self.handle, self.sampler = workspace.new_session(n_ctx, kv_dtype), sampler

    def take(self, n_evaluated: int, drawn: int, n_ctx: int) -> bool:
        """Note what a step did; whether it made a token. The rules are those of Session.generate."""
        sequence = self.sequence
        self.n_past += n_evaluated
        self.ahead = self.ahead[n_evaluated:]
        if self.ahead.size or sequence.finish_reason is not None:
            return False
        if drawn in self.stop:
            sequence.finish_reason = "stop"
            return False
        sequence.tokens.append(drawn)
        if self.n_past == n_ctx:
            sequence.finish_reason = "context"
        elif len(sequence.tokens) == sequence.params.max_tokens:
            sequence.finish_reason = "length"
        else:
            call(lib.bnc_sampler_accept, self.sampler, drawn)
            self.ahead = np.array([drawn], np.int32)
        return True


class _Share:
    """What one pass evaluates of a member."""

    def __init__(self, member: _Member, tokens: NDArray[np.int32], request: Any) -> None:
        self.member = member
        self._tokens = tokens  # the request points to it
        self._request = request
        request.session, request.n_tokens = member.handle, tokens.size
        request.tokens = ffi.from_buffer("int32_t[]", tokens)
        if tokens.size == member.ahead.size:
            request.sampler = member.sampler

    @property
    def drawn(self) -> int:
        """The token that the sampler chose; without meaning as long as some of the prompt is left."""
        return int(self._request.drawn)

    def is_new(self) -> bool:
        """Whether it was evaluated and its member does not know yet."""
        return int(lib.bnc_session_n_past(self.member.handle)) > self.member.n_past

    def take(self, n_ctx: int) -> bool:
        """Let the member know; whether it made a token."""
        return self.is_new() and self.member.take(self._tokens.size, self.drawn, n_ctx)


class Batch:
    """Sequences join and leave at any time; each step gives every running one its next token.

    Made by :meth:`Model.batch`. Weights are read once a step for all sequences, so that many together give several
    times the tokens per second of one alone. Lengths may differ; a sequence gets the tokens that it would get alone
    from :meth:`Session.generate`, whoever runs beside it. Prompts are taken in with the steps, as much a step as
    ``n_batch`` leaves room for.

    :meth:`join` and :meth:`leave` may be called by any thread; :meth:`step` by one at a time.

    Examples
    --------
    >>> import tempfile
    >>> from bitnet_core import Model, SamplingParams
    >>> from bitnet_core.synthetic import write_model
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = write_model(folder.name + "/tiny.gguf", "tiny")
    >>> params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    >>> with Model.from_file(path) as model, model.batch() as batch:
    ...     first = batch.join([1, 2, 3], params)
    ...     second = batch.join([7], params)
    ...     for sequence, token in batch:
    ...         assert sequence.tokens[-1] == token
    ...     [len(first.tokens), second.finish_reason]
    [3, 'length']
    """

    def __init__(
        self,
        model: Model,
        *,
        n_seq: int,
        n_ctx: int | None,
        kv_dtype: str,
        n_threads: int,
        n_batch: int | None,
        pin: bool = False,
    ) -> None:
        if n_batch is not None and n_batch < n_seq:
            raise ValueError(
                f"n_batch ({n_batch}) must be at least n_seq ({n_seq}): each sequence takes a token a step"
            )
        self._workspace = Workspace(model, n_ctx=n_ctx, n_batch=n_batch, n_seq=n_seq, n_threads=n_threads, pin=pin)
        self._workspace.new_session(1, kv_dtype)  # the dtype is refused now, not at the first step
        self.model = model
        self.n_seq = n_seq
        self.n_ctx = model.config.n_ctx if n_ctx is None else n_ctx
        self.kv_dtype = kv_dtype
        self.n_threads = n_threads
        self._running: list[_Member] = []
        self._waiting: deque[_Member] = deque()
        self._shares: list[_Share] = []  # of a pass, until all of it is noted
        self._requests: Any = None  # of the same pass, in one array
        self._stepping = threading.Lock()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def running(self) -> tuple[Sequence, ...]:
        """The sequences that have a place."""
        return tuple(member.sequence for member in self._running)

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """The sequences that wait for one, in their order."""
        return tuple(member.sequence for member in tuple(self._waiting))  # at once: other threads join meanwhile

    @property
    def n_batch(self) -> int:
        """Tokens evaluated in one pass over the weights."""
        return self._workspace.n_batch

    @property
    def kv_bytes(self) -> int:
        """Size of the KV caches of the running sequences; the system provides them as positions are used."""
        return sum(int(lib.bnc_session_kv_bytes(member.handle)) for member in self._running)

    @property
    def scratch_bytes(self) -> int:
        """Size of activations and other working memory in bytes."""
        return self._workspace.nbytes

    @property
    def reads(self) -> Reads:
        """What the last step read from memory."""
        return self._workspace.reads

    def kernels_used(self) -> tuple[str, ...]:
        """Names of the kernels that have run, as dispatch recorded them."""
        return self._workspace.kernels_used()

    def join(self, ids: Iterable[int] | NDArray[Any], params: SamplingParams | None = None) -> Sequence:
        """Add a sequence that begins with ``ids``; it takes part from the next step on, or when there is a place.

        Raises
        ------
        ValueError
            There is no token, or one is not in the vocabulary.
        ContextOverflowError
            The prompt does not fit ``n_ctx``.
        """
        self._check_open()
        params = params or SamplingParams()
        prompt = token_array(ids)
        n_vocab = self.model.config.n_vocab
        if prompt.size == 0:
            raise ValueError("at least one token is needed")
        if prompt.min() < 0 or prompt.max() >= n_vocab:
            index = int(np.argmax((prompt < 0) | (prompt >= n_vocab)))
            raise ValueError(f"token {prompt[index]} at index {index} is not in the vocabulary: 0 to {n_vocab - 1}")
        if prompt.size > self.n_ctx:
            raise ContextOverflowError(f"{prompt.size} tokens do not fit a context of {self.n_ctx}")
        stop = frozenset({*params.stop, *(() if params.ignore_eos else self.model.end_tokens)})
        sequence = Sequence(int(prompt.size), params)
        if params.max_tokens == 0:
            sequence.finish_reason = "length"
        else:
            self._waiting.append(_Member(sequence, prompt, stop))
        return sequence

    def leave(self, sequence: Sequence) -> None:
        """Drop a sequence; its cache is freed when the step that may be running has ended. Twice does nothing.

        Raises
        ------
        ValueError
            The sequence runs or waits in another batch.
        """
        if sequence.finish_reason is None:
            if sequence not in self.waiting and sequence not in self.running:  # in this order: from one to the other
                raise ValueError(f"{sequence} is not in this batch; the batch that it joined can drop it")
            sequence.finish_reason = "left"
        if self._stepping.acquire(blocking=False):
            try:
                self._purge()
            finally:
                self._stepping.release()

    def step(self) -> list[tuple[Sequence, int]]:
        """One pass: the next token of every sequence whose prompt is evaluated, in the order they joined.

        A token that ends a sequence is not among them. Empty when nothing runs, or while only prompts are taken in.
        After a step that Ctrl-C interrupted, the next one gives what that had already drawn.

        Raises
        ------
        SessionBusyError
            Another thread is inside :meth:`step`.
        MemoryError
            There is no memory for the cache of a sequence that waits; it goes on waiting.
        """
        self._check_open()
        if not self._stepping.acquire(blocking=False):
            raise SessionBusyError("another thread is stepping this batch")
        try:
            self._purge()
            self._admit()
            return self._evaluate() if self._running else []
        finally:
            self._purge()
            self._stepping.release()

    def generate(
        self, prompts: Iterable[Iterable[int] | NDArray[Any]], params: SamplingParams | None = None
    ) -> list[list[int]]:
        """The generated tokens of each prompt, all run to their end together with whatever else is in the batch."""
        sequences: list[Sequence] = []
        try:
            for prompt in prompts:
                sequences.append(self.join(prompt, params))  # noqa: PERF401 - those before a bad prompt leave again
            while any(sequence.finish_reason is None for sequence in sequences):
                self.step()
        finally:
            for sequence in sequences:
                self.leave(sequence)
        return [sequence.tokens for sequence in sequences]

    def close(self) -> None:
        """Drop all sequences and free the batch. A second call does nothing."""
        self._closed = True
        for member in (*self._running, *self._waiting):
            self.leave(member.sequence)
        self._workspace.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the batch is closed")

    def _purge(self) -> None:
        """Free what finished."""
        self._running = [member for member in self._running if member.sequence.finish_reason is None]
        for member in tuple(self._waiting):
            if member.sequence.finish_reason is not None:
                self._waiting.remove(member)
        self._shares = [share for share in self._shares if share.member.sequence.finish_reason is None]

    def _admit(self) -> None:
        """Give free places to those who wait."""
        while self._waiting and len(self._running) < self.n_seq:
            self._waiting[0].start(self._workspace, self.n_ctx, self.kv_dtype)
            self._workspace.use_screen()
            self._running.append(self._waiting.popleft())

    def _evaluate(self) -> list[tuple[Sequence, int]]:
        """One pass, or the rest of one that was interrupted before all was noted: a token is drawn once."""
        if not any(share.is_new() for share in self._shares):
            self._share_out()
            self._workspace.eval(self._requests, len(self._shares))
        made = [(share.member.sequence, share.drawn) for share in self._shares if share.take(self.n_ctx)]
        self._shares = []
        return made

    def _share_out(self) -> None:
        """Each running sequence evaluates one token at least; the first prompts get the room that is left."""
        room = self.n_batch - len(self._running)
        self._requests = ffi.new("bnc_request[]", len(self._running))
        shares = []
        for member, request in zip(self._running, self._requests, strict=True):
            tokens = member.ahead[: 1 + room]
            room -= tokens.size - 1
            shares.append(_Share(member, tokens, request))
        self._shares = shares

    def __iter__(self) -> Iterator[tuple[Sequence, int]]:
        """Step until nothing runs or waits; sequences may join and leave meanwhile."""
        while self._running or self._waiting:
            yield from self.step()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed:
            return "<Batch closed>"
        return (
            f"<Batch {len(self._running)}/{self.n_seq} sequences, {len(self._waiting)} waiting, {self.kv_dtype} cache>"
        )
