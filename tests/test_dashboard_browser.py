"""The published dashboard in a real browser: Chromium without a window, on pages served from a plain folder.

Results are made up (small_site.py), so that each point of a graph is known. Every visit ends with a look at what went
wrong: a word on the console, an uncaught error, or a request to anywhere but the server is a failure.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import shutil
import threading
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("asv", reason="no asv here: `scripts/bootstrap bench` brings it")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: `scripts/bootstrap test` brings it")

import small_site  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DISPLAYS = ("overview-display", "summarygrid-display", "summarylist-display", "regressions-display", "graph-display")
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}
SUB_PATH = "some/where/dashboard/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> small_site.Site:
    made = small_site.make_site(tmp_path_factory.mktemp("site"))
    done = small_site.publish(made)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def address(site: small_site.Site) -> Iterator[str]:
    with serving(site.html) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as runner:
        path = next(filter(None, map(shutil.which, BROWSERS)), None) or runner.chromium.executable_path
        if not Path(path).is_file():
            pytest.skip("no chromium here: `apt install chromium`, or `playwright install chromium`, brings one")
        browser = runner.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page, and what went wrong on it."""

    page: Any
    origin: str
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"uncaught: {error}"))
        self.page.on("requestfailed", self.failed)

    def failed(self, request: Any) -> None:
        """But for what a page no longer needs once it is left."""
        if request.failure != "net::ERR_ABORTED" or not request.url.startswith(self.origin):
            self.said.append(f"failed ({request.failure}): {request.url}")

    @property
    def outside(self) -> list[str]:
        return [url for url in self.requests if not url.startswith((self.origin, "data:", "blob:"))]

    def go(self, place: str = "") -> None:
        self.page.goto(self.origin + place)
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_load_state("networkidle")

    def click(self, text: str) -> None:
        """An entry of the navigation bar."""
        self.page.locator("#nav li", has_text=text).first.locator("a").click()
        self.settle()

    def shown(self) -> list[str]:
        """Of asv's pages and ours; some are boxes without a height, around what is placed by itself."""
        found: list[str] = self.page.evaluate(
            "names => names.filter(name => getComputedStyle(document.getElementById(name)).display !== 'none')",
            list(DISPLAYS),
        )
        return found

    def expect(self, display: str) -> None:
        """One page is seen, and no other."""
        self.page.wait_for_function(
            "name => getComputedStyle(document.getElementById(name)).display !== 'none'", arg=display
        )
        assert self.shown() == [display]


@pytest.fixture
def visiting(chromium: Any) -> Iterator[Any]:
    """Opens a visit; whatever was said or asked for elsewhere is a failure when the test ends."""
    with contextlib.ExitStack() as stack:

        @contextlib.contextmanager
        def visit(origin: str, *, expected: tuple[str, ...] = (), **options: Any) -> Iterator[Visit]:
            context = chromium.new_context(**({"viewport": DESK} | options))
            # There is no network but the server.
            context.route(lambda url: not url.startswith(origin), lambda route: route.abort())
            try:
                found = Visit(context.new_page(), origin)
                found.page.set_default_timeout(15_000)
                found.watch()
                yield found
                assert [text for text in found.said if not any(part in text for part in expected)] == []
                assert found.outside == []
                assert found.requests
            finally:
                context.close()

        def enter(origin: str, **options: Any) -> Visit:
            return stack.enter_context(visit(origin, **options))

        yield enter


def graph_of(full: str) -> str:
    """The address of one combination's graph."""
    name, _, values = full.rstrip(")").partition("(")
    params = small_site.BENCHMARKS[name][1]
    chosen = zip(params, values.split(", "), strict=False)
    return f"#{name}?" + "&".join(f"p-{key}={value.replace(chr(39), '%27')}" for key, value in chosen)


# ---- what is seen first ----


def test_the_overview_is_seen_first(visiting: Any, address: str) -> None:
    visit = visiting(address)
    visit.go()
    visit.expect("overview-display")
    assert visit.page.url == f"{address}#/overview"
    assert visit.page.locator("#overview").count() == 1
    assert visit.page.locator("#overview").inner_text().strip()
    assert visit.page.title() == "bitnet-core benchmarks"
    entries = visit.page.locator("#nav li:has(a[href^='#/'])").all_inner_texts()
    assert [text.strip() for text in entries] == ["Overview", "Benchmark grid", "Benchmark list", "Regressions"]
    assert visit.page.locator("#nav li.active").inner_text().strip() == "Overview"
    assert visit.page.locator("#nav").inner_text().count("Overview") == 1
    assert not visit.page.locator("#title").is_visible()
    visit.click("Benchmark list")
    assert visit.page.locator("#title").inner_text().strip() == "List of benchmarks"


