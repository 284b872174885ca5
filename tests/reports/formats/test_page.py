"""The page in a real Chromium: sorting, filtering, example draws, what a reader without eyes, mouse or colour has."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import pytest
from many_rows import many_draws, many_rows

from alignbench.reports.examples import Example
from alignbench.reports.formats.html import to_html
from alignbench.reports.formats.page.drawn import packed
from alignbench.reports.table.board import Cell, Leaderboard
from alignbench.reports.table.leaderboards import leaderboard

HOSTILE = (
    "</script><script>alert(1)</script>", "<!--", "]]>", "\u202eturned", "\x00", "\ud800", "\u2028", "' onx=\"",
    "\u05d0", "so\u00adft", "\U000e0041tag", "\u3164filler",
)  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHECKS = Path(__file__).with_name("page_checks.js")
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


def board(tasks: int = 2, number: int = 16) -> Leaderboard:
    """A board with one of everything: ranks, bold numbers, a front, a legend."""
    made = leaderboard(many_rows(tasks, number))
    first = made.tables[0]
    place = next(i for i, column in enumerate(first.columns) if column.label == "kl_reverse")
    odd = {4: Cell("∞", value=inf), 6: Cell()}
    rows = []
    for i, row in enumerate(first.rows, 1):
        cells = [replace(row.cells[0], best=i < 3), *row.cells[1:]]
        cells[place] = odd.get(i, cells[place])
        rows.append(replace(row, rank=Cell(str(i), f"[{i}, 9]", float(i)), front=i < 3, cells=tuple(cells)))
    told = replace(first, rows=tuple(rows), legend=("bold: the best and all that is tied with it",))
    return replace(made, tables=(told, *made.tables[1:]))


def test_a_policy_allows_the_page_s_own_script_and_style_and_nothing_else() -> None:
    page = to_html(board())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    assert "unsafe" not in policy[1]
    for kind, tag in (("style", "style"), ("script", "script")):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(inline) == 1
        assert f"{kind}-src 'sha256-{b64encode(sha256(inline[0].encode()).digest()).decode()}'" in policy[1]
    assert not re.search(r"\son[a-z]+=|\sstyle=", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_draws_cannot_leave_their_block() -> None:
    """Read back they are what was written. Planted bug: `json.dumps` alone leaves `</script>` as it is."""
    draw = Example(
        "".join(HOSTILE), 0, "".join(HOSTILE), True, {HOSTILE[0]: HOSTILE[0]}, -1.0, None, float("-inf"), None
    )
    text = packed({1: [draw]})
    assert not re.search("[<>&\u2028\ud800-\udfff]", text) and "</script>" in json.dumps(draw.text)
    read = json.loads(text)
    assert read["prompts"] == ["".join(HOSTILE)] and read["draws"]["1"][0]["tokens"] == draw.text
    assert read["draws"]["1"][0]["logs"] == [None, -1.0, None, "-inf"]


@pytest.fixture(scope="module")
def chromium():
    """One browser for this file."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with sync_api.sync_playwright() as driver:
        own = Path(driver.chromium.executable_path)
        if CHROMIUM is None and not own.exists():
            pytest.skip("no Chromium is installed")
        browser = driver.chromium.launch(executable_path=CHROMIUM or own, args=["--no-sandbox"])
        yield browser
        browser.close()


