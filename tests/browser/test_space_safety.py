"""The Space in a real browser, against hostile text and slow answers; with a tiny model that has learnt nothing."""

import csv
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from helpers import product_rows
from playwright import sync_api as playwright
from space_shop import make_shop

from acebert.processing_acebert import AceBertProcessor
from acebert.space.page import build_page, launch
from acebert.space.search_panel import SearchPanel

pytestmark = pytest.mark.slow

SECONDS = 1000  # ms
SCRIPT = "<script>window.harmed=1</script>"  # which leaves a title nothing: it is cleaned of scripts
HOSTILE = (
    '<iframe onload="window.harmed=1">',
    SCRIPT,
    "[a link](javascript:window.harmed=1) ![](x)",
    "javascript:window.harmed=1//",
    '"><svg onload="window.harmed=1">',
    "{{window.harmed=1}} ${window.harmed=1}",
    '=HYPERLINK("x")',
)


@pytest.fixture
def address(
    tiny_config: Callable, tiny_processor: AceBertProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    rows = product_rows(12)
    for row, text in zip(rows, HOSTILE, strict=False):
        row |= {"title": text, "kind": text, "colour": text}
    shop = make_shop(tiny_config(), tiny_processor, tmp_path / "shop", rows)
    page = build_page(shop, ("red shirt", HOSTILE[0]))
    _, url, _ = launch(page, shop, prevent_thread_lock=True, quiet=True)
    yield url
    page.close()


@pytest.fixture
def page(browser: playwright.Browser) -> Iterator[playwright.Page]:
    with browser.new_page(viewport={"width": 1280, "height": 900}) as page:
        yield page


def heading(page: playwright.Page, text: str) -> None:
    page.locator("#shop-results h2", has_text=text).wait_for(timeout=60 * SECONDS)


def unharmed(page: playwright.Page) -> None:
    assert page.evaluate("window.harmed") is None
    assert page.locator('img[src="x"], a[href^="javascript:"], svg[onload]').count() == 0


def test_what_is_typed_while_the_page_loads_stays(
    page: playwright.Page, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, is_typed = SearchPanel.open, threading.Event()

    def open_slowly(self: SearchPanel, request: Any) -> tuple:
        assert is_typed.wait(60)
        return opened(self, request)

    monkeypatch.setattr(SearchPanel, "open", open_slowly)
    box = page.locator("#shop-query").get_by_role("textbox")
    page.goto(address)
    box.fill("black bag")
    assert page.locator("#shop-results h2").count() == 0  # the answer is still to come
    is_typed.set()
    heading(page, "From the catalogue")
    page.wait_for_timeout(1 * SECONDS)
    assert box.input_value() == "black bag"

    is_typed.clear()
    page.goto(f"{address}?q=red+mug")
    box.press("End")
    box.press_sequentially(" of men")
    is_typed.set()
    heading(page, "“red mug”")
    page.wait_for_timeout(1 * SECONDS)
    assert box.input_value() == "red mug of men"


def test_hostile_text_is_text(page: playwright.Page, address: str, tmp_path: Path) -> None:
    page.goto(address)
    heading(page, "From the catalogue")
    titles = set(page.locator("#shop-results h3").all_inner_texts())
    assert set(HOSTILE) - titles == {SCRIPT}
    for text in HOSTILE:
        page.locator("#shop-query").get_by_role("textbox").fill(text)
        page.keyboard.press("Enter")
        heading(page, f"“{text}”")
    page.get_by_role("button", name="Filters").first.click()
    page.locator("#shop-filters input").first.click()
    page.get_by_role("option").first.wait_for()
    unharmed(page)
    page.get_by_role("option").first.click()
    page.keyboard.press("Tab")  # several may be chosen, so the list stays open over the results until it is left
    page.get_by_role("option").first.wait_for(state="hidden")
    page.locator("#shop-results .card").first.get_by_role("button", name="Why this?").click()
    page.get_by_role("dialog").locator(".summary").wait_for(timeout=60 * SECONDS)
    unharmed(page)
    for link in (f"?like={quote(HOSTILE[0])}", f"?q={quote(HOSTILE[4])}", f"?kind={quote(HOSTILE[1])}&n=%3Cb%3E"):
        page.goto(address + link)
        page.locator("#shop-results h2").wait_for(timeout=60 * SECONDS)
        unharmed(page)


def test_a_hostile_catalogue_is_shown_as_text(page: playwright.Page, address: str, tmp_path: Path) -> None:
    with open(tmp_path / "products.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sku", "name", "photo", HOSTILE[0], HOSTILE[1]])
        for i, text in enumerate((*HOSTILE, *HOSTILE)):
            table.writerow([f"{text}{i}", f"{text} {i}", text, text, text])
        table.writerow([f"{HOSTILE[0]}0", "again", "", "", ""])
    page.goto(address)
    page.get_by_role("tab", name="Your own catalogue").click()
    page.locator("#own-table input[type=file]").set_input_files(tmp_path / "products.csv")
    page.locator("#own-found", has_text="15 rows").wait_for(timeout=60 * SECONDS)
    unharmed(page)
    page.get_by_role("button", name="Make it searchable").click()
    page.locator("#own-result", has_text="14 products are searchable").wait_for(timeout=120 * SECONDS)
    page.locator("#own-results .card").first.wait_for(timeout=60 * SECONDS)
    assert page.locator("#own-results h3", has_text=f"{HOSTILE[0]} 0").count() == 1
    page.locator("#own-filters").get_by_role("button", name="Filters").click()
    unharmed(page)
