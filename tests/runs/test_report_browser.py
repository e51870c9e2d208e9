"""The report in a real browser, and what its text must and must not hold."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from browsers import HOSTILE
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from synthetic_run import synthetic_run
from toy_task import DigitError

from evocompress.runs.front import KNEE, audits, front, in_view, reference
from evocompress.runs.report import render_report, write_report
from evocompress.runs.report.page import compressed
from evocompress.runs.report.payload import payload
from evocompress.search.history import History
from evocompress.search.quality import Quality

pytestmark = pytest.mark.slow


class Page:
    """A report that has been opened, and what the browser noted while it was."""

    def __init__(self, browser: webdriver.Chrome, folder: Path, history: History) -> None:
        self.browser, self.history = browser, history
        path = folder / "report.html"
        write_report(history, path)
        browser.get("data:,")
        browser.get_log("browser")
        browser.get_log("performance")
        browser.get(path.as_uri())
        self.wait()

    def wait(self) -> None:
        drawn = "return 'drawn' in document.body.dataset"
        WebDriverWait(self.browser, 60, poll_frequency=0.05).until(lambda _: self.run(drawn))

    def open_views(self) -> list[str]:
        """Open all that is drawn when it is opened; the ids of its plots, none of which is bare then."""
        drawn = """
        const done = arguments[0], plots = [...document.querySelectorAll("details.view .plot")];
        for (const view of document.querySelectorAll("details.view")) view.open = true;
        const ready = () => plots.every(plot => plot.data || plot.textContent);
        const look = () => ready() ? done(plots.map(plot => plot.id)) : setTimeout(look, 20);
        look();
        """
        return list(self.browser.execute_async_script(drawn))

    def errors(self) -> list[str]:
        return [line["message"] for line in self.browser.get_log("browser")]

    def requests(self) -> list[str]:
        lines = self.browser.get_log("performance")
        messages = [json.loads(line["message"])["message"] for line in lines]
        sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]

    def run(self, script: str, *values: Any) -> Any:
        return self.browser.execute_script(script, *values)

    def traces(self) -> dict[str, dict[str, Any]]:
        script = (
            "return document.getElementById('plot-front').data.map(t => "
            "({name: t.name, x: [...t.x], y: [...t.y], customdata: [...(t.customdata || [])], error: t.error_y}))"
        )
        return {trace["name"]: trace for trace in self.run(script)}

    def text(self, element: str) -> str:
        return str(self.run("return document.getElementById(arguments[0]).innerText", element))

    def move_to(self, leaf_id: str) -> ActionChains:
        """The pointer on a point of the front."""
        ids = payload(self.history)["leaves"]["id"]
        front_trace = next(trace for name, trace in self.traces().items() if name.startswith("front"))
        at = front_trace["customdata"].index(ids.index(leaf_id))
        return self.move_to_place(front_trace["x"][at], front_trace["y"][at])

    def move_to_place(self, x: float, y: float) -> ActionChains:
        """The pointer on a place in the front's chart, by the plot's own axes."""
        place = self.run(
            """
            const plot = document.getElementById("plot-front"), {xaxis, yaxis} = plot._fullLayout;
            plot.scrollIntoView({block: "center"});
            const box = plot.getBoundingClientRect(), [x, y] = arguments;
            return [box.left + xaxis._offset + xaxis.d2p(x), box.top + yaxis._offset + yaxis.d2p(y)];
            """,
            x,
            y,
        )
        action = ActionChains(self.browser)
        action.w3c_actions.pointer_action.move_to_location(round(place[0]), round(place[1]))
        return action


def lonely_point(history: History) -> str:
    """The front point farthest from every other leaf, so that the pointer can mean only it."""
    points = front(history)
    audited = {point.leaf_id: point.quality for point in points}

    def clearance(index: int) -> float:
        own = points[index]
        return min(
            abs(leaf.nbytes / own.nbytes - 1) + 5 * abs(audited.get(leaf.leaf_id, leaf.quality) - own.quality)
            for leaf in history.leaves.values()
            if leaf.leaf_id != own.leaf_id
        )

    deep = [index for index, point in enumerate(points) if point.depth > 0]
    return points[max(deep, key=clearance)].leaf_id


def with_packed(history: History, *files: tuple[int, float, float]) -> History:
    """The run as if its reference had also been packed: into files of such bytes and accuracy, at such λ."""
    event = next(record for record in history.records if record["type"] == "reference")
    event["packed"] = [{"nbytes": n, "quality": q, "error": 1 - q, "rate_weight": rate} for n, q, rate in files]
    return history


def test_front_in_the_browser(browser: webdriver.Chrome, tmp_path: Path) -> None:
    history = synthetic_run(80)
    page, points, line = Page(browser, tmp_path, history), front(history), reference(history)
    traces = page.traces()
    shown = traces["front (audited)"]
    assert shown["x"] == [point.nbytes for point in points]
    assert shown["y"] == pytest.approx([100 * point.quality for point in points], abs=1e-4)
    assert shown["error"]["array"] == pytest.approx([100 * (p.high - p.quality) for p in points], abs=1e-3)
    assert shown["error"]["arrayminus"] == pytest.approx([100 * (p.quality - p.low) for p in points], abs=1e-3)
    assert len(traces["other files"]["x"]) == len(history.leaves) - len(points)
    assert len(traces["knee"]["x"]) == 1
    assert len(browser.find_elements(By.CSS_SELECTOR, "#table-front tbody tr")) == len(points)
    assert line is not None and f"{100 * line.quality:.2f} %" in page.text("tiles")
    assert "loss is nan after epoch 1" in page.text("segments")
    for plot in ("plot-layers", "plot-codecs", "plot-hypervolume"):
        assert page.run("return document.getElementById(arguments[0]).data.length", plot) > 0
    assert page.errors() == []


def test_hover_shows_genome_and_bytes_per_layer(browser: webdriver.Chrome, tmp_path: Path) -> None:
    history = synthetic_run(80)
    page, leaf_id = Page(browser, tmp_path, history), lonely_point(history)
    assert not browser.find_element(By.ID, "tip").is_displayed()
    page.move_to(leaf_id).perform()
    tip, leaf = browser.find_element(By.ID, "tip"), history.leaves[leaf_id]
    assert tip.is_displayed()
    assert f"{leaf.nbytes:,} bytes".replace(",", "\u202f") in tip.text
    for gene, value in leaf.genome.items():
        assert gene in tip.text and (not isinstance(value, str) or value in tip.text)
    for layer in leaf.measurements["layers"]:
        assert layer["name"] in tip.text
    biggest = max(leaf.measurements["layers"], key=lambda layer: layer["payload_bytes"])
    assert f"{round(biggest['payload_bytes'] + biggest['side_bytes'])} B" in tip.text
    ActionChains(browser).move_to_element(browser.find_element(By.TAG_NAME, "h1")).perform()
    assert not tip.is_displayed()
    assert page.errors() == []


def test_click_shows_the_lineage(browser: webdriver.Chrome, tmp_path: Path) -> None:
    history = synthetic_run(80)
    page, leaf_id = Page(browser, tmp_path, history), lonely_point(history)
    page.move_to(leaf_id).click().perform()
    line = history.lineage(leaf_id)
    assert len(line) > 1
    rows = browser.find_elements(By.CSS_SELECTOR, "#table-lineage tbody tr")
    assert [row.find_element(By.TAG_NAME, "code").text for row in rows] == [leaf.leaf_id for leaf in line]
    assert page.traces()["lineage"]["x"] == [leaf.nbytes for leaf in line]
    layers = browser.find_elements(By.CSS_SELECTOR, "#table-layers tbody tr")
    assert len(layers) == len(line[-1].measurements["layers"]) + 1  # and the header
    assert page.errors() == []


def test_training_once_and_packing_stands_beside_the_front(browser: webdriver.Chrome, tmp_path: Path) -> None:
    history = synthetic_run(80)
    points = front(history)
    middle, large = points[len(points) // 2], 2 * max(leaf.nbytes for leaf in history.leaves.values())
    # Of no use, as good as the front's middle, better than all.
    files = [(20, 0.01, 0.01), (3000, middle.quality, 1e-4), (large, 0.9999, 2.5e-5)]
    page = Page(browser, tmp_path, with_packed(history, *files))
    squares = page.traces()["train once (40 epochs), then pack"]
    assert list(zip(squares["x"], squares["y"], strict=True)) == [(n, pytest.approx(100 * q)) for n, q, _ in files]
    left, right = page.run("return document.getElementById('plot-front').layout.xaxis.range")
    assert 20 < 10**left and large < 10**right
    rows = browser.find_elements(By.CSS_SELECTOR, "#table-against tbody tr")
    quality, smaller = f"{100 * middle.quality:.2f} %", f"{3000 / middle.nbytes:.1f}"
    assert [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows] == [
        ["3000", quality, "1e-4", str(middle.nbytes), smaller],
        [str(large), "99.99 %", "2.5e-5", "—", "—"],
    ]
    table = browser.find_element(By.ID, "table-against")
    assert table.accessible_name == "Instead: train once (40 epochs), then pack"
    page.move_to_place(squares["x"][1], squares["y"][1]).click().perform()
    tip = browser.find_element(By.ID, "tip").text
    assert f"3.00 kB, {quality}" in tip and "λ 1e-4" in tip and f"{smaller} times smaller" in tip
    assert page.text("lineage") == ""  # it is no file of the search
    assert page.errors() == []


def test_packed_files_are_never_beside_a_front_on_validation_data(browser: webdriver.Chrome, tmp_path: Path) -> None:
    unjudged = with_packed(synthetic_run(80, audited=False), (3000, 0.9, 1e-4))
    for history in (unjudged, synthetic_run(80)):  # and runs of before have none
        page = Page(browser, tmp_path, history)
        assert page.traces()["train once (40 epochs), then pack"]["x"] == []
        assert not browser.find_element(By.ID, "against").is_displayed()
        assert page.errors() == []


def test_questions_and_sorting(browser: webdriver.Chrome, tmp_path: Path) -> None:
    history = synthetic_run(80)
    page, points = Page(browser, tmp_path, history), front(history)
    middle = points[len(points) // 2]
    browser.find_element(By.ID, "under").send_keys(f"{middle.nbytes / 1000} kB")
    assert middle.file in page.text("answer")
    browser.find_element(By.ID, "above").send_keys(f"{100 * points[0].quality:.4f}%")
    assert points[0].file in page.text("answer")
    box = browser.find_element(By.ID, "under")
    box.clear()
    box.send_keys("1 B")
    assert page.text("answer").startswith("No file of the front of at most 1 B")
    box.send_keys("anana")
    assert box.get_attribute("aria-invalid") == "true"
    files = (
        "return [...document.querySelectorAll('#table-front tbody tr td:nth-child(2)')].map(cell => +cell.innerText)"
    )
    assert page.run(files) == [point.nbytes for point in points]
    correct = "return [...document.querySelectorAll('#table-front tr')].map(row => row.cells[5].innerText)"
    assert page.run(correct) == ["correct", *(str(point.details["correct"]) for point in points)]
    browser.find_element(By.CSS_SELECTOR, "#table-front th").click()
    assert page.run(files) == [point.nbytes for point in reversed(points)]
    browser.find_element(By.CSS_SELECTOR, "#table-front tbody tr").click()
    assert page.text("lineage").startswith("Lineage of")
    page.run("document.getElementById('by-seconds').scrollIntoView({block: 'center', behavior: 'instant'})")
    browser.find_element(By.ID, "by-seconds").click()
    assert page.run("return document.getElementById('plot-hypervolume').layout.xaxis.title.text") == "minutes"
    assert page.errors() == []


def test_a_minimised_quality_has_its_own_words(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, synthetic_run(120, quality=DigitError.quality))
    points, line = front(page.history), reference(page.history)
    shown = page.traces()["front (audited)"]
    assert shown["y"] == pytest.approx([point.quality for point in points], abs=1e-6)
    assert line is not None and f"{line.quality:.3f} steps" in page.text("tiles") and "best RMSE" in page.text("tiles")
    close = next(point for point in points if point.quality <= 1.05 * line.quality)
    assert f"within 5 % of it: {close.quality:.3f} steps" in page.text("tiles")
    assert page.run("return document.getElementById('plot-front').layout.yaxis.title.text") == "RMSE in steps"
    low, high = page.run("return document.getElementById('plot-front').layout.yaxis.range")
    useful = in_view(points, page.history.quality)
    assert low < points[-1].low and useful[0].high < high < points[0].high
    box = browser.find_element(By.ID, "above")
    for text in (f"{points[5].quality + 1e-6}", f"{points[5].quality + 1e-6} steps"):
        box.clear()
        box.send_keys(text)
        assert points[5].file in page.text("answer") and "of at most" in page.text("answer")
    browser.find_element(By.CSS_SELECTOR, "#table-front tbody tr").click()
    everything = page.run("return document.body.innerText")
    assert "RMSE" in everything and "accura" not in everything.lower() and "Smallest below" in everything
    assert page.errors() == []


def test_hostile_texts_are_shown_and_not_run(browser: webdriver.Chrome, tmp_path: Path) -> None:
    named = Quality("q" + HOSTILE, unit="u" + HOSTILE)
    history = synthetic_run(40, hostile=HOSTILE, quality=named)
    page = Page(browser, tmp_path, history)
    page.move_to(lonely_point(history)).perform()
    page.move_to(lonely_point(history)).click().perform()
    assert "<img src=x onerror=" in page.text("lineage")
    assert "window.hacked = 1" in browser.find_element(By.TAG_NAME, "h1").text
    page.open_views()
    assert "onerror=" in page.text("segments") and "{{ 7 * 7 }}" in page.text("segments")
    # plotly escapes and keeps names as text; nothing of ours became an element.
    assert page.run("return document.querySelectorAll('img, a[href^=javascript]').length") == 0
    assert page.run("return window.hacked === undefined") is True
    assert page.errors() == []


def test_page_asks_nothing_of_any_network(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, synthetic_run(30))
    assert [url for url in page.requests() if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.errors() == []


def test_views_are_drawn_when_they_are_opened(browser: webdriver.Chrome, tmp_path: Path) -> None:
    history = synthetic_run(80)
    page, points = Page(browser, tmp_path, history), in_view(front(history), history.quality)
    assert page.run("return document.querySelectorAll('.view .plot svg').length") == 0
    assert len(page.open_views()) == 8
    traces = "return document.getElementById(arguments[0]).data.map(t => t.x.filter(x => x !== null).length)"
    assert page.run(traces, "plot-slice-bytes") == [len(history.leaves) - len(points), len(points)]
    assert sum(page.run(traces, "plot-timeline")) == len(history.outcomes)
    ancestry = {leaf.leaf_id for point in points for leaf in history.lineage(point.leaf_id)}
    assert sum(page.run(traces, "plot-tree")[2:]) == len(ancestry)
    cells = page.run("return document.getElementById('plot-heat').data[0].z.map(row => [...row])")
    assert [len(row) for row in cells] == 7 * [len(points)]
    genes = page.run("return [...document.getElementById('plot-importances').data[0].y]")
    assert sorted(genes) == sorted(history.outcomes[0].leaves[0].genome)
    assert page.run("return document.getElementById('slice-gene').value") == genes[-1]
    chosen = "return document.getElementById('plot-curves').data.map(t => t.name).includes('chosen lineage')"
    assert page.run(chosen) is False
    browser.find_element(By.CSS_SELECTOR, "#table-front tbody tr").click()
    assert page.run(chosen) is True
    assert page.errors() == []


def test_a_narrow_screen_scrolls_down_only(browser: webdriver.Chrome, tmp_path: Path) -> None:
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        page = Page(browser, tmp_path, synthetic_run(40, hostile=HOSTILE))
        browser.find_element(By.CSS_SELECTOR, "#table-front tbody tr").click()
        page.open_views()
        width = "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
        scrolled, shown = page.run(width)
        assert scrolled <= shown <= 390
        assert page.run("return document.getElementById('plot-front').layout.legend.orientation") == "h"
        assert page.errors() == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_files_of_chance_level_are_left_out_until_asked_for(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, synthetic_run(120, quality=DigitError.quality))
    points = front(page.history)
    useful, rows = in_view(points, page.history.quality), "#table-front tbody tr"
    assert 0 < len(useful) < len(points)
    assert len(browser.find_elements(By.CSS_SELECTOR, rows)) == len(useful)
    assert f"{len(points) - len(useful)} smaller" in page.text("files-note")
    left = page.run("return document.getElementById('plot-front').layout.xaxis.range[0]")
    browser.find_element(By.CSS_SELECTOR, "#which-files button[data-value=all]").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, rows)) == len(points)
    assert page.run("return document.getElementById('plot-front').layout.xaxis.range[0]") < left
    assert page.errors() == []


def test_other_files_can_be_shown_as_audited(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, tmp_path, synthetic_run(80))
    on_front = {point.leaf_id for point in front(page.history)}
    others = {key: audit.quality for key, audit in audits(page.history).items() if key not in on_front}
    assert others
    browser.find_element(By.CSS_SELECTOR, "#other-quality button[data-value=audited]").click()
    shown = page.traces()["other files, audited"]["y"]
    assert sorted(shown) == pytest.approx(sorted(100 * value for value in others.values() if value is not None))
    assert KNEE in page.text("front-note")
    assert page.errors() == []
    page = Page(browser, tmp_path, synthetic_run(40, audited=False))
    assert not browser.find_element(By.ID, "other-quality").is_displayed()


def test_files_are_links_where_they_lie_beside_the_page(browser: webdriver.Chrome, tmp_path: Path) -> None:
    history = synthetic_run(30)
    page = Page(browser, tmp_path, history)
    assert browser.find_elements(By.CSS_SELECTOR, "#table-front a") == []
    write_report(history, tmp_path / "report.html", files="front/")
    browser.get((tmp_path / "report.html").as_uri())
    page.wait()
    links = browser.find_elements(By.CSS_SELECTOR, "#table-front a")
    expected = [(tmp_path / "front" / point.file).as_uri() for point in in_view(front(history), history.quality)]
    assert [link.get_attribute("href") for link in links] == expected
    assert page.errors() == []


def test_a_browser_that_cannot_inflate_is_told_so(browser: webdriver.Chrome, tmp_path: Path) -> None:
    write_report(synthetic_run(5), tmp_path / "report.html")
    old = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "delete window.DecompressionStream"}
    )
    try:
        browser.get((tmp_path / "report.html").as_uri())
        assert browser.find_element(By.ID, "undrawn").text.startswith("This browser cannot inflate")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", old)
    page = Page(browser, tmp_path, synthetic_run(5))
    assert not browser.find_element(By.ID, "undrawn").is_displayed()
    assert page.errors() == []


@pytest.mark.parametrize(("segments", "leaves"), [(0, 1), (1, 1), (1700, 3)])
def test_any_number_of_leaves(browser: webdriver.Chrome, tmp_path: Path, segments: int, leaves: int) -> None:
    history = synthetic_run(segments, leaves, audited=segments > 1, reference=segments > 1, failures=segments > 100)
    page = Page(browser, tmp_path, history)
    if segments:
        shown = [len(trace["x"]) for name, trace in page.traces().items() if name.startswith(("front", "other"))]
        assert sum(shown) == len(history.leaves)
    else:
        assert page.text("plot-front") == "No file yet."
    page.open_views()
    assert page.errors() == []


def test_policy_stops_foreign_scripts(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """The last test in the browser: what it provokes reaches the browser's log late, and twice."""
    page = Page(browser, tmp_path, synthetic_run(5))
    violated = browser.execute_async_script(
        """
        const done = arguments[0], late = document.createElement("script");
        document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        late.textContent = "window.late = 1";
        document.body.append(late);
        """
    )
    assert violated == "script-src-elem"
    assert page.run("return window.late === undefined") is True


