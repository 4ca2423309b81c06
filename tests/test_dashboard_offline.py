"""asv's pages without the network: other people's files are those that are named, and nothing else is loaded."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("asv")

import asv
import small_site

from tracking.dashboard import offline, publisher
from tracking.errors import TrackingError

WWW = Path(asv.__file__).parent / "www"
ELSEWHERE = "https://example.invalid/x"


@pytest.fixture
def html(tmp_path: Path) -> Path:
    """asv's pages as they come, with ours beside them."""
    folder = tmp_path / "html"
    shutil.copytree(WWW, folder)
    (folder / "overview").mkdir()
    return folder


def loaded(page: str) -> list[str]:
    return [value for tag in offline.Tags.of(page) for value in tag.loaded]


def vendored() -> set[str]:
    """What is there, but for licences."""
    files = {path.relative_to(offline.VENDOR).as_posix() for path in offline.VENDOR.rglob("*") if path.is_file()}
    return {name for name in files if not re.search(r"LICENSE|README", name)}


def table() -> dict[str, list[str]]:
    """The rows of vendor/README.md by file."""
    text = (offline.VENDOR / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in rows}


# ---- other people's files ----


def test_every_file_is_the_one_that_is_named() -> None:
    assert set(table()) == vendored() == set(offline.LOCAL.values())
    for name, row in table().items():
        assert hashlib.sha256((offline.VENDOR / name).read_bytes()).hexdigest() == row[4].strip("`"), name
        package, version = re.search(r"`([\w-]+)@([\d.]+)`", row[2]).groups()  # type: ignore[union-attr]
        assert name.startswith(f"{package}-{version}/")


def test_every_package_has_its_licence() -> None:
    folders = {path for path in offline.VENDOR.iterdir() if path.is_dir()}
    assert folders == {offline.VENDOR / Path(name).parent for name in vendored()}
    for folder in folders:
        (licence,) = folder.glob("LICENSE*")
        assert "Permission is hereby granted, free of charge" in " ".join(licence.read_text(encoding="utf-8").split())


def test_files_have_the_hashes_that_asv_asks_for_or_the_readme_says_otherwise() -> None:
    page = (WWW / "index.html").read_text(encoding="utf-8")
    asked = dict(re.findall(r'(?:src|href)="(https://[^"]+)" integrity="([^"]+)"', page))
    assert set(asked) == set(offline.LOCAL)
    for address, integrity in asked.items():
        name = offline.LOCAL[address]
        kind, _, wanted = integrity.partition("-")
        found = base64.b64encode(hashlib.new(kind, (offline.VENDOR / name).read_bytes()).digest()).decode()
        assert table()[name][3] == ("the same bytes" if found == wanted else "see below"), name


def test_asv_uses_no_icon_of_bootstrap() -> None:
    """Its fonts are left out."""
    pages = [path for path in WWW.iterdir() if path.suffix in {".html", ".js", ".css"}]
    assert len(pages) > 10
    assert not [path.name for path in pages if "glyphicon" in path.read_text(encoding="utf-8")]


def test_git_keeps_their_bytes() -> None:
    name = f"tracking/dashboard/vendor/{min(vendored())}"
    command = ["git", "check-attr", "text", "linguist-vendored", "--", name]
    said = subprocess.run(command, cwd=small_site.ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.rpartition(" ")[2] for line in said.splitlines()] == ["unset", "set"]


# ---- the pages ----


def test_asv_loads_from_elsewhere_what_is_known_here_and_nothing_else() -> None:
    outside = [
        value for page in WWW.glob("*.html") for value in loaded(page.read_text()) if offline.OUTSIDE.match(value)
    ]
    assert sorted(outside) == sorted(offline.LOCAL)


def test_local_files_take_the_place_of_others(html: Path) -> None:
    before = (html / "index.html").read_text(encoding="utf-8")
    offline.make_offline(html)
    after = (html / "index.html").read_text(encoding="utf-8")
    assert loaded(after) == [f"vendor/{offline.LOCAL[one]}" if one in offline.LOCAL else one for one in loaded(before)]
    for name in loaded(after):
        if name != "regressions.xml":  # written with the results
            assert (html / name).is_file(), name
    assert not re.search("integrity|crossorigin|referrerpolicy", after)
    assert after.count("js_load_failure()") == before.count("js_load_failure()"), "a lost file is still noticed"
    offline.refuse_outside(html)
    for licence in ("jquery-3.3.1/LICENSE.txt", "bootstrap-3.1.1/LICENSE"):
        assert (html / "vendor" / licence).is_file(), "whoever publishes the pages publishes the licences"


