"""A real browser for tests: Debian's chromium, headless, driven by Playwright.

Nothing is skipped: without the browser these tests fail and say how to get it.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OWN = ("http://127.0.0.1:", "file://", "data:", "blob:", "about:")
SIZE = {"width": 1600, "height": 1000}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start the browser once."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("no chromium here; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def tolerated() -> tuple[str, ...]:
    """Return patterns of a page's complaints that are not ours; a test file may have its own."""
    return ()


@pytest.fixture
def page(browser: Browser, tolerated: tuple[str, ...]) -> Iterator[Page]:
    """Return an empty page; at the end an error in its console, or a foreign address, fails."""
    complaints: list[str] = []
    context = browser.new_context(viewport=SIZE)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(20_000)

    def complain(text: str) -> None:
        if not any(re.search(pattern, text) for pattern in tolerated):
            complaints.append(text)

    def told(message: object) -> None:
        if message.type == "error":  # type: ignore[attr-defined]
            complain(f"{message.text} ({message.location['url']})")  # type: ignore[attr-defined]

    def asked(address: str) -> None:
        if not address.startswith(OWN):
            complain(f"asked for {address}")

    page.on("console", told)
    page.on("pageerror", lambda failure: complain(f"uncaught: {failure}"))
    page.on("request", lambda request: asked(request.url))
    yield page
    context.close()
    assert complaints == []


@pytest.fixture
def screenshot(page: Page, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that takes a picture, into SEEDSWEEP_SCREENSHOTS where that is set."""
    folder = Path(os.environ.get("SEEDSWEEP_SCREENSHOTS") or tmp_path)

    def take(name: str) -> Path:
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)
        return path

    return take


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve files and log nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served() -> Callable[[Path], AbstractContextManager[str]]:
    """Return `served(folder)`: within it a server on loopback, whose address it gives."""

    @contextmanager
    def serve(folder: Path) -> Iterator[str]:
        handler = functools.partial(Quiet, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()

    return serve
