"""The report in a real browser: sorts, switches, fits a phone and a sheet, day and night."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from reports import SCRIPT, small, write

from sweeps.answer import Answer
from sweeps.comparison import Comparison
from sweeps.results import OUTCOMES

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
HEADS = "table.sortable:visible thead tr:last-child th"
NAMES = [name for name in OUTCOMES if name not in ("auc_covariate", "agreement")]
ORDERED = sorted(NAMES, key=lambda name: name != "auc_split")
A4 = (595, 842)  # points


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a report: cells that train, fail and diverge, with a lead sentence."""
    done = small(tmp_path_factory.mktemp("study"), ("seeds: 11", "seeds: 5"))
    one = asdict(Comparison(5, difference=0.01, ci_low=0.0, ci_high=0.02))
    rows = ({"best": "wae", "other": "ae", **one},)
    return write(done, found=Answer("tie", f"A sentence with {SCRIPT}.", rows)).as_uri()


@pytest.fixture
def browser_page(browser: Any) -> Iterator[Any]:
    """Open a page that must stay silent and offline."""
    context = browser.new_context(viewport=DESK)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if ours(request) else None)
    yield page
    context.close()
    assert said == []


def ours(request: Any) -> bool:
    """Say whether a request is for anything but the page itself and what it encloses."""
    return not re.match(r"data:|file:.*/report\.html$", request.url)


def column(page: Any, place: int) -> list[str]:
    """Return the first line of a column of the table that is shown."""
    cells = page.locator(f"table.sortable:visible tbody tr > :nth-child({place})")
    return [text.split("\n")[0] for text in cells.all_inner_texts()]


def head(page: Any, word: str) -> Any:
    return page.locator(HEADS).filter(has_text=re.compile(rf"^{word}"))


def test_a_press_on_a_head_sorts_and_dashes_stay_last(browser_page: Any, address: str) -> None:
    browser_page.goto(address)
    start = column(browser_page, 1)
    assert head(browser_page, "mean").get_attribute("aria-sort") == "descending"
    for word, place in (("sd", 4), ("mean", 2), ("min", 7)):
        for expected in ("descending", "ascending"):
            if word == "mean" and expected == "descending":
                head(browser_page, "cell").locator("button").click()
            head(browser_page, word).locator("button").click()
            assert head(browser_page, word).get_attribute("aria-sort") == expected
            texts = column(browser_page, place)
            known = [float(text) for text in texts if text != "–"]
            assert known == sorted(known, reverse=expected == "descending")
            assert texts[len(known) :] == ["–"] * (len(texts) - len(known))
    assert "–" in column(browser_page, 4)  # a cell that diverged has no sd
    assert browser_page.locator("th[aria-sort]:visible").count() == 1
    head(browser_page, "cell").locator("button").click()
    assert column(browser_page, 1) == sorted(start)
    # The baselines stay in the foot, and rows keep their own numbers.
    foot = browser_page.locator("table.sortable:visible tfoot th").all_inner_texts()
    assert foot == ["baseline: k-means", "baseline: first principal component"]


def test_the_keyboard_sorts_and_switches(browser_page: Any, address: str) -> None:
    browser_page.goto(address)
    head(browser_page, "variance").locator("button").focus()
    browser_page.keyboard.press("Enter")
    assert head(browser_page, "variance").get_attribute("aria-sort") == "descending"
    browser_page.keyboard.press("Space")
    assert head(browser_page, "variance").get_attribute("aria-sort") == "ascending"
    browser_page.locator("#of-auc_split").focus()
    browser_page.keyboard.press("ArrowRight")
    assert browser_page.locator("h3[id^=table-]:visible").all_inner_texts() == [ORDERED[1]]


def test_the_switch_shows_one_metric_with_its_figure(browser_page: Any, address: str) -> None:
    browser_page.goto(address)
    shown = browser_page.locator("fieldset label").all_inner_texts()
    assert shown == ORDERED
    for name in shown:
        browser_page.get_by_role("radio", name=name, exact=True).check(force=True)
        assert browser_page.locator("h3[id^=table-]:visible").all_inner_texts() == [name]
        assert browser_page.locator("table.sortable:visible").count() == 1
        label = browser_page.locator(".pane:visible svg").get_attribute("aria-label")
        assert label == f"{name} of every seed, a row a cell"


@pytest.mark.parametrize("viewport", [PHONE, DESK, {"width": 320, "height": 600}])
def test_the_page_never_scrolls_sideways(browser_page: Any, address: str, viewport: Any) -> None:
    browser_page.set_viewport_size(viewport)
    browser_page.goto(address)
    wide = browser_page.evaluate("document.documentElement.scrollWidth")
    assert wide == viewport["width"]


def test_without_scripts_everything_is_there(browser: Any, address: str) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(address)
    assert page.locator("figure svg").count() == len(NAMES) + 6
    assert page.locator("thead button").count() == 0
    page.get_by_role("radio", name="reconstruction").check(force=True)
    assert page.locator("h3[id^=table-]:visible").all_inner_texts() == ["reconstruction"]


def test_words_stay_words(browser_page: Any, address: str) -> None:
    browser_page.on("dialog", lambda _: pytest.fail("a word of the study was run"))
    browser_page.goto(address)
    assert f"A sentence with {SCRIPT}." in browser_page.locator(".lead").inner_text()
    assert browser_page.locator("script").count() == 1


LEAST_CONTRAST = """() => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("script, style")) continue;
    const style = getComputedStyle(element);
    const inPicture = element.closest("svg") !== null;
    const [r, g, b] = parse(inPicture ? style.fill : style.color);
    let alpha = 1;
    for (let at = element; at; at = at.parentElement) alpha *= Number(getComputedStyle(at).opacity);
    const back = behind(element);
    const mixed = [r, g, b].map((c, place) => alpha * c + (1 - alpha) * back[place]);
    const [high, low] = [luminance(mixed), luminance(back)].sort((x, y) => y - x);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < least[0]) least = [contrast, element.textContent];
  }
  return least;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_read_by_day_and_by_night(
    browser_page: Any, address: str, scheme: str
) -> None:
    browser_page.emulate_media(color_scheme=scheme)
    browser_page.goto(address)
    contrast, text = browser_page.evaluate(LEAST_CONTRAST)
    assert contrast >= 4.5, text
    ground = browser_page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(23, 24, 27)") == (scheme == "dark")


def test_print_fits_sheets_of_a4(browser: Any, address: str) -> None:
    """Nothing is wider than the sheet, and no row and no figure lies over a page's end."""
    context = browser.new_context(viewport={"width": 695, "height": 1017}, color_scheme="dark")
    page = context.new_page()
    page.emulate_media(media="print")
    page.goto(address)
    for table in page.locator("table:visible, svg:visible").all():
        box = table.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 695.5  # 184 mm between the margins, at 96 dots an inch
        assert table.evaluate("e => e.tagName") == "TABLE" or box["height"] < 1017
    data = page.pdf(prefer_css_page_size=True)
    context.close()
    sizes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([0-9.]+) ([0-9.]+)\s*\]", data)
    assert 4 <= len(sizes) <= 12
    for size in sizes:
        assert tuple(round(float(side)) for side in size) == A4
