"""A screened head gives the tokens of the exact one: over thousands of steps, and on rows made to fool it."""

import re
import threading
import time

import numpy as np
import psutil
import pytest
from small_model import BF16_TYPE, F16_TYPE, F32_TYPE, Q6_K_TYPE, Q8_0_TYPE, small_model
from test_c import build, run

from bitnet_core import LiveViewsError, Model, SamplingParams
from bitnet_core.kernels import isa_levels

GREEDY = {"temperature": 0.0}
KINDS = {"screened": "dithered", "proven": "proven"}  # what Model calls them, and what the library does
PARAMS = {
    "greedy": GREEDY,
    "top-k 50": {"temperature": 0.8},
    "top-k 5, penalty": {"temperature": 1.0, "top_k": 5, "repetition_penalty": 1.3},
    "greedy, penalty below 1": {"temperature": 0.0, "repetition_penalty": 0.5},
}


def tokens_of(path, params, n_tokens, **options):
    with Model.from_file(path, **options) as model, model.session() as session:
        tokens = list(session.generate([1, 2, 3], SamplingParams(max_tokens=n_tokens, **params)))
        return tokens, session.reads.exact_rows


@pytest.fixture(params=KINDS)
def kind(request):
    """Each kind of copy in turn."""
    return request.param


@pytest.mark.parametrize("case", PARAMS, ids=lambda name: re.sub(r"\W+", "_", name))
@pytest.mark.parametrize("head_type", [F16_TYPE, BF16_TYPE, F32_TYPE, Q8_0_TYPE, Q6_K_TYPE])
def test_thousand_steps(tmp_path, case, head_type):
    """Twenty-eight thousand tokens, equal to the exact head's; and the screens rule out most rows."""
    n = 1000 if head_type in {F16_TYPE, BF16_TYPE, F32_TYPE} else 250
    recipe = small_model(n_vocab=3000, n_ctx=1100, n_layer=1, n_embd=256, head_type=head_type, tied=False)
    path = recipe.write(tmp_path / "m.gguf")
    exact, all_rows = tokens_of(path, PARAMS[case], n, head="exact")
    assert len(exact) == n
    assert all_rows == 3000
    for kind in KINDS:
        screened, rows = tokens_of(path, PARAMS[case], n, head=kind)
        assert screened == exact
        if "penalty" not in case:  # a token that the penalty touches is always computed
            assert rows < (900 if kind == "screened" else 300)


