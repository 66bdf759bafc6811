"""Chromium without a network, for tests of pages; what uses the fixtures is skipped without it."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS = (360, 800, 1280)

# Elements beyond the window, except in tables that scroll, and the smallest letters of the drawings in pixels.
MEASURE = """() => {
  const width = document.documentElement.clientWidth;
  const wide = [...document.body.querySelectorAll("*")].filter(e => !e.closest(".scroll, .hidden, .skip")
    && e.getClientRects().length && e.getBoundingClientRect().right > width + 1);
  const letters = [...document.querySelectorAll("svg text")].filter(e => e.getClientRects().length).map(e => {
    const svg = e.closest("svg");
    return parseFloat(getComputedStyle(e).fontSize) * svg.clientWidth / svg.viewBox.baseVal.width;
  });
  return {scroll: document.documentElement.scrollWidth, width, wide: wide.map(e => e.outerHTML.slice(0, 80)),
          letters: Math.min(...letters, 99)};
}"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip("needs a headless browser: none of " + ", ".join(BROWSERS) + " is installed")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the script of axe-core from npm."""
    folder, npm = tmp_path_factory.mktemp("axe"), shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm for axe-core")
    command = [npm, "pack", "axe-core@4", "--silent"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    if result.returncode:
        pytest.skip("npm cannot fetch axe-core")
    with tarfile.open(folder / result.stdout.split()[-1]) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


class OpenedPage:
    """A page that was opened without a network, with what it asked for and complained of."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str = "light") -> None:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True, bypass_csp=False
        )
        self.page = context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    @property
    def outside(self) -> list[str]:
        """Requests for anything but the page itself and its embedded images."""
        return [url for url in self.requests if not url.startswith(("file:", "data:"))]

    def close(self) -> None:
        self.page.context.close()
