"""The live page in a real browser: it follows a run without being loaded again, and shows hostile texts as texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsers import HOSTILE, served
from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait
from synthetic_run import synthetic_run, write_synthetic_run

from evocompress.runs.watch.server import WatchServer
from evocompress.search.history import read_history
from evocompress.search.journal import Journal

pytestmark = pytest.mark.slow


def text(browser: webdriver.Chrome, element: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).innerText", element))


def count(browser: webdriver.Chrome, selector: str) -> int:
    return int(browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector))


def wait(browser: webdriver.Chrome, condition: Any) -> None:
    WebDriverWait(browser, 60, poll_frequency=0.1).until(lambda _: condition())


def opened(browser: webdriver.Chrome, server: WatchServer) -> None:
    browser.get("data:,")
    browser.get_log("browser")
    browser.get(server.url)
    wait(browser, lambda: count(browser, "#tiles .tile") > 0)


def test_it_follows_a_run_without_being_loaded_again(browser: webdriver.Chrome, tmp_path: Path) -> None:
    whole = synthetic_run(40, audited=False, reference=False)
    first = synthetic_run(40, audited=False, reference=False)
    del first.records[40:]  # twenty segments
    write_synthetic_run(tmp_path / "run", first)
    with served(tmp_path / "run") as server:
        opened(browser, server)
        assert text(browser, "tiles").startswith("20") and text(browser, "state") == "dead"
        assert count(browser, "#chart-front circle") and count(browser, "#chart-hypervolume path") == 1
        assert count(browser, "#front tbody tr") == len(read_history(tmp_path / "run").archive)
        browser.execute_script("window.sameDocument = true")
        journal = Journal(tmp_path / "run" / "journal")
        skipped = ("epoch", "seq", "type", "time")
        lines = [(line["type"], {k: v for k, v in line.items() if k not in skipped}) for line in whole.records[40:]]
        journal.append(lines)
        journal.close()
        wait(browser, lambda: text(browser, "tiles").startswith("40"))
        assert browser.execute_script("return window.sameDocument") is True
        assert count(browser, "#front tbody tr") == len(whole.archive)
        assert "loss is nan after epoch 1" in text(browser, "failures")
        assert browser.get_log("browser") == []
    wait(browser, lambda: "No answer from evocompress watch" in text(browser, "problem"))


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_hangs_over_the_edge(browser: webdriver.Chrome, tmp_path: Path, width: int) -> None:
    write_synthetic_run(tmp_path / "run", synthetic_run(40, hostile="-" + "x" * 300))
    with served(tmp_path / "run") as server:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            opened(browser, server)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            chart = "const box = document.querySelector('#chart-front svg').getBoundingClientRect();"
            left, right = browser.execute_script(f"{chart} return [box.left, box.right]")
            assert 0 <= left < right <= width
            assert browser.get_log("browser") == []
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_texts_are_shown_and_not_run(browser: webdriver.Chrome, tmp_path: Path) -> None:
    history = synthetic_run(40, hostile=HOSTILE)
    history.run["config"]["name"] = "run" + HOSTILE
    write_synthetic_run(tmp_path / "run", history)
    with served(tmp_path / "run") as server:
        opened(browser, server)
        assert "<img src=x onerror=" in text(browser, "title") and "window.hacked = 1" in text(browser, "failures")
        assert count(browser, "img, a[href^=javascript], script:not([src])") == 0
        assert browser.execute_script("return window.hacked === undefined") is True
        assert browser.get_log("browser") == []
