"""Prefill and decoding of whole models, in seconds a token: asv reads every rise as a regression.

1 / value is tokens a second.
"""

from __future__ import annotations

import numpy as np

from benchmarks import common

ROOM = 8  # positions beyond the depth, for the tokens that are decoded there
P95_LEAST = 20  # tokens of which one in twenty can be the slow one, also in a slice of a review


def tokens_of(model, n: int) -> list[int]:
    """Token ids of the model, the same on every run."""
    return np.random.default_rng(42).integers(0, model.config.n_vocab, n).tolist()


class _Sessions:
    """Opens the model of a parameter combination and a session of the size it needs."""

    version = "1"
    timeout = 300
    options: dict[str, str] = {}  # of the model

    def open(self, name, threads, n_ctx, **options):
        common.need_threads(threads)
        path = common.model_path(name)
        self.model = common.need("bitnet_core", "Model").Model.from_file(path, n_threads=threads, **self.options)
        if n_ctx > self.model.config.n_ctx:
            raise NotImplementedError(f"the model has {self.model.config.n_ctx} positions, {n_ctx} are needed")
        self.session = self.model.session(n_ctx=n_ctx, **options)
        self.tokens = tokens_of(self.model, n_ctx)

    def teardown(self, *_):
        if hasattr(self, "session"):
            self.session.close()
            self.model.close()


class Prefill(_Sessions):
    """Evaluating a prompt at once."""

    params = [common.MODELS, common.THREADS, [1, 16, 128]]
    param_names = ["model", "threads", "tokens"]

    def setup(self, model, threads, tokens):
        self.open(model, threads, tokens)
        self.session.eval(self.tokens[:1])  # pages come in
        self.checked = False

    @common.sampled()
    def track_token(self, model, threads, tokens):
        return common.samples(
            lambda: self.session.eval(self.tokens),
            before=lambda: self.session.rewind(0),
            after=self.check,
            seconds=1.0,
            per=tokens,
        )

    def check(self, logits):
        """The last token alone, after the others, must give the same bits."""
        if self.checked:
            return
        expected = logits.copy()
        self.session.rewind(len(self.tokens) - 1)
        common.same_logits(self.session.eval(self.tokens[-1:]), expected)
        self.checked = True


class PrefillLong(Prefill):
    """512 tokens take long enough for one round, with the threads one would use."""

    params = [common.MODELS, [2], [512]]

    @common.sampled(rounds=1)
    def track_token(self, model, threads, tokens):
        return super().track_token(model, threads, tokens)


class _AtDepth(_Sessions):
    """A session `depth` positions into a text. The cache up to there holds seeded noise, not a prefill."""

    def open_at(self, name, threads, depth, **options):
        self.open(name, threads, depth + ROOM, **options)
        self.session.fill_kv(depth, seed=42)
        self.depth = depth
        self.check()

    def check(self):
        """Two tokens at once and one after the other must give the same bits."""
        a, b = self.tokens[:2]
        at_once = self.session.eval([a, b]).copy()
        self.session.rewind(self.depth)
        self.session.eval([a])
        common.same_logits(self.session.eval([b]), at_once)


class Decode(_AtDepth):
    """One more token, `depth` positions into a text."""

    params = [["tiny", "2b", "2b-qk256", "given"], common.THREADS, [0, 512, 2048]]
    param_names = ["model", "threads", "depth"]
    # tiny has 512 positions; and attention costs in 2b-qk256 what it costs in 2b.
    skip_params = [
        (model, threads, depth) for model in ("tiny", "2b-qk256") for threads in (1, 2) for depth in (512, 2048)
    ]

    def setup(self, model, threads, depth):
        self.open_at(model, threads, depth)

    def measure(self, **when):
        token = self.tokens[:1]
        return common.samples(lambda: self.session.eval(token), before=lambda: self.session.rewind(self.depth), **when)

    @common.sampled()
    def track_token(self, model, threads, depth):
        """asv shows the median of these: p50."""
        return self.measure(seconds=1.0)

    @common.sampled(rounds=1)
    def track_token_p95(self, model, threads, depth):
        return common.quantile(self.measure(seconds=2.0, least=P95_LEAST), 0.95)