def test_measured_commits_stand_on_it(visiting: Any, address: str, site: small_site.Site) -> None:
    visit = visiting(address)
    visit.go()
    visit.expect("overview-display")
    assert site.commits[-1][:8] in visit.page.locator("#overview").inner_text()


@pytest.mark.parametrize(
    ("place", "display"),
    [
        ("#/overview", "overview-display"),
        ("#", "overview-display"),
        ("#/", "summarygrid-display"),
        ("#/summarylist", "summarylist-display"),
        ("#/regressions", "regressions-display"),
        ("#load.Load.track_open", "graph-display"),
        ("index.html", "overview-display"),
    ],
)
def test_each_page_has_an_address(visiting: Any, address: str, place: str, display: str) -> None:
    visit = visiting(address)
    visit.go(place)
    visit.expect(display)


def test_pages_switch_and_go_back(visiting: Any, address: str) -> None:
    visit = visiting(address)
    visit.go()
    for entry, display in (
        ("Benchmark grid", "summarygrid-display"),
        ("Benchmark list", "summarylist-display"),
        ("Regressions", "regressions-display"),
        ("Overview", "overview-display"),
        ("Benchmark list", "summarylist-display"),
    ):
        visit.click(entry)
        visit.expect(display)
        assert visit.page.locator("#nav li.active").first.inner_text().strip() == entry
    visit.page.locator("#summarylist-body a", has_text="load.Load.track_open").first.click()
    visit.expect("graph-display")
    visit.page.wait_for_function("$('#main-graph').data('plot') !== undefined")
    visit.click("Overview")
    visit.expect("overview-display")
    visit.page.go_back()
    visit.expect("graph-display")
    assert visit.page.title() == "bitnet-core benchmarks"


def test_back_leaves_the_overview_at_once(visiting: Any, address: str) -> None:
    """The address without a place is not a page that "back" leads to again and again."""
    visit = visiting(address)
    visit.page.goto("about:blank")
    visit.go()
    visit.expect("overview-display")
    visit.click("Benchmark grid")
    visit.page.evaluate("window.location.hash = ''")
    visit.expect("overview-display")
    visit.page.go_back()
    visit.expect("summarygrid-display")
    visit.page.go_back()
    visit.expect("overview-display")
    visit.settle()
    visit.page.go_back()
    assert visit.page.url == "about:blank"


def test_a_quick_change_of_mind_shows_the_last_page(visiting: Any, address: str) -> None:
    visit, held = visiting(address), []

    def hold(route: Any) -> None:
        held.append(route)

    visit.page.route("**/overview/overview.html*", hold)  # it is slow to come
    with visit.page.expect_request("**/overview/overview.html*"):
        visit.page.goto(address)
    visit.page.evaluate("window.location.hash = '#/summarylist'")
    visit.expect("summarylist-display")
    visit.page.evaluate("window.location.hash = '#/overview'")
    visit.expect("overview-display")
    visit.page.evaluate("window.location.hash = '#/regressions'")
    visit.expect("regressions-display")
    assert len(held) == 1, "asked for once"
    held[0].continue_()
    visit.settle()
    visit.expect("regressions-display")
    visit.click("Overview")
    visit.expect("overview-display")
    assert visit.page.locator("#overview").inner_text().strip()


def test_an_overview_that_is_lost_is_said(visiting: Any, address: str) -> None:
    visit = visiting(address, expected=("404",))
    visit.page.route("**/overview/overview.html*", lambda route: route.fulfill(status=404))
    visit.go()
    visit.page.locator("#error-message", has_text="Error fetching content").wait_for(state="visible")


