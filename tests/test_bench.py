"""``bitnet bench``: cases, records, and the arithmetic in between."""

import csv
import io
import itertools
import json
import re
import statistics

import pytest
from typer.testing import CliRunner

from bitnet_core import Model, bench, bench_output, kernels
from bitnet_core.cli import app
from bitnet_core.exceptions import ContextOverflowError
from bitnet_core.session import Session


@pytest.fixture(autouse=True)
def _small_probes(monkeypatch):
    """The roofs in little time; the figures are then wrong, their arithmetic is not."""
    monkeypatch.setattr(bench, "_READ_BYTES", 1 << 16)
    monkeypatch.setattr(bench, "_PEAK_MACS", (1 << 14, 1 << 15))


def bitnet_bench(*arguments, exit_code=0):
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)], prog_name="bitnet")
    assert result.exit_code == exit_code, result.output
    return result


def records(path, **options):
    n_repetitions = options.pop("n_repetitions", 1)
    return list(bench.run(bench.plan([path], **options), n_repetitions=n_repetitions))


# ---- lists and cases ----


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["512"], [512]),
        (["1,2", "3"], [1, 2, 3]),
        (["2-5"], [2, 3, 4, 5]),
        (["0-10+4,7"], [0, 4, 8, 7]),
        (["8-70*2"], [8, 16, 32, 64]),
    ],
)
def test_numbers(texts, expected):
    assert bench.numbers("-p", texts) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "1,", "-1", "1.5", "1-", "1-4+0", "1-4*1", "0-4*2", "4-1", "\u0661", "1-4/2", "9" * 20]
)
def test_wrong_numbers_name_the_option(text):
    with pytest.raises(ValueError, match=r"^-p"):
        bench.numbers("-p", [text])


def test_a_range_of_too_many_values_is_not_built():
    assert len(bench.numbers("-p", ["1-1000"])) == 1000
    with pytest.raises(ValueError, match=r"^-p: the range '1-1000000000' has more than 1000 values"):
        bench.numbers("-p", ["1-1000000000"])


def test_every_combination_is_a_case(tmp_path):
    cases = bench.plan(
        [tmp_path / "a", tmp_path / "b"], n_prompt=[8, 0], n_gen=[4], pg=[(2, 3)], n_depth=[0, 16], n_threads=[1, 2]
    )
    assert len(cases) == 2 * 2 * 2 * 3
    assert len(set(cases)) == len(cases)
    assert [case.name for case in cases[:3]] == ["pp8", "tg4", "pp2+tg3"]
    assert {case.name for case in cases} == {f"{n}{d}" for n in ("pp8", "tg4", "pp2+tg3") for d in ("", " @ d16")}
    assert max(case.n_ctx for case in cases) == 24


def test_nothing_to_measure(tiny_model):
    with pytest.raises(ValueError, match="nothing to measure"):
        bench.plan([tiny_model], n_prompt=[0], n_gen=[])
    with pytest.raises(ValueError, match="0 or more"):
        bench.plan([tiny_model], n_prompt=[-1])
    with pytest.raises(ValueError, match="repetitions"):
        bench.run(bench.plan([tiny_model]), n_repetitions=0)


def test_all_is_checked_before_the_first_is_measured(tiny_model, tmp_path):
    bench.check(bench.plan([tiny_model], n_prompt=[512], n_gen=[0]))
    with pytest.raises(ContextOverflowError, match=r"tiny.gguf: tg13 @ d500 needs 513 positions.* has 512"):
        bench.check(bench.plan([tiny_model], n_prompt=[8], n_gen=[13], n_depth=[0, 500]))
    with pytest.raises(ValueError, match="kv_dtype"):
        bench.check(bench.plan([tiny_model], type_k=["f16", "q4_0"]))
    with pytest.raises(ValueError, match="avx1024"):
        bench.check(bench.plan([tiny_model], isa=["scalar", "avx1024"]))
    with pytest.raises(FileNotFoundError):
        bench.check(bench.plan([tiny_model, tmp_path / "no.gguf"]))


# ---- records ----


