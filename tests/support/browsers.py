"""A real browser for tests of pages, which are skipped where there is none, a page's server, and texts that attack."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from evocompress.runs.watch.server import WatchServer

__all__ = ["HOSTILE", "served", "started_browser"]

#: What would run if it were taken for markup, a script, a template or mathematics.
HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>{{ 7 * 7 }}<b>&amp;\u2028$x$"
    '<a href="javascript:window.hacked=1">'
)

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--window-size=1400,1100",
)  # fmt: skip


@contextlib.contextmanager
def started_browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium with a profile of its own, which notes what its pages log and ask for."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[WatchServer]:
    """The live page of a run, answered by a thread."""
    with WatchServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