def test_a_commit_tells_where_its_results_come_from(visiting: Any, address: str, site: small_site.Site) -> None:
    visit = visiting(address)
    visit.go()
    dialog = visit.page.locator("#overview-provenance")
    for _ in range(2):
        visit.page.locator("#overview .subject .commit").first.click()
        dialog.wait_for(state="visible")
        said = dialog.inner_text()
        assert f"Commit {site.commits[-1][:8]}" in said
        assert "library: change 11" in said
        assert said.count("not recorded") == 5
        dialog.get_by_role("button", name="close").click()
        dialog.wait_for(state="hidden")


def test_what_is_known_of_a_commit_may_be_lost_and_is_said(visiting: Any, address: str, site: small_site.Site) -> None:
    visit = visiting(address, expected=("404",))
    visit.page.route("**/overview/machine-*.json*", lambda route: route.fulfill(status=404))
    visit.go()
    visit.page.locator("#overview .subject .commit").first.click()
    dialog = visit.page.locator("#overview-provenance")
    dialog.wait_for(state="visible")
    assert f"Commit {site.commits[-1][:8]}" in dialog.inner_text()
    assert "could not be loaded: machine-0.json: 404" in dialog.inner_text()


# ---- what is drawn ----


@pytest.mark.parametrize(
    "full",
    [small_site.PLANTED, "generate.Decode.track_token('2b', 2)", *small_site.combinations("canary.Read.track_gib")],
)
def test_a_graph_draws_the_points_that_the_results_hold(
    visiting: Any, address: str, site: small_site.Site, full: str
) -> None:
    index = json.loads((site.html / "index.json").read_text(encoding="utf-8"))
    revisions = {commit: int(revision) for revision, commit in index["revision_to_hash"].items()}
    visit = visiting(address)
    visit.go(graph_of(full))
    visit.expect("graph-display")
    visit.page.wait_for_function("$('#main-graph').data('plot') !== undefined")
    series = visit.page.evaluate("$('#main-graph').data('plot').getData().map(one => one.data)")
    wanted = [[revisions[commit], small_site.value_of(full, place)] for place, commit in enumerate(site.commits)]
    assert len(series) == 1
    assert series[0] == [[revision, pytest.approx(value, rel=1e-9)] for revision, value in wanted]
    # The small graph below, whose element is renamed, has the same.
    below = visit.page.evaluate("$('#graph-overview').data('plot').getData().map(one => one.data)")
    assert below == series
    assert colours(visit, "canvas.flot-base, #main-graph canvas") > 2


def colours(visit: Visit, selector: str) -> int:
    """How many different ones a canvas has."""
    return int(
        visit.page.evaluate(
            """selector => {
                const canvas = document.querySelector(selector);
                const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
                return new Set(new Uint32Array(data.buffer)).size;
            }""",
            selector,
        )
    )


def test_all_benchmarks_stand_in_the_grid_and_in_the_list(visiting: Any, address: str) -> None:
    visit = visiting(address)
    visit.go("#/")
    assert visit.page.locator(".benchmark-container").count() == len(small_site.BENCHMARKS)
    visit.go("#/summarylist")
    rows = visit.page.locator("#summarylist-body tbody tr")
    rows.first.wait_for()
    assert rows.count() == sum(len(small_site.combinations(name)) for name in small_site.BENCHMARKS)


def test_the_list_can_be_sorted(visiting: Any, address: str) -> None:
    """By the library that is another version than asv's own."""
    visit = visiting(address)
    visit.go("#/summarylist")
    cells = visit.page.locator("#summarylist-body tbody tr td:nth-child(1)")
    cells.first.wait_for()
    ascending = cells.all_inner_texts()
    assert ascending == sorted(ascending)
    visit.page.locator("#summarylist-body thead th").first.click()
    visit.page.wait_for_url("**dir=desc")
    assert cells.all_inner_texts() == ascending[::-1]


def test_the_planted_regression_is_found_and_no_other(visiting: Any, address: str, site: small_site.Site) -> None:
    visit = visiting(address)
    visit.go("#/regressions")
    rows = visit.page.locator("#regressions-body table:not(.ignored) tbody tr")
    rows.first.wait_for()
    assert rows.count() == 1
    said = " ".join(rows.first.inner_text().split())
    assert small_site.PLANTED.replace("(", " (") in said or small_site.PLANTED in said
    assert "1.30x" in said
    assert site.commits[small_site.PLANTED_AT][:8] in said
    rows.first.locator("a").first.click()
    visit.expect("graph-display")


