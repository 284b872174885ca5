"""The page in a real Chromium: sorting, filters, the address, draws, and what a reader without mouse or colour has."""

from __future__ import annotations

import json
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import pytest
from many_rows import many_draws, many_rows

from alignbench.reports.examples import Example, _within
from alignbench.reports.formats.html import ROOM, page_of, to_html
from alignbench.reports.formats.page.cards import card
from alignbench.reports.formats.page.drawn import packed
from alignbench.reports.formats.page.sections import Line, Section
from alignbench.reports.table.board import Arrangement, Cell, Column, Leaderboard, Row, Table
from alignbench.reports.table.leaderboards import arranged

HOSTILE = (
    "</script><script>alert(1)</script>", "<!--", "]]>", "\u202eturned", "\x00", "\ud800", "\u2028", "' onx=\"",
    "\u05d0", "so\u00adft", "\U000e0041tag", "\u3164filler",
)  # fmt: skip
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHECKS = Path(__file__).with_name("page_checks.js")
NARROW, MIDDLE, WIDE = ({"width": w, "height": h} for w, h in ((360, 740), (768, 1024), (1280, 800)))
SUMMARY = "Stories with <b>rain</b> in them."


def board(tasks: int = 2, number: int = 16) -> Leaderboard:
    """A board with one of everything: verdicts, ranks, bold numbers, a front, an infinity, a missing cell, notes."""
    made = arranged(many_rows(tasks, number), Arrangement(summaries={"task_0": SUMMARY}))
    first = made.tables[0]
    brief = first.brief
    assert brief is not None
    place = next(i for i, column in enumerate(brief.columns) if column.key == "divergence.kl_target")
    odd = {4: Cell("∞", "keeps 8.0 %", inf), 6: Cell()}
    rows = [replace(row, front=i < 3, kept=0.08) for i, row in enumerate(first.rows, 1)]
    shown = [
        replace(row, cells=(*row.cells[:place], odd.get(i, row.cells[place]), *row.cells[place + 1 :]))
        for i, row in enumerate(brief.rows, 1)
    ]
    shown = [replace(row, cells=_base(brief, row)) if row.is_base else row for row in shown]
    told = replace(first, rows=tuple(rows), brief=replace(brief, rows=tuple(shown)))
    return replace(made, tables=(told, *made.tables[1:]))


def _base(brief: Table, row: Row) -> tuple[Cell, ...]:
    """The cells of the base, which has half a nat of asked gap."""
    of = {"divergence.kl_asked": Cell(".50", "", 0.5), "divergence.kl_collateral": Cell("0", "", 0.0)}
    return tuple(of.get(column.key, cell) for column, cell in zip(brief.columns, row.cells, strict=True))


def test_a_policy_allows_the_page_s_own_scripts_and_style_and_nothing_else() -> None:
    page = to_html(board())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    assert "unsafe" not in policy[1]
    for kind, tag, count in (("style", "style", 1), ("script", "script", 2)):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert len(inline) == count
        for text in inline:
            assert f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" in policy[1].split(f"{kind}-src")[1]
    assert not re.search(r"\son[a-z]+=|\sstyle=", re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL))