def test_large_run_is_thinned_but_keeps_front_and_ancestors() -> None:
    history = synthetic_run(900)
    whole, thin = payload(history), payload(history, max_leaves=200, max_layer_rows=700)
    assert len(whole["leaves"]["id"]) == whole["leafCount"] == thin["leafCount"] == len(history.leaves)
    kept = thin["leaves"]["id"]
    assert 200 <= len(kept) < 600
    needed = {leaf.leaf_id for point in front(history) for leaf in history.lineage(point.leaf_id)}
    assert needed <= set(kept)
    for place, parent in enumerate(thin["leaves"]["parent"]):
        assert (kept[parent] if parent >= 0 else None) == history.parent_of(kept[place])
    assert len(thin["layers"]["tables"]) == 100  # 700 rows, 7 layers each
    assert all(thin["layers"]["tables"].get(point["leaf"]) for point in thin["front"])


def test_genes_survive_the_columns() -> None:
    history = synthetic_run(30)
    made = payload(history)
    for place, leaf_id in enumerate(made["leaves"]["id"]):
        for name, value in history.leaves[leaf_id].genome.items():
            column = made["genes"][name]
            shown = column["values"][column["which"][place]]
            assert type(shown) is type(value)
            assert shown == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)


def test_the_page_of_a_thousand_segments_is_below_three_megabytes() -> None:
    assert len(render_report(synthetic_run(1000)).encode()) < 3_000_000


def test_page_text_is_closed() -> None:
    text = render_report(synthetic_run(20, hostile=HOSTILE, quality=Quality("q" + HOSTILE, unit=HOSTILE)))
    assert len(re.findall(r"</script>", text)) == 4 == len(re.findall(r"<script[ >]", text))
    assert "<img src=x" not in text
    assert gzip.decompress(base64.b64decode(compressed(HOSTILE))).decode() == HOSTILE
    assert render_report(synthetic_run(20)) == render_report(synthetic_run(20))