# ---- where and how it is looked at ----


def test_it_lies_in_any_folder_of_a_server(visiting: Any, site: small_site.Site, tmp_path: Path) -> None:
    shutil.copytree(site.html, tmp_path / SUB_PATH)
    with serving(tmp_path) as root:
        visit = visiting(root + SUB_PATH)
        visit.go("index.html")
        visit.expect("overview-display")
        visit.click("Benchmark list")
        visit.expect("summarylist-display")
        visit.go(graph_of(small_site.PLANTED))
        visit.page.wait_for_function("$('#main-graph').data('plot') !== undefined")
        assert all(url.startswith(root + SUB_PATH) for url in visit.requests)


def test_the_browser_itself_refuses_what_comes_from_elsewhere(visiting: Any, address: str) -> None:
    """And the watch of these tests sees it: the console says so, and what is asked for has failed for the policy."""
    visit = visiting(address, expected=("Content Security Policy", "failed (csp): https://example.invalid/x"))
    visit.go()
    load = "new Promise(end => Object.assign(document.head.appendChild(document.createElement('{}')), {}))"
    ends = "{onload: () => end('came'), onerror: () => end('refused'), src: 'https://example.invalid/x'}"
    assert visit.page.evaluate("fetch('https://example.invalid/x').then(() => 'came', () => 'refused')") == "refused"
    assert visit.page.evaluate(load.format("script", ends)) == "refused"
    assert visit.page.evaluate(load.format("img", ends)) == "refused"
    assert any("Content Security Policy" in text for text in visit.said)
    visit.requests = [url for url in visit.requests if url != "https://example.invalid/x"]


def test_the_page_of_a_lost_script_needs_nothing_else(visiting: Any, address: str) -> None:
    visit = visiting(address)
    visit.go("error.html")
    assert "vendor/" in visit.page.locator("body").inner_text()
    visit = visiting(address, expected=("404",))
    visit.page.route("**/jquery.flot.js", lambda route: route.fulfill(status=404))
    visit.page.goto(address)
    visit.page.wait_for_url("**/error.html")


@pytest.mark.parametrize("place", ["", "#/summarylist", graph_of(small_site.PLANTED)])
def test_it_is_drawn_in_light_and_in_dark(visiting: Any, address: str, place: str) -> None:
    lightness, pictures = {}, {}
    for scheme in ("light", "dark"):
        visit = visiting(address, color_scheme=scheme)
        visit.go(place)
        pictures[scheme] = visit.page.screenshot()
        lightness[scheme], n_colours = visit.page.evaluate(LOOK_AT, picture_address(pictures[scheme]))
        assert n_colours > 20, "an empty page has a few"
    assert pictures["light"] != pictures["dark"]
    assert lightness["dark"] < 80
    assert lightness["light"] > 170


def picture_address(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


# How light a picture is, from 0 to 255, and how many colours it has.
LOOK_AT = """async address => {
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let sum = 0;
    for (let i = 0; i < data.length; i += 4) {
        sum += (data[i] + data[i + 1] + data[i + 2]) / 3;
    }
    return [sum / (data.length / 4), new Set(new Uint32Array(data.buffer)).size];
}"""


def test_a_phone_shows_all_pages_without_pushing_sideways(visiting: Any, address: str) -> None:
    visit = visiting(address, viewport=PHONE, has_touch=True, is_mobile=True)
    for place in ("", "#/", "#/summarylist", "#/regressions", graph_of(small_site.PLANTED)):
        visit.go(place)
        width = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width == [PHONE["width"], PHONE["width"]], place
        bar = visit.page.locator("#nav").bounding_box()
        assert bar["height"] <= 55, "asv's pages begin 55 pixels below the top"
    visit.click("Overview")
    visit.expect("overview-display")


def test_on_a_phone_what_a_cell_holds_stays_together(visiting: Any, address: str) -> None:
    visit = visiting(address, viewport=PHONE, has_touch=True, is_mobile=True)
    visit.go()
    apart = visit.page.evaluate("""() => {
        const one = document.querySelector('#overview .regressions td .commit');
        const other = one.parentElement.appendChild(one.cloneNode(true));
        return other.getBoundingClientRect().left - one.getBoundingClientRect().right;
    }""")
    assert 0 <= apart <= 10
