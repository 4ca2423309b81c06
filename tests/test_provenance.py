"""Where numbers come from: records beside made-up results, of the extension that is built here."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("asv")

import small_site
from asv.results import iter_results

import bitnet_core
from bitnet_core import kernels, synthetic
from tracking import provenance
from tracking.commits import Commit
from tracking.errors import TrackingError
from tracking.suite import Case, Side, Suite

LAST = small_site.N_COMMITS - 1


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> small_site.Site:
    root = tmp_path_factory.mktemp("origin") / "project"
    made = small_site.make_site(root, {"environment_type": "existing", "pythons": ["same"]})
    (root / "benchmarks").mkdir()
    shutil.copy(small_site.ROOT / "benchmarks" / "common.py", root / "benchmarks")
    return made


@pytest.fixture
def site(origin: small_site.Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> small_site.Site:
    monkeypatch.chdir(tmp_path)  # a Suite changes it
    monkeypatch.setenv("BITNET_CACHE_DIR", str(tmp_path / "cache"))
    return replace(origin, root=shutil.copytree(origin.root, tmp_path / "project"))


@pytest.fixture
def suite(site: small_site.Site) -> Suite:
    return Suite(site.root)


@pytest.fixture
def side(site: small_site.Site, tmp_path: Path) -> Side:
    """The package of this repository, as a wheel would be unpacked."""
    shutil.copytree(Path(bitnet_core.__file__).parent, tmp_path / "side" / "bitnet_core")
    return Side(
        "head", Commit(site.commits[LAST], "library: change 11", "HEAD"), tmp_path / "side", Path(sys.executable)
    )


def saved(suite: Suite, side: Side, **more: object) -> dict[str, object]:
    path = provenance.save(suite, side, "made-up", **more)  # type: ignore[arg-type]
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_record_names_what_the_numbers_depend_on(suite: Suite, side: Side, site: small_site.Site) -> None:
    small_site.save_results(site, LAST, suite.env.name)
    found = saved(suite, side)
    (module,) = (side.site / "bitnet_core").glob("_native*.so")
    code = module.read_bytes()
    tiny = synthetic.cached_path("tiny")
    assert found["version"] == provenance.VERSION
    assert (found["commit"], found["subject"]) == (site.commits[LAST], "library: change 11")
    assert found["environment"] == suite.env.name
    assert found["isa levels"] == list(kernels.isa_levels())
    assert found["extension"] == {
        "file": f"bitnet_core/{module.name}",
        "bytes": len(code),
        "sha256": hashlib.sha256(code).hexdigest(),
    }
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["kernel"] == f"{platform.system()} {platform.release()}"
    assert found["compiler"] != "unknown"
    # Values of 2b are there too, but not its file.
    assert found["models"] == [
        {
            "name": "tiny",
            "file": tiny.name,
            "bytes": tiny.stat().st_size,
            "sha256": hashlib.sha256(tiny.read_bytes()).hexdigest(),
        },
        {"name": "2b"},
    ]


def test_every_key_is_documented_and_no_other(suite: Suite, side: Side) -> None:
    table = provenance.__doc__.split("\n====")[2]
    documented = {line[:15].strip() for line in table.splitlines() if line[:1].isalpha()}
    assert documented == set(saved(suite, side))


def test_what_is_about_to_be_measured_is_recorded_and_kept_when_the_file_is_gone(
    suite: Suite, side: Side, site: small_site.Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each interrupted measurement has a record, which names the file that was given as long as it has values of it."""
    given = Case("a.A.track_a", 0, "a.A.track_a('given')", "seconds", "track", 60.0, None)
    assert saved(suite, side, wanted=[given])["models"] == [], "there is none"
    (tmp_path / "some.gguf").write_bytes(b"a model")
    monkeypatch.setenv("BITNET_GGUF", str(tmp_path / "some.gguf"))
    known = {"name": "given", "file": "some.gguf", "bytes": 7, "sha256": hashlib.sha256(b"a model").hexdigest()}
    assert saved(suite, side, wanted=[given])["models"] == [known]
    monkeypatch.delenv("BITNET_GGUF")
    assert saved(suite, side)["models"] == [], "nothing was measured with it"
    monkeypatch.setenv("BITNET_GGUF", str(tmp_path / "some.gguf"))
    saved(suite, side, wanted=[given])
    small_site.save_results(site, LAST, suite.env.name)
    path = provenance.result_of(site.results, "made-up", site.commits[LAST], suite.env.name)
    path.write_text(path.read_text().replace("'2b'", "'given'"))
    monkeypatch.delenv("BITNET_GGUF")
    assert saved(suite, side)["models"][-1] == known


@pytest.mark.parametrize("text", ["", "[]", '{"models": 1}', '{"models": [1]}'])
def test_a_damaged_record_is_written_anew(suite: Suite, side: Side, site: small_site.Site, text: str) -> None:
    path = provenance.path_of(site.results, "made-up", site.commits[LAST], suite.env.name)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert saved(suite, side)["commit"] == site.commits[LAST]


