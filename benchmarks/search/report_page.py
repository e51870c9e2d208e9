"""Report page: its bytes, the time to write it, and the seconds until its plots are there in Chromium.

    python -m benchmarks.search.report_page RUN… [--opens 5]

Needs chromium and chromedriver, and runs such as `benchmarks.search.large_run --folder` writes. Prints one JSON line
for each run; the seconds count from the start of the navigation to the frame in which every plot that is not folded
away has been drawn, the median of so many openings in one browser.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evocompress.runs.report import render_report
from evocompress.search.history import read_history

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000")
_DRAWN = """
const done = arguments[0], plots = ["plot-front", "plot-layers", "plot-codecs", "plot-hypervolume"];
const look = () => plots.every(id => document.getElementById(id).querySelector("svg, .empty") !== null)
  ? done(performance.now()) : requestAnimationFrame(look);
look();
"""


@contextlib.contextmanager
def _browser(profile: str) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    chrome = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield chrome
    finally:
        chrome.quit()


def main() -> None:
    """Measure the page of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--opens", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, _browser(f"{scratch}/profile") as chrome:
        for run in options.runs:
            history = read_history(run)
            began = time.process_time()
            page = render_report(history).encode()
            written = time.process_time() - began
            path = Path(scratch, "report.html")
            path.write_bytes(page)
            opened = []
            for _ in range(options.opens):
                chrome.get("about:blank")
                chrome.get(path.as_uri())
                opened.append(chrome.execute_async_script(_DRAWN) / 1000)
            row = {"benchmark": "report_page", "segments": len(history.outcomes), "leaves": len(history.leaves)}
            row |= {"bytes": len(page), "cpu_seconds": round(written, 2)}
            print(json.dumps(row | {"seconds_to_plots": round(statistics.median(opened), 2)}), flush=True)


if __name__ == "__main__":
    main()