def test_fifty_rows_on_twenty_tasks_are_less_than_five_megabytes() -> None:
    rows = many_rows(20, 50)
    made = arranged(rows, Arrangement())
    drawn = many_draws(rows, 2)
    assert sum(draw.size for shown in drawn for draw in shown.draws) > ROOM  # more than there is room for
    assert len(to_html(made, _within(drawn, ROOM, 2)).encode()) < 5_000_000


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
def chromium() -> Iterator[Any]:
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

    def __init__(self, browser: Any, path: Path, address: str = "", **settings: Any) -> None:
        self.context = browser.new_context(**{"viewport": WIDE, **settings})
        self.context.set_default_timeout(10_000)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message) or dialog.dismiss())
        self.page.route("**/*", lambda route: self.visit(route, path.as_uri()))
        self.page.goto(path.as_uri() + address)
        self.board = self.page.locator("table.board >> nth=0")

    def visit(self, route: Any, own: str) -> None:
        """Let the page itself through and nothing else."""
        if route.request.url == own:
            route.continue_()
        else:
            self.said.append(f"asked for {route.request.url}")
            route.abort()

    def column(self, key: str) -> list[str]:
        """The texts of a column of the first table, of the rows that are seen."""
        place = self.board.locator(f"th[data-k='{key}']").evaluate("head => head.cellIndex") + 1
        cells = self.board.locator(f"tbody tr:visible > :nth-child({place})")
        return [text.strip() for text in cells.all_inner_texts()]

    def rows(self) -> list[str]:
        """The names of the rows of the first table that are seen."""
        return [text.strip() for text in self.board.locator("tbody th:visible bdi").all_inner_texts()]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with draws, written once."""
    made, hostile = board(), (*(f" word{i}" for i in range(8)), *HOSTILE)
    file = tmp_path_factory.mktemp("page") / "leaderboard.html"
    draws = [
        replace(shown, draws=tuple(replace(draw, marks=((1, 6),)) for draw in shown.draws))
        for shown in many_draws(made.rows, 2, hostile)
    ]
    file.write_bytes(to_html(made, draws).encode("utf-8", "backslashreplace"))
    return file


@pytest.fixture
def reader(chromium: Any, path: Path) -> Iterator[Any]:
    """Opens the page; at the end nothing was said, nothing asked for."""
    opened: list[Reader] = []

    def read(address: str = "", **settings: Any) -> Reader:
        opened.append(Reader(chromium, path, address, **settings))
        return opened[-1]

    yield read
    for one in opened:
        one.context.close()
        assert one.said == []


def finite(texts: list[str]) -> list[float]:
    """The numbers at the head of the cells that have a finite one."""
    heads = [text.split()[0].replace("−", "-") if text else "" for text in texts]
    return [float(head) for head in heads if re.fullmatch(r"-?[\d.][\d.e+-]*", head)]


KL, KL_COLLATERAL = "divergence.kl_target", "divergence.kl_collateral"


def test_the_first_screen_has_findings_and_the_whole_grid(chromium: Any, tmp_path: Path) -> None:
    """20 rows × 10 tasks on 1280 × 800, nothing cut."""
    file = tmp_path / "grid.html"
    file.write_text(to_html(board(10, 26)), encoding="utf-8")
    page = Reader(chromium, file)
    rows = page.page.locator(".grid tbody:last-of-type tr:visible")
    assert rows.count() == 20 and 1 <= page.page.locator(".suite .findings li").count() <= 3
    last = rows.last.bounding_box()
    wide = page.page.locator(".grid").bounding_box()
    assert last["y"] + last["height"] <= 800 and wide["x"] + wide["width"] <= 1280
    page.page.locator("button.toggle[data-t='g1']").click()
    assert rows.count() > 20
    page.context.close()


def test_a_verdict_is_a_word_a_shape_and_a_colour(reader: Any) -> None:
    page = reader().page
    marks = page.locator(".grid td .v").evaluate_all("""all => all.map((one) => [
        one.nextElementSibling.textContent, one.firstChild.getAttribute("href"), getComputedStyle(one).stroke])""")
    by_word = {word: (shape, colour) for word, shape, colour in marks}
    assert {"better", "worse"} <= set(by_word)
    assert len({shape for shape, _ in by_word.values()}) == len(by_word)
    told = [colour for word, (_, colour) in by_word.items() if word not in ("unclear", "—")]
    assert len(set(told)) == len(told)  # what says nothing is grey


def test_a_task_says_what_it_asks_and_shows_eight_rows_and_the_base(reader: Any) -> None:
    page = reader()
    assert page.page.locator("#task-1 .summary").inner_text() == SUMMARY
    assert len(page.rows()) == 9 and "base" in page.rows()
    assert page.page.locator("#task-1 .plot svg g[data-n]").count() > 9
    page.page.locator("#task-1 button", has_text="All 16 rows").click()
    assert len(page.rows()) == 16
    assert not page.board.locator("th", has_text="tv").is_visible()
    page.page.locator("#task-1 button", has_text="More columns").click()
    assert page.board.locator("th", has_text="tv").is_visible()


def test_a_heading_sorts_by_its_numbers_and_a_third_click_brings_the_order_back(reader: Any) -> None:
    page = reader("#?v1=rest")
    head = page.board.locator(f"th[data-k='{KL}']")
    before = page.column(KL)
    head.locator("button").click()
    upwards = page.column(KL)
    assert head.get_attribute("aria-sort") == "ascending" and finite(upwards) == sorted(finite(before))
    assert re.fullmatch("[≥≤]*∞+—+", "".join(text[0] for text in upwards[len(finite(upwards)) :]))
    assert upwards != before and sorted(upwards) == sorted(before) and "Sorted by" in page.page.inner_text("#said")
    head.locator("button").press("Enter")
    downwards = page.column(KL)
    assert head.get_attribute("aria-sort") == "descending" and finite(downwards) == sorted(finite(before), reverse=True)
    assert downwards[-1][0] == "—"
    head.locator("button").press("Space")
    assert page.column(KL) == before and head.get_attribute("aria-sort") is None


def test_a_difference_is_sorted_by_its_own_numbers(chromium: Any, tmp_path: Path) -> None:
    """Planted bug: the column of a number and that of its difference had one key, and the first was sorted."""
    file = tmp_path / "page.html"
    file.write_text(to_html(arranged(many_rows(1, 9), Arrangement(baseline="temperature:t=0.5"))), encoding="utf-8")
    page = Reader(chromium, file)
    page.board.locator(f"th[data-k='{KL} delta'] button").click()
    shown = finite(page.column(f"{KL} delta"))
    assert len(shown) > 3 and shown == sorted(shown)
    assert page.board.locator("th[aria-sort]").get_attribute("data-k") == f"{KL} delta"
    page.context.close()


def test_what_is_chosen_is_in_the_address(reader: Any) -> None:
    """A copied address shows the same: filter, order, rows and columns, the prompt. Nonsense in it does no harm."""
    page = reader()
    page.page.locator("#task-1 button", has_text="All 16 rows").click()
    page.page.locator("#task-1 button", has_text="Cost").click()
    page.board.locator(f"th[data-k='{KL}'] button").click()
    page.page.fill("#filter", "best_of")
    page.page.locator("#draws-1 > summary").click()
    page.page.select_option("#prompt-1", "1")
    there = page.page.evaluate("location.hash")
    again = reader(there)
    assert again.rows() == page.rows() and again.column(KL) == page.column(KL)
    assert again.board.locator("th", has_text="tokens_per_second").is_visible()
    assert again.page.input_value("#filter") == "best_of" and again.page.input_value("#prompt-1") == "1"
    odd = reader("#%E0%A4%A?s1=nothing+up&v1=x&p1=99&q=zzz")
    assert odd.page.locator("#task-1").count() == 1


def test_a_filter_leaves_the_rows_that_it_names(reader: Any) -> None:
    page = reader("#?v1=rest")
    page.page.fill("#filter", "TEMPERATURE")
    assert page.rows() and all("temperature" in name for name in page.rows())
    assert page.page.inner_text("#said") == "3 of 16 rows are shown."
    points = page.page.locator("#task-1 .plot g[data-n]:visible title").all_text_contents()
    assert points and all("temperature" in told for told in points)
    page.page.fill("#filter", "asked gap")  # which the title of a point says, and no name
    assert page.page.locator(".plot g[data-n]:visible").count() == 0
    page.page.fill("#filter", "")
    assert len(page.rows()) == 16


def test_a_definition_is_shown_by_focus_by_hover_and_by_tap(reader: Any) -> None:
    page = reader(has_touch=True).page
    pop, link = page.locator("#pop"), page.locator(f"#task-1 th[data-k='{KL}'] a.def")
    for act in (link.focus, link.hover, link.tap):
        act()
        assert pop.is_visible() and "how much less likely" in pop.inner_text()
        page.keyboard.press("Escape")
        assert not pop.is_visible()
        page.mouse.move(1, 1)
        page.evaluate("document.activeElement.blur()")
    assert "how much less likely" in page.locator(link.get_attribute("href")).text_content()  # and in the legend


def test_a_row_and_its_point_are_shown_together(reader: Any) -> None:
    """The point of the row under the mouse, or in which the focus is, has its name; all others their number."""
    page = reader("#?v1=rest").page
    row = page.locator("#task-1 table.board tbody tr.rest").first
    number, name = row.get_attribute("data-n"), row.get_attribute("data-name")
    label = page.locator(f"#task-1 .plot g[data-n='{number}'] text").first
    assert label.text_content() == number
    row.hover()
    assert label.text_content() == name and "lit" in row.get_attribute("class")
    page.mouse.move(1, 1)
    assert label.text_content() == number
    row.locator("a").first.focus()
    assert label.text_content() == name


def test_a_note_is_shown_where_it_belongs(reader: Any) -> None:
    page = reader("#?v1=rest").page
    note = page.locator("#task-1 tbody a.note").first
    note.focus()
    assert page.locator("#pop").inner_text() == page.locator(note.get_attribute("href")).text_content()


def test_all_rows_are_side_by_side_after_one_prompt(reader: Any) -> None:
    page = reader().page
    page.locator("#draws-1 > summary").click()
    assert "The opening of story 0" in page.locator("#draws-1 .prompt").inner_text()
    side = page.locator("#draws-1 .side article")
    assert side.count() == 15  # all but draws of p
    text = side.first.locator(".text").first
    assert "</script><script>alert(1)</script>" in text.inner_text() and "word7" in text.inner_text()
    codes = ("U+202E", "U+0000", "U+D800", "U+2028", "U+00AD", "U+E0041", "U+3164")
    assert all(code in text.inner_text() for code in codes) and not set("\u202e\u00ad\U000e0041") & set(
        text.inner_text()
    )
    assert text.locator("mark").all_text_contents() == ["word0"]  # and not the space before it
    shaded = text.locator("span[title]")
    assert [shaded.nth(i).get_attribute("class") for i in (0, 2, 14)] == ["p0", "p1", "p4"]
    assert shaded.nth(14).get_attribute("title") == "−7.00 nats"
    last = shaded.last
    assert (last.get_attribute("class"), last.get_attribute("title")) == ("p4", "−∞ nats")
    side.first.locator("summary").first.click()
    numbers = side.first.locator(".logs").first.inner_text()
    assert "log π − log a" in numbers and "5.75" in numbers and "pronoun" in numbers
    page.select_option("#prompt-1", "1")
    assert "The opening of story 1" in page.locator("#draws-1 .prompt").inner_text()


def test_the_table_as_it_is_shown_can_be_saved(reader: Any) -> None:
    page = reader()
    with page.page.expect_download() as saved:
        page.page.locator("#task-1 button.save[data-kind='csv']").click()
    text = saved.value.path().read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0].startswith("no.,row,vs base,asked gap,asked gap: limits,collateral,")
    assert ",tv" not in lines[0] and len(lines) == 10  # the rows that are seen, and no hidden column
    assert any(",∞,keeps 8.0 %," in line for line in lines)
    with page.page.expect_download() as saved:
        page.page.locator("#task-1 button.save[data-kind='tex']").click()
    assert r"\begin{table*}" in saved.value.path().read_text(encoding="utf-8")


def test_a_phone_shows_cards_with_the_base_in_its_place(reader: Any) -> None:
    page = reader("#?v1=rest", viewport=NARROW).page
    assert not page.locator("#task-1 table.board").is_visible()
    names = page.locator("#task-1 .cards li:visible b").all_inner_texts()
    wanted = page.locator("#task-1 table.board tr[data-n]:not(.ceiling)").evaluate_all(
        "all => all.map(r => r.dataset.name)"
    )
    assert names == wanted and "base" in names
    base = page.locator("#task-1 .cards li.base")
    assert base.locator("svg.bar").count() == 2 and "calls" in base.inner_text() and base.locator(".word").is_visible()
    page.fill("#filter", "temperature")
    assert page.locator("#task-1 .cards li:visible").count() == 3


def bar_of(key: str, value: float) -> str:
    """The bar of a number."""
    column, verdict = Column(key, "+ collateral"), Column("verdict", "vs base")
    row = Row("x", (Cell("better"), Cell("x", value=value)))
    section = Section(1, Table("t", (column,), (Row("x", ()),), brief=Table("t", (verdict, column), (row,))))
    return next(str(item.bar) for item in card(Line(1, row, row.cells, True), section) if item.bar)


def test_bars_of_cards_have_one_scale(reader: Any) -> None:
    """The base's asked gap is two thirds of the bar; 1 nat of collateral is half of a scale from 0.01 to 100."""
    page = reader(viewport=NARROW).page
    assert page.locator("#task-1 .cards li.base rect.asked").get_attribute("width") == "67"
    assert page.locator("#task-1 .cards li.base rect.besides").get_attribute("width") == "0"
    for column, value, width in ((KL_COLLATERAL, 1.0, 50), (KL_COLLATERAL, inf, 100), (KL_COLLATERAL, 0.0, 0)):
        assert f'width="{width}"' in bar_of(column, value)