class Depth(_AtDepth):
    """A greedy token at the start and at the end of the context, by the type of the cache: what attention adds."""

    params = [["2b", "given"], [2], ["f16", "q8_0"], [0, 3968]]
    param_names = ["model", "threads", "cache", "depth"]

    def setup(self, model, threads, cache, depth):
        if cache not in common.need("bitnet_core.workspace", "KV_DTYPES").KV_DTYPES:
            raise NotImplementedError(f"this commit has no {cache} cache")
        self.params = common.need("bitnet_core", "SamplingParams").SamplingParams(temperature=0.0, max_tokens=1)
        self.open_at(model, threads, depth, kv_dtype=cache)
        self.token()  # the screen is made here

    def token(self):
        return next(self.session.generate(self.tokens[:1], self.params), None)

    @common.sampled(rounds=1)
    def track_token(self, model, threads, cache, depth):
        return common.samples(self.token, before=lambda: self.session.rewind(self.depth), seconds=2.0)


class Generate(_Sessions):
    """A token chosen by the library, which need not read the whole head for it: greedy, and of the 50 best."""

    params = [["tiny", "2b", "2b-qk256", "given"], common.THREADS, ["greedy", "top-k 50"]]
    param_names = ["model", "threads", "sampling"]

    def setup(self, model, threads, sampling):
        self.open(model, threads, 400)
        params = common.need("bitnet_core", "SamplingParams").SamplingParams
        self.params = params(temperature=0.0 if sampling == "greedy" else 0.7, max_tokens=390)
        self.check()
        self.stream = self.session.generate(self.tokens[:1], self.params)
        next(self.stream)  # the screen is made here

    def check(self):
        """The first tokens must be those that the exact logits give."""
        if self.params.temperature:
            return
        chosen = [
            token for token, _ in zip(self.session.generate(self.tokens[:2], self.params), range(4), strict=False)
        ]
        self.session.rewind(0)
        logits = self.session.eval(self.tokens[:2])
        for token in chosen:
            if int(logits.argmax()) != token:
                raise AssertionError(f"generate chose {token}, the logits say {logits.argmax()}")
            logits = self.session.eval([token])
        self.session.rewind(0)

    def token(self):
        """The next token, from the start again when the context is full or the model ends its text."""
        token = next(self.stream, None)
        if token is None:
            self.session.rewind(0)
            self.stream = self.session.generate(self.tokens[:1], self.params)
            token = next(self.stream)
        return token

    @common.sampled()
    def track_token(self, model, threads, sampling):
        return common.samples(self.token, seconds=1.0)


class GeneratePacked(Generate):
    """The same, greedy, with matrices packed in memory; skipped where their kernels are not those of the best level."""

    params = [["tiny", "2b", "given"], common.THREADS, ["packed"]]
    param_names = ["model", "threads", "weights"]

    def setup(self, model, threads, weights):
        common.need("bitnet_core", "Packing")
        self.options = {"weights": weights}
        super().setup(model, threads, "greedy")

    @common.sampled()
    def track_token(self, model, threads, weights):
        return super().track_token(model, threads, "greedy")


class KVCache(_Sessions):
    """A short text: with the cache, and with the whole prefix evaluated again for each token."""

    params = [["tiny"], ["cache", "none"], [32]]
    param_names = ["model", "with", "tokens"]

    def setup(self, model, with_, tokens):
        self.open(model, 1, tokens)
        self.walk = self.with_cache if with_ == "cache" else self.without_cache
        common.same_logits(self.without_cache(), self.with_cache())

    def with_cache(self):
        self.session.rewind(0)
        for token in self.tokens:
            logits = self.session.eval([token])
        return logits

    def without_cache(self):
        for n in range(1, len(self.tokens) + 1):
            self.session.rewind(0)
            logits = self.session.eval(self.tokens[:n])
        return logits

    @common.sampled()
    def track_token(self, model, with_, tokens):
        return common.samples(self.walk, per=tokens)
