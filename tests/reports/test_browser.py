"""The page as a reader has it: in real headless Chromium, at desktop and phone width, in light and dark."""

import re
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from reports.conftest import ERROR

DESKTOP, PHONE = (1280, 900, False), (390, 844, True)
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
READABLE = 4.5
"""Contrast of text with what is behind it: WCAG 2, level AA."""
CURVES = "#figure-curves-state-wpt"


class Reader:
    """A browser with the report open."""

    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def open(self, screen=DESKTOP, theme="light", script=True):
        width, height, mobile = screen
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
        self.driver.get(self.address)
        return self

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        (element,) = self.all(selector)
        return element

    def shown(self, selector):
        return [element for element in self.all(selector) if element.is_displayed()]

    def until(self, condition):
        return WebDriverWait(self.driver, 5, poll_frequency=0.02).until(lambda _: condition())

    def scroll_to(self, element):
        """The element in the middle, with the events of the scrolling behind us."""
        self.driver.execute_async_script(
            """arguments[0].scrollIntoView({block: "center"});
            requestAnimationFrame(() => requestAnimationFrame(arguments[1]));""",
            element,
        )

    def press(self, *keys):
        ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def focused(self):
        return self.driver.switch_to.active_element

    def move_to(self, x, y):
        actions = ActionChains(self.driver, duration=0)
        actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        actions.perform()

    def tip(self):
        """What the tooltip says: its heading, and by method the value and its interval (empty without one)."""
        self.until(lambda: self.one("#tip").is_displayed())
        head, *lines = self.one("#tip").text.splitlines()
        found = {}
        for line in lines:
            name, *numbers = re.fullmatch(r"(\S+) (-?[\d.]+)(?: \[(-?[\d.]+), (-?[\d.]+)\])?", line).groups()
            found[name] = [float(number) for number in numbers if number is not None]
        return head, found


@pytest.fixture(scope="session")
def driver(tmp_path_factory) -> Iterator[webdriver.Chrome]:
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no browser here: needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(programs[1]))
    yield driver
    driver.quit()


@pytest.fixture
def reader(driver, full) -> Iterator[Reader]:
    """Whatever a test does, the browser has nothing to complain about."""
    driver.get_log("browser")
    yield Reader(driver, (full.out / "report.html").as_uri())
    assert driver.get_log("browser") == []


@pytest.fixture
def curves(full):
    """IQM along the curve by method, as the summary has it: what hovering is to show."""
    (state,) = (table for table in full.summary["tables"] if table["observation"] == "state")
    return {row["name"]: row["curve"] for row in state["methods"] if row["curve"] is not None}


def test_the_log_would_hold_a_fault(driver, tmp_path):
    """The check of every other test can fail: both errors and warnings come through."""
    page = tmp_path / "faulty.html"
    page.write_text("<script>console.warn('w'); throw Error('e')</script>")
    driver.get(page.as_uri())
    assert [entry["level"] for entry in driver.get_log("browser")] == ["WARNING", "SEVERE"]


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["data", "adaptation"])
def test_an_experiments_page_fits_the_screen_and_hovering_shows_its_levels(driver, experiments, screen, name):
    driver.get_log("browser")
    reader = Reader(driver, (experiments.found[name].out / "report.html").as_uri()).open(screen)
    width = reader.run("return document.documentElement.clientWidth")
    assert reader.run("return document.documentElement.scrollWidth") == width <= screen[0]
    (picture, *_) = reader.all('[id$="-curves"] .picture')
    reader.scroll_to(picture)
    reader.run("arguments[0].focus({preventScroll: true})", picture)
    reader.press(Keys.ARROW_RIGHT)
    reader.until(lambda: reader.one("#tip").is_displayed())
    (factor, *_) = experiments.found[name].summary.factors
    shown = reader.one("#tip").text
    assert all(f"{arm.label} 0." in shown for arm in factor.arms if arm.curve)
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_figure_is_there_and_nothing_is_wider_than_the_screen(reader, full, screen):
    reader.open(screen)
    width = reader.run("return document.documentElement.clientWidth")
    assert reader.run("return document.documentElement.scrollWidth") == width <= screen[0]
    figures = reader.run(
        """return [...document.querySelectorAll("figure")].map((figure) => {
        const [outer, inner] = [figure, figure.querySelector("svg")].map((one) => one.getBoundingClientRect());
        const text = [...figure.querySelectorAll("svg text")].map((one) => one.getBoundingClientRect().height);
        const picture = figure.querySelector(".picture");
        const beyond = picture.scrollWidth - picture.clientWidth;
        return [figure.id, outer.left, outer.right, inner.width, inner.height, Math.min(...text), beyond]; })"""
    )
    assert {f"figure-{path.stem}" for path in (full.out / "figures").iterdir()} == {figure[0] for figure in figures}
    for name, left, right, drawn_width, drawn_height, text, beyond in figures:
        assert 0 <= left < right <= width, name
        assert drawn_width > 200 and drawn_height > 60 and text > 7.5, name
        assert beyond == 0 or beyond > 20, name  # sideways scrolling is for what is much too wide


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_table_that_does_not_fit_says_so_and_the_main_ones_fit_a_desktop(reader, screen):
    reader.open(screen)
    wide = reader.run(
        """return [...document.querySelectorAll(".scroll")].filter((one) => one.scrollWidth > one.clientWidth + 1)
        .map((one) => [one.ariaLabel, getComputedStyle(one, "::before").content])"""
    )
    assert all("scroll sideways" in content for _, content in wide)
    fitting = {"Methods from state", "Diagnostics from state", "Against dreamer from state", "Data card"}
    assert screen is PHONE or not fitting & {label for label, _ in wide}
    marked = reader.run("return [...document.querySelectorAll('.scroll.wider')].map((one) => one.ariaLabel)")
    assert marked == [label for label, _ in wide]
    assert screen is DESKTOP or "Methods from state" in marked