def test_a_signature_can_be_copied(reader: Any) -> None:
    page = reader().page
    page.locator("#notes-1 > summary").click()
    page.locator("button.copy").first.click()
    page.wait_for_function("document.getElementById('said').textContent")
    assert "alignbench|task:task_0" in page.evaluate("getSelection().toString()")


OPEN = """() => {
    for (const one of document.querySelectorAll("details")) one.open = true;
    for (const one of document.querySelectorAll("button.toggle")) if (one.offsetParent) one.click();
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [NARROW, MIDDLE, WIDE], ids=["360", "768", "1280"])
def test_everyone_can_read_it(reader: Any, viewport: dict[str, int], scheme: str) -> None:
    """Names of controls, headings in order, heads of tables, contrast, width; and axe-core has nothing to say."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    page = reader(viewport=viewport, color_scheme=scheme, bypass_csp=True).page
    page.add_style_tag(content="main > section { content-visibility: visible !important; }")
    for opened in (False, True):
        if opened:
            page.evaluate(OPEN)
        assert page.evaluate(CHECKS.read_text(encoding="utf-8")) == []
        found = axe.Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"][:200], len(one["nodes"])) for one in found] == []


CONTROLS = "a[href], button, input, select, summary, [tabindex='0']"


@pytest.mark.parametrize("viewport", [NARROW, WIDE], ids=["360", "1280"])
def test_the_tab_key_goes_through_all_controls_in_their_order(reader: Any, viewport: dict[str, int]) -> None:
    """Each has the focus once, from the top of the page to its end, and shows it."""
    page = reader(viewport=viewport).page
    there = page.evaluate("""(controls) => {
        for (const node of document.querySelectorAll("#task-1 ~ section")) node.remove();
        for (const node of document.querySelectorAll("details:not(.draws)")) node.open = true;
        const all = [...document.querySelectorAll("*")];
        window.reached = [];
        addEventListener("focusin", ({ target }) => {
            reached.push([all.indexOf(target), getComputedStyle(target).outlineStyle]);
        });
        return all.filter((node) => node.matches(controls) && node.checkVisibility({ contentVisibilityAuto: false }))
            .map((node) => all.indexOf(node));
    }""", CONTROLS)  # fmt: skip
    assert len(there) > 12
    for _ in there:
        page.keyboard.press("Tab")
    reached = page.evaluate("reached")
    assert [place for place, _ in reached] == there and "none" not in [outline for _, outline in reached]