def test_fields_and_types(tiny_model):
    pp, tg, both = records(tiny_model, n_prompt=[24], n_gen=[6], pg=[(8, 4)], n_depth=[32], n_repetitions=2)
    for record in (pp, tg, both):
        assert list(record) == list(bench.FIELDS)
        for name, kind in bench.FIELDS.items():
            assert isinstance(record[name], kind), name
            assert isinstance(record[name], bool) == (kind is bool), name
        assert len(record["samples_ns"]) == len(record["samples_ts"]) == 2
        assert min(record["samples_ns"]) > 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["test_time"])
        assert record["model_type"] == "bitnet-b1.58 i2_s"
        assert record["model_filename"] == str(tiny_model)
        assert 0 < record["model_size"] < tiny_model.stat().st_size
        assert record["model_n_params"] > record["macs_per_token"] == 1179648
        assert record["bandwidth_fraction"] == pytest.approx(record["gb_s"] / record["read_gb_s"])
        assert record["head"] == "exact"  # a small one
    shapes = [(r["n_prompt"], r["n_gen"], r["n_depth"]) for r in (pp, tg, both)]
    assert shapes == [(24, 0, 32), (0, 6, 32), (8, 4, 32)]
    assert pp["int8_peak_fraction"] == pytest.approx(pp["gmac_s"] / pp["int8_peak_gmac_s"])
    assert tg["int8_peak_fraction"] is tg["int8_peak_gmac_s"] is None
    assert both["int8_peak_fraction"] > 0


def test_settings_reach_the_session(tiny_model):
    options = {
        "n_threads": [1, 2],
        "n_batch": [16],
        "type_k": ["f32"],
        "isa": ["scalar"],
        "head": ["exact", "screened"],
    }
    found = records(tiny_model, n_prompt=[], n_gen=[2], **options)
    assert [(r["head"], r["n_threads"]) for r in found] == list(itertools.product(("exact", "screened"), (1, 2)))
    for r in found:
        assert (r["isa"], r["n_batch"], r["n_ubatch"], r["type_k"], r["type_v"]) == ("scalar", 16, 16, "f32", "f32")
    assert len({r["bytes_per_token"] for r in found}) > 1  # a screen is not a head


def test_bytes_of_a_prompt_are_those_of_all_its_blocks(tiny_model):
    with Model.from_file(tiny_model) as model:
        c = model.config
        head, row = 2 * c.n_vocab * c.n_embd, 2 * c.n_embd
        body = model.bytes_per_token - head
    whole, blocks = records(tiny_model, n_prompt=[40], n_gen=[], n_batch=[40, 16])
    assert whole["bytes_per_token"] == (body + 39 * row + head) / 40
    assert blocks["bytes_per_token"] == (3 * body + 37 * row + head) / 40


def test_bytes_of_generated_tokens_hold_the_cache(tiny_model):
    with Model.from_file(tiny_model) as model, model.session(4) as session:
        weights, position = model.bytes_per_token, session.kv_bytes / 4
    (record,) = records(tiny_model, n_prompt=[], n_gen=[4], n_depth=[100])
    assert record["bytes_per_token"] == weights + position * (101 + 102 + 103 + 104) / 4


def test_generation_goes_on_behind_an_end_token(tiny_model, monkeypatch):
    """Whatever is found, as many tokens are evaluated as the record says: from depth 10 to 17."""
    seen = []
    repeat = bench._repeat

    def watch(case, session, *arguments):
        result = repeat(case, session, *arguments)
        seen.append(session.n_past - len(session._pending))
        return result

    monkeypatch.setattr(bench, "_repeat", watch)
    with Model.from_file(tiny_model) as model:
        everything = frozenset(range(model.config.n_vocab))
    for end_tokens in (frozenset(), frozenset(range(0, 512, 2)), everything):
        monkeypatch.setattr("bitnet_core.model._end_tokens", lambda _handle, found=end_tokens: found)
        seen.clear()
        records(tiny_model, n_prompt=[], n_gen=[7], n_depth=[10], n_repetitions=2)
        assert seen == [11, 17, 17]  # the warm-up is one token