def test_text_is_not_drawn_outside_of_its_figure(reader):
    reader.open()
    outside = reader.run(
        """return [...document.querySelectorAll("figure svg")].flatMap((svg) => {
        const frame = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter((text) => {
          const box = text.getBoundingClientRect();
          return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1;
        }).map((text) => `${svg.closest("figure").id}: ${text.textContent}`); })"""
    )
    assert outside == []


def test_hovering_shows_the_values_of_the_summary_where_the_markers_are(reader, curves):
    reader.open()
    reader.scroll_to(reader.one(CURVES))
    markers = reader.run(
        """return [...document.querySelectorAll(arguments[0])].map((marker) => {
        const box = marker.getBoundingClientRect();
        return [(box.left + box.right) / 2, (box.top + box.bottom) / 2]; })""",
        f"{CURVES} [data-method='wpt'] > path ~ g > use",
    )
    steps = curves["wpt"]["env_steps"]
    assert len(markers) >= len(steps)  # the legend has one of its own
    for index in (1, 5, len(steps) - 2):
        reader.move_to(*markers[index])
        head, found = reader.tip()
        title, _, at = head.partition(" · ")
        assert title == "3 tasks, 2 seeds" and float(at.replace(",", "")) == pytest.approx(steps[index], abs=40)
        for method in ("wpt", "dreamer", "wpt-no-guidance"):
            curve = curves[method]
            wanted = [curve[part][index] for part in ("value", "low", "high")]
            assert found[method] == pytest.approx(wanted, abs=0.01), (method, head)
    dots = """return [...document.querySelectorAll(arguments[0])].map((one) =>
        [one.parentElement.textContent.split(" ")[0], getComputedStyle(one).backgroundColor])"""
    colours = dict(reader.run(dots, "#bar .dot"))
    for name, colour in reader.run(dots, "#tip .dot"):
        assert colour == colours[name] != "rgba(0, 0, 0, 0)"
    reader.move_to(5, 5)
    reader.until(lambda: not reader.one("#tip").is_displayed())


def test_arrow_keys_show_the_same_values_exactly_and_escape_hides_them(reader, curves):
    reader.open()
    picture = reader.one(f"{CURVES} .picture")
    reader.scroll_to(picture)
    reader.run("arguments[0].focus()", picture)
    for index in range(3):
        reader.press(Keys.ARROW_RIGHT)
        head, found = reader.tip()
        step = curves["wpt"]["env_steps"][index]
        assert head == f"3 tasks, 2 seeds · {step:,}" if index else head.endswith(" · 0.000")
        drawn = {name: curve for name, curve in curves.items() if name in found}
        assert {"dreamer", "wpt"} < set(drawn) and len(drawn) == len(found) == 8
        for name, curve in drawn.items():
            assert found[name] == [float(f"{curve[part][index]:.3f}") for part in ("value", "low", "high")]
    assert list(found) == sorted(found, key=lambda name: -curves[name]["value"][2])
    reader.press(Keys.ARROW_LEFT)
    reader.until(lambda: f" · {curves['wpt']['env_steps'][1]:,}" in reader.one("#tip").text)
    reader.press(Keys.ESCAPE)
    reader.until(lambda: not reader.one("#tip").is_displayed())
    assert reader.all(f"{CURVES} svg > line") == []


def test_the_down_key_goes_to_the_next_axes_of_a_figure(reader):
    reader.open()
    picture = reader.one("#figure-curves-state-embodiments .picture")
    reader.scroll_to(picture)
    reader.run("arguments[0].focus()", picture)
    reader.press(Keys.ARROW_RIGHT)
    first = reader.tip()[0]
    reader.press(Keys.ARROW_DOWN)
    reader.until(lambda: reader.one("#tip").text.startswith("walker (2 tasks)"))
    assert first.startswith("cheetah (1 task)")