class Reader:
    """A page that is open: what the console said, and what it asked of the network."""

    def __init__(self, browser: Any, path: Path, **settings: Any) -> None:
        self.context = browser.new_context(**{"viewport": WIDE, **settings})
        self.context.set_default_timeout(10_000)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message) or dialog.dismiss())
        self.page.route("**/*", lambda route: self.visit(route, path.as_uri()))
        self.page.goto(path.as_uri())

    def visit(self, route: Any, own: str) -> None:
        """Let the page itself through and nothing else."""
        if route.request.url == own:
            route.continue_()
        else:
            self.said.append(f"asked for {route.request.url}")
            route.abort()

    def column(self, number: int) -> list[str]:
        """The texts of a column of the first table's rows that compete."""
        cells = self.page.locator(f".board >> nth=0 >> tbody:first-of-type tr:visible > :nth-child({number})")
        return [text.strip() for text in cells.all_inner_texts()]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A page with draws, written once."""
    made, hostile = board(), (*(f" word{i}" for i in range(8)), *HOSTILE)
    file = tmp_path_factory.mktemp("page") / "leaderboard.html"
    draws = many_draws(made.rows, 2, hostile)
    file.write_bytes(to_html(made, draws).encode("utf-8", "backslashreplace"))
    return file


@pytest.fixture
def reader(chromium, path):
    """Opens the page; at the end nothing was said, nothing asked for."""
    opened: list[Reader] = []

    def read(**settings: Any) -> Reader:
        opened.append(Reader(chromium, path, **settings))
        return opened[-1]

    yield read
    for one in opened:
        one.context.close()
        assert one.said == []


def finite(texts: list[str]) -> list[float]:
    """The numbers at the head of the cells that have a finite one."""
    heads = [text.split()[0] if text else "" for text in texts]
    return [float(head) for head in heads if re.fullmatch(r"-?\d[\d.e+-]*", head)]


def test_a_heading_sorts_by_its_numbers_and_a_third_click_brings_the_order_back(reader) -> None:
    page = reader()
    head = page.page.locator(".board >> nth=0 >> th", has_text="kl_reverse")
    place = head.evaluate("head => head.cellIndex") + 1
    before = page.column(place)
    head.locator("button").click()
    upwards = page.column(place)
    assert head.get_attribute("aria-sort") == "ascending" and finite(upwards) == sorted(finite(before))
    assert "".join(text[0] for text in upwards[len(finite(upwards)) :]) in ("∞" + "—" * n for n in range(1, 9))
    assert upwards != before and set(upwards) == set(before) and "Sorted by kl_reverse" in page.page.inner_text("#said")
    head.locator("button").press("Enter")
    downwards = page.column(place)
    assert head.get_attribute("aria-sort") == "descending" and finite(downwards) == sorted(finite(before), reverse=True)
    assert downwards[-1][0] in "∞—"
    head.locator("button").press("Space")
    assert page.column(place) == before and head.get_attribute("aria-sort") is None


def test_pinned_rows_stay_below_and_better_comes_first(reader) -> None:
    page = reader()
    page.page.locator(".board >> nth=0 >> th button", has_text="always").click()
    assert page.page.locator(".board >> nth=0 >> th[aria-sort]").get_attribute("aria-sort") == "descending"
    pinned = page.page.locator(".board >> nth=0 >> tbody.pinned th").all_inner_texts()
    assert any("draws of p" in name for name in pinned)


def test_a_filter_leaves_the_generators_that_it_names(reader) -> None:
    page = reader()
    page.page.fill("#filter", "TEMPERATURE")
    names = page.page.locator("tbody th:visible").all_text_contents()
    assert names and all("temperature" in name for name in names)
    assert page.page.inner_text("#said") == "3 of 16 generators are shown."
    points = page.page.locator(".view-1 >> nth=0 >> g[data-n]:visible title").all_text_contents()
    assert points and all("temperature" in told for told in points)
    page.page.fill("#filter", "x 0")  # which the title of a point says, and no name
    assert page.page.locator("g[data-n]:visible").count() == 0
    page.page.fill("#filter", "")
    assert len(page.page.locator(".board >> nth=0 >> tbody tr:visible").all()) == 16


def test_columns_can_be_hidden(reader) -> None:
    page = reader()
    page.page.locator(".columns >> nth=0 >> summary").click()
    page.page.get_by_label("kl_reverse").first.uncheck()
    assert page.page.locator(".board >> nth=0 >> th:visible", has_text="kl_reverse").count() == 0


def test_a_generator_opens_its_draws_as_text(reader) -> None:
    page = reader()
    page.page.locator(".board >> nth=0 >> tbody a.name").first.click()
    draw = page.page.locator("details.drill[open] article").first
    assert draw.is_visible()
    text = draw.locator(".text").inner_text()
    assert "</script><script>alert(1)</script>" in text and "word7" in text
    codes = ("U+202E", "U+0000", "U+D800", "U+2028", "U+00AD", "U+E0041", "U+3164")
    assert all(code in text for code in codes) and not set("\u202e\u00ad\U000e0041") & set(text)
    assert "The opening of story 0" in draw.locator(".prompt").inner_text()
    assert draw.locator(".p4").first.get_attribute("title") == "−7.00 nats"
    assert "log π − log a" in draw.locator(".logs").inner_text() and "5.75" in draw.locator(".logs").inner_text()
    last = draw.locator(".text span[title]").last
    assert (last.get_attribute("class"), last.get_attribute("title")) == ("p4", "−∞ nats")
    assert "pronoun" in draw.locator("table").first.inner_text()
    draw.locator("summary", has_text="By token").click()
    assert "−0.50" in draw.locator("details table").inner_text()


def test_a_switch_changes_the_axis_of_the_trade_off(reader) -> None:
    page = reader()
    assert page.page.locator(".view-1 >> nth=0").is_visible() and not page.page.locator(".view-2 >> nth=0").is_visible()
    page.page.get_by_label("model calls per draw").first.check()
    assert page.page.locator(".view-2 >> nth=0").is_visible() and not page.page.locator(".view-1 >> nth=0").is_visible()


def test_a_signature_can_be_copied(reader) -> None:
    page = reader()
    page.page.locator("button.copy").first.click()
    page.page.wait_for_function("document.getElementById('said').textContent")
    assert "alignbench|task:task_0" in page.page.evaluate("getSelection().toString()")


@pytest.mark.parametrize("settings", [
    {"viewport": NARROW, "color_scheme": "dark"}, {"viewport": WIDE, "color_scheme": "light"},
])  # fmt: skip
def test_everyone_can_read_it(reader, settings: dict[str, Any]) -> None:
    """Names of controls, headings in order, heads of tables, contrast, width, and that the tab key reaches all."""
    page = reader(**settings)
    page.page.locator(".board >> nth=0 >> tbody a.name").first.click()
    page.page.locator("details").evaluate_all("all => all.slice(0, 40).forEach(one => { one.open = true; })")
    assert page.page.evaluate(CHECKS.read_text(encoding="utf-8")) == []


CONTROLS = "a[href], button, input, summary, [tabindex='0']"


def test_the_tab_key_goes_through_all_controls_in_their_order(reader) -> None:
    """Each has the focus once, from the top of the page to its end, and shows it."""
    page = reader(viewport=NARROW).page
    there = page.evaluate("""(controls) => {
        for (const node of document.querySelectorAll("nav, #task-1 ~ section")) node.remove();
        const all = [...document.querySelectorAll("*")];
        window.reached = [];
        addEventListener("focusin", ({ target }) => {
            reached.push([all.indexOf(target), getComputedStyle(target).outlineStyle]);
        });
        return all.filter((node) => node.matches(controls) && node.checkVisibility({ contentVisibilityAuto: false })
            && !node.matches("[type='radio']:not(:checked)")).map((node) => all.indexOf(node));
    }""", CONTROLS)  # fmt: skip
    assert len(there) > 50
    for _ in there:
        page.keyboard.press("Tab")
    reached = page.evaluate("reached")
    assert [place for place, _ in reached] == there and "none" not in [outline for _, outline in reached]


def test_the_keyboard_opens_draws_and_goes_to_them(reader) -> None:
    page = reader().page
    page.locator(".board >> nth=0 >> tbody a.name").first.press("Enter")
    page.wait_for_function("document.activeElement.matches('details.drill[open] > summary')")
    page.keyboard.press("Enter")
    assert page.locator("details.drill[open]").count() == 0


def test_the_checks_find_what_is_wrong(reader) -> None:
    """Planted bugs: grey on white, a button without a name, a heading that skips, an id twice, a wide block."""
    page = reader(viewport=NARROW)
    page.page.evaluate("""() => {
        const main = document.querySelector("main");
        main.append(document.createElement("button"), document.createElement("h6"));
        const wide = document.createElement("div");
        wide.textContent = "wide"; wide.id = "results"; wide.style.width = "900px"; wide.style.color = "#999";
        wide.style.background = "#fff"; main.append(wide);
    }""")
    found = " ".join(page.page.evaluate(CHECKS.read_text(encoding="utf-8")))
    assert all(word in found for word in ("no name", "H6", "id results", "contrast", "wider"))


def test_without_a_script_all_numbers_are_there(reader) -> None:
    page = reader(java_script_enabled=False)
    assert page.page.locator("noscript").count() == 1 and not page.page.locator("#tools").is_visible()
    assert page.page.locator(".board >> nth=0 >> tbody tr").count() == 16
    assert page.page.locator("svg.chart").first.is_visible()
