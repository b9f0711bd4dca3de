"""The report as a browser shows it: it fits, it loads nothing, it can be read.

``make browser`` runs these; they need Chromium.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.pages.page import write_report
from tests.browser.chromium import Browser, browser, find_chromium
from tests.fuzz.pages.example import NOW, write_history

PROGRAM = find_chromium()

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        PROGRAM is None,
        reason="needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it",
    ),
]

PHONE, DESKTOP = 360, 1280

# Elements that stick out of the page, but for those in a box that scrolls by itself.
STICKING_OUT = """
[...document.querySelectorAll("body *")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5 && !e.closest(".scroll"))
  .map(e => e.outerHTML.slice(0, 120))
"""

# The contrast of each text with what is behind it, by WCAG's formula; those below 4.5.
FAINT = r"""
(() => {
  const numbers = colour => colour.match(/[\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = numbers(colour)
      .map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (numbers(colour).length === 3) return colour;
    }
    throw new Error("nothing is behind it");
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!words || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), svg = element.ownerSVGElement;
    const pair = [light(svg ? style.fill : style.color), light(behind(svg ?? element))];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(2)} ${element.outerHTML.slice(0, 120)}`);
  }
  return faint;
})()
"""

# Pixels of the smallest text.
SMALLEST = """
Math.min(...[...document.querySelectorAll("svg text")].map(
  e => parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_history(folder / "history.sqlite", cases=6000)
    write_report(folder / "history.sqlite", folder / "report.html", now=NOW)
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    assert PROGRAM is not None
    with browser(PROGRAM) as one:
        yield one


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_report_fits_the_screen(chromium: Browser, report: Path, width: int, dark: bool) -> None:
    chromium.show(report, width=width, dark=dark)
    assert chromium.evaluate("innerWidth") == width
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate(STICKING_OUT) == []
    if folder := os.environ.get("SCREENSHOTS"):
        name = f"report-{width}-{'dark' if dark else 'light'}.png"
        chromium.screenshot(Path(folder) / name)


def test_report_makes_no_request_and_no_complaint(chromium: Browser, report: Path) -> None:
    chromium.show(report, width=DESKTOP)
    requests = [event["request"]["url"] for event in chromium.seen("Network.requestWillBeSent")]
    assert requests == [report.absolute().as_uri()]
    assert chromium.seen("Log.entryAdded", "Runtime.consoleAPICalled") == []
    assert chromium.seen("Runtime.exceptionThrown") == []


def test_browser_sees_requests_and_complaints(chromium: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<!DOCTYPE html><img src="a.png"><script>console.log(1); nothing()</script>')
    chromium.show(page, width=DESKTOP)
    assert len(chromium.seen("Network.requestWillBeSent")) == 2
    assert chromium.seen("Runtime.consoleAPICalled")
    assert chromium.seen("Runtime.exceptionThrown")


def test_report_refuses_to_run_what_is_not_its_own(
    chromium: Browser, report: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    inserted = "<script>document.title = 'taken'</script><img src='https://example.org/a.png'>"
    page.write_text(report.read_text().replace("<footer>", f"<footer>{inserted}"))
    chromium.show(page, width=DESKTOP)
    assert chromium.evaluate("document.title").endswith("ln-fuzz")
    assert "Content Security Policy" in str(chromium.seen("Log.entryAdded"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_report_can_be_read(chromium: Browser, report: Path, dark: bool) -> None:
    chromium.show(report, width=PHONE, dark=dark)
    assert chromium.evaluate(FAINT) == []
    assert chromium.evaluate(SMALLEST) >= 9.5


def test_report_is_dark_where_the_reader_wants_it(chromium: Browser, report: Path) -> None:
    colours = []
    for dark in (False, True):
        chromium.show(report, width=PHONE, dark=dark)
        colours.append(chromium.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(247, 247, 245)", "rgb(18, 21, 24)"]


def test_report_prints_on_white(chromium: Browser, report: Path) -> None:
    chromium.show(report, width=DESKTOP, dark=True)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    chromium.call("Emulation.setEmulatedMedia", media="print", features=dark)
    ink = chromium.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(27, 31, 35)"
    assert chromium.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    # A page of paper is as wide as what is on it: nothing scrolls there.
    shown = "[...document.querySelectorAll('.scroll')].every(e => getComputedStyle(e).overflowX"
    assert chromium.evaluate(f"{shown} === 'visible')")


def test_report_shows_one_target_alone(chromium: Browser, report: Path) -> None:
    chromium.show(report, width=DESKTOP)
    choose = """(() => {
      const select = document.getElementById("target");
      select.value = %r;
      select.dispatchEvent(new Event("change"));
      const shown = [...document.querySelectorAll("[data-target]")].filter(e => !e.hidden);
      return [...new Set(shown.map(e => e.dataset.target))].sort();
    })()"""
    everything = ["layer_norm", "layernorm_fn", "triton_layer_norm"]
    assert chromium.evaluate(choose % "layernorm_fn") == ["layernorm_fn"]
    assert chromium.evaluate(choose % "") == everything


def test_report_without_scripts_has_everything_but_the_choice(
    chromium: Browser, report: Path, tmp_path: Path
) -> None:
    text = report.read_text()
    page = tmp_path / "page.html"
    page.write_text(text[: text.index("<script>")] + "</body></html>")
    visible = "[...document.querySelectorAll('section, article, tr')].every(e => !e.hidden)"
    chromium.show(page, width=DESKTOP)
    assert chromium.evaluate(visible)
    assert chromium.evaluate("document.querySelector('nav label').hidden")
    height = chromium.evaluate("document.querySelector('main').scrollHeight")
    chromium.show(report, width=DESKTOP)
    assert chromium.evaluate("document.querySelector('main').scrollHeight") == height