def test_a_record_is_found_again(suite: Suite, side: Side, site: small_site.Site) -> None:
    written = saved(suite, side)
    place = (site.results, "made-up")
    assert provenance.load(*place, site.commits[LAST], suite.env.name) == written
    assert provenance.load(*place, site.commits[0], suite.env.name) is None
    assert provenance.load(*place, site.commits[LAST], "another") is None


def test_a_record_has_the_name_of_the_result_file(suite: Suite, site: small_site.Site) -> None:
    for env_name in (suite.env.name, "virtualenv-" + 200 * "x"):  # asv shortens the second
        before = set((site.results / "made-up").glob("*.json"))
        small_site.save_results(site, LAST, env_name)
        (result,) = set((site.results / "made-up").glob("*.json")) - before
        record = provenance.path_of(site.results, "made-up", site.commits[LAST], env_name)
        assert record == result.parent / "provenance" / result.name


def test_asv_sees_no_result_in_it_and_says_nothing(suite: Suite, side: Side, site: small_site.Site) -> None:
    saved(suite, side)
    (site.results / "made-up" / "skipped").mkdir()
    (site.results / "made-up" / "skipped" / "01234567.json").write_text("{}")  # tracking/history.py has those
    assert [one.commit_hash for one in iter_results(str(site.results))].count(site.commits[LAST]) == 1
    done = small_site.publish(site)
    assert done.returncode == 0, done.stdout
    assert "Skipping" not in done.stdout + done.stderr
    (site.results / "stray").mkdir()
    (site.results / "stray" / "one.json").touch()
    assert "Skipping" in small_site.publish(site).stdout, "asv does warn of what is not ours"


def test_a_large_file_is_read_once(tmp_path: Path) -> None:
    model, cache = tmp_path / "model", tmp_path / "cache" / "sha256.json"
    model.write_bytes(b"one")
    first = provenance.file_of(model, cache)
    assert first["sha256"] == hashlib.sha256(b"one").hexdigest()
    status = model.stat()
    model.write_bytes(b"two")
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))  # what no program does: seen only by reading
    assert provenance.file_of(model, cache) == first
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert provenance.file_of(model, cache)["sha256"] == hashlib.sha256(b"two").hexdigest()
    model.write_bytes(b"three")
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert provenance.file_of(model, cache)["bytes"] == 5
    assert provenance.file_of(model, cache)["sha256"] == hashlib.sha256(b"three").hexdigest()


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_broken_cache_is_made_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "model").write_bytes(b"one")
    (tmp_path / "sha256.json").write_text(text)
    found = provenance.file_of(tmp_path / "model", tmp_path / "sha256.json")
    assert found["sha256"] == hashlib.sha256(b"one").hexdigest()
    assert list(json.loads((tmp_path / "sha256.json").read_text()).values()) == [found["sha256"]]


def test_flags_are_those_the_compiler_noted(side: Side, tmp_path: Path) -> None:
    site = tmp_path / "flags"
    site.mkdir()
    other = replace(side, site=site)
    (site / "a.so").write_bytes(b"ELF\x00GNU AS 2.40\x00")
    assert provenance.flags_of(other) is None
    (site / "b.so").write_bytes(b"\x00GNU C11 12.2.0 -march=x86-64 -g -O3 -std=c11\x00GNU C11 12.2.0 -O2\x00")
    assert provenance.flags_of(other) == "-O2; -march=x86-64 -g -O3 -std=c11"


def test_a_commit_without_a_compiled_module(suite: Suite, side: Side, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    found = saved(suite, replace(side, site=tmp_path / "plain"))
    assert (found["extension"], found["flags"], found["compiler"]) == (None, None, "unknown")


def test_only_models_with_a_value_are_counted(suite: Suite, site: small_site.Site, tmp_path: Path) -> None:
    small_site.save_results(site, LAST, suite.env.name)
    path = site.results / "made-up" / f"{site.commits[LAST][:8]}-{suite.env.name}.json"
    assert provenance.measured_models(path) == ["tiny", "2b"]
    record = json.loads(path.read_text())
    column = record["result_columns"].index("result")
    for name in record["results"]:
        values = record["results"][name][column]
        record["results"][name][column] = [None if i else float("nan") for i in range(len(values))]
    path.write_text(json.dumps(record))
    assert provenance.measured_models(path) == []
    assert provenance.measured_models(tmp_path / "none.json") == []


def test_a_side_that_does_not_answer_is_an_error(suite: Suite, side: Side, site: small_site.Site) -> None:
    broken = replace(side, python=Path(shutil.which("false") or "/bin/false"))
    with pytest.raises(TrackingError, match=f"{site.commits[LAST][:8]} does not say what it was measured with"):
        provenance.save(suite, broken, "made-up")
    assert not (site.results / "made-up" / "provenance").exists()
