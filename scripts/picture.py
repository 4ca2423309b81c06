"""Take the picture of the dashboard that README.md shows: docs/dashboard.png, of what was published last.

Needs playwright (`.venv/bin/pip install playwright pillow`) and a Chromium: the system's, else playwright's own
(`.venv/bin/playwright install chromium`).

    make bench && .venv/bin/python scripts/picture.py
"""

from __future__ import annotations

import argparse
import functools
import http.server
import io
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1200, 1500
ALL_DRAWN = """
() => [...document.querySelectorAll(".machine:not([hidden]) .plot")]
    .filter((plot) => plot.getBoundingClientRect().top < innerHeight)
    .every((plot) => plot.querySelector(".main-svg"))
"""
COLORS = 128  # enough for a page of few, and a third of the bytes


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


def main() -> int:
    """Serve the pages, take the picture, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, default=ROOT / ".asv" / "html", help="what was published (.asv/html)")
    parser.add_argument("--machine", help="which one, where several have results (the one measured last)")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light", help="colours (light)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "dashboard.png", help="(docs/dashboard.png)")
    options = parser.parse_args()
    if not (options.html / "overview" / "overview.html").is_file():
        sys.exit(f"picture: nothing is published in {options.html}; `make bench` does it")
    try:
        import playwright.sync_api  # noqa: F401
        from PIL import Image
    except ModuleNotFoundError as error:
        sys.exit(f"picture: no {error.name} here; `.venv/bin/pip install playwright pillow` brings it")
    handler = functools.partial(Quiet, directory=options.html)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        png = taken(f"http://127.0.0.1:{server.server_port}/", options.scheme, options.machine)
        server.shutdown()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(options.out, optimize=True)
    sys.stdout.write(f"{options.out}: {options.out.stat().st_size / 1000:.0f} kB\n")
    return 0


def taken(address: str, scheme: str, machine: str | None) -> bytes:
    """A screenshot of the overview's beginning, every plot in it drawn."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as player:
        installed = next(filter(None, map(shutil.which, BROWSERS)), None)
        try:
            browser = player.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except Error:
            sys.exit("picture: no Chromium here; `.venv/bin/playwright install chromium` brings one")
        page = browser.new_page(color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(address)
        page.wait_for_selector("#overview h1")
        choose(page, machine)
        page.wait_for_function(ALL_DRAWN)
        png = page.screenshot()
        browser.close()
    return bytes(png)


def choose(page: Any, machine: str | None) -> None:
    """The machine that is asked for."""
    known = page.locator("#overview-machine option").all_text_contents()
    if machine in known:
        page.select_option("#overview-machine", label=machine)
    elif machine and (known or machine not in page.locator(".machine .subject").inner_text().split()):
        sys.exit(
            f"picture: no machine {machine!r} there; " + (f"one of: {', '.join(known)}" if known else "only one is")
        )


if __name__ == "__main__":
    sys.exit(main())
