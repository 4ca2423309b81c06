"""What `asv publish` runs after its own pages: the overview, and everything made to be read without the network.

asv knows every subclass of OutputPublisher that was imported, and runs them by `order`; its regressions are 3.
"""

from __future__ import annotations

import html
import logging
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asv.publishing import OutputPublisher
from asv.util import UserError

from tracking.errors import TrackingError

if TYPE_CHECKING:
    from collections.abc import Mapping

STATIC = Path(__file__).with_name("static")

# Without a policy a forgotten address would be fetched; with it, the browser says so on its console instead. asv's page
# has scripts and styles within it.
POLICY = "default-src 'self' 'unsafe-inline' data: blob:"
HEAD = f"""\
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    """
END_OF_HEAD = """\
  <link href="overview/overview.css" rel="stylesheet" type="text/css"/>
    <link href="dashboard.css" rel="stylesheet" type="text/css"/>
    <script src="dashboard.js"></script>
    <script src="overview/overview.js"></script>
  </head>"""
GRID_ENTRY = '<li id="nav-li-" class="active">'
OVERVIEW_ENTRY = '<li id="nav-li-overview"><a href="#/overview">Overview</a></li>\n\t<li id="nav-li-">'
GRID = '<div id="summarygrid-display"'
CONTENT_TYPE = '<meta http-equiv="Content-Type"'
NO_NETWORK = "Make sure you have an active internet connection and enable 3rd-party scripts"
NO_FILE = "All of them lie beside this page, in vendor/: publish it again, and enable scripts"

# asv's files, and what is put in the place of what in them; each stands there once. An element of asv's graph page has
# the name that our page wants.
CHANGES: dict[str, list[tuple[str, str]]] = {
    "index.html": [
        (CONTENT_TYPE, HEAD + CONTENT_TYPE),
        ("<title>airspeed velocity</title>", "<title>{title}</title>"),
        ("</head>", END_OF_HEAD),
        (GRID_ENTRY, OVERVIEW_ENTRY),
        (GRID, f'<div id="overview-display"></div>\n    {GRID}'),
        ('<div id="overview"', '<div id="graph-overview"'),
    ],
    "graphdisplay.js": [("$('#overview')", "$('#graph-overview')")],
    "error.html": [
        (CONTENT_TYPE, HEAD + CONTENT_TYPE),
        ("<title>airspeed velocity error</title>", "<title>{title}: error</title>"),
        ("external (JavaScript) dependencies", "JavaScript files"),
        (NO_NETWORK, NO_FILE),
        ("in your browser the first time you load airspeed velocity", "in your browser"),
    ],
}


# What is kept beside results. asv walks all folders there, and warns of each that is not a machine's.
OURS = re.compile(r"^Skipping results: could not load .*[/\\](provenance|peers|skipped)[/\\]machine\.json$")


def setup() -> None:
    """Called by asv when it has loaded this module: its warnings are of what is wrong."""
    logging.getLogger().addFilter(is_wanted)


def is_wanted(record: logging.LogRecord) -> bool:
    """Whether asv's message says more than that a folder of ours is one."""
    return not OURS.match(record.getMessage())


class Overview(OutputPublisher):  # type: ignore[misc]  # asv is untyped
    """Our page, and the changes to asv's."""

    name = "overview"
    button_label = "Overview"
    description = "Targets, limits of the machine, memory and the latest regressions"
    order = 4

    @classmethod
    def publish(
        cls, conf: Any, repo: Any, benchmarks: Mapping[str, Any], graphs: Any, revisions: Mapping[str, int]
    ) -> None:
        """Called by asv once its own pages are written."""
        del graphs
        try:
            from tracking.dashboard import offline, overview  # noqa: PLC0415  # measuring does without what they need
        except ModuleNotFoundError as error:
            raise UserError(
                f"the dashboard needs {error.name}, which is not installed: `scripts/bootstrap bench` brings it"
            ) from None
        html_dir = Path(conf.html_dir)
        try:
            results_dir = Path(conf.results_dir)
            overview.write(html_dir, results_dir, benchmarks, revisions=revisions, conf=conf, repo=repo)
            add_overview(html_dir, f"{conf.project} benchmarks")
            offline.make_offline(html_dir)
            offline.refuse_outside(html_dir)
        except TrackingError as error:
            raise UserError(str(error)) from None


def add_overview(html_dir: Path, title: str) -> None:
    """Make the overview a page among asv's, and the first."""
    for path in STATIC.iterdir():
        shutil.copyfile(path, html_dir / path.name)
    for name, changes in CHANGES.items():
        path = html_dir / name
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            if text.count(old) != 1:
                raise TrackingError(
                    f"asv's {name} has {text.count(old)} times {old!r} instead of once: was asv upgraded? "
                    "tracking/dashboard/publisher.py says what is changed there"
                )
            text = text.replace(old, new.replace("{title}", html.escape(title)))
        path.write_text(text, encoding="utf-8")