def test_a_tap_shows_the_values_until_the_reader_scrolls(reader, curves):
    reader.open(PHONE)
    reader.scroll_to(reader.one(CURVES))
    frame = reader.one(f"{CURVES} svg").rect
    offset = reader.run("return scrollY")
    x, y = frame["x"] + frame["width"] / 2, frame["y"] - offset + frame["height"] / 3
    for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
        reader.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    head, found = reader.tip()
    assert head.startswith("3 tasks, 2 seeds · ") and {"wpt", "dreamer"} < set(found)
    box = reader.one("#tip").rect
    assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE[0]
    reader.run("scrollBy(0, 50)")
    reader.until(lambda: not reader.one("#tip").is_displayed())


def test_a_hidden_method_is_gone_from_figures_tables_and_values_and_all_brings_it_back(reader):
    reader.open()
    own = """[...document.querySelectorAll('[data-method="wpt"]')]"""
    seen = ".filter((one) => one.checkVisibility() && one.getClientRects().length).length"
    visible, others = f"return {own}{seen}", f"return {own.replace('wpt', 'dreamer')}{seen}"
    everything = reader.run(visible)
    kinds = set(reader.run(f"return {own}.map((one) => one.tagName.toLowerCase())"))
    assert everything > 40 and kinds == {"g", "th", "td", "tr"}
    kept = reader.run(others)
    button = reader.one('[data-toggle="wpt"]')
    button.click()
    assert reader.run(visible) == 0 and button.get_attribute("aria-pressed") == "false"
    assert reader.run(others) == kept > 40
    picture = reader.one(f"{CURVES} .picture")
    reader.scroll_to(picture)
    reader.run("arguments[0].focus()", picture)
    reader.press(Keys.ARROW_RIGHT)
    assert "wpt" not in reader.tip()[1]
    reader.one("[data-toggle-all]").click()
    assert reader.run(visible) == everything and button.get_attribute("aria-pressed") == "true"


def column(reader, label, index):
    return reader.run(
        """const table = document.querySelector(`[aria-label="${arguments[0]}"] table`);
        return [...table.tBodies[0].rows].map((row) => {
          const cell = row.cells[arguments[1]];
          return [row.cells[0].textContent, cell.textContent, cell.dataset.value ?? null]; })""",
        label,
        index,
    )


def test_headings_sort_numbers_as_numbers_and_gaps_last(reader):
    reader.open()
    heads = reader.all('[aria-label="Methods from state"] thead th')
    (place,) = (index for index, head in enumerate(heads) if head.text.startswith("IQM"))
    for order, sign in (("ascending", 1), ("descending", -1)):
        heads[place].find_element(By.TAG_NAME, "button").click()
        rows = column(reader, "Methods from state", place)
        values = [sign * float(value) for _, _, value in rows if value is not None]
        assert heads[place].get_attribute("aria-sort") == order
        assert len(values) == 11 and values == sorted(values)
        assert rows[-1][0] == "awac" and rows[-1][1].startswith("incomplete")
    heads[0].find_element(By.TAG_NAME, "button").click()
    names = [name for name, _, _ in column(reader, "Methods from state", 0)]
    assert names == sorted(names) and heads[place].get_attribute("aria-sort") is None


def test_headings_sort_counts_of_the_data_card_as_numbers(reader):
    reader.open()
    for wanted in (["9", "20"], ["20", "9"]):
        reader.all('[aria-label="Data card"] thead button')[1].click()
        assert [text for _, text, _ in column(reader, "Data card", 1)] == wanted


def test_arrow_keys_walk_the_cells_of_a_table_past_what_is_hidden(reader):
    reader.open()
    table = '[aria-label="Methods from state"] tbody'
    rows = reader.all(f"{table} tr")
    names = [row.get_attribute("data-method") for row in rows]
    reader.one(f'[data-toggle="{names[1]}"]').click()
    reader.run("arguments[0].querySelector('[tabindex=\"0\"]').focus()", reader.one(table))
    walk = ((Keys.ARROW_DOWN, 2, 0), (Keys.ARROW_RIGHT, 2, 1), (Keys.ARROW_UP, 0, 1), (Keys.ARROW_LEFT, 0, 0))
    for key, row, cell in walk:
        reader.press(key)
        assert reader.focused() == rows[row].find_elements(By.CSS_SELECTOR, "th, td")[cell]
    reader.press(Keys.ARROW_LEFT)  # the edge
    assert reader.focused() == rows[0].find_element(By.TAG_NAME, "th")
    assert len(reader.all(f'{table} [tabindex="0"]')) == 1
    reader.one(f'[data-toggle="{names[0]}"]').click()  # with the cell that the tab key led to
    (entrance,) = reader.all(f'{table} [tabindex="0"]')
    assert entrance == rows[2].find_element(By.TAG_NAME, "th")