def test_arithmetic_of_the_figures(tiny_model, monkeypatch):
    """A clock that only the measured calls move on."""
    now = [0]
    prompts_ns = iter([999_000_000, 1_000_000, 2_000_000, 6_000_000])  # the first is the warm-up
    evaluate, read_sum, int8_peak = Session.eval, kernels.read_sum, kernels.int8_peak

    def slow_eval(self, tokens):
        now[0] += next(prompts_ns)
        return evaluate(self, tokens)

    def slow_read(buffer, *, repeat, **options):
        now[0] += 2 * buffer.nbytes * repeat
        return read_sum(buffer, repeat=repeat, **options)

    def slow_peak(n_macs, *, n_threads, **options):
        now[0] += n_macs // 8
        return int8_peak(n_macs, n_threads=n_threads, **options)

    monkeypatch.setattr(bench, "_clock", lambda: now[0])
    monkeypatch.setattr(Session, "eval", slow_eval)
    monkeypatch.setattr(kernels, "read_sum", slow_read)
    monkeypatch.setattr(kernels, "int8_peak", slow_peak)
    (record,) = records(tiny_model, n_prompt=[10], n_gen=[], n_threads=[2], n_repetitions=3)
    assert record["samples_ns"] == [1_000_000, 2_000_000, 6_000_000]
    assert record["samples_ts"] == pytest.approx([10_000, 5_000, 5_000 / 3])
    assert record["avg_ns"] == 3_000_000
    assert record["stddev_ns"] == 2_645_751  # sqrt((4 + 1 + 9) / 2) ms: the deviation of a sample
    assert record["avg_ts"] == pytest.approx((10_000 + 5_000 + 5_000 / 3) / 3)
    assert record["stddev_ts"] == pytest.approx(statistics.stdev([10_000, 5_000, 5_000 / 3]))
    assert record["gb_s"] == pytest.approx(record["bytes_per_token"] * 10 / 2_000_000)  # the median
    assert record["read_gb_s"] == 0.5
    assert record["gmac_s"] == pytest.approx(record["macs_per_token"] * 10 / 2_000_000)
    assert record["int8_peak_gmac_s"] == 16  # 8 a thread


def test_one_repetition_does_not_deviate(tiny_model):
    (record,) = records(tiny_model, n_prompt=[4], n_gen=[])
    assert record["stddev_ns"] == record["stddev_ts"] == 0


def test_commit_is_that_of_the_package_alone(monkeypatch, tmp_path):
    from bitnet_core import __version__

    (tmp_path / "bitnet_core").mkdir()
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "bitnet_core" / "bench.py"))
    assert bench._build_commit() == __version__


# ---- the command ----