def adversarial_rows(rng, n_vocab, n_embd):
    """Rows that differ in the last bit, rows twice, zeros, one huge weight, all weights at the edge of a code."""
    rows = (0.5 * rng.standard_normal((n_vocab, n_embd))).astype(np.float16)
    rows[10:200] = rows[9]
    for i in range(10, 200):
        column = int(rng.integers(n_embd))
        rows[i, column] = np.nextafter(rows[i, column], np.float16(rng.choice([-9, 9])), dtype=np.float16)
    rows[200:250] = rows[9]  # ties: the lowest id must win
    rows[250:300] = 0
    rows[300:400, ::32] = 60000 * rng.choice([-1, 1], (100, n_embd // 32))
    rows[400:500] = np.float16(6e-8) * rng.integers(-3, 4, (100, n_embd))
    rows[500:600] = np.round(rows[500:600] * 7.5) / np.float16(7.5)
    rows[600:700] = rows[9] * np.float16(1.001)
    rows[700:720] = rng.choice([-1, 1], (20, 1)) * np.float16(0.37)  # all weights equal, or but for the sign
    rows[720:740] = rng.choice([-1, 1], (20, n_embd)) * np.float16(0.5)
    rows[740:760] = 0
    rows[740:760, 7] = rng.choice([-1, 1], 20) * np.float16(9)  # one weight
    return rows


@pytest.mark.parametrize("params", [GREEDY, {"temperature": 0.7}], ids=["greedy", "top-k"])
def test_adversarial_rows(tmp_path, isa, kind, params):
    recipe = small_model(n_vocab=800, n_ctx=300, n_layer=1, tied=False)
    rows = adversarial_rows(np.random.default_rng(5), 800, recipe.shape.n_embd)
    recipe.tensors["output.weight"].data = rows.tobytes()
    path = recipe.write(tmp_path / "m.gguf")
    assert np.isfinite(rows).all()
    exact, _ = tokens_of(path, params, 250, head="exact", isa=isa)
    screened, _ = tokens_of(path, params, 250, head=kind, isa=isa)
    assert screened == exact


def test_magnitudes_that_only_float32_has(tmp_path, kind):
    """Rows whose squares leave float32 at either end, among others that compete with them."""
    recipe = small_model(n_vocab=800, n_ctx=300, n_layer=1, head_type=F32_TYPE, tied=False)
    rows = np.random.default_rng(6).standard_normal((800, recipe.shape.n_embd)).astype(np.float32)
    rows[::7] *= np.float32(1e-30)
    rows[1::7] *= np.float32(1e-8)
    rows[2::7] *= np.float32(1e-42)
    for huge in (1, 1e12, 1e25):  # the last makes logits of 1e27, whose squares are infinite
        rows[3::7] = rows[4::7] * np.float32(huge)
        recipe.add_floats("output.weight", rows, F32_TYPE)
        path = recipe.write(tmp_path / "m.gguf")
        assert tokens_of(path, GREEDY, 60, head=kind)[0] == tokens_of(path, GREEDY, 60, head="exact")[0]


def test_levels_and_threads_agree(tmp_path, kind):
    path = small_model(n_vocab=1000, n_embd=640, n_head=5, n_head_kv=1, n_rot=128).write(tmp_path / "m.gguf")
    runs = [
        tokens_of(path, GREEDY, 40, head=kind, isa=level, n_threads=n_threads)
        for level in isa_levels()
        for n_threads in (1, 3)
    ]
    assert all(tokens == runs[0][0] for tokens, _ in runs)
    if kind == "proven":  # whose copies are the same on every level
        assert all(rows <= 60 for _, rows in runs)


def test_every_error_is_within_its_width(tmp_path, kind):
    """The bound on every row for activations that are normal, have one huge element, or are heavy-tailed."""
    program = build(tmp_path, "screen")
    for i, shape in enumerate([{"n_embd": 256}, {"n_embd": 640, "n_head": 5, "n_head_kv": 1, "n_rot": 128}]):
        path = small_model(n_vocab=2000, n_layer=1, **shape).write(tmp_path / f"{i}.gguf")
        assert "largest error / width" in run(program, path, 300, KINDS[kind])


def test_adversarial_errors_are_within_their_widths(tmp_path):
    """The proven bound on rows made to fool it, and where its width is reached: the residual points where x does."""
    program = build(tmp_path, "screen")
    recipe = small_model(n_vocab=800, n_layer=1, tied=False)
    rows = adversarial_rows(np.random.default_rng(5), 800, recipe.shape.n_embd)
    recipe.tensors["output.weight"].data = rows.tobytes()
    assert "largest error / width" in run(program, recipe.write(tmp_path / "m.gguf"), 300, "proven")


def test_all_of_the_vocabulary_needs_no_screen(tmp_path, kind):
    """top_k 0 asks for every token, and more than the screen's lists hold is as good as all."""
    path = small_model(n_vocab=3000).write(tmp_path / "m.gguf")
    for top_k, screened in ((0, False), (2000, False), (1016, True)):
        params = {"temperature": 1.0, "top_k": top_k}
        exact, _ = tokens_of(path, params, 20, head="exact")
        tokens, rows = tokens_of(path, params, 20, head=kind)
        assert tokens == exact
        assert (rows != 3000) == screened


def test_top_k_of_the_whole_vocabulary(tmp_path, kind):
    path = small_model(n_vocab=30).write(tmp_path / "m.gguf")
    params = {"temperature": 1.0, "top_k": 50}
    assert tokens_of(path, params, 30, head=kind)[0] == tokens_of(path, params, 30, head="exact")[0]


@pytest.mark.parametrize("gain", [1e-10, 1e-19, 1e-22, 1e-36, 1e30])
def test_tiny_and_huge_activations(tmp_path, kind, gain):
    """Squares of these leave float32 at one end or the other; the tokens must not change."""
    recipe = small_model(n_vocab=500)
    recipe.tensors["output_norm.weight"].data = np.full(128, gain, "<f4").tobytes()
    path = recipe.write(tmp_path / "m.gguf")
    assert tokens_of(path, GREEDY, 30, head=kind)[0] == tokens_of(path, GREEDY, 30, head="exact")[0]


def test_an_embedding_that_is_not_a_number(tmp_path, kind):
    """It is never drawn, and screened and exact agree on that."""
    recipe = small_model(n_vocab=400, tied=False)
    rows = recipe.weights["output.weight"].astype(np.float16)
    rows[0, 3] = np.nan
    rows[17, 5] = np.inf
    recipe.tensors["output.weight"].data = rows.tobytes()
    path = recipe.write(tmp_path / "m.gguf")
    for params in (GREEDY, {"temperature": 1.0}):
        exact, _ = tokens_of(path, params, 40, head="exact")
        assert exact == tokens_of(path, params, 40, head=kind)[0]
        assert 0 not in exact


def test_each_copy_has_a_dither_of_its_own(tmp_path):
    """A dither that is known could be defeated by a head made for it."""
    path = small_model(n_vocab=3000, n_layer=1).write(tmp_path / "m.gguf")
    rows = {tokens_of(path, {"temperature": 1.0}, 1, head="screened")[1] for _ in range(12)}
    assert len(rows) > 1


def test_closing_while_the_copy_is_made(tmp_path):
    path = small_model(n_vocab=60000, n_embd=512, n_head=4, n_head_kv=1, n_layer=1, n_rot=128).write(
        tmp_path / "m.gguf"
    )
    model = Model.from_file(path, head="screened", isa="scalar", n_threads=1)
    worker = threading.Thread(target=model.screen)
    worker.start()
    while worker.is_alive() and not model._screen_lock.locked():
        time.sleep(0)
    if worker.is_alive():
        with pytest.raises(LiveViewsError, match="screen"):
            model.close()
    worker.join()
    model.close()


def test_narrow_heads_are_not_screened(tmp_path):
    """Rows are padded to 512 columns: the copy of a narrow head would be larger than the head."""
    recipe = small_model(n_vocab=300000, n_embd=32, n_head=2, n_head_kv=1, n_rot=16, dtype="qk256")
    with Model.from_file(recipe.write(tmp_path / "m.gguf")) as model:
        assert not model.screened


def test_auto_screens_only_what_is_large(tmp_path):
    with Model.from_file(small_model().write(tmp_path / "m.gguf")) as model:
        assert not model.screened
        list(model.session().generate([1], SamplingParams(max_tokens=2)))
        assert model.screen_bytes == 0
    with pytest.raises(ValueError, match="head must be one of auto, exact, screened, proven, not 'fast'"):
        Model.from_file(tmp_path / "m.gguf", head="fast")


def test_bytes_read_are_those_of_the_tensors(tmp_path, kind):
    """What a session reports, recomputed from the sizes of the tensors and the rows it computed."""
    recipe = small_model(n_vocab=3000, n_embd=256, n_layer=1)
    tensors = sum(len(t.data) for t in recipe.tensors.values()) - 7 * 32  # without the tails of the matrices
    embedding = len(recipe.tensors["token_embd.weight"].data)
    path = recipe.write(tmp_path / "m.gguf")
    with Model.from_file(path, head=kind, n_threads=2) as model, model.session() as session:
        session.eval([1, 2, 3])
        kv_row = 2 * 2 * 64 * 2 * model.config.n_layer  # keys and values, 2 heads of 64, float16
        assert session.reads == (tensors + 3 * 512, (1 + 2 + 3) * kv_row, 3000)
        assert session.reads.weight_bytes == model.bytes_per_token + 2 * 512
        next(session.generate([4], SamplingParams(**GREEDY)))
        rows = session.reads.exact_rows
        assert 1 <= rows < 1000
        assert model.screen_bytes == 3000 * (256 + 32 if kind == "screened" else 256 + 12)
        assert model.head == kind
        assert session.reads.weight_bytes == tensors - embedding + 512 + model.screen_bytes + rows * 512
        assert session.reads.kv_bytes == 4 * kv_row


def test_building_gives_the_pages_of_the_head_back(tmp_path, kind):
    """The copy is made in chunks whose file pages leave the process, so the peak is not the head and its copy."""
    if not hasattr(psutil.Process().memory_info(), "shared"):
        pytest.skip("this system does not tell file-backed pages apart")
    recipe = small_model(n_vocab=60000, n_embd=512, n_head=4, n_head_kv=1, n_layer=1, n_rot=128)
    head = 60000 * 512 * 2
    with Model.from_file(recipe.write(tmp_path / "m.gguf"), head=kind) as model:
        before = psutil.Process().memory_info().shared
        model.screen()
        assert psutil.Process().memory_info().shared - before < head / 4
        assert tokens_of(tmp_path / "m.gguf", GREEDY, 3, head=kind)[0]