def test_the_tab_key_reaches_everything_that_scrolls_or_can_be_used(reader):
    reader.open(PHONE)
    scrolling = reader.run(
        """return [...document.querySelectorAll("main *")].filter((one) =>
        one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0 &&
        getComputedStyle(one).overflowX === "auto").map((one) => one.className)"""
    )
    assert {"scroll wider", "picture", "bar"} <= set(scrolling)
    reader.run(
        """window.visited = new Set();
        document.addEventListener("focusin", (event) => visited.add(event.target));
        document.querySelector("main").tabIndex = -1; document.querySelector("main").focus();"""
    )
    count = reader.run("return document.querySelectorAll('main button, main a, main summary, main [tabindex]').length")
    for _ in range(0, count, 50):
        reader.press(*[Keys.TAB] * 50)
    missed = reader.run(
        """return [...document.querySelectorAll("main *")].filter((one) =>
        one.checkVisibility() && !visited.has(one) && (one.matches("a, button, summary, .picture, .scroll") ||
        one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0 && getComputedStyle(one).overflowX === "auto" &&
        ![...visited].some((inner) => one.contains(inner)))).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert missed == []


CONTRAST = """
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parts = (colour) => [...colour.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
const over = (front, back) => [0, 1, 2].map((i) => front[3] * front[i] + (1 - front[3]) * back[i]);
const behind = (element) => {
  if (!element) return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
  const own = parts(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
};
const found = {};
for (const element of document.querySelectorAll("body *")) {
  const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!said || !element.checkVisibility() || element.closest("script, style")) continue;
  const style = getComputedStyle(element);
  const text = parts(element.closest("svg") ? style.fill : style.color);
  const back = behind(element);
  text[3] *= style.opacity;
  const [light, dark] = [luminance(over(text, back)), luminance(back)].sort((a, b) => b - a);
  const part = ["warn", "svg"].find((name) => element.closest(`${name}, .${name}`));
  const kind = part ?? (element.className || element.localName);
  found[kind] = Math.min(found[kind] ?? 99, (light + 0.05) / (dark + 0.05));
}
return found;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_in_both_themes(reader, theme):
    reader.open(theme=theme)
    reader.one('[data-toggle="sac"]').click()  # a switched-off button is still to be read
    reader.run("for (const one of document.querySelectorAll('details')) one.open = true")
    paper = reader.run("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 26)"}[theme]
    found = reader.run(CONTRAST)
    assert {"p", "a", "figcaption", "warn", "td", "number", "note", "svg", "code", "button", "summary"} <= set(found)
    assert {kind: contrast for kind, contrast in found.items() if contrast < READABLE} == {}


def test_without_javascript_everything_is_there_to_read(reader, full):
    reader.open(script=False)
    assert not reader.one("#bar").is_displayed() and not reader.one("#tip").is_displayed()
    assert len(reader.shown("figure svg")) == len(list((full.out / "figures").glob("*.svg")))
    hidden = """return [...document.querySelectorAll("table, figure, h2")].filter((one) =>
        !one.checkVisibility() && !one.closest("details:not([open])")).length"""
    assert reader.run(hidden) == 0 and len(reader.shown("table")) > 15
    assert reader.all("thead button") == []


def test_a_link_of_the_contents_leads_to_a_heading_that_the_bar_does_not_cover(reader):
    for screen in (DESKTOP, PHONE):
        reader.open(screen)
        reader.one('nav a[href="#cost"]').click()
        reader.until(lambda: reader.run("return location.hash") == "#cost")
        top, bar = reader.run(
            """return ["cost", "bar"].map((id) => document.getElementById(id).getBoundingClientRect())
            .map((box, index) => index ? box.bottom : box.top)"""
        )
        assert bar <= top < 400


def test_markup_in_a_recorded_error_is_only_text(reader):
    reader.open()
    assert ERROR in reader.run("return document.querySelector('main').innerText")
    assert reader.run("return document.scripts.length") == 2


def test_both_kinds_of_observation_have_their_curves(reader, full):
    reader.open()
    for table in full.summary["tables"]:
        methods = {"state": "wpt", "pixels": "all"}[table["observation"]]
        picture = reader.one(f"#figure-curves-{table['observation']}-{methods} .picture")
        reader.scroll_to(picture)
        reader.run("arguments[0].focus()", picture)
        reader.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
        reader.until(lambda: "1,000" in reader.one("#tip").text)
        (wpt,) = (row for row in table["methods"] if row["name"] == "wpt")
        assert reader.tip()[1]["wpt"][0] == float(f"{wpt['curve']['value'][1]:.3f}")