def test_markdown_has_a_row_a_test(tiny_model):
    lines = bitnet_bench(tiny_model, "-p", "8,16", "-n", "4", "-d", "0,32", "-r", "1").stdout.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["model", "size", "params", "threads", "test", "t/s", "GB/s", "% of read", "% of int8 peak"]
    assert set("".join(cells[1])) == {"-", ":"}
    assert [row[4] for row in cells[2:]] == ["pp8", "pp16", "tg4", "pp8 @ d32", "pp16 @ d32", "tg4 @ d32"]
    assert all(re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", row[5]) for row in cells[2:])
    assert [row[8] == "" for row in cells[2:]] == [False, False, True] * 2
    assert cells[2][:3] == ["bitnet-b1.58 i2_s", "0.54 MiB", "1.31 M"]


def test_markdown_shows_what_was_asked_for(tiny_model):
    arguments = ["-n", "0", "-p", "8", "-b", "4,8", "--isa", "scalar", "--head", "exact", "-ctk", "q8_0", "-r", "1"]
    out = bitnet_bench(tiny_model, tiny_model, *arguments).stdout.splitlines()
    assert len(out) == 2 + 4
    assert [t.strip() for t in out[0].strip("|").split("|")][1:9] == [
        *("file", "size", "params", "threads", "n_batch", "type_k", "isa", "head")
    ]


def test_json_and_jsonl(tiny_model):
    arguments = [tiny_model, "-p", "8", "-n", "2", "-n", "3", "-pg", "4,2", "-t", "1", "-r", "2"]
    found = json.loads(bitnet_bench(*arguments, "-o", "json").stdout)
    assert [(r["n_prompt"], r["n_gen"]) for r in found] == [(8, 0), (0, 2), (0, 3), (4, 2)]
    assert all(list(r) == list(bench.FIELDS) for r in found)
    again = [json.loads(line) for line in bitnet_bench(*arguments, "-o", "jsonl").stdout.splitlines()]
    assert [r["n_gen"] for r in again] == [0, 2, 3, 2]


def test_csv(tiny_model):
    out = bitnet_bench(tiny_model, "-p", "8", "-n", "2", "-r", "1", "-o", "csv").stdout
    pp, tg = csv.DictReader(io.StringIO(out))
    assert list(pp) == [name for name in bench.FIELDS if not name.startswith("samples")]
    assert (pp["n_prompt"], pp["n_gen"], tg["n_prompt"], tg["n_gen"]) == ("8", "0", "0", "2")
    assert (pp["use_mmap"], pp["flash_attn"], tg["int8_peak_fraction"]) == ("1", "0", "")
    assert float(pp["avg_ts"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "1k"], "-p takes whole numbers with commas between them, or a range like 128-512*2: '1k'"),
        (["-pg", "5"], "-pg takes two numbers, of a prompt and of tokens to generate, not '5'"),
        (["-p", "0", "-n", "0"], "nothing to measure: no prompt, nothing to generate"),
        (["-p", "513"], "{model}: pp513 needs 513 positions, the model's context has 512"),
        (["-ctk", "q4_0"], "kv_dtype must be one of f16, f32, q8_0, not 'q4_0'"),
        (["--head", "no"], "head must be one of auto, exact, screened, proven, not 'no'"),
        (["-t", "0"], "n_threads must be 1 to 256, not 0"),
    ],
)
def test_errors_are_one_line_and_nothing_is_measured(tiny_model, monkeypatch, arguments, message):
    monkeypatch.setattr(bench, "run", None)
    result = bitnet_bench(tiny_model, *arguments, exit_code=1)
    assert result.stdout == ""
    assert result.stderr == f"bitnet: {message.format(model=tiny_model)}\n"


def test_unknown_output_names_the_known(tiny_model):
    result = bitnet_bench(tiny_model, "-o", "sql", exit_code=2)
    assert all(name in result.stderr for name in bench_output.OUTPUTS)
    with pytest.raises(ValueError, match="json, jsonl, md, csv"):
        bench_output.lines([], "sql")


@pytest.mark.parametrize("output", bench_output.OUTPUTS)
def test_ctrl_c_keeps_what_is_done(tiny_model, monkeypatch, output):
    measure = bench._measure
    calls = itertools.count(1)

    def interrupted(*arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(bench, "_measure", interrupted)
    result = bitnet_bench(tiny_model, "-p", "4,8", "-n", "0", "-r", "1", "-o", output, exit_code=130)
    assert result.stderr == "bitnet: interrupted\n"
    if output == "json":
        assert [r["n_prompt"] for r in json.loads(result.stdout)] == [4]
    else:
        assert len(result.stdout.splitlines()) == {"jsonl": 1, "csv": 2, "md": 3}[output]


@pytest.mark.parametrize("output", bench_output.OUTPUTS)
def test_no_record_no_line(output):
    assert list(bench_output.lines([], output)) == []


def test_progress_is_for_terminals(tiny_model, capsys, monkeypatch):
    from bitnet_core.terminal import status_line

    steps = []
    list(bench.run(bench.plan([tiny_model], n_prompt=[4], n_gen=[]), n_repetitions=2, progress=steps.append))
    assert steps == ["1/1 pp4: warm-up", "1/1 pp4: 1 of 2", "1/1 pp4: 2 of 2"]
    with status_line() as progress:
        progress("unseen")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with status_line() as progress:
        progress("seen")
    assert capsys.readouterr() == ("", "\rseen\x1b[K\r\x1b[K")
