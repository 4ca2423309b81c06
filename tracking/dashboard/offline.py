"""asv's pages without any network: what they load from other hosts lies in vendor/, and nothing else is loaded.

asv 0.6.6 loads ten files from three hosts, so that a page behind a firewall stays empty. Here each of them is replaced
by a local copy, and whatever is left that a browser would fetch from elsewhere is an error: an upgrade of asv that adds
a file is found when it is published, not by who looks at the page.
"""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

from tracking.errors import TrackingError
from tracking.report import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

VENDOR = Path(__file__).with_name("vendor")
# What asv's pages load from elsewhere, and the file in vendor/ that takes its place; vendor/README.md says more.
LOCAL = {
    "https://code.jquery.com/jquery-3.3.1.min.js": "jquery-3.3.1/jquery.min.js",
    "https://cdnjs.cloudflare.com/ajax/libs/flot/0.8.3/jquery.flot.min.js": "flot-0.8.3/jquery.flot.js",
    "https://cdnjs.cloudflare.com/ajax/libs/flot/0.8.3/jquery.flot.time.min.js": "flot-0.8.3/jquery.flot.time.js",
    "https://cdnjs.cloudflare.com/ajax/libs/flot/0.8.3/jquery.flot.selection.min.js": (
        "flot-0.8.3/jquery.flot.selection.js"
    ),
    "https://cdnjs.cloudflare.com/ajax/libs/flot/0.8.3/jquery.flot.categories.min.js": (
        "flot-0.8.3/jquery.flot.categories.js"
    ),
    "https://cdn.jsdelivr.net/npm/flot-orderbars@1.0.0/js/jquery.flot.orderBars.js": (
        "flot-orderbars-1.0.0/jquery.flot.orderBars.js"
    ),
    "https://cdnjs.cloudflare.com/ajax/libs/stupidtable/1.0.1/stupidtable.min.js": (
        "stupid-table-plugin-1.1.3/stupidtable.min.js"
    ),
    "https://cdnjs.cloudflare.com/ajax/libs/blueimp-md5/2.19.0/js/md5.min.js": "blueimp-md5-2.19.0/md5.min.js",
    "https://cdn.jsdelivr.net/npm/bootstrap@3.1.1/dist/js/bootstrap.min.js": "bootstrap-3.1.1/bootstrap.min.js",
    "https://cdn.jsdelivr.net/npm/bootstrap@3.1.1/dist/css/bootstrap.min.css": "bootstrap-3.1.1/bootstrap.min.css",
}
# Of a local file these say nothing, or let a browser refuse it.
REMOTE_ONLY = re.compile(r"""\s(?:integrity|crossorigin|referrerpolicy)=(?:"[^"]*"|'[^']*')""")

LOADING = ("src", "srcset", "data", "poster", "background", "xlink:href")  # and href, where no person clicks it
CLICKED = ("a", "area")
OUTSIDE = re.compile(r"\s*(?:(?!data:|blob:|about:)[a-z][a-z0-9+.-]*:|//|\\\\)", re.IGNORECASE)
IN_CSS = re.compile(r"""(?:url\(|@import(?!\s*url))\s*["']?\s*([^"')\s;]+)""", re.IGNORECASE)
IN_SCRIPT = re.compile(r"""(?:https?|wss?):?//[^\s"'`<>)]+|["'`]//[\w.-]+\.\w+/[^\s"'`]*""", re.IGNORECASE)


def make_offline(html_dir: Path) -> None:
    """Put the local copies beside asv's pages, and let the pages load them."""
    shutil.copytree(VENDOR, html_dir / "vendor", ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True)
    for page in sorted(html_dir.glob("*.html")):
        write_whole(page, with_local_files(page.read_text(encoding="utf-8")))


def with_local_files(page: str) -> str:
    """The page, each tag that loads a file known here changed to load the local copy."""
    for tag in Tags.of(page):
        for value in tag.loaded:
            if value in LOCAL:
                local = tag.text.replace(value, f"vendor/{LOCAL[value]}")
                page = page.replace(tag.text, REMOTE_ONLY.sub("", local))
    return page


def refuse_outside(html_dir: Path) -> None:
    """Raise for the first thing that a browser would still fetch from elsewhere.

    Looked through are all pages and style sheets, and the scripts of asv and ours that lie at the top. Libraries hold
    addresses that they never fetch; what they do is watched by a browser in the tests, and refused by each page's
    Content-Security-Policy.
    """
    for path in sorted(html_dir.rglob("*")):
        for value in outside(path, top=path.parent == html_dir):
            where = path.relative_to(html_dir)
            raise TrackingError(
                f"{where} loads {value} from elsewhere: put a copy into tracking/dashboard/vendor "
                "and name it in tracking/dashboard/offline.py"
            )


def outside(path: Path, *, top: bool) -> Iterator[str]:
    """What a file of the site loads from elsewhere."""
    if path.suffix == ".html":
        for tag in Tags.of(path.read_text(encoding="utf-8")):
            styles = IN_CSS.findall(tag.style)
            yield from (value for value in [*tag.loaded, *styles] if OUTSIDE.match(value))
    elif path.suffix == ".css":
        yield from filter(OUTSIDE.match, IN_CSS.findall(path.read_text(encoding="utf-8")))
    elif path.suffix == ".js" and top:
        yield from IN_SCRIPT.findall(path.read_text(encoding="utf-8"))


class Tag:
    """A start tag, or the text of a <style>: what a browser loads because of it.

    Attributes
    ----------
    text : str
        As it stands in the page.
    style : str
        Its CSS.
    loaded : list of str
        Addresses.
    """

    def __init__(self, name: str, text: str, attributes: dict[str, str]) -> None:
        self.text = text
        self.style = attributes.get("style", "")
        wanted = LOADING if name in CLICKED else (*LOADING, "href")
        self.loaded = [one for key in wanted for one in _addresses(key, attributes.get(key, ""))]


def _addresses(key: str, value: str) -> list[str]:
    """One, or those of a srcset, each with its width behind it."""
    if key == "srcset":
        return [part.split()[0] for part in value.split(",") if part.strip()]
    return [value] if value else []


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tag] = []

    @classmethod
    def of(cls, page: str) -> list[Tag]:
        """In their order."""
        parser = cls()
        parser.feed(page)
        parser.close()
        return parser.found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One more."""
        values = {key: value or "" for key, value in attrs}
        self.found.append(Tag(tag, self.get_starttag_text() or "", values))

    def handle_data(self, data: str) -> None:
        """The text of a <style> loads what its rules name."""
        if self.cdata_elem == "style":
            self.found.append(Tag("style", data, {"style": data}))