def test_without_the_local_files_nothing_is_published(html: Path) -> None:
    with pytest.raises(TrackingError, match=r"index.html loads https://code.jquery.com/jquery-3.3.1.min.js"):
        offline.refuse_outside(html)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.html", f'<script src="{ELSEWHERE}"></script>'),
        ("index.html", f"<SCRIPT async SRC={ELSEWHERE}></SCRIPT>"),
        ("index.html", "<script src='//example.invalid/x'></script>"),
        ("error.html", f'<link rel="stylesheet" href="{ELSEWHERE}">'),
        ("error.html", f'<img src="swallow.png" srcset="swallow.png 1x, {ELSEWHERE} 2x">'),
        ("error.html", f'<iframe src="{ELSEWHERE}"></iframe>'),
        ("error.html", f'<object data="{ELSEWHERE}"></object>'),
        ("error.html", f'<base href="{ELSEWHERE}">'),
        ("error.html", f"<p style=\"background: url('{ELSEWHERE}')\">"),
        ("error.html", f"<style>@import '{ELSEWHERE}';</style>"),
        ("overview/overview.html", f'<video poster="{ELSEWHERE}"></video>'),
        ("overview/overview.css", f"@font-face {{ src: url({ELSEWHERE}) }}"),
        ("asv.css", f"@import url({ELSEWHERE});"),
        ("asv.js", f"$.ajax({{url: '{ELSEWHERE}'}})"),
        ("asv.js", "fetch('//example.invalid/x')"),
        ("dashboard.js", f"new WebSocket('{ELSEWHERE.replace('https', 'wss')}')"),
    ],
)
def test_anything_from_elsewhere_is_refused(html: Path, name: str, text: str) -> None:
    offline.make_offline(html)
    (html / name).touch()
    with (html / name).open("a", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(TrackingError, match=rf"^{name} loads \S*//example.invalid/x from elsewhere: put a copy into"):
        offline.refuse_outside(html)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.html", f'<a href="{ELSEWHERE}">a person clicks it</a>'),
        ("index.html", f"<p>url({ELSEWHERE}) is text</p>"),
        ("index.html", '<img src="data:image/png;base64,AAAA"><a href="mailto:x@example.invalid">'),
        ("overview/overview.css", 'body { background: url("data:image/svg+xml,x") } p { src: url(font.woff) }'),
        ("overview/library.js", f"/* see {ELSEWHERE} */"),
        ("asv.js", "// a comment, and a / b // c"),
    ],
)
def test_what_is_local_or_not_loaded_passes(html: Path, name: str, text: str) -> None:
    offline.make_offline(html)
    (html / name).touch()
    with (html / name).open("a", encoding="utf-8") as file:
        file.write(text)
    offline.refuse_outside(html)


def test_an_asv_that_changed_is_noticed(html: Path) -> None:
    page = html / "index.html"
    page.write_text(page.read_text(encoding="utf-8").replace('id="nav-li-"', 'id="nav-grid"'), encoding="utf-8")
    with pytest.raises(TrackingError, match=r"asv's index.html has 0 times .* instead of once: was asv upgraded\?"):
        publisher.add_overview(html, "x benchmarks")


def test_the_title_is_the_project_s(html: Path) -> None:
    publisher.add_overview(html, "<x> & y benchmarks")
    assert "<title>&lt;x&gt; &amp; y benchmarks</title>" in (html / "index.html").read_text(encoding="utf-8")


# ---- asv publish ----


def test_what_is_missing_is_one_line_of_publish_alone(tmp_path: Path) -> None:
    site = small_site.make_site(tmp_path)
    env = os.environ | {"PYTHONPATH": str(small_site.ROOT)}

    def without_rich(*args: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; sys.modules['rich'] = None; from asv.main import main; main()"
        command = [sys.executable, "-c", code, *args]
        return subprocess.run(command, cwd=site.root, env=env, capture_output=True, text=True, check=False)

    done = without_rich("publish", "--no-pull")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() + done.stderr.splitlines() if "rich" in line]
    assert "the dashboard needs rich" in line
    assert "`scripts/bootstrap bench` brings it" in line
    assert "Traceback" not in done.stdout + done.stderr
    assert not (site.html / "index.json").exists(), "half a site is not taken for one"
    assert without_rich("show").returncode == 0