def test_the_keyboard_alone_does_all(reader: Any) -> None:
    """Sorts, shows all rows, opens the draws and picks another prompt."""
    page = reader().page
    page.locator("#task-1 button", has_text="All 16 rows").press("Space")
    assert page.locator("#task-1 table.board tbody tr:visible").count() == 16
    page.locator("#draws-1 > summary").press("Enter")
    page.locator("#prompt-1").press("ArrowDown")
    assert "The opening of story 1" in page.locator("#draws-1 .prompt").inner_text()


def test_the_checks_find_what_is_wrong(reader: Any) -> None:
    """Planted bugs: grey on white, a button without a name, a heading that skips, an id twice, a wide block."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    page = reader(viewport=NARROW, bypass_csp=True).page
    page.evaluate("""() => {
        const main = document.querySelector("main");
        main.append(document.createElement("button"), document.createElement("h6"));
        const wide = document.createElement("div");
        wide.textContent = "wide"; wide.id = "results"; wide.style.width = "900px"; wide.style.color = "#999";
        wide.style.background = "#fff"; main.append(wide);
    }""")
    found = " ".join(page.evaluate(CHECKS.read_text(encoding="utf-8")))
    assert all(word in found for word in ("no name", "H6", "id results", "contrast", "wider"))
    assert {"button-name", "color-contrast"} <= {one["id"] for one in axe.Axe().run(page).response["violations"]}


def test_without_a_script_all_numbers_are_there(reader: Any) -> None:
    page = reader(java_script_enabled=False)
    assert not page.page.locator("#filter").is_visible() and not page.page.locator("button").first.is_visible()
    assert page.board.locator("tbody tr:visible").count() == 16
    assert page.board.locator("th", has_text="tv").is_visible() and page.page.locator(".plot svg").first.is_visible()


def test_a_page_of_tables_alone(chromium: Any, tmp_path: Path) -> None:
    """A comparison: no verdicts of a leaderboard, nothing to filter; hostile words are words."""
    columns = (Column("verdict", "verdict", words=True), Column("of.0", "what", words=True))
    long = f"{HOSTILE[0]} {'many words ' * 60}"
    table = Table("a beside b", columns, (Row("text", (Cell(""), Cell(long))), Row("kl", (Cell("worse"), Cell("1")))))
    file = tmp_path / "page.html"
    file.write_text(page_of("Comparison", [table], ["closing"]), encoding="utf-8")
    for viewport in (NARROW, WIDE):
        page = Reader(chromium, file, viewport=viewport)
        assert HOSTILE[0] in page.board.inner_text() and page.page.locator("#filter").count() == 0
        assert page.said == [] and page.page.evaluate(CHECKS.read_text(encoding="utf-8")) == []
        assert page.board.locator(".word").all_inner_texts() == ["worse"]  # nothing is said where there is no verdict
        assert page.board.bounding_box()["width"] < 1280 and page.page.locator("a.def").count() == 0
        page.context.close()
